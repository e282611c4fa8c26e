"""The bus over meters that are plain functions: order of work, back-off, doubts about values, the line going away."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from firmware_io import acse, apdu, axdr, obis, profile
from firmware_io.acse import AssociationResponse, Conformance, InitiateResponse
from firmware_io.apdu import Attribute, DataAccessResult
from firmware_io.bus import MAIN_EVERY, Bus
from firmware_io.counters import MemoryCounters
from firmware_io.errors import AccessDenied, RegisterUnavailable, RemoteProtocolError, ResponseTimeout, TransportError
from firmware_io.hdlc import Address, Framer
from firmware_io.link import Parameters, Received, ServerLink
from firmware_io.meter_time import MeterTime
from firmware_io.reading import Quality, Unit
from firmware_io.security import Sealed
from firmware_io.spec import BusSpec, MeterSpec

ALL = Conformance.GET | Conformance.SET | Conformance.MULTIPLE_REFERENCES | Conformance.SELECTIVE_ACCESS
OCTET_S = 10 / 9600
TURNAROUND_S = 0.02
LINE = BusSpec("line", "/dev/null", timeout_s=1.0)
Answer = axdr.Data | DataAccessResult | Callable[[apdu.Selection | None], axdr.Data | DataAccessResult]


@dataclass
class Meter:
    """A meter as a table of attributes: what it says is what the test puts there."""

    serial: str = "1"
    energy_wh: float = 1000.0
    scaler: int = 1
    silent: bool = False
    refuses: int = 0  # diagnostic of the AARE
    spoil: Callable[[bytes], bytes] = bytes
    energy_type: Callable[[int], axdr.Data] = field(default=axdr.uint32)
    clock_offset_s: float = 0.0
    inactivity_s: float = 120.0
    others: dict[tuple[int, obis.ObisCode, int], Answer] = field(default_factory=dict)
    asked: list[apdu.Apdu] = field(default_factory=list)
    associations: int = 0
    heard_s: float = 0.0

    def attribute(
        self, attribute: Attribute, now_s: float, selection: apdu.Selection | None = None
    ) -> axdr.Data | DataAccessResult:
        if tuple(attribute) in self.others:
            answer = self.others[tuple(attribute)]
            return answer(selection) if callable(answer) else answer
        match (attribute.class_id, attribute.name, attribute.number):
            case (3, obis.ENERGY_IMPORT, 2):
                return self.energy_type(round(self.energy_wh / 10**self.scaler))
            case (3, obis.ENERGY_IMPORT, 3):
                return axdr.structure(axdr.int8(self.scaler), axdr.enumeration(Unit.WATT_HOUR))
            case (3, obis.POWER_IMPORT, 2):
                return axdr.uint32(500)
            case (3, obis.POWER_IMPORT, 3):
                return axdr.structure(axdr.int8(0), axdr.enumeration(Unit.WATT))
            case (1, obis.SERIAL_NUMBER, 2):
                return axdr.octet_string(self.serial.encode())
            case (8, obis.CLOCK, 2):
                return axdr.octet_string(MeterTime(now_s + self.clock_offset_s, 0, 0).encode())
        return DataAccessResult.OBJECT_UNDEFINED

    def answer(self, pdu: bytes, now_s: float) -> bytes:
        if pdu[0] == 0x60:
            self.associations += 1
            information = InitiateResponse(ALL, 512).encode()
            return AssociationResponse(int(bool(self.refuses)), self.refuses, information).encode()
        if pdu[0] == 0x62:
            return acse.ReleaseResponse().encode()
        request = apdu.decode(pdu)
        self.asked.append(request)
        if isinstance(request, apdu.GetListRequest):
            results = tuple(self.attribute(a, now_s) for a, _ in request.items)
            return self.spoil(apdu.GetListResponse(request.invoke, results).encode())
        assert isinstance(request, apdu.GetRequest)
        value = self.attribute(request.attribute, now_s, request.selection)
        return self.spoil(apdu.GetResponse(request.invoke, value).encode())


class Line:
    """A transport to several meters in the clock's time; one answers at a time."""

    def __init__(self, meters: dict[int, Meter], clock) -> None:
        self.meters = meters
        self.clock = clock
        self.broken = False
        self.opened = 0
        self.octets = 0
        self._framer = Framer()
        self._held: list[tuple[float, bytes]] = []
        limits = Parameters(512, 512, 1, 1)
        servers = [Address.server(1, a) for a in meters]
        self._links = {s.encode(): ServerLink(s, Address.client(16), limits) for s in servers}
        self._by_address = {Address.server(1, a).encode(): m for a, m in meters.items()}

    def open(self, spec: BusSpec) -> Line:
        if self.broken:
            raise TransportError("cannot open serial port")
        self.opened += 1
        for link in self._links.values():
            link.drop()
        return self

    def monotonic(self) -> float:
        return self.clock.time_s

    def close(self) -> None: ...

    def write(self, octets: bytes) -> None:
        if self.broken:
            raise TransportError("write failed")
        end_s = self.clock.time_s + len(octets) * OCTET_S
        self.octets += len(octets)
        for frame in self._framer.receive(octets):
            meter, link = self._by_address.get(frame.destination), self._links.get(frame.destination)
            if meter is None or link is None or meter.silent:
                continue
            if self.clock.time_s - meter.heard_s > meter.inactivity_s:
                link.drop()
            meter.heard_s = self.clock.time_s
            for event in link.handle(frame):
                if isinstance(event, Received):
                    link.send(meter.answer(event.pdu, self.clock.time_s))
            reply = link.take()
            self.octets += len(reply)
            self._held.append((end_s + TURNAROUND_S + len(reply) * OCTET_S, reply))

    def read(self, max_octets: int, deadline: float) -> bytes:
        if self.broken:
            raise TransportError("read failed")
        if self._held and self._held[0][0] <= deadline:
            at_s, octets = self._held.pop(0)
            self.clock.time_s = max(self.clock.time_s, at_s)
            return octets
        self.clock.time_s = max(self.clock.time_s, deadline)
        return b""


