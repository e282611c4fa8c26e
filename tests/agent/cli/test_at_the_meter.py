"""scan, read and clock against simulated meters on a real pseudo-terminal, in a process of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli.main import cli

SITE = """
[site]
site = "lab"
gateway = "lab"
[store]
path = "{folder}/store.sqlite"
[[bus]]
id = "line"
port = "{folder}/tty"
baud = 115200
[[meter]]
id = "main"
bus = "line"
address = 16
[[meter]]
id = "flat-1"
bus = "line"
address = 17
client = 2
security = "lls"
password = "{folder}/password"
[[meter]]
id = "flat-2"
bus = "line"
address = 18
client = 1
security = "hls-gmac"
authentication_key = "{folder}/ak"
encryption_key = "{folder}/ek"
system_title = "43484B0000000001"
[[meter]]
id = "flat-3"
bus = "line"
address = 19
client = 1
security = "hls-ecdsa"
suite = 1
signing_key = "{folder}/sk"
meter_signing_key = "{folder}/meter.pub"
authentication_key = "{folder}/ak"
encryption_key = "{folder}/ek3"
master_key = "{folder}/mk"
system_title = "43484B0000000003"
[[meter]]
id = "nobody"
bus = "line"
address = 99
[[zone]]
id = "building"
main = "main"
subs = ["flat-1", "flat-2", "flat-3", "nobody"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lab")
    secrets = {"password": "open sesame", "ak": "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF", "ek": "00" * 16, "ek3": "33" * 16}
    secrets |= {"mk": "44" * 16, "sk": "11" * 32}
    for name, text in secrets.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    path = folder / "site.toml"
    path.write_text(SITE.format(folder=folder))
    simulated = folder / "simulated.toml"
    without = SITE.replace('[[meter]]\nid = "nobody"\nbus = "line"\naddress = 99\n', "").replace(', "nobody"', "")
    simulated.write_text(without.format(folder=folder) + "[simulation]\nseed = 3\nhistory_days = 3\npace = false\n")
    written = run("simulate", simulated, "--write-keys")
    assert (written.exit_code, written.stdout) == (0, f"flat-3  {folder}/meter.pub\n"), written.output
    simulator = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", "simulate", str(simulated), "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert simulator.stdout is not None
    try:
        assert json.loads(simulator.stdout.readline())["ready"]
        yield path
    finally:
        simulator.send_signal(signal.SIGTERM)
        simulator.wait(20)
        simulator.stdout.close()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def rows(*arguments: object) -> list[dict[str, object]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("meter", ["main", "flat-1", "flat-2"])
def test_read_shows_the_registers_with_unit_and_time(site: Path, meter: str) -> None:
    head, *registers = rows("read", site, meter)
    assert str(head["serial"]).startswith("CHM")
    assert abs(float(str(head["clock_offset_s"]))) < 2
    energy = next(row for row in registers if row["obis"] == "1.0.1.8.0.255")
    assert energy["unit"] == "Wh"
    assert float(str(energy["value"])) > 0


def test_read_finds_the_class_of_any_object(site: Path) -> None:
    found = rows("read", site, "flat-2", "1-0:1.8.0", "0.0.96.1.0", "1.0.32.7.0.255", "1.0.9.9.9.255")
    assert [row["unit"] for row in found] == ["Wh", None, "V", "not there, or not for us"]
    assert str(found[1]["value"]).startswith("CHM")
    assert 200 < float(str(found[2]["value"])) < 260


def test_read_profile_events_and_objects(site: Path) -> None:
    profile = rows("read", site, "flat-1", "--profile")
    energies = [float(str(row["value"])) for row in profile if row["obis"] == "1.0.1.8.0.255"]
    assert len(energies) in (95, 96, 97)
    assert energies == sorted(energies)
    assert rows("read", site, "flat-1", "--profile", "--from", "2020-01-01", "--to", "2020-01-02") == []
    empty = run("read", site, "flat-1", "--profile", "--from", "2020-01-01", "--to", "2020-01-02")
    assert "flat-1: no row in its load profile from 2020-01-01T00:00:00Z" in empty.stderr
    register = {"class": 3, "version": 0, "obis": "1.0.1.8.0.255", "name": "energy imported"}
    assert register in rows("read", site, "flat-1", "--objects")
    events = run("read", site, "flat-1", "--events")
    assert (events.exit_code, "power up" in events.stdout) == (0, True), events.output


def test_trace_shows_frames_and_no_password(site: Path) -> None:
    result = run("read", site, "flat-1", "1.0.1.8.0.255", "--trace")
    assert result.exit_code == 0
    assert "AssociationRequest" in result.stderr
    assert "GetResponse" in result.stderr
    assert b"open sesame".hex() not in result.stderr.lower()
    assert "open sesame" not in result.stderr
    assert "1.0.1.8.0.255" in result.stdout


def test_clock_is_shown_and_set(site: Path) -> None:
    shown = run("clock", site, "flat-2")
    assert (shown.exit_code, "s off" in shown.stdout) == (0, True), shown.output
    done = run("clock", site, "flat-2", "--set")
    assert (done.exit_code, "set\n" in done.stdout) == (0, True), done.output


def test_read_shows_names_and_kwh(site: Path) -> None:
    result = run("read", site, "flat-2")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if line.startswith("1.0.1.8.0.255"))
    assert "energy imported" in line
    assert " kWh" in line
    clock = rows("read", site, "flat-2", "0.0.1.0.0.255")[0]
    assert str(clock["value"]).startswith("20")
    assert "deviation" in str(clock["value"])


def test_a_ciphered_request_in_two_frames_is_no_secret(site: Path) -> None:
    result = run("read", site, "flat-2", *[f"1.0.{n}.7.0.255" for n in range(1, 60)], "--trace")
    assert result.exit_code == 0
    assert "> **" not in result.stderr


def test_scan_finds_who_is_there(site: Path) -> None:
    found = rows("scan", site.with_name("tty"), "--baud", "115200", "--last", "19")
    assert [(row["address"], row["octets"]) for row in found] == [(16, 2), (17, 2), (18, 2), (19, 2)]
    assert all(str(row["serial"]).startswith("CHM") for row in found)


def test_scan_stops_at_the_first_speed_that_answers_and_writes_a_site_file(site: Path, tmp_path: Path) -> None:
    written = tmp_path / "found.toml"
    found = rows("scan", site.with_name("tty"), "--first", "16", "--last", "18", "-o", written)
    assert {row["parity"] for row in found} == {"N"}
    assert len({row["baud"] for row in found}) == 1
    assert [row["address"] for row in found] == [16, 17, 18]
    checked = run("check", written)
    assert checked.exit_code == 0, checked.output
    assert run("scan", site.with_name("tty"), "-o", written).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nobody"], 69, "no answer to SNRM"),
        (["flat-9"], 78, "there is no meter flat-9"),
        (["flat-1", "7.7"], 2, "is not an OBIS code"),
        (["flat-1", "--profile", "--events"], 2, "ask one at a time"),
        (["flat-1", "--profile", "--from", "soon"], 2, "is not a time"),
        (["flat-1", "--profile", "--from", "2030-01-01", "--to", "2020-01-01"], 2, "--from is after --to"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_right_code(
    site: Path, arguments: list[str], code: int, words: str
) -> None:
    result = run("read", site, *arguments)
    assert (result.exit_code, words in result.output) == (code, True), result.output


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    result = run("scan", tmp_path / "tty")
    assert (result.exit_code, "cannot open serial port" in result.output) == (69, True)
    for protocol in ("dlms", "modbus"):
        result = run("scan", tmp_path / "tty", "--protocol", protocol, "--first", "99", "--last", "8")
        assert (result.exit_code, "--first is above --last" in result.output) == (2, True), result.output
    result = run("scan", tmp_path / "tty", "--first", "200")  # above the last that is usual
    assert (result.exit_code, "--first is above --last" in result.output) == (2, True), result.output


def test_rekey_asks_first_and_leaves_a_meter_that_answers_under_the_new_key(site: Path) -> None:
    new, old = site.parent / "ek3.new", site.parent / "ek3"
    refused = CliRunner().invoke(cli, ["rekey", str(site), "flat-3", "--new", str(new), "--generate"], input="flat-1\n")
    assert (refused.exit_code, "nothing was changed" in refused.output) == (1, True), refused.output
    assert run("read", site, "flat-3", "1-0:1.8.0").exit_code == 0  # nothing was
    again = run("rekey", site, "flat-3", "--new", new, "--generate", "--yes")
    assert "give a file that is not there yet" in again.output
    done = run("rekey", site, "flat-3", "--new", new, "--yes")
    assert (done.exit_code, "it answers under the new key" in done.output) == (0, True), done.output
    assert new.read_text().strip() not in done.output
    assert run("read", site, "flat-3", "1-0:1.8.0").exit_code != 0  # the site file has the old one
    old.write_text(new.read_text())
    agreed = site.parent / "ek3.agreed"
    done = run("rekey", site, "flat-3", "--new", agreed, "--agree", "--yes")
    assert (done.exit_code, "it answers under the new key" in done.output) == (0, True), done.output
    assert agreed.stat().st_mode & 0o077 == 0
    old.write_text(agreed.read_text())
    assert run("read", site, "flat-3", "1-0:1.8.0").exit_code == 0


def test_rekey_makes_no_file_where_the_site_file_lacks_a_key(site: Path) -> None:
    new = site.parent / "none.new"
    done = run("rekey", site, "flat-1", "--new", new, "--generate", "--yes")
    assert (done.exit_code, "needs its master_key" in done.output, new.exists()) == (78, True, False), done.output


def test_write_and_call_ask_first_and_say_how_each_ended(site: Path) -> None:
    asked = CliRunner().invoke(cli, ["write", str(site), "flat-1", "7:1-0:99.1.0#4=uint32:1800"], input="no\n")
    assert (asked.exit_code, "nothing was changed" in asked.output) == (1, True), asked.output
    period = "7:1-0:99.1.0#4=uint32:900"
    done = run("write", site, "flat-1", period, "3:1-0:1.8.0#2=uint32:0", "--yes")
    assert (done.exit_code, done.stdout.splitlines()) == (
        1,
        [f"{period}  done", "3:1-0:1.8.0#2=uint32:0  read write denied"],
    )
    assert run("write", site, "flat-1", period, "--yes").exit_code == 0
    assert run("call", site, "flat-1", "8:0-0:1.0.0#6=int16:0", "--yes").stdout == "8:0-0:1.0.0#6=int16:0  done\n"
    assert "expected CLASS:OBIS#NUMBER" in run("write", site, "flat-1", "1.8.0", "--yes").output
    assert "0 to 255" in run("write", site, "flat-1", "7:1-0:99.1.0#4=uint8:900", "--yes").output
