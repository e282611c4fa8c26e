"""The verbs on a building of four protocols: real site file, real pseudo-terminals, simulated meters behind them."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from agent.cli.main import cli as main
from agent.cli.meter import scan_others
from agent.cli.site.online_check import findings
from agent.process.clock import SystemClock
from agent.site.edit import text_of
from agent.site.load import load, read_site
from agent.site.source import Source

EXAMPLE = Path(__file__).parents[3] / "examples" / "mixed-building.toml"


@pytest.fixture(scope="module")
def building(tmp_path_factory: pytest.TempPathFactory):
    """The example's meters at ptys of their own; the site file that names them."""
    folder = tmp_path_factory.mktemp("mixed")
    source: Source = read_site(EXAMPLE)
    tree = copy.deepcopy(source.tree)
    for bus in tree["bus"]:
        bus["port"] = str(folder / bus["id"])
    tree["simulation"] |= {"pace": False, "turnaround_s": 0.0, "history_days": 10}
    tree["store"] = {"path": str(folder / "store.sqlite")}
    tree["service"] = {"socket": str(folder / "control.sock")}
    site = folder / "site.toml"
    site.write_text(text_of(tree))
    with (folder / "simulate.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli.main", "simulate", str(site)], stdout=log, stderr=log, cwd=Path.cwd()
        )
    while b"ready" not in (folder / "simulate.log").read_bytes():
        assert process.poll() is None, (folder / "simulate.log").read_text()
        time.sleep(0.1)
    yield site
    process.terminate()
    process.wait(10)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan waits for who is not there; a simulated meter answers within milliseconds."""
    monkeypatch.setattr(scan_others, "ANSWER_S", 0.08)


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(words), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_check(building: Path) -> None:
    assert "16 meters, 1 zone(s), 3 bus(es)" in run("check", str(building))


@pytest.mark.parametrize("meter", ["main", "flat-101", "flat-201", "flat-206", "stairs"])
def test_read_shows_the_energy_of_every_protocol(building: Path, meter: str) -> None:
    said = run("read", str(building), meter)
    assert "1.0.1.8.0.255" in said
    assert "Wh" in said
    assert ("proof" in said or "profile" in said) == (meter in ("flat-201", "flat-206"))


def test_read_shows_water_and_heat(building: Path) -> None:
    assert "8.0.1.0.0.255" in run("read", str(building), "water")
    assert "6.0.1.0.0.255" in run("read", str(building), "heating")


def test_read_traces_in_hex(building: Path) -> None:
    said = run("read", str(building), "flat-102", "--trace")
    assert "> fe fe fe fe 68 02 01 01 03 26 20 68 11" in said


def test_clock(building: Path) -> None:
    assert "s off" in run("clock", str(building), "flat-101")
    said = CliRunner().invoke(main, ["clock", str(building), "flat-201"])
    assert said.exit_code not in (0, 1)


def test_profile_of_a_meter_that_stores_one(building: Path) -> None:
    assert run("read", str(building), "flat-103", "--profile").count("1.0.1.8.0.255") in (96, 97)


def test_scan_finds_dlt645_meters_by_wildcards_on_a_line_that_dlms_shares(building: Path) -> None:
    port = str(building.parent / "riser-a")
    said = run("scan", port, "--protocol", "dlt645", "--baud", "9600")
    assert all(f"address 20260301010{n}" in said for n in range(1, 7))


def test_scan_finds_modbus_units_and_their_profiles(building: Path) -> None:
    said = run("scan", str(building.parent / "riser-b"), "--protocol", "modbus", "--baud", "9600", "--last", "7")
    assert "address 6  carlo-gavazzi-em111 fits (it names itself)" in said
    assert "address 1  eastron-sdm" in said
    assert "address 7" not in said


def test_scan_finds_mbus_meters_by_secondary_addresses(building: Path) -> None:
    said = run("scan", str(building.parent / "cellar"), "--protocol", "mbus", "--baud", "2400")
    assert "20481234" in said
    assert said.count("address") == 3
    assert "cold water" in said


def test_init_writes_a_site_file_of_modbus_meters(building: Path) -> None:
    port, site = str(building.parent / "riser-b"), building.parent / "found.toml"
    said = run("init", port, "--protocol", "modbus", "--baud", "9600", "--first", "4", "--last", "6", "-o", str(site))
    assert "3 meters at 9600 Bd: 4, 5, 6" in said
    config = load(site, online=True)
    assert config.bus[0].protocol == "modbus"
    assert config.meter[2].profile == "carlo-gavazzi-em111"
    text = site.read_text().splitlines()
    unknown = [
        n for n, line in enumerate(text, 1) if line.startswith('profile = "NAME-OF-PROFILE" # one of these fits: ')
    ]
    assert len(unknown) == 2
    assert all("eastron-sdm120" in text[n - 1] for n in unknown)
    refused = run("check", str(site), code=78).splitlines()
    for n, meter, line in zip(unknown, ["main", "meter-5"], refused, strict=True):
        assert line.startswith(f"{site}:{n}: [[meter]] {meter}: no profile NAME-OF-PROFILE; shipped are abb-b21, ")


def test_meters_of_water_and_heat_are_looked_at_and_are_well(building: Path) -> None:
    """Also one whose medium was not written: in no zone, it is no fault of the electricity."""
    config = load(building)
    cellar = [meter for meter in config.meter if meter.bus == "cellar"]
    unnamed = [replace(m, medium="electricity") if m.id == "water" else m for m in cellar]
    for meters in (cellar, unnamed):
        found = {f.what: f for f in findings(replace(config, meter=meters, mqtt=None), SystemClock())}
        assert all(found[f"meter {name}"].ok for name in ("stairs", "water", "heating"))
        assert "8.0.1.0.0.255" in found["meter water"].text
        assert "m³" in found["meter water"].text
        assert "heat: 6.0.1.0.0.255" in found["meter heating"].text
        assert ("cold-water" in found["meter water"].text) == (meters is cellar)
        assert ("set its medium" in found["meter water"].text) == (meters is unnamed)
    building_zone = replace(config.zone[0], subs=["stairs", "water"])
    in_zone = replace(config, meter=unnamed, mqtt=None, zone=[building_zone])
    assert not next(f for f in findings(in_zone, SystemClock()) if f.what == "meter water").ok


def test_a_wrong_profile_is_refused_with_file_and_line(building: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[device]\ntitle = "x"\nsource = "x"\nverified = false\nphases = 1\nwrod_order = "big"\n')
    site = tmp_path / "site.toml"
    site.write_text(building.read_text().replace('"eastron-sdm120"', f'"{mine}"'))
    result = CliRunner().invoke(main, ["check", str(site)])
    assert result.exit_code == 78
    assert "mine.toml:6: unknown key wrod_order" in result.output


WRONG = [
    ('protocol = "modbus"', 'protocol = "modbsu"', 'protocol = "modbsu": expected one of'),
    ("address = 6\n", "address = 300\n", "expected the Modbus unit, 1 to 247"),
    ('address = "202603010101"', 'address = "20260301010X"', "digits in quotes"),
    ('profile = "carlo-gavazzi-em111"', "interval_s = 9.0", 'interval_s is a key of protocol = "mbus"'),
    ('profile = "carlo-gavazzi-em111"', "", "a Modbus meter needs"),
    ('subs = ["flat-101"', 'subs = ["water", "flat-101"', "water measures cold-water"),
    ('protocol = "dlt645"', 'protocol = "mbus"', "cannot share a line"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_mistakes_of_the_new_keys_are_named(building: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    text = EXAMPLE.read_text().replace("subs = [\n    ", "subs = [")
    assert old in text
    site = tmp_path / "site.toml"
    site.write_text(text.replace(old, new, 1))
    result = CliRunner().invoke(main, ["check", str(site)])
    assert result.exit_code == 78
    assert message in result.output