class Site:
    def __init__(self, clock, meters: list[Meter], **changes: object) -> None:
        self.clock = clock
        self.meters = meters
        self.line = Line({16 + n: meter for n, meter in enumerate(meters)}, clock)
        specs = [replace(MeterSpec(f"m{n}", 16 + n, main=n == 0), **changes) for n in range(len(meters))]
        self.bus = Bus(LINE, specs, self.line.open, clock, MemoryCounters())

    def cycle(self) -> dict[str, list]:
        polls: dict[str, list] = {}
        for poll in self.bus.poll_cycle():
            polls.setdefault(poll.meter, []).append(poll)
        return polls

    def energy(self, meter: str = "m1") -> tuple[float, Quality] | None:
        readings = [r for r in self.bus.poll(meter) if r.obis == obis.ENERGY_IMPORT]
        return (readings[0].value, readings[0].quality) if readings else None


@pytest.fixture
def make_site(clock):
    return lambda *meters, **changes: Site(clock, list(meters), **changes)


class TestCycle:
    def test_one_list_request_for_each_meter_over_an_open_association(self, make_site) -> None:
        site = make_site(Meter(), Meter(), Meter())
        site.cycle()
        for meter in site.meters:
            meter.asked.clear()
        polls = site.cycle()
        assert [len(m.asked) for m in site.meters] == [2, 1, 1]
        assert [m.associations for m in site.meters] == [1, 1, 1]
        assert all(isinstance(r, apdu.GetListRequest) for m in site.meters for r in m.asked)
        assert {r.obis: (r.value, r.unit) for r in polls["m1"][0].readings} == {
            obis.ENERGY_IMPORT: (1000.0, Unit.WATT_HOUR),
            obis.POWER_IMPORT: (500.0, Unit.WATT),
        }

    def test_the_main_meters_samples_bracket_the_others(self, make_site) -> None:
        site = make_site(*[Meter() for _ in range(2 * MAIN_EVERY + 3)])
        site.cycle()
        order = [poll.meter for poll in site.bus.poll_cycle()]
        assert order[0] == order[-1] == "m0"
        mains = [i for i, meter in enumerate(order) if meter == "m0"]
        assert max(b - a for a, b in itertools.pairwise(mains)) == MAIN_EVERY + 1
        assert sorted(set(order)) == sorted(f"m{n}" for n in range(len(site.meters)))

    def test_a_sample_is_stamped_between_question_and_answer(self, make_site, clock) -> None:
        site = make_site(Meter())
        site.bus.poll("m0")
        before_s = clock.now()
        reading = site.bus.poll("m0")[0]
        assert before_s < reading.sampled_s < clock.now()
        assert reading.uncertainty_s == pytest.approx((clock.now() - before_s) / 2)

    def test_idle_associations_are_kept_alive(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter())
        site.cycle()
        for _ in range(20):
            clock.time_s += 30
            site.bus.keep_alive()
        site.cycle()
        assert [m.associations for m in site.meters] == [1, 1]

    def test_a_dropped_association_is_opened_again_in_the_same_poll(self, make_site, clock) -> None:
        site = make_site(Meter(inactivity_s=5), Meter())
        site.cycle()
        clock.time_s += 30
        polls = site.cycle()
        assert all(poll.error is None for poll in polls["m0"])
        assert site.meters[0].associations >= 2

    def test_a_meter_for_one_client_only_is_released_after_each_poll(self, make_site) -> None:
        site = make_site(Meter(), single_association=True)
        for _ in range(3):
            assert site.energy("m0") == (1000.0, Quality.GOOD)
        assert site.meters[0].associations == 3
        assert site.bus.session("m0").open

    def test_close_releases(self, make_site) -> None:
        site = make_site(Meter())
        site.cycle()
        session = site.bus.session("m0")
        site.bus.close()
        assert not session.open


