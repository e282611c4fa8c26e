"""Meters that are plain functions on a line; a wire to a server link, clean or dirty; and clocks that tests turn.

Wire and line run in times of their own.
"""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest

from firmware_io import obis
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.apdu.acse import AssociationResponse, Conformance, InitiateResponse
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.hdlc.framer import Address, Framer
from firmware_io.dlms.hdlc.link import Parameters, Received, ServerLink
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import TransportError
from firmware_io.reading import Quality, Unit
from firmware_io.spec import BusSpec

SERVER = Address.server(1, 17)
CLIENT = Address.client(16)

Mangle = Callable[[bytes], list[tuple[float, bytes]]]


def clean(octets: bytes) -> list[tuple[float, bytes]]:
    return [(0.0, octets)]


def one_octet_at_a_time(octets: bytes) -> list[tuple[float, bytes]]:
    return [(0.001 * i, octets[i : i + 1]) for i in range(len(octets))]


class FakeClock:
    """`firmware_io.clock.Clock` that stands still until it is moved."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.time_s = now_s

    def now(self) -> float:
        return self.time_s

    def monotonic(self) -> float:
        return self.time_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.time_s += max(0.0, timeout_s)
        return event.is_set()


class Wire:
    """A `Transport` to one `ServerLink` whose application is `answer`; mangled in both directions.

    Time jumps to what happens next. `heard` is every unit that the server was given.
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes | None],
        there: Mangle = clean,
        back: Mangle = clean,
        limits: Parameters | None = None,
        turnaround_s: float = 0.02,
    ) -> None:
        self.link = ServerLink(SERVER, CLIENT, limits or Parameters(128, 128, 1, 1))
        self.answer = answer
        self.there = there
        self.back = back
        self.turnaround_s = turnaround_s
        self.time_s = 0.0
        self.heard: list[bytes] = []
        self.pushes: list[bytes] = []
        self.closed = False
        self._framer = Framer()
        self._order = itertools.count()
        self._due: list[tuple[float, int, bool, bytes]] = []
        self._last_heard_s = 0.0
        self._last_s = {True: 0.0, False: 0.0}

    def monotonic(self) -> float:
        return self.time_s

    def close(self) -> None:
        self.closed = True

    def write(self, octets: bytes) -> None:
        self._put(self.there(octets), to_server=True, start_s=self.time_s)

    def read(self, max_octets: int, deadline: float) -> bytes:
        while self._due and self._due[0][0] <= deadline:
            at_s, _, to_server, octets = heapq.heappop(self._due)
            self.time_s = max(self.time_s, at_s)
            if not to_server:
                return octets
            self._serve(octets)
        self.time_s = max(self.time_s, deadline)
        return b""

    def inject(self, octets: bytes, delay_s: float = 0.0) -> None:
        """Octets that reach the client from nowhere."""
        self._put([(delay_s, octets)], to_server=False, start_s=self.time_s)

    def _put(self, pieces: list[tuple[float, bytes]], *, to_server: bool, start_s: float) -> None:
        for delay_s, octets in pieces:
            # No line changes the order of octets: what is behind a late one is late too.
            at_s = self._last_s[to_server] = max(start_s + delay_s, self._last_s[to_server])
            heapq.heappush(self._due, (at_s, next(self._order), to_server, octets))

    def _serve(self, octets: bytes) -> None:
        if self.time_s - self._last_heard_s > 0.05:
            self._framer.reset()  # inter-octet time-out of the meter
        self._last_heard_s = self.time_s
        for frame in self._framer.receive(octets):
            for event in self.link.handle(frame):
                if isinstance(event, Received):
                    self.heard.append(event.pdu)
                    while self.pushes:
                        self.link.notify(self.pushes.pop(0))
                    reply = self.answer(event.pdu)
                    if reply is not None:
                        self.link.send(reply)
            reply_octets = self.link.take()
            if reply_octets:
                self._put(self.back(reply_octets), to_server=False, start_s=self.time_s + self.turnaround_s)


