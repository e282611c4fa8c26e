"""DL/T 698.45: frames beside the independent package `dlt698`, our driver against its server, and dirty lines."""

from __future__ import annotations

import time

import pytest

from firmware_io import obis
from firmware_io.dlt698 import apdu
from firmware_io.dlt698 import frame as wire
from firmware_io.dlt698.apdu import Denied
from firmware_io.dlt698.driver import Dlt698Driver, Dlt698Spec
from firmware_io.dlt698.frame import Frame
from firmware_io.driver import Line
from firmware_io.errors import MeterError, RemoteProtocolError, ResponseTimeout
from firmware_io.exchange import Framer, Timing
from firmware_io.simulator.building.scenario import Fault
from firmware_io.simulator.dlt698.station import Dlt698Station
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.shared import SharedLine
from firmware_io.transport import Tcp

OCTET_S = 11 / 9600
TIMING = Timing(1.0, 0.1, OCTET_S)


class Bench:
    """Meters on a line at 9600 Bd 8E1."""

    def __init__(self, lab, *faults: Fault, meters: int = 1) -> None:
        self.clock = LineClock(lab.START_S + 40_000)
        self.meters = []
        for n in range(meters):
            building = lab.SteadyBuilding(power_w=400.0 + 137 * n, first_wh=1e6 * (n + 1), three_phase=True)
            self.meters.append(lab.simulated_meter(self.clock, n + 1, faults=faults, building=building))
        specs = [Dlt698Spec(f"m{n}", f"20260000010{n}") for n in range(meters)]
        stations = [Dlt698Station(m, s.octets) for m, s in zip(self.meters, specs, strict=True)]
        self.shared = SharedLine(stations, octet_s=OCTET_S, turnaround_s=0.03, now=self.clock.now, parity=True)
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


class WallClock(LineClock):
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def test_the_peers_meter_is_read() -> None:
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
    server.start_tcp("127.0.0.1", 0, native.ConnectionProfile.local_preset)
    line = Line(Tcp("127.0.0.1", server.local_port))
    try:
        driver = Dlt698Driver(Dlt698Spec("peer", "123456789012"), Timing(5.0, 0.1, 0.0), WallClock(0.0))
        at = {reading.obis: reading.value for reading in driver.poll(line)}
    finally:
        line.close(orderly=True)
        server.close()
    assert at[obis.ENERGY_IMPORT] == 1_234_560.0
    assert (at[obis.POWER_IMPORT], at[obis.POWER_EXPORT]) == (0.0, 1234.5)
    assert [at[v] for v in obis.VOLTAGE] == [230.1, 229.3, 231.7]
    assert [at[v] for v in obis.CURRENT] == [1.5, -0.2, 0.0]