class TestBackOff:
    def test_a_silent_meter_costs_less_than_a_hundredth(self, make_site, clock) -> None:
        site = make_site(*[Meter() for _ in range(31)], Meter(silent=True))
        for _ in range(3):
            site.cycle()
        probes, probe_s = 0, 0.0
        started_s = before_s = clock.time_s
        while probes < 5:
            for poll in site.bus.poll_cycle():
                if poll.meter == "m31":
                    probes, probe_s = probes + 1, probe_s + clock.time_s - before_s
                before_s = clock.time_s
        assert probe_s / (clock.time_s - started_s) < 0.01

    def test_ten_silent_meters_cost_no_more(self, make_site, clock) -> None:
        site = make_site(*[Meter() for _ in range(10)], *[Meter(silent=True) for _ in range(10)])
        for _ in range(3):
            site.cycle()
        probe_s, started_s = 0.0, clock.time_s
        before_s = started_s
        while clock.time_s - started_s < 8000:
            for poll in site.bus.poll_cycle():
                probe_s += (clock.time_s - before_s) * (poll.error is not None)
                before_s = clock.time_s
            clock.time_s += 5
            before_s = clock.time_s
        assert probe_s / (clock.time_s - started_s) < 0.01

    def test_one_that_comes_back_brings_the_others_back(self, make_site, clock) -> None:
        site = make_site(Meter(), *[Meter(silent=True) for _ in range(5)])
        for _ in range(3):
            site.cycle()
        assert set(site.cycle()) == {"m0"}
        for meter in site.meters:
            meter.silent = False
        site.bus.poll("m3")  # somebody asks for it, or its probe is due
        polls = site.cycle()
        assert sorted(polls) == [f"m{n}" for n in range(6)]
        assert all(poll.error is None for each in polls.values() for poll in each)

    def test_when_all_are_silent_it_may_be_the_line_and_all_are_tried_in_each_cycle(self, make_site) -> None:
        site = make_site(*[Meter(silent=True) for _ in range(6)])
        for _ in range(3):
            site.cycle()
        assert len(site.cycle()) == 6
        for meter in site.meters:
            meter.silent = False
        site.cycle()
        assert all(poll.error is None for each in site.cycle().values() for poll in each)

    def test_one_lost_answer_is_no_silence(self, make_site) -> None:
        site = make_site(Meter(), Meter())
        site.cycle()
        site.meters[1].silent = True
        assert isinstance(site.cycle()["m1"][0].error, ResponseTimeout)
        site.meters[1].silent = False
        assert site.cycle()["m1"][0].error is None
        assert site.bus.statistics()["m1"].timeouts == 1

    def test_a_refused_password_is_tried_once_and_never_again_until_it_is_forgiven(self, make_site) -> None:
        site = make_site(Meter(), Meter(refuses=13), security="lls", password=b"x")
        assert isinstance(site.cycle()["m1"][0].error, AccessDenied)
        for _ in range(5):
            assert "m1" not in site.cycle()
            with pytest.raises(AccessDenied, match="left alone"):
                site.bus.poll("m1")
        assert site.meters[1].associations == 1
        site.meters[1].refuses = 0
        site.bus.forgive("m1")
        assert site.cycle()["m1"][0].error is None

    def test_a_line_that_is_gone_is_opened_again_and_not_at_every_poll(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter())
        site.cycle()
        site.line.broken = True
        tries = 0
        for _ in range(100):
            tries += sum(isinstance(p.error, TransportError) for each in site.cycle().values() for p in each)
            clock.time_s += 1
        assert site.line.opened == 1
        assert tries > 0
        site.line.broken = False
        clock.time_s += 60
        assert all(poll.error is None for each in site.cycle().values() for poll in each)
        assert site.line.opened == 2


