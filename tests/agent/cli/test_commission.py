"""`checkmeter commission`: over the real protocol from simulated meters, from the store, and in words."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.cli.meter.commission import _fix, command
from agent.offline.commission import Registers, clocks_apart, judge, words
from agent.process.exit_codes import INPUT_OUTPUT
from agent.site.edit import Change
from agent.site.load import load
from agent.store.commit import Commit
from agent.store.store import Store
from core.registers.booked import HistoryRow
from firmware_io.bus import Bus
from firmware_io.errors import ResponseTimeout
from firmware_io.reading import Reading

FLATS = tuple(f"flat-{k}" for k in range(1, 7))


def site_text(port: str, store: Path, meter_lines: dict[str, str] | None = None) -> str:
    """A site file of six flats and a main meter on one bus."""
    meters = "\n".join(
        f'[[meter]]\nid = "{name}"\nbus = "b1"\naddress = {16 + k}\naccuracy_class = {0.5 if k == 0 else 1.0}\n'
        f"resolution_wh = 1\n{(meter_lines or {}).get(name, '')}\n"
        for k, name in enumerate(("main", *FLATS))
    )
    return (
        f'[site]\nsite = "test"\ngateway = "gw"\n[[bus]]\nid = "b1"\nport = "{port}"\n{meters}\n'
        f'[[zone]]\nid = "building"\nmain = "main"\nsubs = {json.dumps(FLATS)}\n'
        f'[store]\npath = "{store}"\n[simulation]\nseed = 5\nhistory_days = 8\n'
    )


def registers(seed: int = 3, days: int = 7) -> Registers:
    """Registers of a building that adds up, at quarter hours."""
    rng = np.random.default_rng(seed)
    rows = days * 96
    hour = np.arange(rows) % 96 / 4
    loads = (
        (0.1 + 0.5 * np.exp(-(((hour[:, None] - rng.uniform(17, 21, 6)) / 3) ** 2)))
        * rng.lognormal(0, 0.6, (rows, 6))
        / 4
    )
    total = loads.sum(axis=1)
    energies = np.column_stack([total + 0.001 + 0.01 * total**2 / total.mean(), loads])
    wh = np.vstack([np.zeros(7), np.cumsum(energies * 1000, axis=0)])
    return Registers(["main", *FLATS], 1_780_000_200.0 + 900.0 * np.arange(rows + 1), wh)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(site_text("tcp://127.0.0.1:9", tmp_path / "store.sqlite"))
    return path


def test_a_good_building_is_passed_in_words(site: Path) -> None:
    config = load(site)
    said = words(judge(config, config.zone[0], registers()))
    assert said[0].startswith("zone building: adds up")
    assert "Technical loss" in said[1]


def test_a_mistake_is_named_with_what_to_do(site: Path) -> None:
    config, found = load(site), registers()
    found.wh[:, 3] /= 40
    said = "\n".join(words(judge(config, config.zone[0], found)))
    assert "does not add up" in said
    assert "flat-3 should count 40 times what it does" in said


def test_a_meter_that_was_never_read_is_said_and_nothing_is_judged(site: Path) -> None:
    config, found = load(site), registers()
    found.wh[:, 2] = np.nan
    (line,) = words(judge(config, config.zone[0], found))
    assert "nothing is known of flat-2" in line


def test_a_replaced_meter_costs_one_interval_and_not_the_verdict(site: Path) -> None:
    config, found = load(site), registers()
    found.wh[300:, 4] = np.nan  # read no more, but for
    config_report = judge(config, config.zone[0], found)
    assert config_report.verdict is not None
    assert config_report.verdict.adds_up


def test_clocks_apart_are_told_with_the_command_that_mends_them() -> None:
    found = registers()
    found.clock_offset_s = {"main": 2.0, "flat-1": -3600.0}
    (line,) = clocks_apart(found)
    assert line.startswith("flat-1: its clock is 3600 s slow")
    assert "checkmeter clock SITE.toml flat-1 --set" in line


def test_from_the_store_of_the_running_service(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = registers()
    now_s = float(found.times_s[-1]) + 60
    store = Store(tmp_path / "store.sqlite", now_s)
    read = np.zeros(7), np.zeros(7, np.uint8)
    history = [HistoryRow(float(t), wh, *read) for t, wh in zip(found.times_s, found.wh, strict=True)]
    assert store.commit(Commit(meters=found.meters, history=history), now_s)
    monkeypatch.setattr("agent.process.clock.time.time", lambda: now_s)
    try:
        done = CliRunner().invoke(command, [str(site), "--from-store", "--days", "6", "--json"])
    finally:
        store.close()
    assert done.exit_code == 0, done.output
    (zone,) = json.loads(done.output)
    assert zone["adds_up"] is True


def test_without_a_store_it_says_so(site: Path) -> None:
    done = CliRunner().invoke(cli, ["commission", str(site), "--from-store"])
    assert done.exit_code == INPUT_OUTPUT
    assert "there is no store" in done.output


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Path]:
    """A simulated building on TCP, as a process of its own; the path of its site file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "site.toml"
    path.write_text(site_text(f"tcp://127.0.0.1:{port}", tmp_path / "store.sqlite"))
    words_ = [sys.executable, "-m", "agent.cli.main", "simulate", str(path)]
    with subprocess.Popen(words_, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready")
            yield path
        finally:
            process.terminate()
            process.wait(10)


def test_a_fix_keeps_the_line_ends_of_the_file(site: Path) -> None:
    site.write_bytes(site.read_bytes().replace(b"\n", b"\r\n"))
    _fix(site, [Change("meter", "flat-2", "ct_ratio", 30.0)], yes=True)
    octets = site.read_bytes()
    assert b"ct_ratio = 30.0\r\n" in octets
    assert octets.count(b"\r\n") == octets.count(b"\n")


def test_over_the_real_protocol(simulated: Path, tmp_path: Path) -> None:
    good = CliRunner().invoke(command, [str(simulated), "--plot", str(tmp_path / "plots")])
    assert good.exit_code == 0, good.output
    assert "zone building: adds up" in good.output
    assert (tmp_path / "plots" / "building.svg").read_text().startswith("<svg")
    wrong = simulated.with_name("wrong.toml")
    wrong.write_text(simulated.read_text().replace('id = "flat-2"\n', 'id = "flat-2"\nct_ratio = 30\n', 1))
    bad = CliRunner().invoke(command, [str(wrong)])
    assert bad.exit_code == 1
    assert "flat-2 should count 1/30 of what it does" in bad.output

    # What was found as a patch: shown first, not written unless agreed to, and then the building adds up.
    shown = CliRunner().invoke(command, [str(wrong), "--fix"], input="n\n")
    assert "-ct_ratio = 30" in shown.output
    assert "Nothing was written" in shown.output
    assert "ct_ratio = 30" in wrong.read_text()
    mended = CliRunner().invoke(command, [str(wrong), "--fix", "--yes"])
    assert "Written" in mended.output
    assert load(wrong).meter[2].ct_ratio == pytest.approx(1.0)
    assert CliRunner().invoke(command, [str(wrong)]).exit_code == 0


def test_a_meter_that_was_silent_once_is_asked_again(simulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = Bus.read_profile

    def stumble(bus: Bus, meter: str, *words_: float) -> list[Reading]:
        asked.append(meter)
        if asked.count(meter) == 1 and meter in ("flat-1", "flat-2"):
            raise ResponseTimeout("no whole answer", meter=meter)
        return real(bus, meter, *words_)

    monkeypatch.setattr(Bus, "read_profile", stumble)
    done = CliRunner().invoke(command, [str(simulated)])
    assert done.exit_code == 0, done.output
    assert asked[-2:] == ["flat-1", "flat-2"]
    assert "reading flat-2 again" in done.output
    assert "no whole answer" not in done.output

    def silent(bus: Bus, meter: str, *_: float) -> list[Reading]:
        raise ResponseTimeout("no whole answer", meter=meter)

    monkeypatch.setattr(Bus, "read_profile", silent)
    done = CliRunner().invoke(command, [str(simulated)])
    assert done.exit_code == 1
    assert done.output.count("no whole answer") == len(load(simulated).meter)
