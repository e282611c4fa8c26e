"""The site file: what is right is read, and what is wrong is said all at once, with file, line and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.keys.credentials import read_key, read_secret
from agent.site.errors import ConfigError
from agent.site.load import digest, load, load_and_doubt
from agent.site.parse import nearest

GOOD = """\
[site]
tenant = "acme"
site = "riverside-12"
gateway = "gw-0012"

[[bus]]
id = "rs485-1"
port = "/dev/ttyUSB0"

[[meter]]
id = "main"
bus = "rs485-1"
address = 16

[[meter]]
id = "flat-1"
bus = "rs485-1"
address = 17

[[meter]]
id = "flat-2"
bus = "rs485-1"
address = 18

[[zone]]
id = "building"
main = "main"
subs = [
  "flat-1",  # a comment, with a ] in it
  "flat-2",
]

[mqtt]
url = "mqtts://broker.example:8883"
"""


@pytest.fixture
def site(tmp_path: Path):
    def write(text: str = GOOD, name: str = "site.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def errors(path: Path, *, online: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, online=online)
    return [line.removeprefix(str(path.parent) + "/") for line in caught.value.errors]


def line_of(text: str, fragment: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if fragment in line)


def test_a_good_file_becomes_frozen_structs(site) -> None:
    config = load(site(), online=True)
    assert [m.id for m in config.meter] == ["main", "flat-1", "flat-2"]
    assert config.zone[0].subs == ["flat-1", "flat-2"]
    assert config.bus[0].baud == 9600
    with pytest.raises(AttributeError):
        config.site.site = "other"  # type: ignore[misc]


def test_relative_paths_count_from_the_folder_of_the_file(site, tmp_path: Path) -> None:
    text = GOOD + '[store]\npath = "state/cm.sqlite"\n[detection]\nmodel = "./m.tflite"\n'
    config = load(site(text))
    assert config.store.path == str(tmp_path / "state/cm.sqlite")
    assert config.detection.model == str(tmp_path / "m.tflite")


# (what to replace, with what, the line's text that the error must point at, words that must be in it)
WRONG = {
    "unknown key": ('address = 17', 'adress = 17', 'adress', ['[[meter]] flat-1', 'did you mean "address"']),
    "unknown table": ("[mqtt]", "[mqt]", "[mqt]", ['did you mean "mqtt"']),
    "wrong type": ("address = 18", 'address = "18"', 'address = "18"', ["whole number", "without quotes"]),
    "unknown bus": ('bus = "rs485-1"\naddress = 18', 'bus = "rs485"\naddress = 18', 'bus = "rs485"', ["rs485-1"]),
    "address twice": ("address = 18", "address = 17 ", "address = 17 ", ["already that of meter flat-1"]),
    "no main": ('main = "main"\n', "", "[[zone]]", ["[[zone]] building", '"main" is missing']),
    "unknown main": ('main = "main"', 'main = "mian"', '"mian"', ['did you mean "main"']),
    "main among subs": ('"flat-2",\n]', '"main",\n]', "subs = [", ["main meter main"]),
    "sub twice": ('"flat-2",\n]', '"flat-1",\n]', "subs = [", ["flat-1 twice"]),
    "no port": ('port = "/dev/ttyUSB0"', 'baud = 9600', "[[bus]]", ['"port" is missing']),
    "relative port": ('"/dev/ttyUSB0"', '"ttyUSB0"', '"ttyUSB0"', ["/dev/ttyUSB0"]),
    "bad tcp port": ('"/dev/ttyUSB0"', '"tcp://host"', '"tcp://host"', ["tcp://host:port"]),
    "wrapper on serial": ('"/dev/ttyUSB0"', '"/dev/ttyUSB0"\nframing = "wrapper"', "framing", ["TCP"]),
    "literal": ('"/dev/ttyUSB0"', '"/dev/ttyUSB0"\nparity = "even"', "parity", ["one of: E, N, O"]),
    "scheme": ("mqtts://", "http://", "url =", ["mqtt://host:port"]),
    "password in url": ("mqtts://", "mqtts://me:pass@", "url =", ["username and password"]),
    "meter id twice": ('id = "flat-2"', 'id = "flat-1"', 'id = "flat-1"', ["already used at"]),
    "bad name": ('site = "riverside-12"', 'site = "a/b"', "a/b", ["a name"]),
    "time zone": ('gateway = "gw-0012"', 'gateway = "g"\ntimezone = "Mars"', "Mars", ["Europe/Berlin"]),
    "missing key": ("address = 18", 'address = 18\nsecurity = "lls"', 'id = "flat-2"', ['"password" is missing']),
    "a table, not an array": ("[[zone]]", "[zone]", "[zone]", ["[[zone]]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named_with_its_line_and_what_to_do(site, name: str) -> None:
    old, new, at, words = WRONG[name]
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    found = errors(site(text))
    if name in ("meter id twice", "missing key", "no main", "no port"):  # the table is what the error points at
        assert any(all(w in e for w in words) for e in found), found
    else:
        assert any(e.startswith(f"site.toml:{line_of(text, at)}: ") and all(w in e for w in words) for e in found), (
            found
        )


def test_all_errors_come_at_once_in_the_order_of_the_lines(site) -> None:
    text = GOOD.replace("tenant", "tenent").replace("address = 17", "address = -1").replace("mqtts:", "ftp:")
    found = errors(site(text))
    lines = [int(e.split(":")[1]) for e in found]
    assert len(found) == 3
    assert lines == sorted(lines)


def test_online_asks_for_a_bus_and_an_address(site) -> None:
    replay = GOOD.replace('[[bus]]\nid = "rs485-1"\nport = "/dev/ttyUSB0"\n', "").replace('bus = "rs485-1"\n', "")
    path = site(replay)
    load(path)
    found = errors(path, online=True)
    assert any("no bus" in e for e in found)
    assert sum('"bus" is missing' in e for e in found) == 3


def test_zones_in_a_circle_are_refused(site) -> None:
    text = GOOD.replace('"flat-2",\n]', "]") + '[[zone]]\nid = "riser"\nmain = "flat-1"\nsubs = ["flat-2", "main"]\n'
    assert any("lies below itself" in e for e in errors(site(text)))


def test_a_secret_in_the_file_is_refused_and_not_repeated(site) -> None:
    text = GOOD.replace("address = 18", 'address = 18\nsecurity = "lls"\npassword = "hunter2"')
    found = errors(site(text))
    assert any("credential:NAME" in e for e in found)
    assert not any("hunter2" in e for e in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [("[site\n", "not valid TOML"), ("[site]\nsite = \n", "not valid TOML"), ("a = 1\na = 2\n", "not valid TOML")],
)
def test_what_is_not_toml_is_told_with_its_line(site, text: str, words: str) -> None:
    (found,) = errors(site(text))
    assert words in found
    assert found.split(":")[1].isdigit()


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert "cannot be read" in errors(tmp_path / "none.toml")[0]
    (tmp_path / "latin.toml").write_bytes(b'[site]\nsite = "caf\xe9"\n')
    assert "UTF-8" in errors(tmp_path / "latin.toml")[0]


def test_conf_d_is_merged_and_a_key_set_twice_is_refused(site, tmp_path: Path) -> None:
    path = site()
    site('[[meter]]\nid = "flat-3"\nbus = "rs485-1"\naddress = 19\n', "conf.d/10-more.toml")
    before = digest(path)
    assert [m.id for m in load(path).meter] == ["main", "flat-1", "flat-2", "flat-3"]
    site('[mqtt]\nurl = "mqtt://other"\n[[meter]]\nid = "x"\nadress = 3\n', "conf.d/20-bad.toml")
    assert digest(path) != before
    found = errors(path)
    assert any(e.startswith("conf.d/20-bad.toml:2: ") and "already set at" in e for e in found)
    assert any(e.startswith("conf.d/20-bad.toml:5: ") and "adress" in e for e in found)


def test_secrets_are_read_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pw").write_text("geheim\n")
    (tmp_path / "key").write_text("00112233445566778899aabbccddeeff\n")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert read_secret(str(tmp_path / "pw")) == b"geheim"
    with pytest.raises(ConfigError, match="credential:key_pw"):
        read_secret("credential:pw")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret("credential:pw") == b"geheim"
    assert len(read_key("credential:key")) == 16
    with pytest.raises(ConfigError, match="hexadecimal"):
        read_key("credential:pw")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret("credential:none")


def test_check_exits_78_and_shows_no_traceback(site) -> None:
    def check(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "agent.cli.main", "check", path], capture_output=True, text=True)

    assert check(site()).returncode == 0
    bad = check(site(GOOD.replace("address = 17", "adress = 17")))
    assert bad.returncode == 78
    assert "adress" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_meter_that_is_subtracted_is_one_of_the_subs_and_reaches_the_balance(site) -> None:
    """What the rules let through must be what the pipeline subtracts: a minus meter outside subs was once ignored."""
    from agent.alerts.book import AlertBook
    from agent.pipeline.pipeline import Pipeline
    from core.registers.samples import RegisterSample

    config = load(site(GOOD.replace('main = "main"\n', 'main = "main"\nminus = ["flat-2"]\n')))
    pipeline = Pipeline(config, AlertBook.from_config(config))
    for k in range(3):
        time_s = 1_780_000_200.0 + 900.0 * k
        shown = {"main": 400.0, "flat-1": 500.0, "flat-2": 100.0}
        pipeline.feed([RegisterSample(meter, time_s, import_wh=wh * k) for meter, wh in shown.items()])
    balances = pipeline.step(1_780_000_200.0 + 1800.0).balances
    assert balances[-1].subs_kwh == pytest.approx(0.4)

    with pytest.raises(ConfigError, match="main is not among the zone's subs; minus names some of them"):
        load(site(GOOD.replace('main = "main"\n', 'main = "main"\nminus = ["main"]\n')))


def test_zones_may_lie_within_each_other_but_not_overlap(site) -> None:
    more = (
        '\n[[meter]]\nid = "riser"\nbus = "rs485-1"\naddress = 19\n\n[[zone]]\nid = "left"\nmain = "riser"\nsubs = {}\n'
    )
    within = load(site(GOOD + more.format('["flat-1"]')))
    assert [zone.id for zone in within.zone] == ["building", "left"]
    for subs in ('["flat-1", "flat-2"]', '["flat-1", "main"]'):
        with pytest.raises(ConfigError, match="flat-1 is already a sub of zone building"):
            load(site(GOOD + more.format(subs)))


def test_a_meter_in_no_zone_is_doubted_not_refused(site) -> None:
    path = site(GOOD.replace('  "flat-2",\n', ""))
    config, (doubt,) = load_and_doubt(path)
    assert len(config.meter) == 3
    assert f"site.toml:{line_of(GOOD, 'flat-2') - 1}" in doubt or "[[meter]] flat-2" in doubt
    assert "in no zone" in doubt
    assert load_and_doubt(site(GOOD))[1] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("address = 17", "address = 17\naccuracy_class = 7", "accuracy_class = 7: no meter has it"),
        ("[mqtt]", "[detection]\ninterval_s = 7\n[mqtt]", "interval_s = 7 does not divide six hours"),
        ("[mqtt]", "[detection]\ninterval_s = 900\nbalance_s = 60\n[mqtt]", "write balance_s = 900"),
        ("[mqtt]", "[detection]\ninterval_s = 300\nbalance_s = 1000\n[mqtt]", "write balance_s = 1200"),
        ("[mqtt]", "[detection]\ninterval_s = 600\nbalance_s = 900\n[mqtt]", "write balance_s = 1200"),
    ],
)
def test_a_number_that_no_meter_or_day_has_is_refused(site, old: str, new: str, said: str) -> None:
    (line,) = errors(site(GOOD.replace(old, new)))
    assert said in line


def test_the_nearest_id_is_the_one_that_begins_alike() -> None:
    flats = [f"flat-{floor}0{door}" for floor in range(1, 5) for door in range(1, 10)]
    assert nearest("flat-199", flats) == '; did you mean "flat-109"?'
    assert nearest("flat-4O1", flats) == '; did you mean "flat-401"?'
    assert nearest("cellar", ["", "a", "b"]) == "; known: a, b"
