"""The last nine weeks of one zone's load, as local days of equal steps.

It owns which step of which day was measured, and how a load becomes the number that regression works with. It refuses
to know what is forecast from it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.forecast.calendar import Calendar, Ints

Floats = NDArray[np.float64]

DAYS = 63  # kept; whole weeks
FLOOR = 0.1  # of the mean load: below it a load counts by its difference, above it by its ratio
MEASURED = 0.5  # share of a step's time that must be measured


class Scale:
    """Load in W to the number that is regressed: the logarithm, as a building's errors grow with its load.

    Where energy flows back the load itself is taken. `unit_w` is a typical mean load.
    """

    def __init__(self, unit_w: float, *, signed: bool) -> None:
        self.unit_w, self.signed = max(unit_w, 1.0), signed

    def of(self, power_w: Floats) -> Floats:
        """W to numbers; below zero the logarithm goes on as its tangent, so that nothing is undefined."""
        x = np.asarray(power_w, np.float64) / self.unit_w
        if self.signed:
            return x
        return np.asarray(np.where(x > 0, np.log(np.maximum(x, 0) + FLOOR), np.log(FLOOR) + x / FLOOR))

    def power_w(self, number: Floats) -> Floats:
        """Numbers back to W, bounded to 1000 mean loads so that no wild number becomes infinite."""
        x = np.asarray(number, np.float64)
        if self.signed:
            return np.asarray(np.clip(x, -1e3, 1e3) * self.unit_w)
        rising = np.exp(np.clip(x, np.log(FLOOR), np.log(1e3))) - FLOOR
        falling = np.maximum((x - np.log(FLOOR)) * FLOOR, -1e3)
        return np.asarray(np.where(x > np.log(FLOOR), rising, falling) * self.unit_w)


class LoadWindow:
    """Mean load in W of local days `last` - DAYS + 1 .. `last`, [DAYS, steps], NaN where not measured.

    The day after `last` is open: `book` puts intervals into it until `close` makes it the last one.
    """

    def __init__(self, step_s: float, calendar: Calendar) -> None:
        self.step_s, self.calendar = step_s, calendar
        self.steps = round(86_400 / step_s)
        self.power_w = np.full((DAYS, self.steps), np.nan)
        self.last = 0
        self.count = 0  # days since the first one, at most DAYS
        self._wh, self._seconds = np.zeros(self.steps), np.zeros(self.steps)

    @property
    def today_w(self) -> Floats:
        """The open day, [steps]: NaN where nothing or too little was measured yet."""
        enough = self._seconds >= MEASURED * self.step_s
        return np.where(enough, self._wh * 3600 / np.maximum(self._seconds, 1.0), np.nan)

    def book(self, step: int, energy_wh: float, seconds: float) -> None:
        """Add an interval's energy to a step of the open day; what is no finite number leaves it unmeasured."""
        if np.isfinite(energy_wh):
            self._wh[step] += energy_wh
            self._seconds[step] += seconds

    def close(self) -> Floats:
        """Make the open day the last one and open the next; gives its load [steps]."""
        today = self.today_w
        self.power_w[:-1] = self.power_w[1:]
        self.power_w[-1] = today
        self.last += 1
        self.count = min(self.count + 1, DAYS)
        self._wh[:], self._seconds[:] = 0.0, 0.0
        return today

    def begin(self, day: int) -> None:
        """Forget everything; `day` is open."""
        self.power_w[:] = np.nan
        self._wh[:], self._seconds[:] = 0.0, 0.0
        self.last, self.count = day - 1, 0

    def restate(self, day: Ints, step: Ints, extra_w: float) -> None:
        """Add `extra_w` to the steps `step` of local days `day`, [n] each: load that a meter did not show."""
        row = day - (self.last - DAYS + 1)
        kept = np.zeros((DAYS + 1, self.steps), np.bool_)  # the last row is the open day
        inside = (row >= 0) & (row <= DAYS)
        kept[row[inside], step[inside]] = True
        self.power_w[kept[:-1]] += extra_w
        self._wh += np.where(kept[-1], extra_w * self._seconds / 3600, 0.0)
