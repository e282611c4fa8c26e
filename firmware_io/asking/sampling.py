"""From the values that a meter gave to readings that can be trusted: time stamps, physics, a second look at odd ones.

It serves the drivers whose protocols say little about a value. It exchanges nothing with a meter: it is given what
reads one, and asks it again where a value is odd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from firmware_io.clock import Clock
from firmware_io.obis import ObisCode
from firmware_io.reading import Quality, Reading, Unit

LATE_S = 5.0  # half an uncertainty; beyond it the time of sampling is no use to a balance
MAX_POWER_W = 1_000_000.0  # through a meter of a building, in secondary units
SLACK_WH = 2_000.0  # a few counts of a coarse register need no explanation

# What is possible at a meter's terminals; what is beyond is no measurement but a wrong octet, word order or profile.
PHYSICS: dict[Unit, tuple[float, float]] = {
    Unit.VOLT: (0.0, 1_200.0),
    Unit.AMPERE: (-20_000.0, 20_000.0),
    Unit.WATT: (-10 * MAX_POWER_W, 10 * MAX_POWER_W),
    Unit.VAR: (-10 * MAX_POWER_W, 10 * MAX_POWER_W),
    Unit.VOLT_AMPERE: (-10 * MAX_POWER_W, 10 * MAX_POWER_W),
    Unit.HERTZ: (0.0, 100.0),
    Unit.WATT_HOUR: (-1e13, 1e13),
}


class Value(NamedTuple):
    """One register as it was read, scaled into its unit; sampled between two UTC seconds."""

    obis: ObisCode
    value: float
    unit: Unit
    asked_s: float
    heard_s: float

    @property
    def cumulative(self) -> bool:
        """Whether it is a total of energy, which only rises."""
        return self.unit is Unit.WATT_HOUR and self.obis.d == 8

    @property
    def possible(self) -> bool:
        """Whether physics allow it; NaN and infinity are not."""
        low, high = PHYSICS.get(self.unit, (-1e15, 1e15))
        return low <= self.value <= high


@dataclass(slots=True)
class Doubts:
    """What was not taken as it came, counted up."""

    impossible: int = 0  # outside physics: never a reading
    odd: int = 0  # decreased or jumped: asked for again


class Sampler:
    """Judges the values of one meter."""

    def __init__(self, meter: str, clock: Clock) -> None:
        self._meter = meter
        self._clock = clock
        self._last: dict[ObisCode, tuple[float, float]] = {}
        self.doubts = Doubts()

    def readings(self, read: Callable[[], Iterable[Value]], look_again: Callable[[], object]) -> list[Reading]:
        """Readings of what `read` gives. Where one is odd, `look_again` makes sure who the meter is, and it is read
        again: a total that has really decreased comes as `SUSPECT`, a single wrong one not at all.
        """
        good, odd = self._split(read())
        if odd:
            look_again()
            again, still = self._split(value for value in read() if value.obis in odd)
            good += again
            for name, value in still.items():
                if 0 <= value.value - odd[name].value <= SLACK_WH:
                    self._believe(value)
                    good.append(self._reading(value, Quality.SUSPECT))
        return good

    def forget(self) -> None:
        """Another meter is there now."""
        self._last.clear()

    def _split(self, values: Iterable[Value]) -> tuple[list[Reading], dict[ObisCode, Value]]:
        good: list[Reading] = []
        odd: dict[ObisCode, Value] = {}
        for value in values:
            if not value.possible:
                self.doubts.impossible += 1
            elif self._is_odd(value):
                self.doubts.odd += 1
                odd[value.obis] = value
            else:
                self._believe(value)
                good.append(self._reading(value))
        return good, odd

    def _is_odd(self, value: Value) -> bool:
        last = self._last.get(value.obis)
        if last is None or not value.cumulative:
            return False
        before, before_s = last
        limit = MAX_POWER_W * (self._clock.monotonic() - before_s) / 3600 + SLACK_WH
        return not 0 <= value.value - before <= limit

    def _believe(self, value: Value) -> None:
        if value.cumulative:
            self._last[value.obis] = (value.value, self._clock.monotonic())

    def _reading(self, value: Value, quality: Quality = Quality.GOOD) -> Reading:
        half_s = max(0.0, (value.heard_s - value.asked_s) / 2)
        late = Quality.LATE if half_s > LATE_S else Quality.GOOD
        return Reading(
            self._meter, value.obis, value.value, value.unit, value.asked_s + half_s, half_s, None, quality | late
        )