class TestDoubt:
    """A cumulative value that cannot be is asked for again before anybody hears of it."""

    def test_a_wrong_octet_is_never_seen(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter())
        assert site.energy() == (1000.0, Quality.GOOD)
        meter = site.meters[1]
        wrong = [axdr.uint32(1 << 28), None]
        meter.energy_type = lambda value: wrong.pop(0) or axdr.uint32(value) if wrong else axdr.uint32(value)
        clock.time_s += 60
        meter.energy_wh += 10
        assert site.energy() == (1010.0, Quality.GOOD)

    def test_a_value_that_stays_odd_is_what_the_meter_shows(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter(energy_wh=500_000))
        site.energy()
        clock.time_s += 60
        site.meters[1].energy_wh = 400_000
        assert site.energy() == (400_000.0, Quality.SUSPECT)
        clock.time_s += 60
        site.meters[1].energy_wh += 10
        assert site.energy() == (400_010.0, Quality.GOOD)

    def test_two_different_odd_values_are_no_value(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter(energy_wh=500_000))
        site.energy()
        odd = iter((axdr.uint32(7), axdr.uint32(1 << 30)))
        site.meters[1].energy_type = lambda value: next(odd)
        clock.time_s += 60
        assert site.energy() is None

    def test_a_replaced_meter_starts_anew(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter(energy_wh=500_000))
        site.energy()
        site.meters[1].serial, site.meters[1].energy_wh = "2", 0
        clock.time_s += 60
        assert site.energy() == (0.0, Quality.GOOD)
        assert site.bus.identity("m1").serial == "2"

    def test_another_scaler_is_noticed_by_the_jump_it_makes(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter(energy_wh=5_000_000))
        site.energy()
        site.meters[1].scaler = 0
        clock.time_s += 60
        assert site.energy() == (5_000_000.0, Quality.GOOD)

    def test_another_type_of_the_same_value_is_taken_after_a_second_look(self, make_site, clock) -> None:
        site = make_site(Meter(), Meter())
        site.energy()
        site.meters[1].energy_type = axdr.uint64
        clock.time_s += 60
        assert site.energy() == (1000.0, Quality.SUSPECT)
        clock.time_s += 60
        assert site.energy() == (1000.0, Quality.GOOD)

    def test_a_register_that_goes_away_is_missing_and_not_zero(self, make_site) -> None:
        site = make_site(Meter(), Meter())
        site.energy()
        site.meters[1].energy_type = lambda value: axdr.NULL
        assert site.energy() is None


