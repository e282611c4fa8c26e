"""Whether meters whose clocks are off explain what looks like a loss.

It owns the shape of a wrong clock in a balance. It refuses to know alarms, and who tells a meter's fault. A meter whose
register is taken `offset` later than its stamp shows the energy of later hours: where it should have shown s(t) it
shows s(t + offset), so that the balance errs by r(t - offset) - r(t), a pair of a peak and its mirror image for every
large load of that flat, and by nothing in the mean. No theft looks like that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arrays import Floats

OFFSET_MOST_H = 1.0  # a forgotten change of time; what is further off is found by the day of its registers
SHARE_LEAST, SHARE_MOST = 0.1, 1.3  # of a shift by whole rows: a quarter of an hour is half a row's
Z_LEAST = 6.0  # by which each clock has to stand out: so many meters and shifts are tried
ROWS_LEAST, ROWS_EACH = 12, 6  # of the balance at least, and for each clock
LEFT_MOST = 0.4  # of the squares of what was unexplained: clocks leave no more


@dataclass(frozen=True, slots=True)
class Clocks:
    """offset_h: of each flat that is off, in order of what it explains; part_wh [T]: what they add to the balance."""

    offset_h: dict[int, float]
    part_wh: Floats


def clock_offsets(subs_wh: Floats, unexplained_wh: Floats, noise_wh2: float, row_h: float, margin: int) -> Clocks:
    """The clocks that explain rows [T] of a balance; `subs_wh` [T + 2 margin, N] has `margin` rows more on both sides.

    noise_wh2: variance of a row without any clock. One after the other, the one that explains most of what is left
    first (matching pursuit, Mallat & Zhang 1993).
    """
    rows, count = len(unexplained_wh), subs_wh.shape[1]
    left, part = unexplained_wh.copy(), np.zeros(rows)
    offset: dict[int, float] = {}
    if rows < ROWS_LEAST:
        return Clocks(offset, part)
    shifts = [k for k in range(-margin, margin + 1) if k]
    here = subs_wh[margin : margin + rows]
    columns = np.stack([subs_wh[margin - k : margin - k + rows] - here for k in shifts])  # [shifts, T, N]
    power = np.square(columns).sum(axis=1) + 1e-9
    free = np.ones(count, np.bool_)
    while free.any() and len(offset) < rows // ROWS_EACH:
        along = np.einsum("ktn,t->kn", columns, left)
        share = along / power
        gain = np.where(free & (share > SHARE_LEAST), np.minimum(share, SHARE_MOST) * along, 0.0)
        k, flat = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[k, flat] < Z_LEAST**2 * noise_wh2:
            break
        taken = min(float(share[k, flat]), SHARE_MOST) * columns[k, :, flat]
        free[flat] = False
        offset[int(flat)] = float(share[k, flat]) * shifts[k] * row_h
        left, part = left - taken, part + taken
    if np.square(left).sum() > LEFT_MOST * np.square(unexplained_wh).sum():
        return Clocks({}, np.zeros(rows))  # something else is at work there
    return Clocks(offset, part)
