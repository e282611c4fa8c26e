"""The parts of a played world: a clock that lies, meters with registers, a broker, and the backend behind it.

One `random.Random` decides everything; nothing here looks at the host's clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import RegisterUnavailable, ResponseTimeout
from firmware_io.obis import ENERGY_IMPORT, EVENT_LOG_FRAUD
from firmware_io.reading import MeterEvent, Quality, Reading, Unit

START_S = 1_772_438_400.0  # 2026-03-02 08:00 UTC
DAY_S = 86400.0


class WorldClock:
    """True time that is moved by whoever waits, and the gateway's wall clock beside it. A `firmware_io.Clock`."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.skew_s = 0.0

    @property
    def true_s(self) -> float:
        """UTC."""
        return START_S + self.elapsed_s

    def now(self) -> float:
        """What the gateway's wall clock says."""
        return self.true_s + self.skew_s

    def monotonic(self) -> float:
        """Seconds since the world began."""
        return self.elapsed_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Time passes."""
        self.move(max(0.0, timeout_s))
        return event.is_set()

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed_s += seconds


class House:
    """Flats whose loads are a pure function of time and the seed, and the thefts among them."""

    def __init__(self, flats: int, rng: random.Random) -> None:
        self.flats = flats
        self._base = [rng.uniform(60, 300) for _ in range(flats)]
        self._phase = [rng.uniform(0, 24) for _ in range(flats)]
        self.theft: tuple[int, float, float] | None = None  # flat, since, share that is not metered
        if rng.random() < 0.4:
            self.theft = rng.randrange(flats), START_S + rng.uniform(3, 12) * DAY_S, rng.uniform(0.4, 1.0)
        self._hours: list[list[float]] = [[0.0] * (flats + 1)]

    @property
    def most_w(self) -> float:
        """More than the house ever draws."""
        return 1.6 * 1.4 * 1.01 * sum(self._base)

    def _power_w(self, flat: int, hour: int) -> float:
        swing = 1 + 0.6 * math.sin(2 * math.pi * (hour + self._phase[flat]) / 24)
        noise = (hash((flat, hour)) % 1000) / 1000  # of integers: the same in every process
        return self._base[flat] * swing * (0.6 + 0.8 * noise)

    def register_wh(self, meter: int, time_s: float) -> float:
        """The register of a flat, or of the main meter (-1), at a time."""
        since = max(0.0, (time_s - START_S + 60 * DAY_S) / 3600)
        whole = int(since)
        while len(self._hours) <= whole + 1:
            hour = len(self._hours) - 1
            last, powers = self._hours[-1], [self._power_w(flat, hour) for flat in range(self.flats)]
            main = last[-1] + 1.01 * sum(powers)
            at_s = START_S - 60 * DAY_S + 3600.0 * hour
            if self.theft is not None and at_s >= self.theft[1]:
                powers[self.theft[0]] *= 1 - self.theft[2]
            self._hours.append([*(a + p for a, p in zip(last, powers, strict=False)), main])
        low, high = self._hours[whole][meter], self._hours[whole + 1][meter]
        return math.floor((low + (since - whole) * (high - low)) / 10) * 10.0


class Driver:
    """A meter of a few lines behind the seam of `firmware_io.driver`."""

    def __init__(self, name: str, column: int, house: House, clock: WorldClock, gateway: Any) -> None:
        self.name, self._column, self._house = name, column, house
        self._clock, self._gateway = clock, gateway  # true time; the gateway's, which stamps what is read
        self.silent = False
        self.has_clock = True
        self.log: list[tuple[float, int]] = []
        self.identity: Identity | None = None
        self.traffic = Traffic()

    def _answer(self) -> None:
        if self.silent:
            self._clock.move(1.0)
            raise ResponseTimeout("no answer", meter=self.name)
        self._clock.move(0.05)

    def _reading(self, true_s: float, stamp_s: float, quality: Quality = Quality.GOOD) -> Reading:
        value = self._house.register_wh(self._column, true_s)
        return Reading(self.name, ENERGY_IMPORT, value, Unit.WATT_HOUR, stamp_s, 0.0, None, quality)

    def poll(self, line: Line) -> list[Reading]:
        """The register now."""
        self._answer()
        if self.identity is None:
            self.identify(line)
        return [self._reading(self._clock.true_s, self._gateway.now())]

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        """Rows of each hour, stamped by the meter's own clock, which is right."""
        self._answer()
        if not self.has_clock:
            raise RegisterUnavailable("no load profile", meter=self.name)
        last_s = min(last_s, self._clock.true_s)
        first_s = max(first_s, START_S - 40 * DAY_S, last_s - 60 * DAY_S)
        hours = range(math.ceil(first_s / 3600), math.floor(last_s / 3600) + 1)
        return [self._reading(3600.0 * hour, 3600.0 * hour, Quality.FROM_PROFILE) for hour in hours]

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        """Covers opened and closed."""
        self._answer()
        now_s = self._gateway.now()
        return [MeterEvent(self.name, EVENT_LOG_FRAUD, code, at, now_s) for at, code in self.log if at > since_s]

    def identify(self, line: Line) -> Identity:
        """Who it is, and its clock against the gateway's."""
        self._answer()
        offset_s = self._clock.true_s - self._gateway.now() if self.has_clock else None
        self.identity = Identity(self.name, "1", (ENERGY_IMPORT,), offset_s)
        return self.identity

    def keep_alive(self, line: Line) -> None:
        """Nothing is due."""