def test_identity_tells_the_clock(make_site) -> None:
    site = make_site(Meter(), Meter(clock_offset_s=-300.0, serial="CHM 7"))
    identity = site.bus.identify("m1")
    assert identity.serial == "CHM 7"
    assert identity.clock_offset_s == pytest.approx(-300, abs=1.0)


def test_no_value_is_wrong_in_ten_thousand_noisy_frames(make_site, clock, make_dirt) -> None:
    """Bit errors at 1e-3 in both directions: values are right or missing, and all are back when the noise stops."""
    site = make_site(*[Meter(energy_wh=1e6 * (n + 1)) for n in range(6)])
    site.cycle()
    noise = make_dirt(11).noise(1e-3)
    write, read = site.line.write, site.line.read
    site.line.write = lambda octets: write(noise(octets)[0][1])
    site.line.read = lambda count, deadline: noise(read(count, deadline))[0][1]
    shown = {f"m{n}": {meter.energy_wh} for n, meter in enumerate(site.meters)}
    frames = right = 0
    while frames < 10_000:
        for poll in site.bus.poll_cycle():
            for reading in poll.readings:
                if reading.obis == obis.ENERGY_IMPORT:
                    assert reading.value in shown[poll.meter]
                    right += 1
                else:
                    assert (reading.obis, reading.value) == (obis.POWER_IMPORT, 500.0)
        for n, meter in enumerate(site.meters):
            meter.energy_wh += 10 * (n + 1)
            shown[f"m{n}"].add(meter.energy_wh)
        clock.time_s += 60
        frames = 2 * sum(s.traffic.exchanges for s in site.bus.statistics().values())
    assert right > 1000
    assert sum(s.traffic.corrupt_frames for s in site.bus.statistics().values()) > 500
    site.line.write, site.line.read = write, read
    for _ in range(3):
        clock.time_s += 600
        polls = site.cycle()
    assert sorted(polls) == [f"m{n}" for n in range(6)]
    assert all(poll.error is None for each in polls.values() for poll in each)


def test_a_protocol_error_names_meter_and_what_was_expected(make_site) -> None:
    site = make_site(Meter(), Meter())
    site.cycle()
    site.meters[1].spoil = lambda octets: octets[:2] + bytes((octets[2] ^ 5,)) + octets[3:]
    with pytest.raises(RemoteProtocolError, match=r"m1: invoke-id \d+: expected \d+"):
        site.bus.poll("m1")


