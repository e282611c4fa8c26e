"""Site files that hostile hands wrote, or one slip of the keyboard broke: refused in words, soon, with exit code 78."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agent.site.errors import ConfigError
from agent.site.load import digest, load

GOOD = """\
[site]
site = "s"
gateway = "g"
[[bus]]
id = "b"
port = "/dev/ttyUSB0"
[[meter]]
id = "main"
bus = "b"
address = 16
[[meter]]
id = "flat"
bus = "b"
address = 17
[[zone]]
id = "z"
main = "main"
subs = ["flat"]
[mqtt]
url = "mqtts://broker.example"
"""


def errors(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(path)
    return refused.value.errors


def error_of(folder: Path, old: str, new: str) -> str:
    """The first error of the good file with one thing changed."""
    assert old in GOOD
    path = folder / "site.toml"
    path.write_text(GOOD.replace(old, new, 1))
    return errors(path)[0].removeprefix(f"{path}:")


RUNAWAY = {
    "nested": ("a = " + "[" * 600 + "]" * 600, "nested deeper"),
    "inline": ("a = " + "{a=" * 600 + "1" + "}" * 600, "nested deeper"),
    "digits": ("a = " + "9" * 6000, "6000 characters"),
    "dotted": ("a." * 20_000 + "a = 1", "characters; at most"),
}


@pytest.mark.parametrize("where", ["site.toml", "conf.d/more.toml"])
@pytest.mark.parametrize("name", list(RUNAWAY))
def test_a_text_that_no_parser_should_see(tmp_path: Path, name: str, where: str) -> None:
    text, said = RUNAWAY[name]
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "site.toml").write_text(GOOD)
    with (tmp_path / where).open("a") as file:
        file.write(f"[simulation]\n{text}\n")
    (line,) = errors(tmp_path / "site.toml")
    assert line.startswith(f"{tmp_path / where}:{22 if where == 'site.toml' else 2}: ")
    assert said in line


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_what_is_no_regular_file_is_neither_waited_for_nor_read(tmp_path: Path, make) -> None:
    (tmp_path / "site.toml").write_text(GOOD)
    (tmp_path / "conf.d").mkdir()
    other = tmp_path / "conf.d" / "other.toml"
    make(other)
    (line,) = errors(tmp_path / "site.toml")
    assert line.startswith(f"{other}: cannot be read: ")
    with pytest.raises(OSError, match=r"conf\.d/other\.toml"):
        digest(tmp_path / "site.toml")


def test_check_of_a_device_ends_with_78_in_little_memory() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    done = subprocess.run(
        [sys.executable, "-m", "agent.cli.main", "check", "/dev/zero"],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "/dev/zero: cannot be read: Not a regular file; give the path of a readable site file\n"


SLIPS = [
    ('gateway = "g"', 'gateway = "g\\n"', "expected a name"),
    ('id = "flat"', 'id = "flat\\n"', "expected a name"),
    ("address = 17", 'address = "12\\n"', "or digits in quotes"),
    ('gateway = "g"', 'gateway = "g"\nname = "x\\n"', "on one line"),
    ('gateway = "g"', 'gateway = "g"\nname = "x\\u202Ey"', "none that turns the writing direction"),
    ('gateway = "g"', 'gateway = "g"\ntimezone = "Europe"', 'expected a name such as "Europe/Berlin"'),
    ("mqtts://broker.example", "mqtts://[::1", "expected mqtt://host:port"),
    ("/dev/ttyUSB0", "tcp://[::1", "expected tcp://host:port"),
    ("/dev/ttyUSB0", "/dev/tty\\u0000", "without control characters"),
    ("/dev/ttyUSB0", "tcp://h\\u0000:80", "without control characters"),
    ("[mqtt]", '[forecast]\nholidays = ["12-25\\n"]\n[mqtt]', "expected a list, each a day"),
    ("[mqtt]", '[store]\npath = "a\\u0000"\n[mqtt]', "without control characters"),
    ("[mqtt]", '[store]\npath = ""\n[mqtt]', "expected a path: not empty"),
    ("[mqtt]", '[mqtt]\ncim = { bypass = "3.1\\u0001" }', "each value four numbers with dots"),
    ("[mqtt]", '[mqtt]\ncim = { "by\\u0001pass" = "3.12.43.257" }', "[mqtt]: cim = {'by"),
]


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_bytes(b"\xef\xbb\xbf[site]\n")
    with pytest.raises(ConfigError, match="byte order mark; save the file as UTF-8 without one"):
        load(site)


@pytest.mark.parametrize(("old", "new", "said"), SLIPS)
def test_text_with_what_nobody_sees_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    line = error_of(tmp_path, old, new)
    assert said in line
    assert line.isprintable()


NUMBERS = [
    ("port", "poll_s"),
    ("port", "timeout_s"),
    ("port", "inter_octet_s"),
    ('id = "flat"', "ct_ratio"),
    ('id = "flat"', "resolution_wh"),
    ('id = "flat"', "accuracy_class"),
    ('id = "flat"', "min_gap_s"),
    ('id = "flat"', "inactivity_s"),
    ("subs", "unmetered_w"),
    ("subs", "capacity_w"),
    ("[mqtt]", "[detection]\ninterval_s"),
    ("[mqtt]", "[detection]\nguard_days"),
    ("[mqtt]", "[detection]\nfalse_alarms_per_year"),
    ("[mqtt]", "[store]\nhistory_days"),
    ("[mqtt]", "[store]\noutbox_mb"),
]


@pytest.mark.parametrize("number", ["inf", "nan", "1e300", "-inf"])
@pytest.mark.parametrize(("before", "key"), NUMBERS)
def test_a_number_that_is_none_is_refused_with_what_is_expected(
    tmp_path: Path, before: str, key: str, number: str
) -> None:
    line = error_of(tmp_path, before, f"{key} = {number}\n{before}")
    name = key.splitlines()[-1]
    assert f"{name} = {float(number):g}: expected a number " in line


@pytest.mark.parametrize("value", ["\\u001b[31m", "\\u202E", "\\u0007"])
@pytest.mark.parametrize("old", ['main = "main', 'id = "flat', 'site = "s'])
def test_a_message_shows_no_control_character(tmp_path: Path, old: str, value: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(GOOD.replace(old, old + value, 1))
    said = errors(path)
    assert all(line.isprintable() for line in said)
    assert {"\\u001b[31m": r"\x1b[31m", "\\u202E": r"\u202e", "\\u0007": r"\x07"}[value] in "".join(said)


def test_two_zones_with_one_main_meter_are_refused(tmp_path: Path) -> None:
    third = '[[meter]]\nid = "flat-2"\nbus = "b"\naddress = 18\n'
    second = '[[zone]]\nid = "z2"\nmain = "main"\nsubs = ["flat-2"]\n'
    line = error_of(tmp_path, "[mqtt]", f"{third}{second}[mqtt]")
    assert line.startswith("25: [[zone]] z2: main is already the main meter of zone z")
