"""Rows of many lengths: short ones for hours, longer ones for days, exact at every length.

It owns what is kept of each length, and for how long. Cumulative figures make it exact: a longer row's end is a shorter
one's end, so that its energy is the difference of the same two figures, whatever is forgotten in between. It knows
nothing of what the figures are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.arrays import Floats

ROWS = 1440  # of each length at most: a day of minutes
SPAN_S = 2 * 86_400.0  # whatever their length, what is older serves nobody
FACTOR = 15  # a length is at most so many of the one below it
LONGEST_S = 900.0


@dataclass(slots=True)
class _Level:
    """The newest boundaries of one length: times [K] and figures [K, W], of which `count` are filled, oldest first.

    rows: that are kept.
    """

    step_s: float
    rows: int
    times_s: Floats
    figures: Floats
    count: int = 0


def lengths(shortest_s: float, longest_s: float = LONGEST_S) -> list[float]:
    """The lengths from `shortest_s` to `longest_s`: each divides the next, by `FACTOR` at most."""
    found = [shortest_s]
    while found[-1] < longest_s:
        left = round(longest_s / found[-1])
        found.append(found[-1] * max(n for n in range(1, FACTOR + 1) if left % n == 0))
        if found[-1] == found[-2]:  # a prime number of them
            found[-1] = longest_s
    return found


class Pyramid:
    """Cumulative figures [W] at boundaries, each length for `rows` of its rows and `span_s` at most."""

    def __init__(
        self, shortest_s: float, width: int, longest_s: float = LONGEST_S, rows: int = ROWS, span_s: float = SPAN_S
    ) -> None:
        self._levels = []
        for step_s in lengths(shortest_s, longest_s):
            kept = min(rows, math.ceil(span_s / step_s))
            size = kept + max(64, kept // 4)  # with room, so that moving what is kept to the front is rare
            self._levels.append(_Level(step_s, kept, np.empty(size), np.empty((size, width))))

    def append(self, ends_s: Floats, figures: Floats) -> None:
        """Take boundaries that follow the last ones: times [T] and figures [T, W]."""
        for level in self._levels:
            at = np.abs(ends_s - np.rint(ends_s / level.step_s) * level.step_s) < 1e-3
            self._add(level, ends_s[at], figures[at])

    def _add(self, level: _Level, ends_s: Floats, figures: Floats) -> None:
        ends_s, figures = ends_s[-level.rows :], figures[-level.rows :]
        if level.count + len(ends_s) > len(level.times_s):
            kept = min(level.count, level.rows - len(ends_s))
            stay = slice(level.count - kept, level.count)
            level.times_s[:kept], level.figures[:kept] = level.times_s[stay].copy(), level.figures[stay].copy()
            level.count = kept
        place = slice(level.count, level.count + len(ends_s))
        level.times_s[place], level.figures[place] = ends_s, figures
        level.count += len(ends_s)

    def at(self, time_s: float) -> tuple[float, Floats] | None:
        """The newest kept boundary that is not after `time_s`, from the shortest rows that reach so far back."""
        for level in self._levels:
            k = int(np.searchsorted(level.times_s[: level.count], time_s + 1e-3)) - 1
            if k >= 0:
                return float(level.times_s[k]), level.figures[k]
        return None

    def newest(self, span_s: float) -> tuple[Floats, Floats]:
        """The boundaries of the shortest rows in the last `span_s`, oldest first: views, for reading only."""
        level = self._levels[0]
        start = max(0, level.count - 1 - math.ceil(span_s / level.step_s))
        return level.times_s[start : level.count], level.figures[start : level.count]

    def clear(self) -> None:
        """Forget all."""
        for level in self._levels:
            level.count = 0