class Dirt:
    """Ways to spoil a line, each with its own chance so that a run can be repeated."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def noise(self, bit_error_rate: float) -> Mangle:
        def mangle(octets: bytes) -> list[tuple[float, bytes]]:
            spoiled = bytearray(octets)
            for bit in range(8 * len(spoiled)):
                if self._chance.random() < bit_error_rate:
                    spoiled[bit // 8] ^= 1 << bit % 8
            return [(0.0, bytes(spoiled))]

        return mangle

    def lost_octets(self, rate: float) -> Mangle:
        return lambda octets: [(0.0, bytes(o for o in octets if self._chance.random() >= rate))]

    def lost_frames(self, rate: float) -> Mangle:
        return lambda octets: [] if self._chance.random() < rate else [(0.0, octets)]

    def doubled(self, rate: float) -> Mangle:
        return lambda octets: [(0.0, octets * 2 if self._chance.random() < rate else octets)]

    def late(self, rate: float, delay_s: float) -> Mangle:
        return lambda octets: [(delay_s if self._chance.random() < rate else 0.0, octets)]

    def torn(self, rate: float, delay_s: float) -> Mangle:
        def mangle(octets: bytes) -> list[tuple[float, bytes]]:
            if self._chance.random() >= rate:
                return [(0.0, octets)]
            cut = self._chance.randrange(len(octets))
            return [(0.0, octets[:cut]), (delay_s, octets[cut:])]

        return mangle

    def rubbish(self, rate: float) -> Mangle:
        def mangle(octets: bytes) -> list[tuple[float, bytes]]:
            if self._chance.random() >= rate:
                return [(0.0, octets)]
            around = [bytes(self._chance.choices((0x7E, 0xA0, 0x00, 0xFF), k=self._chance.randrange(9))) for _ in "ab"]
            return [(0.0, around[0] + octets + around[1])]

        return mangle


ALL = Conformance.GET | Conformance.SET | Conformance.MULTIPLE_REFERENCES | Conformance.SELECTIVE_ACCESS
OCTET_S = 10 / 9600
TURNAROUND_S = 0.02
LINE = BusSpec("line", "/dev/null", timeout_s=1.0)
Answer = axdr.Data | DataAccessResult | Callable[[decode.Selection | None], axdr.Data | DataAccessResult]


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
    asked: list[decode.Apdu] = field(default_factory=list)
    associations: int = 0
    heard_s: float = 0.0
    late_s: float = 0.0

    def attribute(
        self, attribute: Attribute, now_s: float, selection: decode.Selection | None = None
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
        request = decode.decode(pdu)
        self.asked.append(request)
        if isinstance(request, decode.GetListRequest):
            results = tuple(self.attribute(a, now_s) for a, _ in request.items)
            return self.spoil(decode.GetListResponse(request.invoke, results).encode())
        assert isinstance(request, decode.GetRequest)
        value = self.attribute(request.attribute, now_s, request.selection)
        return self.spoil(decode.GetResponse(request.invoke, value).encode())


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
            self._held.append((end_s + TURNAROUND_S + meter.late_s + len(reply) * OCTET_S, reply))

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
        specs = [replace(DlmsSpec(f"m{n}", 16 + n), **changes) for n in range(len(meters))]
        counters = MemoryCounters()
        drivers = [BusMeter(s.id, DlmsDriver(s, LINE, clock, counters), n == 0) for n, s in enumerate(specs)]
        self.bus = Bus(LINE, drivers, self.line.open, clock)

    def cycle(self) -> dict[str, list]:
        polls: dict[str, list] = {}
        for poll in self.bus.poll_cycle():
            polls.setdefault(poll.meter, []).append(poll)
        return polls

    def address_octet(self, meter: int) -> int:
        """The lower octet of a meter's HDLC address, as it stands in its frames."""
        return Address.server(1, 16 + meter).encode()[-1]

    def session(self, meter: str) -> Session:
        return self.bus.use(meter, lambda driver, line: driver.session(line))

    def energy(self, meter: str = "m1") -> tuple[float, Quality] | None:
        readings = [r for r in self.bus.poll(meter) if r.obis == obis.ENERGY_IMPORT]
        return (readings[0].value, readings[0].quality) if readings else None


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_meter() -> type[Meter]:
    return Meter


@pytest.fixture
def make_site(clock: FakeClock) -> Callable[..., Site]:
    return lambda *meters, **changes: Site(clock, list(meters), **changes)


@pytest.fixture
def make_wire() -> type[Wire]:
    return Wire


@pytest.fixture(
    params=["clean", "one octet", "noise", "lost octets", "lost frames", "doubled", "late", "torn", "rubbish"]
)
def dirt(request: pytest.FixtureRequest) -> tuple[str, Mangle, Mangle]:
    """Name, mangling to the server, mangling to the client."""
    there, back = Dirt(1), Dirt(2)
    kinds: dict[str, tuple[Mangle, Mangle]] = {
        "clean": (clean, clean),
        "one octet": (one_octet_at_a_time, one_octet_at_a_time),
        "noise": (there.noise(1e-3), back.noise(1e-3)),
        "lost octets": (there.lost_octets(0.003), back.lost_octets(0.003)),
        "lost frames": (there.lost_frames(0.1), back.lost_frames(0.1)),
        "doubled": (there.doubled(0.3), back.doubled(0.3)),
        "late": (clean, back.late(0.2, 2.5)),
        "torn": (there.torn(0.1, 0.5), back.torn(0.1, 3.0)),
        "rubbish": (there.rubbish(0.3), back.rubbish(0.3)),
    }
    return (request.param, *kinds[request.param])


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The kernel's twins in plain Python."""
    spec = importlib.util.spec_from_file_location("codec_oracle", Path(__file__).parent / "dlms" / "oracle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_dirt() -> type[Dirt]:
    return Dirt


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """Simulated meters of the protocols that only ask, and lines of every kind of dirt."""
    name = "firmware_io_lab"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("lab.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module
