"""What every protocol that only asks has to stand: dirt on the line, dead meters, and the wire's own time."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.asking import exchange
from firmware_io.dlt645 import scan as dlt645
from firmware_io.dlt698 import scan as dlt698
from firmware_io.driver import Line
from firmware_io.errors import MeterError
from firmware_io.reading import Quality
from firmware_io.simulator.line.bus import NullModem
from firmware_io.simulator.line.shared import SharedLine
from firmware_io.simulator.line.station import Piece
from tests.firmware_io import lab
from tests.firmware_io.stands import KINDS, Stand, dead_share

CYCLES = 15
LOSSLESS = ("clean", "one octet", "lost frames", "doubled", "late", "torn")
DIRTY = [
    pytest.param(kind, dirt, id=f"{kind}, {dirt}")
    for kind in KINDS
    for dirt in lab.KINDS
    if not KINDS[kind].lossless or dirt in LOSSLESS
]


@pytest.mark.parametrize(("kind", "dirt"), DIRTY)
def test_no_value_is_wrong_on_a_dirty_line(kind: str, dirt: str) -> None:
    """Three meters of different power on one line; each value is of its meter and its time, or there is none."""
    stand = Stand(kind)
    line, slack = stand.dirty(dirt), stand.kind.slack
    answered = asked = 0
    for cycle in range(CYCLES):
        for n, driver in enumerate(stand.drivers):
            asked += 1
            try:
                readings = driver.poll(line)
            except MeterError:
                continue
            answered += 1
            for r in readings:
                where = (dirt, cycle, n, str(r.obis))
                assert not r.quality & Quality.SUSPECT, where
                if r.obis == obis.ENERGY_IMPORT:
                    low = stand.meters[n].energy_wh(r.sampled_s - r.uncertainty_s)[0]
                    high = stand.meters[n].energy_wh(r.sampled_s + r.uncertainty_s)[0]
                    assert low * (1 - slack) <= r.value <= high * (1 + slack), where
                elif r.obis == obis.POWER_IMPORT:
                    assert r.value == pytest.approx(stand.power_w(n), rel=slack, abs=0), where
                elif r.obis in obis.VOLTAGE:
                    volts = (230.1, 229.3, 231.7)[obis.VOLTAGE.index(r.obis)]
                    assert r.value == pytest.approx(volts, rel=slack, abs=0), where
        stand.rest(line)
    if dirt in ("clean", "one octet", "doubled", "echo"):
        assert answered == asked
    if dirt == "rubbish":
        assert answered >= 0.9 * asked  # rubbish that looks like a frame's head hides a question from the meter
    assert answered >= asked / 5


@pytest.mark.parametrize("baud", [2400, 9600])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].lossless])
def test_a_cycle_takes_the_wires_time_and_no_more(kind: str, baud: int) -> None:
    stand = Stand(kind, baud=baud)
    stand.cycle()  # who they are
    assert stand.cycle() <= 1.05


def test_what_a_cycle_takes_is_really_measured() -> None:
    """A meter that takes ten seconds over nothing is seen as such."""
    stand = Stand("dlt645")
    stand.cycle()
    stand.drivers[0].poll = lambda line: stand.clock.move(10.0)
    assert stand.cycle() > 1.05


@pytest.mark.parametrize("kind", ["dlt645", "modbus rtu", "mbus primary"])
def test_one_dead_meter_of_eight_costs_next_to_nothing(kind: str) -> None:
    """Of 32, for six hours and on every kind of line: `make bench-protocols`."""
    assert dead_share(kind, 8, 0.3) < 0.06


class Babbler:
    """Whatever is asked, noise of a dozen octets."""

    def hear(self, octets: bytes, *, torn: bool) -> bytes:
        return bytes(12)

    def modem(self, answer: bytes, question_end_s: float) -> list[Piece]:
        return [Piece(0.0, answer)]


@pytest.mark.parametrize("search", [dlt645.search, dlt698.search])
def test_a_search_comes_to_an_end_where_noise_answers_every_question(search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_QUESTIONS", 250)
    stand = Stand("dlt645")
    shared = SharedLine([Babbler()], octet_s=stand.octet_s, turnaround_s=0.03, now=stand.clock.now, parity=True)
    line = Line(NullModem(shared, stand.clock.move))
    assert search(line, stand.timing, stand.clock) == []
    assert stand.clock.elapsed_s < 250 * 2 * stand.timing.timeout_s
