"""The sub-meters of one zone whose clocks are off: what they explain of a finding, and a search without what they add.

It owns which clocks are off, by how much and since when. It refuses to know alarms, and who tells a meter's fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from core.detection.clocks import OFFSET_MOST_H, clock_offsets
from core.detection.search import SearchWindow
from core.monitor.learning import Learning

DAYS, LEAST_H = 7, 12.0  # in which a wrong clock shows, at most and at least
SETTLE_H = 72.0  # so long what clocks explain best is left to them
CLEARED = 0.8  # of the threshold: what clocks leave of a finding must be below


class WrongClocks:
    """One zone's."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._known: dict[int, tuple[float, int]] = {}  # by flat: hours by which it is read too late, since which row

    def late_h(self) -> dict[int, float]:
        """By flat, how many hours its registers are taken too late (-: too early)."""
        return {flat: hours for flat, (hours, _) in self._known.items()}

    def explain(self, seen: SearchWindow, sign: float, onset: int, reach: float) -> bool:
        """Whether they make what looks like a loss (or surplus) since row `onset`; from now on it is known whose.

        `seen`: the window with all that they add.
        """
        learning, history = self._learning, self._learning.history
        margin = max(1, round(OFFSET_MOST_H / learning.row_h))
        # Some days of it, and not its first hours alone: a clock errs on every day.
        first = min(onset - margin, history.count - round(LEAST_H / learning.row_h))
        first = max(history.first + margin, first, history.count - DAYS * learning.day_rows)
        stop = history.count - margin
        if stop <= first:
            return False
        rows = history.rows(first, stop)
        unexplained = rows.residual_wh - history.expected(first, stop)  # as it was read: the follower smooths it
        noise_wh2 = 2.0 * float(np.median(rows.boundary_wh2)) + learning.noise.rough_w2h * learning.row_h
        subs_wh = history.rows(first - margin, stop + margin).subs_wh
        found = clock_offsets(subs_wh, unexplained, noise_wh2, learning.row_h, margin)
        known, self._known = self._known, {}
        if not found.offset_h:
            return bool(known)  # they were set right: what was taken off for them is the finding
        self._known = {
            flat: (hours, known[flat][1] if flat in known else max(onset, first))
            for flat, hours in found.offset_h.items()
        }
        if history.count - onset <= SETTLE_H / learning.row_h:
            return True
        return self.taken_off(seen).search(sign, 0.0, CLEARED * reach) is None

    def taken_off(self, seen: SearchWindow) -> SearchWindow:
        """`seen` without what they add."""
        if not self._known:
            return seen
        learning, history = self._learning, self._learning.history
        booked, variance = np.array(seen.booked_wh), np.array(seen.variance_wh2)
        for flat, (hours, row) in self._known.items():
            shift = math.copysign(math.ceil(abs(hours) / learning.row_h), hours)
            k, share = int(shift), hours / (shift * learning.row_h)
            start = max(row, seen.first + abs(k))
            shown = history.rows(seen.first, history.count).subs_wh[:, flat]
            at = np.arange(start - seen.first, len(shown))
            if not len(at):
                continue
            other = shown[np.clip(at - k, 0, len(shown) - 1)]
            booked[at + 1] -= share * np.cumsum(other - shown[at])
            if k < 0:  # of the last rows nobody knows yet what they show too early
                variance[k:] += (share * shown[k:].sum()) ** 2 + 1.0
        return replace(seen, booked_wh=booked, variance_wh2=variance, weighed=None)

    # -- state --------------------------------------------------------------------------------------------------------

    def pack(self) -> list[list[float]]:
        """All that must survive a restart."""
        return [[flat, hours, row] for flat, (hours, row) in self._known.items()]

    def restore(self, values: Iterable[tuple[int, float, int]]) -> None:
        """Go on where `values` were packed."""
        self._known = {flat: (hours, row) for flat, hours, row in values}
