"""The simulated meter as a COSEM server, read by our client: objects, rights, selective access, blocks, clock."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Tag
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult, Selection
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.cosem.profile import by_entry, by_range
from firmware_io.dlms.session.channel import open_channel
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.session import DataAccessError, Session
from firmware_io.errors import AccessDenied, MeterError, RegisterUnavailable, RemoteProtocolError
from firmware_io.obis import ObisCode
from firmware_io.simulator.building.scenario import Simulation, Theft
from firmware_io.simulator.meter.events import Code
from firmware_io.simulator.meter.meter import Identity, SimulatedMeter

FLAT = "flat-1"
CLOCK = Attribute(8, obis.CLOCK, 2)
BUFFER = Attribute(7, obis.LOAD_PROFILE, 2)


def public_session(bench) -> Session:
    """A client without credentials."""
    spec = bench.meters[1]
    transport = bench.plug(bench.spec)
    session = Session(spec, open_channel(transport, bench.spec, spec, client=16), MemoryCounters(), public=True)
    session.connect()
    return session


def object_list(session) -> list[tuple[int, ObisCode, list[int]]]:
    listed = session.get(Attribute(15, obis.CURRENT_ASSOCIATION, 2)).plain()
    return [(o[0], ObisCode.from_bytes(o[2]), [right[0] for right in o[3][0]]) for o in listed]


@pytest.mark.parametrize("kind", ["none", "lls", "hls-gmac"])
def test_every_attribute_of_the_object_list_can_be_read(kind, make_bench, secured):
    bench = make_bench(meter=secured(kind), simulation=Simulation(seed=5, history_days=2, installed="-10d"))
    session = bench.session(FLAT)
    listed = object_list(session)
    names = {name for _, name, _ in listed}
    wanted = {obis.CLOCK, obis.SERIAL_NUMBER, obis.FIRMWARE_VERSION, obis.ENERGY_IMPORT, obis.ENERGY_EXPORT}
    wanted |= {obis.POWER_IMPORT, obis.VOLTAGE[0], obis.CURRENT[0], obis.NEUTRAL_CURRENT, obis.POWER_FACTOR}
    wanted |= {obis.ERROR_REGISTER, obis.LOAD_PROFILE, obis.EVENT_LOG_STANDARD, obis.EVENT_LOG_FRAUD}
    wanted |= {obis.DISCONNECT_CONTROL, obis.CURRENT_ASSOCIATION, obis.INVOCATION_COUNTER}
    assert wanted <= names
    for class_id, name, numbers in listed:
        for number in numbers:
            value = session.get(Attribute(class_id, name, number))
            assert number != 1 or value.value == bytes(name)


def test_a_main_meter_has_three_phases_and_a_sub_meter_one(make_bench):
    bench = make_bench()
    for meter, phases in (("main", 3), (FLAT, 1)):
        names = {name for _, name, _ in object_list(bench.session(meter))}
        assert len(names & set(obis.VOLTAGE)) == phases


def test_rates_add_up_to_the_total(make_bench):
    bench = make_bench()
    session = bench.session(FLAT)
    total, *rates = (session.get(Attribute(3, ObisCode(1, 0, 1, 8, e), 2)).value for e in (0, 1, 2))
    assert sum(rates) == total
    assert min(rates) > 0


def test_without_authentication_only_what_identifies_the_meter(make_bench, secured):
    bench = make_bench(meter=secured("lls"))
    session = public_session(bench)
    assert session.get(Attribute(1, obis.SERIAL_NUMBER, 2)).value == b"CHM00000002"
    assert session.get(CLOCK)
    assert len(object_list(session)) < 10
    with pytest.raises(AccessDenied):
        session.get(Attribute(3, obis.ENERGY_IMPORT, 2))
    with pytest.raises(AccessDenied):
        session.set(CLOCK, session.get(CLOCK))


def test_wrong_class_wrong_name_wrong_attribute(make_bench):
    session = make_bench().session(FLAT)
    for attribute, result in (
        (Attribute(1, obis.ENERGY_IMPORT, 2), DataAccessResult.OBJECT_CLASS_INCONSISTENT),
        (Attribute(3, ObisCode(1, 0, 99, 99, 99), 2), DataAccessResult.OBJECT_UNDEFINED),
        (Attribute(3, obis.ENERGY_IMPORT, 9), DataAccessResult.OBJECT_UNDEFINED),
    ):
        with pytest.raises(DataAccessError) as caught:
            session.get(attribute)
        assert caught.value.result is result


def rows(session, selection: Selection | None = None) -> list:
    return session.get(BUFFER, selection).plain()


def test_rows_by_range_and_by_entry(make_bench, start_s):
    bench = make_bench()
    session = bench.session(FLAT)
    columns, period_s = session.capture_objects(obis.LOAD_PROFILE)
    assert period_s == 900
    everything = rows(session)
    assert len(everything) == session.get(Attribute(7, obis.LOAD_PROFILE, 7)).value
    assert len(everything) in (8 * 96, 8 * 96 + 1)

    def moment(at_s):
        return MeterTime(at_s, 0, 0)

    inside = rows(session, by_range(moment(start_s - 7200), moment(start_s - 3600), columns[0]))
    assert len(inside) == 5  # both ends included
    assert [r[2] for r in inside] == [r[2] for r in everything[-9:-4]]
    assert [r[0] is None for r in inside] == [False, True, True, True, True]
    assert rows(session, by_range(moment(start_s + 7200), moment(start_s + 9000), columns[0])) == []
    assert [r[2] for r in rows(session, by_entry(1, 3))] == [r[2] for r in everything[:3]]
    assert len(rows(session, by_entry(len(everything) - 1, 0))) == 2
    one_column = by_entry(1, 2)
    narrow = axdr.structure(*one_column.parameters.value[:2], axdr.uint16(3), axdr.uint16(3))
    assert rows(session, Selection(2, narrow)) == [[everything[0][2]], [everything[1][2]]]
    chosen = axdr.structure(
        *by_range(moment(start_s - 900), moment(start_s), columns[0]).parameters.value[:3],
        axdr.array([columns[2].encode()]),
    )
    assert rows(session, Selection(1, chosen)) == [[everything[-2][2]], [everything[-1][2]]]


@pytest.mark.parametrize(
    "selection",
    [
        Selection(3, axdr.structure(*[axdr.uint32(1)] * 4)),
        Selection(2, axdr.structure(*[axdr.uint32(0)] * 4)),
        Selection(2, axdr.uint32(1)),
        Selection(1, axdr.structure(axdr.NULL, axdr.NULL, axdr.NULL, axdr.array([]))),
        Selection(1, axdr.structure(axdr.NULL, *[axdr.octet_string(b"\xff" * 12)] * 2, axdr.array([]))),
    ],
)
def test_selections_that_cannot_be_are_refused(selection, make_bench):
    session = make_bench().session(FLAT)
    with pytest.raises((AccessDenied, RegisterUnavailable)):
        session.get(BUFFER, selection)
    assert session.get(CLOCK)


def test_blocks_when_either_side_is_small(make_bench):
    for meter, client in (({"max_pdu": 96}, {}), ({}, {"max_pdu": 96})):
        bench = make_bench(meter=meter, client=client)
        assert len(rows(bench.session(FLAT))) >= 768


def test_frames_of_the_smallest_size_and_windows(make_bench):
    bench = make_bench(meter={"max_frame": 32})
    assert len(object_list(bench.session(FLAT))) > 20


def test_clock_is_set_shifted_and_adjusted(make_bench, start_s):
    bench = make_bench(timezone="Europe/Berlin")
    session = bench.session(FLAT)
    meter = bench.site.meters[FLAT]

    def offset() -> float:
        return round(meter.clock.offset_s(bench.clock.now()), 1)

    session.set(CLOCK, axdr.octet_string(MeterTime(bench.clock.now() + 3600 + 100, -60, 0).encode()))
    assert 99 < offset() <= 100
    session.action(Attribute(8, obis.CLOCK, 6), axdr.int16(-60))
    assert 39 < offset() <= 40
    session.action(Attribute(8, obis.CLOCK, 3), axdr.int8(0))
    assert meter.clock.shown_s(bench.clock.now()) % 60 < 1.0
    with pytest.raises(MeterError):
        session.action(Attribute(8, obis.CLOCK, 6), axdr.int16(5000))
    with pytest.raises(MeterError):
        session.set(CLOCK, axdr.octet_string(b"yesterday"))
    codes = [e.code for e in meter.log.entries(False, bench.clock.now())]
    assert codes[1:] == [Code.CLOCK_OLD, Code.CLOCK_NEW] * 3
    shown = MeterTime.decode(session.get(CLOCK).value)
    assert shown is not None
    assert shown.deviation_min == -60


def test_rows_after_the_clock_was_set_are_stamped_by_it(make_bench, start_s):
    bench = make_bench()
    bench.session(FLAT)
    meter = bench.site.meters[FLAT]
    bench.clock.move(450)
    meter.set_clock(meter.clock.shown_s(bench.clock.now()) + 3600)  # an hour is missing from the profile
    bench.clock.move(3000)
    times, make_rows = meter.snapshot()
    stamps = [s - start_s for s in times[-5:]]
    assert stamps == [-900, 0, 4500, 5400, 6300]
    registers = bench.site.building
    shown = [row[2].value * 10 for row in make_rows(len(times) - 2, len(times))]
    true = [registers.energy_wh(FLAT, start_s + at)[0] for at in (1800, 2700)]
    assert shown == [pytest.approx(t, abs=10) for t in true]


def test_a_reset_profile_starts_anew(make_bench):
    bench = make_bench()
    session = bench.session(FLAT)
    session.action(Attribute(7, obis.LOAD_PROFILE, 1), axdr.int8(0))
    assert rows(session) == []
    bench.clock.move(1800)
    assert len(rows(session)) == 2


def test_another_capture_period_empties_the_profile(make_bench, start_s):
    bench = make_bench()
    session = bench.session(FLAT)
    period = Attribute(7, obis.LOAD_PROFILE, 4)
    with pytest.raises(RegisterUnavailable):
        session.set(period, axdr.uint32(7))
    session.set(period, axdr.uint32(300))
    assert rows(session) == []
    bench.clock.move(1200)
    assert session.capture_objects(obis.LOAD_PROFILE)[1] == 300
    shown = rows(session)
    assert len(shown) == 4
    registers = bench.site.building
    for k, row in enumerate(shown, 1):
        assert row[2] * 10 == registers.energy_wh(FLAT, start_s + 300 * k)[0] // 10 * 10


def test_nobody_can_disconnect_a_flat(make_bench):
    session = make_bench().session(FLAT)
    with pytest.raises(AccessDenied):
        session.action(Attribute(70, obis.DISCONNECT_CONTROL, 1), axdr.int8(0))
    assert session.get(Attribute(70, obis.DISCONNECT_CONTROL, 2)).value is True


def test_a_cover_that_was_opened_for_a_theft_is_in_the_log(make_bench, start_s):
    theft = Theft(kind="bypass", meter=FLAT, onset="+1h", cover_event=True)
    bench = make_bench(Simulation(seed=5, history_days=2, installed="-10d", theft=[theft]))
    assert bench.bus.read_events(FLAT, start_s - 86_400) == []
    bench.clock.move(5000)
    events = bench.bus.read_events(FLAT, start_s - 86_400)
    assert [(e.code, e.meter_time_s - start_s) for e in events] == [
        (Code.METER_COVER_REMOVED, 3300),
        (Code.METER_COVER_CLOSED, 4200),
    ]


def test_security_setup_and_counter_are_there_with_ciphering(make_bench, secured):
    bench = make_bench(meter=secured("hls-gmac"))
    session = bench.session(FLAT)
    before = session.get(Attribute(1, obis.INVOCATION_COUNTER, 2)).value
    after = session.get(Attribute(1, obis.INVOCATION_COUNTER, 2)).value
    assert after == before + 1
    assert session.get(Attribute(64, ObisCode(0, 0, 43, 0, 0), 5)).value[:3] == b"CHM"
    assert public_session(bench).get(Attribute(1, obis.INVOCATION_COUNTER, 2)).value == after + 1


def test_a_replayed_association_is_refused(make_bench, secured):
    """The meter's memory of counters outlives the association."""
    bench = make_bench(meter=secured("hls-gmac"))
    spec = bench.meters[1]
    transport = bench.plug(bench.spec)
    for expected in (True, False):
        session = Session(spec, open_channel(transport, bench.spec, spec), MemoryCounters())  # counters from 1 again
        if expected:
            session.connect()
            session.release()
        else:
            with pytest.raises((AccessDenied, RemoteProtocolError)):
                session.connect()


