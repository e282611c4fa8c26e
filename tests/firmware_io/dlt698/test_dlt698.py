"""DL/T 698.45: frames beside the independent package `dlt698`, our driver against its server, and dirty lines."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Framer, Timing
from firmware_io.dlt698 import apdu
from firmware_io.dlt698 import frame as wire
from firmware_io.dlt698.apdu import Denied
from firmware_io.dlt698.driver import Dlt698Driver, Dlt698Spec
from firmware_io.dlt698.frame import Frame
from firmware_io.dlt698.scan import search
from firmware_io.driver import Line
from firmware_io.errors import AccessDenied, MeterError, RemoteProtocolError, ResponseTimeout
from firmware_io.reading import Quality
from firmware_io.simulator.building.scenario import Fault
from firmware_io.simulator.dlt698.station import Dlt698Station
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.shared import SharedLine
from firmware_io.transport import Tcp

OCTET_S = 11 / 9600
DAY_S = 86_400.0
TIMING = Timing(1.0, 0.1, OCTET_S)


class Bench:
    """Meters on a line at 9600 Bd 8E1."""

    def __init__(self, lab, *faults: Fault, meters: int = 1, timezone="UTC", password=None, **station) -> None:
        self.clock = LineClock(lab.START_S + 40_000)
        self.meters = []
        for n in range(meters):
            building = lab.SteadyBuilding(power_w=400.0 + 137 * n, first_wh=1e6 * (n + 1), three_phase=True)
            self.meters.append(lab.simulated_meter(self.clock, n + 1, faults=faults, building=building))
        specs = [Dlt698Spec(f"m{n}", f"20260000010{n}", timezone=timezone, password=password) for n in range(meters)]
        self.stations = [
            Dlt698Station(m, s.octets, timezone=timezone, **station) for m, s in zip(self.meters, specs, strict=True)
        ]
        self.shared = SharedLine(self.stations, octet_s=OCTET_S, turnaround_s=0.03, now=self.clock.now, parity=True)
        self.line = Line(NullModem(self.shared, self.clock.move))
        self.drivers = [Dlt698Driver(spec, TIMING, self.clock) for spec in specs]


@pytest.fixture
def bench(lab):
    return lambda *faults, **changes: Bench(lab, *faults, **changes)


def test_the_registers_of_a_meter(bench) -> None:
    b = bench()
    at = {r.obis: r for r in b.drivers[0].poll(b.line)}
    assert at[obis.ENERGY_IMPORT].value == b.meters[0].energy_wh(b.clock.now())[0]
    assert at[obis.POWER_IMPORT].value == 400.0
    assert [at[v].value for v in obis.VOLTAGE] == [230.1, 229.3, 231.7]
    assert at[obis.POWER_FACTOR].value == 0.95
    identity = b.drivers[0].identity
    assert identity.serial == "000000000001"
    assert abs(identity.clock_offset_s) < 2
    assert b.drivers[0].traffic.exchanges == 3  # two to identify, one for all registers


def power(b, n: int = 0) -> float:
    return next(r.value for r in b.drivers[n].poll(b.line) if r.obis == obis.POWER_IMPORT)


def test_a_meter_that_wants_a_client_is_asked_again_over_connect(bench) -> None:
    b = bench(login="public")
    assert power(b) == 400.0
    exchanges = b.drivers[0].traffic.exchanges
    assert power(b) == 400.0
    assert b.drivers[0].traffic.exchanges == exchanges + 1
    b.clock.move(3 * 3600)  # the association has run out: opened again, once
    assert power(b) == 400.0
    assert b.drivers[0].traffic.exchanges == exchanges + 4


def test_a_password_opens_a_meter_and_a_wrong_one_is_not_tried_again(bench) -> None:
    assert power(bench(login="password", password=b"00000000")) == 400.0
    b = bench(login="password", password=b"12345678")
    with pytest.raises(AccessDenied, match="wrong password"):
        b.drivers[0].poll(b.line)
    assert b.drivers[0].traffic.exchanges == 1
    assert "12345678" not in repr(b.drivers[0].spec)
    without = bench(login="password")
    with pytest.raises(AccessDenied, match="check its password"):
        without.drivers[0].poll(without.line)


def test_another_opening_of_the_line_opens_the_association_anew_and_the_end_releases_it(bench) -> None:
    b = bench(login="password", password=b"00000000")
    power(b)
    b.line.close(orderly=True)
    b.line = Line(NullModem(b.shared, b.clock.move))
    assert b.stations[0]._closed
    assert power(b) == 400.0


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Shanghai"])
def test_freeze_records_by_the_minute(bench, lab, timezone: str) -> None:
    b = bench(timezone=timezone)
    first_s = lab.START_S
    readings = b.drivers[0].read_profile(b.line, first_s, first_s + 36_000)
    imported = [r for r in readings if r.obis == obis.ENERGY_IMPORT]
    assert [r.sampled_s for r in imported] == [first_s + 900 * k for k in range(41)]
    for r in imported:
        assert r.value == b.meters[0].energy_wh(r.sampled_s)[0]
        assert r.quality == Quality.FROM_PROFILE
    assert len([r for r in readings if r.obis == obis.ENERGY_EXPORT]) == 41


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Shanghai"])
def test_a_meter_without_minute_freezes_gives_its_days(bench, lab, timezone: str) -> None:
    b = bench(timezone=timezone, minute_freezes=False)
    offset_s = 8 * 3600 if timezone == "Asia/Shanghai" else 0
    readings = b.drivers[0].read_profile(b.line, lab.START_S - 9.5 * DAY_S, lab.START_S)
    imported = [r for r in readings if r.obis == obis.ENERGY_IMPORT]
    assert [r.sampled_s for r in imported] == [lab.START_S - offset_s - DAY_S * k for k in range(9, -1, -1)]
    assert all(r.value == b.meters[0].energy_wh(r.sampled_s)[0] for r in imported)
    exchanges = b.drivers[0].traffic.exchanges
    b.drivers[0].read_profile(b.line, lab.START_S, lab.START_S + 10)
    assert b.drivers[0].traffic.exchanges == exchanges + 1  # what it has not is not asked for again


def test_a_meter_that_stores_nothing(bench, lab) -> None:
    b = bench(login="public")
    b.stations[0]._records = lambda request: request[:4] + b"\x00\x00\x04"
    assert b.drivers[0].read_profile(b.line, lab.START_S, lab.START_S + 3600) == []


def test_the_search_finds_all_meters_of_a_line(bench) -> None:
    b = bench(meters=3)
    assert search(b.line, TIMING, b.clock) == [f"20260000010{n}" for n in range(3)]
    alone = bench()
    assert search(alone.line, TIMING, alone.clock) == ["202600000100"]
    assert alone.drivers[0].traffic.exchanges == 0


def test_silence_costs_two_timeouts(bench) -> None:
    b = bench(Fault(kind="silence"))
    with pytest.raises(ResponseTimeout, match="m0: no answer to GET"):
        b.drivers[0].poll(b.line)


@pytest.mark.parametrize("fault", ["foreign_frame", "duplicate", "truncated", "extra", "bad_fcs"])
def test_no_value_is_wrong_whatever_the_modem_does(bench, fault: str) -> None:
    b = bench(Fault(kind=fault, probability=0.3))
    right = 0
    for _ in range(15):
        try:
            at = {r.obis: r.value for r in b.drivers[0].poll(b.line)}
        except MeterError:
            continue
        right += 1
        assert at[obis.POWER_IMPORT] == 400.0
        assert at[obis.ENERGY_IMPORT] <= b.meters[0].energy_wh(b.clock.now())[0]
    assert right >= 5


@pytest.mark.parametrize("octets", ["85", "8501", "850105001002000109", "8502050100100200", "85010500100200 02 00"])
def test_what_makes_no_sense_is_refused(octets: str) -> None:
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        apdu.results(bytes.fromhex(octets))


def test_a_refusal_is_no_value() -> None:
    told = apdu.results(bytes.fromhex("8501050010020000040000"))
    assert told == {0x00100200: Denied(4)}
    assert told[0x00100200].text == "no such object"


@pytest.mark.parametrize("at", range(26))
def test_one_wrong_octet_makes_no_frame(at: int) -> None:
    whole = bytearray(Frame(bytes(6), wire.RESPONSE, bytes.fromhex("85010500100200000400")).encode(0))
    whole[at % len(whole)] ^= 0x10
    framer: Framer[Frame] = Framer(wire.parse, 4000)
    assert framer.receive(bytes(whole)) + framer.idle() == []


def test_the_peer_writes_the_same_requests() -> None:
    native = pytest.importorskip("dlt698", reason="the peer dlt698 is not installed")._native
    one = native.GetRequest(attributes=[native.Oad(oi=0x0010, attribute=2, index=0)], list=False, piid=5)
    assert native.encode_apdu(one) == apdu.get(5, [0x00100200])
    names = [native.Oad(oi=oi, attribute=2, index=0) for oi in (0x0010, 0x2000)]
    assert native.encode_apdu(native.GetRequest(attributes=names, list=True, piid=6)) == apdu.get(
        6, [0x00100200, 0x20000200]
    )
    octets = bytes(range(50))
    assert native.crc16(octets) == wire.fcs16(octets)
    ours = Frame(bytes.fromhex("010203040506"), wire.REQUEST, apdu.get(5, [0x00100200])).encode(0)
    theirs = native.decode_frame(ours)
    assert bytes(theirs.payload) == apdu.get(5, [0x00100200])
    assert theirs.control == wire.REQUEST


def test_the_peer_writes_the_same_connect_and_records() -> None:
    native = pytest.importorskip("dlt698", reason="the peer dlt698 is not installed")._native
    theirs = native.encode_apdu(native.ConnectRequest(piid=5))
    ours = apdu.connect(5, None)
    assert len(ours) == len(theirs)
    assert (ours[:4], ours[28:35], ours[39:]) == (theirs[:4], theirs[28:35], theirs[39:])  # all but wishes of ours
    read = native.decode_apdu(apdu.connect(6, b"12345678"))
    assert type(read.mechanism).__name__ == "PasswordSecurity"
    assert apdu.connected(native.encode_apdu(native.ConnectResponse())) == ""
    with pytest.raises(RemoteProtocolError, match="CONNECT"):
        apdu.connected(native.encode_apdu(native.ConnectResponse())[:60])

    def oad(oi: int, attribute: int = 2, index: int = 0):
        return native.Oad(oi=oi, attribute=attribute, index=index)

    def day(number: int):
        return native.DateTimeS(value=[0x07, 0xEA, 3, number, 0, 0, 0])

    query = native.record_between(0x5004, day(1), day(3), [oad(0x2021), oad(0x0010)])
    theirs = native.encode_apdu(native.GetRecordRequest(piid=3, records=[query], list=False))
    first, last = (datetime(2026, 3, number, tzinfo=UTC) for number in (1, 3))
    assert theirs == apdu.get_record(3, 0x50040200, 0x20210200, first, last, (0x20210200, 0x00100200))
    row = "1c07ea0301000000 0102 0600000064 060000005a"
    said = apdu.rows(bytes.fromhex(f"8503005004020002002021020000001002000101 {row} 0000"))
    assert said == [[datetime(2026, 3, 1, tzinfo=UTC), [100, 90]]]


NO_RECORDS = (
    "8503",
    "85030050040200",
    "8503005004020001002021020001",
    "850300500402000101",
    "85030050040200010020210200010101",
)


@pytest.mark.parametrize("octets", NO_RECORDS)
def test_records_that_make_no_sense_are_refused(octets: str) -> None:
    with pytest.raises(RemoteProtocolError, match="records cannot be read"):
        apdu.rows(bytes.fromhex(octets))


class WallClock(LineClock):
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.mark.parametrize("profile", ["local_preset", "local_public"])
def test_the_peers_meter_is_read(profile: str) -> None:
    """In the pre-established association, and by CONNECT where its server wants one."""
    dlt698 = pytest.importorskip("dlt698", reason="the peer dlt698 is not installed")
    native = dlt698._native
    address, options = native.ServerAddress(), native.ServerOptions()
    address.bytes = Dlt698Spec("peer", "123456789012").octets
    protocol = options.protocol
    protocol.server = address
    options.protocol = protocol
    server = dlt698.Server(options=options)
    told = {
        (0x0010, 2): native.Data.array([native.Data.uint32(n) for n in (123456, 100000, 23456, 0, 0)]),
        (0x2000, 2): native.Data.array([native.Data.uint16(n) for n in (2301, 2293, 2317)]),
        (0x2001, 2): native.Data.array([native.Data.int32(n) for n in (1500, -200, 0)]),
        (0x2004, 2): native.Data.array([native.Data.int32(n) for n in (-12345, 0, 0, 0)]),
    }
    for (oi, attribute), value in told.items():
        server.set(native.Oad(oi=oi, attribute=attribute, index=0), value)
    server.start_tcp("127.0.0.1", 0, getattr(native.ConnectionProfile, profile))
    line = Line(Tcp("127.0.0.1", server.local_port))
    try:
        driver = Dlt698Driver(Dlt698Spec("peer", "123456789012"), Timing(5.0, 0.1, 0.0), WallClock(0.0))
        at = {reading.obis: reading.value for reading in driver.poll(line)}
        assert (driver._opened is line) == (profile == "local_public")
    finally:
        line.close(orderly=True)
        server.close()
    assert at[obis.ENERGY_IMPORT] == 1_234_560.0
    assert (at[obis.POWER_IMPORT], at[obis.POWER_EXPORT]) == (0.0, 1234.5)
    assert [at[v] for v in obis.VOLTAGE] == [230.1, 229.3, 231.7]
    assert [at[v] for v in obis.CURRENT] == [1.5, -0.2, 0.0]
