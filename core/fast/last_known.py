"""What a meter that is not read just now may be using: whatever ran when it was read last may run on.

It owns the last known row of each meter. The alignment estimates a gap by the meter's daily profile, which is right for
hours; in a minute a shower is all there is.
"""

from __future__ import annotations

import numpy as np

from core.arrays import Bools, Floats

ROWS_SHORT = 2  # a gap of more rows lasts: the alignment takes it so, too
ROWS_MOST = 15  # a load that ran is not expected to run for longer


class LastKnown:
    """The meters of one zone."""

    def __init__(self, meters: int) -> None:
        self._wh = np.zeros(meters)  # of the last row that was read
        self._gone = np.zeros(meters, np.intp)  # rows since then

    def doubt_wh2(self, energy_wh: Floats, missed: Bools) -> tuple[Floats, Floats]:
        """Variance of what was booked at the end of each row [T], from `energy_wh` and `missed` [T, meters].

        That of meters that were missed for a row or two, whose error is that of a boundary, and that of the others.
        """
        count = len(energy_wh)
        at = np.arange(count)[:, None]
        known = np.maximum.accumulate(np.where(missed, -1, at), axis=0)
        before = known < 0
        last = np.where(before, self._wh, np.take_along_axis(energy_wh, np.maximum(known, 0), axis=0))
        gone = np.where(before, self._gone + at + 1, at - known)
        if count:
            self._wh, self._gone = last[-1].copy(), gone[-1].copy()
        doubt = np.square(gone * last)
        short = np.where(gone <= ROWS_SHORT, doubt, 0.0).sum(axis=1)
        long = np.where((gone > ROWS_SHORT) & (gone <= ROWS_MOST), doubt, 0.0).sum(axis=1)
        return np.asarray(short), np.asarray(long)