class NoTransport:
    """The line of such drivers."""

    def read(self, max_octets: int, deadline: float) -> bytes:
        """Nothing comes."""
        return b""

    def write(self, octets: bytes) -> None:
        """Nothing goes."""

    def close(self) -> None:
        """Nothing is open."""

    def monotonic(self) -> float:
        """No time passes."""
        return 0.0


@dataclass(slots=True)
class Backend:
    """What the utility has received: every event under its id with every content it came with."""

    events: dict[str, set[bytes]] = field(default_factory=dict)
    answers: list[bytes] = field(default_factory=list)


class Network:
    """Broker and network between a send window and the backend: latency, refusals, cuts; events by virtual time."""

    def __init__(self, rng: random.Random, backend: Backend) -> None:
        self._rng, self._backend = rng, backend
        self.up = True
        self.subscribed = True  # whether anybody takes alerts (MQTT v5 reason 0x10 otherwise)
        self.window: Any = None
        self._acks: list[tuple[float, int, int, int]] = []
        self._order = itertools.count()
        self._mid = 0

    def connect(self, window: Any, now_s: float) -> None:
        """A new connection of the gateway."""
        self.window = window
        self._acks.clear()
        window.connected(now_s, 20, None)

    def cut(self, now_s: float) -> None:
        """The connection is gone; what was in flight may have arrived or not."""
        if self.window is not None:
            self.window.disconnected(now_s)
            self.window = None

    def turn(self, now_s: float, wall_s: float, on_sent: Callable[[], None]) -> None:
        """Let the gateway send, and the broker answer what is due."""
        if self.window is None:
            return
        for _ in range(200):
            while self._acks and self._acks[0][0] <= now_s:
                _, _, mid, reason = heapq.heappop(self._acks)
                self.window.acknowledged(mid, reason, now_s)
            out = self.window.next(now_s, wall_s)
            if out is None:
                break
            on_sent()
            self._mid += 1
            self.window.sent(self._mid, out, now_s)
            self._deliver(out.message, now_s)
            now_s += 0.001
        self.window.flush(now_s)
        if self.window.dead(now_s):
            self.cut(now_s)

    def _deliver(self, message: Any, now_s: float) -> None:
        fate = self._rng.random()
        if not self.subscribed and message.suffix.startswith("event/"):
            self._ack(now_s, 0x10)
            return
        if fate < 0.01:
            return  # lost on the way, with everything behind it: no acknowledgement ever comes
        if message.suffix.startswith("event/"):
            self._backend.events.setdefault(message.key, set()).add(message.body)
        elif message.suffix == "cmd/res":
            self._backend.answers.append(message.body)
        if fate > 0.02:
            self._ack(now_s, 0)

    def _ack(self, now_s: float, reason: int) -> None:
        heapq.heappush(self._acks, (now_s + self._rng.uniform(0.01, 1.0), next(self._order), self._mid, reason))
