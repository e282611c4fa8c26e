"""A meter with short names: read as any other, and read only."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.apdu.short_names import NextBlock, ReadRequest, ReadResponse
from firmware_io.errors import MeterError, RegisterUnavailable, RemoteProtocolError
from firmware_io.simulator.building.scenario import Fault, Simulation

FLAT = "flat-1"
SHORT = {"naming": "sn"}


def poll(bench):
    return {p.meter: p for p in bench.bus.poll_cycle()}[FLAT]


@pytest.mark.parametrize("framing", ["hdlc", "wrapper"])
@pytest.mark.parametrize("kind", ["none", "lls", "hls-md5", "hls-gmac", "ecdsa-1"])
def test_it_is_read_as_any_other(kind, framing, make_bench, secured):
    bench = make_bench(framing=framing, meter=secured(kind) | SHORT)
    logical = make_bench(framing=framing, meter=secured(kind))
    readings = {r.obis: r.value for r in poll(bench).readings}
    assert readings.keys() == {r.obis for r in poll(logical).readings}
    assert readings[obis.ENERGY_IMPORT] == pytest.approx(
        bench.site.meters[FLAT].energy_wh(bench.clock.now())[0], abs=20
    )
    now = bench.clock.now()
    rows = [r.value for r in bench.bus.read_profile(FLAT, now - 7200, now) if r.obis == obis.ENERGY_IMPORT]
    assert rows == [r.value for r in logical.bus.read_profile(FLAT, now - 7200, now) if r.obis == obis.ENERGY_IMPORT]
    assert bench.drivers[FLAT].associations == 1


def test_small_units_bring_the_object_list_in_blocks(make_bench):
    bench = make_bench(Simulation(seed=5, history_days=8, fault=[Fault(kind="small_pdu", amount=96)]), meter=SHORT)
    assert obis.ENERGY_IMPORT in {r.obis for r in poll(bench).readings}


def test_it_is_read_only(make_bench):
    bench = make_bench(meter=SHORT)
    session = bench.session(FLAT)
    with pytest.raises(RegisterUnavailable, match="read only"):
        session.set(Attribute(7, obis.LOAD_PROFILE, 4), axdr.uint32(900))
    assert session.open


def test_names_of_the_other_kind_are_refused(make_bench):
    for meter, client in ((SHORT, {"naming": "ln"}), ({}, SHORT)):
        assert isinstance(poll(make_bench(meter=meter, client=client)).error, MeterError)


def test_a_late_answer_over_a_stream_is_not_that_to_the_next_question(make_bench):
    late = Fault(kind="late", meter=FLAT, onset="+1m", amount=2.5)
    bench = make_bench(Simulation(seed=5, history_days=8, fault=[late]), framing="wrapper", meter=SHORT)
    assert poll(bench).error is None
    bench.rest(60)
    first = bench.modem
    assert poll(bench).error is not None
    assert first.closed  # what would still come over it is lost
    assert poll(bench).error is not None


@pytest.mark.parametrize("octets", ["0c01", "0c0103", "0c020001", "0c010200", "0d00", "0c0100060000"])
def test_malformed_answers_are_errors(octets):
    with pytest.raises(RemoteProtocolError):
        ReadResponse.decode(bytes.fromhex(octets))


def test_octets_of_a_request():
    request = ReadRequest((NextBlock(3),))
    assert request.encode().hex() == "0501050003"
    assert ReadRequest.decode(request.encode()) == request