class TestRegisters:
    def test_a_register_of_another_class_is_found(self, make_site) -> None:
        voltage = obis.VOLTAGE[0]
        meter = Meter()
        for class_id, scaler in ((3, 3), (4, 3)):
            meter.others[class_id, voltage, scaler] = DataAccessResult.OBJECT_CLASS_INCONSISTENT
        meter.others[5, voltage, 4] = axdr.structure(axdr.int8(-1), axdr.enumeration(Unit.VOLT))
        meter.others[5, voltage, 2] = axdr.uint16(2304)
        site = make_site(meter)
        for _ in range(2):
            assert (230.4, Unit.VOLT) in [(r.value, r.unit) for r in site.bus.poll("m0") if r.obis == voltage]
            site.bus.identify("m0")

    def test_a_register_without_a_scaler_is_not_guessed(self, make_site) -> None:
        meter = Meter()
        meter.others[3, obis.ENERGY_IMPORT, 3] = axdr.NULL
        site = make_site(meter)
        assert [r.obis for r in site.bus.poll("m0")] == [obis.POWER_IMPORT]

    def test_a_passing_failure_costs_no_register(self, make_site, clock) -> None:
        meter = Meter()
        site = make_site(meter)
        site.bus.poll("m0")
        meter.others[3, obis.ENERGY_IMPORT, 3] = DataAccessResult.TEMPORARY_FAILURE
        clock.time_s += 4000
        assert obis.ENERGY_IMPORT in [r.obis for r in site.bus.poll("m0")]
        meter.others[3, obis.ENERGY_IMPORT, 3] = DataAccessResult.OBJECT_UNDEFINED
        clock.time_s += 4000
        assert obis.ENERGY_IMPORT not in [r.obis for r in site.bus.poll("m0")]
        del meter.others[3, obis.ENERGY_IMPORT, 3]
        clock.time_s += 4000
        assert obis.ENERGY_IMPORT in [r.obis for r in site.bus.poll("m0")]

    @pytest.mark.parametrize(
        ("error", "value"),
        [
            (axdr.uint32(0x80), 128.0),
            (axdr.octet_string(b"\x01\x00"), 256.0),
            (axdr.Data(axdr.Tag.BIT_STRING, "101"), 5.0),
            (axdr.visible_string("fine"), None),
        ],
    )
    def test_the_error_register_comes_as_meters_like(self, make_site, error: axdr.Data, value: float | None) -> None:
        meter = Meter()
        meter.others[1, obis.ERROR_REGISTER, 2] = error
        site = make_site(meter)
        assert [r.value for r in site.bus.poll("m0") if r.obis == obis.ERROR_REGISTER] == (
            [] if value is None else [value]
        )


