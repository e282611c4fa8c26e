"""A laboratory for drivers that only ask: simulated meters on a line in time of its own, and dirt on it."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from firmware_io.driver import Line
from firmware_io.simulator.building.building import Live
from firmware_io.simulator.building.scenario import Fault
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.station import Piece
from firmware_io.simulator.meter.clockface import MeterClock
from firmware_io.simulator.meter.events import EventLog
from firmware_io.simulator.meter.faults import Faults
from firmware_io.simulator.meter.meter import Identity, SimulatedMeter

START_S = 1_772_409_600.0  # Mon 2026-03-02 00:00 UTC
DAY_S = 86_400.0


class HostClock:
    """The host's time, for lines that are real."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s)


@dataclass
class SteadyBuilding:
    """Registers of meters that take a power that everybody can calculate."""

    power_w: float = 500.0
    export_w: float = 0.0
    first_wh: float = 1_000_000.0
    three_phase: bool = False
    swing: float = 0.0

    def energy_wh(self, meter: str, time_s: float) -> tuple[float, float]:
        passed_h = (time_s - START_S) / 3600
        swung = self.swing * self.power_w * math.sin(passed_h) if self.swing else 0.0
        return self.first_wh + self.power_w * passed_h + swung, max(self.export_w * (passed_h + 24 * 60), 0.0)

    def quarters_wh(self, meter: str, first: int, last: int):
        pairs = np.array([self.energy_wh(meter, 900.0 * q) for q in range(first, last + 1)])
        return pairs[:, 0], pairs[:, 1]

    def live(self, meter: str, time_s: float) -> Live:
        volts = (230.1, 229.3, 231.7) if self.three_phase else (230.1,)
        shares = (0.5, 0.3, 0.2) if self.three_phase else (1.0,)
        power = self.power_w - self.export_w
        amperes = tuple(abs(power) * share / (volt * 0.95) for share, volt in zip(shares, volts, strict=True))
        return Live(power, volts, amperes, amperes[0], 0.95)


def simulated_meter(clock: LineClock, number: int = 1, *, faults: tuple[Fault, ...] = (), building=None, **identity):
    """A meter that has been there for a hundred days."""
    identity = Identity(f"m{number}", number, 16 + number, **identity)
    at_work = Faults(faults, identity.id, START_S, seed=number)
    log = EventLog(START_S - 100 * DAY_S, at_work, [])
    return SimulatedMeter(
        identity,
        building or SteadyBuilding(),
        clock.now,
        at_work,
        MeterClock(at_work, "UTC"),
        log,
        START_S - 100 * DAY_S,
    )


Mangle = Callable[[bytes], list[tuple[float, bytes]]]


class DirtyModem(NullModem):
    """A `Transport` over a simulated line that mangles whole questions and whole answers, and hears what is injected.

    A late answer of one meter may fall between those of others, as it does on a wire.
    """

    def __init__(self, line, lag: Callable[[float], None]) -> None:
        super().__init__(line, lag)
        self.there: Mangle = lambda octets: [(0.0, octets)]
        self.back: Mangle = lambda octets: [(0.0, octets)]
        self.echo = False
        speak = line._speak

        def mangled(pieces: list[Piece], end_s: float, connection: object, speaker: object) -> None:
            mangled = [(p.delay_s + d, part) for p in pieces for d, part in self.back(p.octets)]
            speak([Piece(delay_s, part) for delay_s, part in mangled], end_s, connection, speaker)

        line._speak = mangled
        self._dirty = line

    def inject(self, octets: bytes, delay_s: float = 0.0) -> None:
        """Octets that reach the client from nowhere."""
        self._dirty._put(self.monotonic() + delay_s, None, octets)

    def write(self, octets: bytes) -> None:
        if self.echo:
            self.inject(octets, len(octets) * self._dirty.octet_s)
        for _, part in self.there(octets):
            if part:
                super().write(part)


class Dirt:
    """Ways to spoil octets, each with its own chance so that a run can be repeated.

    Noise is what comes through a UART with parity: an octet with an odd number of wrong bits is dropped.
    """

    def __init__(self, seed: int, *, parity: bool) -> None:
        self._chance = random.Random(seed)
        self._parity = parity

    def noise(self, rate: float) -> Mangle:
        def mangle(octets: bytes) -> list[tuple[float, bytes]]:
            kept = bytearray()
            for octet in octets:
                wrong = sum(1 << bit for bit in range(8) if self._chance.random() < rate)
                if not (self._parity and wrong.bit_count() & 1):
                    kept.append(octet ^ wrong)
            return [(0.0, bytes(kept))]

        return mangle

    def lost_octets(self, rate: float) -> Mangle:
        return lambda octets: [(0.0, bytes(o for o in octets if self._chance.random() >= rate))]

    def lost(self, rate: float) -> Mangle:
        return lambda octets: [] if self._chance.random() < rate else [(0.0, octets)]

    def late(self, rate: float, delay_s: float) -> Mangle:
        return lambda octets: [(delay_s if self._chance.random() < rate else 0.0, octets)]

    def torn(self, rate: float, delay_s: float) -> Mangle:
        def mangle(octets: bytes) -> list[tuple[float, bytes]]:
            if self._chance.random() >= rate:
                return [(0.0, octets)]
            cut = self._chance.randrange(len(octets))
            return [(0.0, octets[:cut]), (delay_s, octets[cut:])]

        return mangle

    def doubled(self, rate: float) -> Mangle:
        return lambda octets: [(0.0, octets * 2 if self._chance.random() < rate else octets)]

    def rubbish(self, rate: float, alphabet: bytes) -> Mangle:
        def mangle(octets: bytes) -> list[tuple[float, bytes]]:
            if self._chance.random() >= rate:
                return [(0.0, octets)]
            around = [bytes(self._chance.choices(alphabet, k=self._chance.randrange(9))) for _ in "ab"]
            return [(0.0, around[0] + octets + around[1])]

        return mangle


def one_at_a_time(octets: bytes) -> list[tuple[float, bytes]]:
    return [(0.002, octets[i : i + 1]) for i in range(len(octets))]


KINDS = ("clean", "one octet", "noise", "lost octets", "lost frames", "doubled", "late", "torn", "rubbish", "echo")


def dirty_line(kind: str, line, clock: LineClock, *, parity: bool, alphabet: bytes, seed: int = 1) -> Line:
    """An open line that is dirty in one way."""
    there, back = Dirt(seed, parity=parity), Dirt(seed + 1, parity=parity)
    modem = DirtyModem(line, clock.move)
    match kind:
        case "one octet":
            modem.back = one_at_a_time
        case "noise":
            modem.there, modem.back = there.noise(1e-3), back.noise(1e-3)
        case "lost octets":
            modem.there, modem.back = there.lost_octets(0.003), back.lost_octets(0.003)
        case "lost frames":
            modem.there, modem.back = there.lost(0.1), back.lost(0.1)
        case "doubled":
            modem.there, modem.back = there.doubled(0.2), back.doubled(0.2)
        case "late":
            modem.back = back.late(0.1, 2.5)
        case "torn":
            modem.back = back.torn(0.1, 3.0)
        case "rubbish":
            modem.there, modem.back = there.rubbish(0.3, alphabet), back.rubbish(0.3, alphabet)
        case "echo":
            modem.echo = True
    return Line(modem)
