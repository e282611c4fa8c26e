"""A dirty line, with the dirt made by the simulated meters at its far end."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.errors import MeterError, ResponseTimeout
from firmware_io.reading import Quality
from firmware_io.simulator.building.scenario import Fault, Simulation


def simulation(*faults: Fault, **more) -> Simulation:
    return Simulation(seed=4, history_days=3, installed="-10d", turnaround_s=0.002, fault=list(faults), **more)


def truth(lab, reading) -> float:
    return lab.site.meters[reading.meter].energy_wh(reading.sampled_s)[0]


def cycles(lab, bus, count: int):
    return [poll for _ in range(count) for poll in bus.poll_cycle()]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="noise", amount=1e-4),
        Fault(kind="extra"),
        Fault(kind="echo"),
        Fault(kind="fcs_7e"),
        Fault(kind="shared_flag"),
        Fault(kind="foreign_frame"),
        Fault(kind="duplicate", probability=0.5),
        Fault(kind="bad_fcs", probability=0.2),
        Fault(kind="dm", probability=0.1),
        Fault(kind="truncated", probability=0.1),
    ],
    ids=lambda fault: fault.kind,
)
def test_no_wrong_value_comes_through(fault, make_lab):
    lab = make_lab(simulation(fault))
    lab.simulated()
    bus = lab.bus()
    polls = cycles(lab, bus, 6)
    bus.close()
    readings = [r for p in polls for r in p.readings if r.obis == obis.ENERGY_IMPORT]
    assert len(readings) > 0.4 * len(polls)
    for reading in readings:
        assert reading.quality & Quality.SUSPECT or abs(reading.value - truth(lab, reading)) <= 20
    assert all(isinstance(p.error, MeterError) for p in polls if p.error)


def test_a_silent_meter_leaves_the_line_to_the_others(make_lab):
    lab = make_lab(simulation(Fault(kind="silence", meter="flat-2")))
    lab.simulated()
    bus = lab.bus()
    cycles(lab, bus, 2)
    silent = bus.statistics()["flat-2"].traffic
    asked = silent.exchanges
    polls = cycles(lab, bus, 3)
    bus.close()
    assert silent.exchanges == asked > 0
    assert {p.meter for p in polls} == {"main", "flat-1", "flat-3", "flat-4"}


def test_a_line_that_falls_silent_and_comes_back(lab):
    site = lab.simulated()
    bus = lab.bus()
    assert bus.poll("flat-1")
    site.stop()  # on a pseudo-terminal, this is the plug pulled out
    with pytest.raises(MeterError):
        bus.poll("flat-1")
    site.start()
    lab.clock.elapsed_s += 1.2  # the bus waits a second before it opens a failed port again
    assert bus.poll("flat-1")
    bus.close()


@pytest.mark.parametrize("baud", [2400, 9600])
def test_octets_arrive_one_at_a_time_on_a_slow_line(baud, make_lab):
    lab = make_lab(simulation(), baud=baud)
    lab.simulated()
    bus = lab.bus()
    readings = {r.obis: r for r in bus.poll("flat-1")}
    bus.close()
    assert abs(readings[obis.ENERGY_IMPORT].value - truth(lab, readings[obis.ENERGY_IMPORT])) <= 20
    assert obis.POWER_IMPORT in readings


def test_a_late_answer_is_not_taken_for_another_meters(make_lab, timeout_s):
    lab = make_lab(simulation(Fault(kind="late", meter="flat-1", amount=2.3 * timeout_s)))
    lab.simulated()
    bus = lab.bus()
    with pytest.raises(ResponseTimeout):
        bus.poll("flat-1")
    readings = {r.meter: r for p in cycles(lab, bus, 1) for r in p.readings if r.obis == obis.ENERGY_IMPORT}
    bus.close()
    assert set(readings) >= {"main", "flat-2", "flat-3", "flat-4"}
    assert all(abs(r.value - truth(lab, r)) <= 20 for r in readings.values())