class TestStored:
    """Load profile and event logs, for meters that select by range, and for those that do not."""

    PERIOD_S = 900
    EVENT = obis.ObisCode(0, 0, 96, 11, 0)

    def meter(self, clock, *, by_range: bool, hours: int = 30) -> Meter:
        end_s = clock.now() // self.PERIOD_S * self.PERIOD_S
        stamps = [end_s - self.PERIOD_S * n for n in range(hours * 4, -1, -1)]

        def rows(selection: apdu.Selection | None) -> axdr.Data | DataAccessResult:
            assert selection is not None
            parameters = selection.parameters.value
            if selection.selector == 1:
                if not by_range:
                    return DataAccessResult.TYPE_UNMATCHED
                first, last = (MeterTime.decode(bound.value).local_s for bound in parameters[1:3])
                chosen = [t for t in stamps if first <= t <= last]
            else:
                chosen = stamps[parameters[0].value - 1 : parameters[1].value]
            times = [
                axdr.octet_string(MeterTime(t, 0, 0).encode()) if n == 0 else axdr.NULL for n, t in enumerate(chosen)
            ]
            counts = [axdr.uint32(int(t) % 10**6) for t in chosen]
            return axdr.array(axdr.structure(t, count, axdr.uint8(7)) for t, count in zip(times, counts, strict=True))

        meter = Meter()
        captured = axdr.array(
            profile.Column(Attribute(*a)).encode()
            for a in ((8, obis.CLOCK, 2), (3, obis.ENERGY_IMPORT, 2), (1, self.EVENT, 2))
        )
        for name in (obis.LOAD_PROFILE, obis.EVENT_LOG_STANDARD):
            meter.others |= {
                (7, name, 2): rows,
                (7, name, 3): captured,
                (7, name, 4): axdr.uint32(self.PERIOD_S),
                (7, name, 7): axdr.uint32(len(stamps)),
            }
        return meter

    @pytest.mark.parametrize("by_range", [True, False])
    def test_the_rows_asked_for_and_no_others(self, make_site, clock, by_range: bool) -> None:
        site = make_site(self.meter(clock, by_range=by_range))
        first_s = clock.now() - 6 * 3600
        readings = site.bus.read_profile("m0", first_s, clock.now())
        assert len(readings) == 24
        assert all(r.sampled_s % self.PERIOD_S == 0 and first_s <= r.sampled_s <= clock.now() for r in readings)
        assert all(r.value == 10 * (int(r.sampled_s) % 10**6) for r in readings)
        assert {r.quality for r in readings} == {Quality.FROM_PROFILE}

    @pytest.mark.parametrize("by_range", [True, False])
    def test_long_spans_go_in_several_requests(self, make_site, clock, by_range: bool) -> None:
        site = make_site(self.meter(clock, by_range=by_range, hours=24 * 7))
        readings = site.bus.read_profile("m0", clock.now() - 6 * 86400, clock.now())
        assert len(readings) == 6 * 96
        assert [r.sampled_s for r in readings] == sorted({r.sampled_s for r in readings})
        assert {r.quality for r in readings} == {Quality.FROM_PROFILE}

    def test_an_hour_that_comes_twice_is_doubtful_and_not_lost(self, make_site, clock) -> None:
        meter = self.meter(clock, by_range=True)
        stamps = [clock.now() // 3600 * 3600 - 3600 * back for back in (4, 3, 3, 2)]  # the clock was put back
        meter.others[7, obis.LOAD_PROFILE, 2] = axdr.array(
            axdr.structure(axdr.octet_string(MeterTime(t, None, 0xFF).encode()), axdr.uint32(n), axdr.uint8(7))
            for n, t in enumerate(stamps)
        )
        readings = make_site(meter).bus.read_profile("m0", clock.now() - 36000, clock.now())
        assert [(r.value, bool(r.quality & Quality.CLOCK_INVALID)) for r in readings] == [
            (0.0, False),
            (10.0, True),
            (20.0, True),
            (30.0, False),
        ]

    def test_a_clock_that_is_off_is_said(self, make_site, clock) -> None:
        meter = self.meter(clock, by_range=True)
        meter.clock_offset_s = 400.0
        readings = make_site(meter).bus.read_profile("m0", clock.now() - 7200, clock.now())
        assert readings
        assert all(r.quality == Quality.FROM_PROFILE | Quality.CLOCK_OFF for r in readings)

    def test_events_that_are_newer_and_logs_that_are_not_there(self, make_site, clock) -> None:
        meter = self.meter(clock, by_range=True)
        site = make_site(meter)
        events = site.bus.read_events("m0", clock.now() - 3600)
        assert [event.code for event in events] == [7] * 4
        assert {event.log for event in events} == {obis.EVENT_LOG_STANDARD}
        meter.asked.clear()
        assert site.bus.read_events("m0", clock.now()) == []
        assert len(meter.asked) == 1  # only the log that is there, and its layout is known

    def test_a_meter_without_a_profile_is_a_meter_that_answers(self, make_site, clock) -> None:
        site = make_site(Meter())
        for _ in range(3):
            with pytest.raises(RegisterUnavailable, match="object undefined"):
                site.bus.read_profile("m0", clock.now() - 3600, clock.now())
        assert not site.bus.statistics()["m0"].silent


def test_the_meters_counter_is_asked_for_when_ours_is_refused(make_site) -> None:
    """A store that was lost: the public client reads the counter that the meter expects, once."""
    key = bytes(range(16))
    site = make_site(
        Meter(), security="hls-gmac", authentication_key=key, encryption_key=key, system_title=b"CHK\0\0\0\0\1"
    )
    meter, tried = site.meters[0], []
    meter.others[1, obis.INVOCATION_COUNTER, 2] = axdr.uint32(5000)
    plain = meter.answer

    def answer(pdu: bytes, now_s: float) -> bytes:
        if pdu[0] == 0x60 and acse.AssociationRequest.decode(pdu).mechanism is acse.Mechanism.HLS_GMAC:
            tried.append(Sealed.parse(acse.AssociationRequest.decode(pdu).user_information).counter)
            return apdu.ExceptionResponse(1, 6, 5001).encode()
        return plain(pdu, now_s)

    meter.answer = answer
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="invocation counter error"):
            site.bus.poll("m0")
    assert tried[0] == 1
    assert tried[1:] == [5001, 5002]  # and no third question to the public client
