"""A poll out of a meter's compact data (class 62): one short read, and lists again where they are no good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firmware_io import obis
from firmware_io.dlms.sources import Sources
from firmware_io.obis import ObisCode
from firmware_io.simulator.building.scenario import Fault, Simulation

FLAT = "flat-1"
COMPACT = {"sources": Sources(compact=ObisCode(0, 0, 66, 0, 1))}


def poll(bench):
    return {p.meter: p for p in bench.bus.poll_cycle()}[FLAT]


def octets(bench) -> int:
    traffic = bench.drivers[FLAT].traffic
    before = traffic.sent_octets + traffic.received_octets
    assert poll(bench).error is None
    return traffic.sent_octets + traffic.received_octets - before


@pytest.mark.parametrize("kind", ["none", "hls-gmac"])
def test_a_poll_is_one_short_read(kind, make_bench, secured):
    listed, compact = (make_bench(meter=secured(kind) | more) for more in ({}, COMPACT))
    for bench in (listed, compact):
        poll(bench)
    exchanges = compact.drivers[FLAT].traffic.exchanges
    few, many = octets(compact), octets(listed)
    assert compact.drivers[FLAT].traffic.exchanges == exchanges + 1
    assert few < 0.55 * many
    readings = {r.obis: r.value for r in poll(compact).readings}
    assert readings[obis.ENERGY_IMPORT] == compact.site.meters[FLAT].energy_wh(compact.clock.now())[0]
    assert {obis.ENERGY_EXPORT, obis.POWER_IMPORT} <= set(readings)


def test_a_buffer_that_does_not_fit_its_template_is_told_and_lists_are_read(make_bench):
    bench = make_bench(Simulation(seed=5, history_days=8, fault=[Fault(kind="compact_template")]), meter=COMPACT)
    answer = poll(bench)
    assert obis.VOLTAGE[0] in {r.obis for r in answer.readings}  # which is not among what is captured
    poll(bench)
    assert any("compact data" in why for why in bench.bus.identity(FLAT).unreadable)


def test_a_meter_without_them_is_read_by_lists(make_bench):
    bench = make_bench(meter={"sources": Sources(compact=ObisCode(0, 0, 66, 0, 9))})
    assert obis.ENERGY_IMPORT in {r.obis for r in poll(bench).readings}
    assert any("it is not there" in why for why in bench.bus.identity(FLAT).unreadable)


@pytest.mark.parametrize("kind", ["none", "lls"])
def test_the_other_meter_at_the_address_is_not_believed(kind, make_bench, secured):
    fault = Fault(kind="twin", meter=FLAT, onset="+1m")
    bench = make_bench(Simulation(seed=5, history_days=8, fault=[fault]), meter=secured(kind) | COMPACT)
    assert poll(bench).error is None
    bench.rest(120)
    answer = poll(bench)
    assert "two meters at one address" in str(answer.error)
    assert answer.readings == ()


def test_what_the_template_leaves_out_keeps_its_sum(make_bench):
    sources = replace(
        COMPACT["sources"], registers={obis.ENERGY_IMPORT: (obis.ENERGY_IMPORT, obis.ENERGY_EXPORT)}
    )  # added up of two that are captured
    bench = make_bench(meter={"sources": sources})
    energy = next(r for r in poll(bench).readings if r.obis == obis.ENERGY_IMPORT)
    assert energy.value == sum(bench.site.meters[FLAT].energy_wh(bench.clock.now()))