@pytest.mark.parametrize("form", ["global", "dedicated", "general"])
def test_every_form_of_ciphering(form, make_bench, secured):
    bench = make_bench(meter=secured("hls-gmac") | {"ciphering": form})
    session = bench.session(FLAT)
    assert session.get(Attribute(3, obis.ENERGY_IMPORT, 2)).tag == Tag.UINT32
    assert len(rows(session)) >= 768


@pytest.mark.parametrize(("octets", "address", "logical"), [(1, 0x11, 1), (2, 0x7E, 1), (4, 1000, 1), (0, 300, 2)])
def test_addresses_of_every_length(octets, address, logical, make_bench):
    bench = make_bench(meter={"address": address, "address_octets": octets, "logical_address": logical})
    assert bench.session(FLAT).get(CLOCK)


def test_resolutions(make_bench):
    bench = make_bench()
    meter = bench.site.meters[FLAT]
    for step, scaler in ((1.0, 0), (10.0, 1), (100.0, 2), (0.1, -1), (25.0, 0)):
        twin = SimulatedMeter(
            Identity(FLAT, 2, 17, resolution_wh=step),
            bench.site.building,
            bench.clock.now,
            meter.faults,
            meter.clock,
            meter.log,
            meter.installed_s,
        )
        now = bench.clock.now()
        assert twin.energy_scaler(now) == scaler
        shown = twin.energy_data(twin.energy_wh(now)[0], now).value * 10.0**scaler
        true = bench.site.building.energy_wh(FLAT, now)[0]
        assert true - step - 1e-6 <= shown <= true + 1e-6


def test_a_window_of_several_frames_saves_turns(make_bench):
    """A day of load profile in frames of 128 octets: with a window of 7 they come in a row."""
    exchanges, rows = {}, {}
    for window in (1, 7):
        bench = make_bench(client={"window": window, "max_frame": 128})
        bench.bus.identify(FLAT)
        before = bench.bus.statistics()[FLAT].traffic.exchanges
        now_s = bench.clock.now()
        rows[window] = [(r.sampled_s, r.value) for r in bench.bus.read_profile(FLAT, now_s - 86_400, now_s)]
        exchanges[window] = bench.bus.statistics()[FLAT].traffic.exchanges - before
    assert rows[1] == rows[7]
    assert exchanges[7] < 0.6 * exchanges[1]
