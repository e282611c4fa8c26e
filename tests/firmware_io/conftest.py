"""A wire between a channel and a server link in time of its own, clean or dirty; and clocks that tests turn."""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from firmware_io.hdlc import Address, Framer
from firmware_io.link import Parameters, Received, ServerLink

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


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


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
    spec = importlib.util.spec_from_file_location("codec_oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_dirt() -> type[Dirt]:
    return Dirt
