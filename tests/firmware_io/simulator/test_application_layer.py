"""ACCESS, general block transfer, lists of SET and ACTION: our client and our simulated meter; peers in test_pydlms."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import ActionResult, Attribute, DataAccessResult
from firmware_io.dlms.apdu.refusals import ServiceRefused
from firmware_io.dlms.meter.rekey import agree
from firmware_io.errors import RemoteProtocolError
from firmware_io.simulator.building.scenario import Fault, Simulation

FLAT = "flat-1"
PERIOD = Attribute(7, obis.LOAD_PROFILE, 4)
CLOCK = Attribute(8, obis.CLOCK, 2)
SHIFT = Attribute(8, obis.CLOCK, 6)
OBJECTS = Attribute(15, obis.CURRENT_ASSOCIATION, 2)


def poll(bench):
    return {p.meter: p for p in bench.bus.poll_cycle()}[FLAT]


def simulation(*faults: Fault) -> Simulation:
    return Simulation(seed=5, history_days=8, installed="-60d", fault=list(faults))


@pytest.mark.parametrize(
    ("kind", "ciphering"),
    [("none", "global"), ("hls-gmac", "global"), ("hls-gmac", "dedicated"), ("hls-gmac", "general")],
)
def test_access_reads_what_lists_read(kind, ciphering, make_bench, secured):
    listed = make_bench(meter=secured(kind))
    access = make_bench(meter=secured(kind) | {"access": True, "ciphering": ciphering})
    values = [{r.obis: r.value for r in poll(bench).readings} for bench in (listed, access)]
    assert values[1].keys() == values[0].keys()
    assert values[1][obis.ENERGY_IMPORT] == pytest.approx(values[0][obis.ENERGY_IMPORT], abs=20)
    exchanges = access.drivers[FLAT].traffic.exchanges
    poll(access)
    assert access.drivers[FLAT].traffic.exchanges == exchanges + 1


def test_a_meter_that_refuses_access_is_read_all_the_same(make_bench):
    bench = make_bench(simulation(Fault(kind="no_access")), meter={"access": True})
    assert obis.ENERGY_IMPORT in {r.obis for r in poll(bench).readings}


@pytest.mark.parametrize("framing", ["hdlc", "wrapper"])
@pytest.mark.parametrize("kind", ["none", "hls-gmac"])
@pytest.mark.parametrize("window", [1, 5])
def test_long_answers_come_in_general_blocks(kind, framing, window, make_bench, secured):
    more = {"gbt_window": window, "max_pdu": 200, "window": 3}
    bench = make_bench(framing=framing, meter=secured(kind) | more)
    session = bench.session(FLAT)
    whole = session.get(OBJECTS)
    plain = make_bench(framing=framing, meter=secured(kind)).session(FLAT).get(OBJECTS)
    assert whole == plain
    profile = bench.bus.read_profile(FLAT, bench.clock.now() - 86400, bench.clock.now())
    assert len([r for r in profile if r.obis == obis.ENERGY_IMPORT]) == 96
    assert poll(bench).error is None


def test_blocks_that_are_lost_are_sent_again(make_bench):
    lost = simulation(Fault(kind="lost_block", meter=FLAT, probability=0.2))
    bench = make_bench(lost, framing="wrapper", meter={"gbt_window": 4, "max_pdu": 200})
    plain = make_bench(framing="wrapper").session(FLAT).get(OBJECTS)
    assert [bench.session(FLAT).get(OBJECTS) for _ in range(5)] == [plain] * 5


def test_blocks_that_are_always_lost_are_given_up(make_bench):
    lost = simulation(Fault(kind="lost_block", meter=FLAT))
    bench = make_bench(lost, framing="wrapper", meter={"gbt_window": 4, "max_pdu": 200})
    session = bench.session(FLAT)
    with pytest.raises(RemoteProtocolError, match="given up"):
        session.get(OBJECTS)


def test_a_meter_without_general_blocks_sends_its_own(make_bench):
    bench = make_bench(simulation(Fault(kind="no_blocks")), meter={"gbt_window": 4, "max_pdu": 200})
    assert len(bench.session(FLAT).get(OBJECTS).value) > 20


def test_a_long_request_goes_in_general_blocks(make_bench):
    bench = make_bench(simulation(Fault(kind="small_pdu", amount=128)), meter={"gbt_window": 2})
    session = bench.session(FLAT)
    results = session.set_list([(PERIOD, axdr.uint32(1800))] * 12)
    assert results == [DataAccessResult.SUCCESS] * 12
    assert bench.site.meters[FLAT].period_s == 1800
    short = make_bench(simulation(Fault(kind="small_pdu", amount=128))).session(FLAT)
    with pytest.raises(ServiceRefused, match="ask for less"):
        short.set_list([(PERIOD, axdr.uint32(1800))] * 12)
    assert short.open


@pytest.mark.parametrize("kind", ["none", "hls-gmac"])
def test_lists_of_set_and_action_say_how_each_ended(kind, make_bench, secured):
    bench = make_bench(meter=secured(kind))
    session = bench.session(FLAT)
    wrong = Attribute(3, obis.ENERGY_IMPORT, 2)
    assert session.set_list([(PERIOD, axdr.uint32(300)), (wrong, axdr.uint32(0)), (PERIOD, axdr.uint8(1))]) == [
        DataAccessResult.SUCCESS,
        DataAccessResult.READ_WRITE_DENIED,
        DataAccessResult.TYPE_UNMATCHED,
    ]
    assert bench.site.meters[FLAT].period_s == 300
    called = session.call_list(
        [(SHIFT, axdr.int16(60)), (SHIFT, axdr.int16(5000)), (Attribute(8, obis.CLOCK, 9), None)]
    )
    assert [end for end, _ in called] == [
        ActionResult.SUCCESS,
        ActionResult.TYPE_UNMATCHED,
        ActionResult.READ_WRITE_DENIED,
    ]
    assert bench.site.meters[FLAT].clock.offset_s(bench.clock.now()) == pytest.approx(60, abs=0.1)


def test_what_a_method_returns_in_blocks_is_put_together(make_bench, secured):
    bench = make_bench(simulation(Fault(kind="small_pdu", amount=120)), meter=secured("ecdsa-1"))
    agreed = agree(bench.session(FLAT), bench.meters[1], ["encryption"])
    assert bench.site.meters[FLAT].keys.pending[0] == agreed["encryption"]
