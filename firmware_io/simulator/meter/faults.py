"""Which of a meter's faults are at work at an instant: the switches of `[[simulation.fault]]`, looked up by kind.

What a fault does is told where it strikes: in the line, the link, the server, the clock, the registers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import NamedTuple

from firmware_io.simulator.building.scenario import Fault, FaultKind, PushForm, moment_s

# What `amount` is when the site file does not say.
_USUAL: dict[str, float] = {
    "late": 3.0,
    "late_tail": 3.0,
    "truncated": 4,
    "extra": 5,
    "noise": 1e-3,
    "inactivity": 5.0,
    "min_gap": 0.2,
    "small_pdu": 64,
    "clock_drift": 10.0,
    "clock_jump": 3600.0,
    "rollover": 5,
    "decrease": 12.0,
    "twin": 500.0,
    "ct_ratio": 0.5,
}


class Strike(NamedTuple):
    """A fault at work: how much of it, since when, until when."""

    amount: float
    onset_s: float
    until_s: float
    obis: str | None
    form: PushForm = "general"


class Faults:
    """The faults of one meter. Chance is the meter's own, so that a run can be repeated."""

    def __init__(self, faults: Iterable[Fault], meter: str, start_s: float, seed: int) -> None:
        self._chance = random.Random(f"{seed}/{meter}/faults")
        self._by_kind: dict[str, list[tuple[float, Strike]]] = {}
        for fault in faults:
            if fault.meter in (None, meter):
                strike = Strike(
                    fault.amount if fault.amount is not None else _USUAL.get(fault.kind, 0.0),
                    moment_s(fault.onset, start_s),
                    math.inf if fault.until is None else moment_s(fault.until, start_s),
                    fault.obis,
                    fault.form,
                )
                self._by_kind.setdefault(fault.kind, []).append((fault.probability, strike))
        self._all = {k: sorted((s for _, s in found), key=lambda s: s.onset_s) for k, found in self._by_kind.items()}

    def at(self, kind: FaultKind, time_s: float) -> Strike | None:
        """The fault of this kind that is at work at a time, whatever its probability."""
        for _, strike in self._by_kind.get(kind, ()):
            if strike.onset_s <= time_s < strike.until_s:
                return strike
        return None

    def strikes(self, kind: FaultKind, time_s: float) -> Strike | None:
        """The same, when chance will have it this time."""
        for probability, strike in self._by_kind.get(kind, ()):
            if strike.onset_s <= time_s < strike.until_s and self._chance.random() < probability:
                return strike
        return None

    def all(self, kind: FaultKind) -> list[Strike]:
        """Every fault of this kind, past and to come, by onset."""
        return self._all.get(kind, [])

    def random_octets(self, count: int) -> bytes:
        """Noise on the line."""
        return self._chance.randbytes(count)

    def flip_bits(self, octets: bytes, rate: float) -> bytes:
        """Each bit flips with probability `rate`."""
        if rate <= 0:
            return octets
        flipped = bytearray(octets)
        # The distance between errors is geometric: no draw for every bit.
        at = -1
        while True:
            at += 1 + int(math.log(1.0 - self._chance.random()) / math.log(1.0 - min(rate, 0.999)))
            if at >= 8 * len(flipped):
                return bytes(flipped)
            flipped[at // 8] ^= 1 << at % 8
