"""The building's own tail: how far its honest weeks go towards a threshold, and where the threshold has to be.

It owns what is remembered of honest weeks and the quantile that keeps the promised rate. It refuses to know what was
looked for. A threshold that is a quantile of a theory is wrong by a factor on every building: one has lively loads and
is calm by its own noise, in the next a lift starts every minute. So each look notes how far it came towards the
theory's threshold (1: there), the largest of each week follows the generalised extreme-value law (Coles 2001, 3.1),
and its quantile at the promised number a year is where the alarm begins. With few weeks the law is mostly that of
other buildings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

WEEKS_MAX = 52  # that are remembered
WEEKS_A_YEAR = 365.25 / 7
PRIOR_WEEKS = 8.0  # that the law of other buildings counts for
PRIOR_MODE, PRIOR_SCALE = 0.29, 0.078  # of the weekly largest: 456 weeks of 24 honest buildings of measured loads
SHAPE = 0.12  # of the law, by the same weeks: heavier than Gumbel's tail, of which no building has enough of its own
LEAST, MOST = 0.3, 1.0  # of the theory's threshold: it is never further than that
EULER = 0.5772156649


@dataclass(slots=True)
class OwnTail:
    """weeks: the largest of each honest week, oldest first; open_week and largest: the week that runs."""

    weeks: list[float] = field(default_factory=list)
    open_week: int = -1
    largest: float = 0.0
    _known: tuple[float, float] = (0.0, 0.0)  # a rate asked for and its reach

    def note(self, week: int, reached: float) -> None:
        """A look in week number `week` came so far towards the theory's threshold."""
        if week != self.open_week:
            self.close()
            self.open_week = week
        self.largest = max(self.largest, reached)

    def close(self) -> None:
        """The week that runs is over."""
        if self.open_week >= 0 and self.largest > 0:
            self.weeks = [*self.weeks, self.largest][-WEEKS_MAX:]
            self._known = (0.0, 0.0)
        self.open_week, self.largest = -1, 0.0

    def drop(self) -> None:
        """The week that runs, and the one before it, were not honest."""
        self.open_week, self.largest = -1, 0.0
        self.weeks = self.weeks[:-1]
        self._known = (0.0, 0.0)

    def reach(self, rate_per_year: float) -> float:
        """Share of the theory's threshold at which so many alarms a year are false."""
        if self._known[0] != rate_per_year:
            self._known = rate_per_year, self._reach(rate_per_year)
        return self._known[1]

    def _reach(self, rate_per_year: float) -> float:
        mode, scale = PRIOR_MODE, PRIOR_SCALE
        count = len(self.weeks)
        if count > 1:
            own = np.minimum(np.array(self.weeks), 2.0)
            ordered = np.sort(own)
            # L-moments (Hosking 1990), of Gumbel's law: the body is told by them, the tail by the shape.
            second = float((2 * np.arange(count) - count + 1) @ ordered) / (count * (count - 1))
            weight = count / (count + PRIOR_WEEKS)
            scale += weight * (second / math.log(2.0) - scale)
            mean = mode + EULER * PRIOR_SCALE
            mode = mean + weight * (float(own.mean()) - mean) - EULER * scale
        beyond = min(rate_per_year / WEEKS_A_YEAR, 0.5)
        far = ((-math.log1p(-beyond)) ** -SHAPE - 1.0) / SHAPE
        return float(min(MOST, max(LEAST, mode + scale * far)))
