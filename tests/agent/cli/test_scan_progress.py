"""`checkmeter scan` of many addresses tells what it asks, and each meter when it is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.cli.meter import scan_others
from agent.cli.meter.scan_others import FoundMeter


@pytest.fixture
def silent() -> Iterator[str]:
    """A line on which nobody answers."""
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_which_addresses_are_asked_is_told_unless_quiet(silent: str) -> None:
    arguments = ["scan", silent, "--protocol", "modbus", "--baud", "9600", "--first", "7", "--last", "7"]
    shown = CliRunner().invoke(cli, arguments)
    assert (shown.exit_code, "asking addresses 7 to 7" in shown.stderr) == (1, True), shown.output
    assert "asking" not in CliRunner().invoke(cli, ["--quiet", *arguments]).output


def test_each_meter_is_told_before_the_next_is_looked_for(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[FoundMeter] = []

    def search(*_: object) -> Iterator[FoundMeter]:
        for unit in range(1, 4):
            assert len(told) == unit - 1
            yield FoundMeter(9600, unit)

    monkeypatch.setattr(scan_others, "_modbus", search)
    assert scan_others.find("modbus", silent, 9600, "N", 1, 3, tell=told.append) == told
    assert [meter.address for meter in told] == [1, 2, 3]


@pytest.mark.parametrize(("first", "last"), [("300", "400"), ("0", "0"), ("9", "8")])
def test_addresses_that_there_are_not_are_refused(first: str, last: str, tmp_path: Path) -> None:
    arguments = ["scan", str(tmp_path / "tty"), "--protocol", "modbus", "--first", first, "--last", last]
    assert CliRunner().invoke(cli, arguments).exit_code == 2
