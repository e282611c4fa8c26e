"""What a kind is, and when people and clocks switch things; shared by thefts, loads ahead and honest life.

Refuses to know any kind, and how anything is detected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.system.bench.independent.homes import DAY
from tests.system.bench.independent.world import Building

Act = Callable[[Building, int], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A name, "theft", "ahead" or "honest", what it does, and what can be asked of the accusation."""

    name: str
    group: str
    act: Act
    balance: bool = True  # energy is missing in the balance
    thieves: int = 1
    cold: bool = False  # a cold snap begins with it
    house: str | None = None
    start: bool = False  # on from the first row


KINDS: dict[str, Kind] = {}


def kind(group: str, **asked: object) -> Callable[[Act], Act]:
    def note(act: Act) -> Act:
        KINDS[act.__name__] = Kind(act.__name__, group, act, **asked)  # type: ignore[arg-type]
        return act

    return note


def clock(house: Building, first_h: float, last_h: float, days: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Between two hours of UTC, over midnight if the first is later; on some days only (a day begins at `first_h`)."""
    minute = np.arange(house.minutes)
    hour = (minute % DAY) / 60
    inside = (hour >= first_h) & (hour < last_h) if first_h < last_h else (hour >= first_h) | (hour < last_h)
    if days is not None:
        day = np.maximum((minute - int(first_h * 60)) // DAY, 0)
        inside &= days[np.minimum(day, house.calendar.days - 1)]
    return inside


def weekdays(house: Building, which: set[int]) -> NDArray[np.bool_]:
    return np.array([house.calendar.weekday(day) in which for day in range(house.calendar.days)])


def sessions(house: Building, a_day: float, mean_min: float, first_h: float, last_h: float) -> NDArray[np.bool_]:
    """Somebody throws a switch: at random within hours, for as long as it suits."""
    rng, on = house.rng, np.zeros(house.minutes, bool)
    for day in range(house.calendar.days):
        for _ in range(rng.poisson(a_day)):
            start = int(day * DAY + 60 * rng.uniform(first_h, last_h))
            on[start : start + int(rng.gamma(2.0, mean_min / 2)) + 1] = True
    return on
