"""Since when a balance is restless: an earlier onset than the one its mean energy shows.

A meter that shows a recording, or one value, makes the balance swing both ways. An alarm that looks for missing energy
dates such a loss from its last swing; its true onset is where the rows began to swing. Only a candidate: attribution
weighs the two against each other. Knows nothing of flats.
"""

from __future__ import annotations

import numpy as np

from core.arrays import Floats
from core.attribution.rows import Onset, Rows

LOOK_BACK_DAYS = 60
QUIET_DAYS = 7  # at least so many before
T_LEAST = 6.0
RISE_LEAST = 0.2  # of the logarithm of the spread


def earlier(rows: Rows, onset: Onset) -> Onset | None:
    """The day from which the residual's spread within the day is larger, if it is well before `onset.lo`."""
    per_day = rows.slots_per_day
    back = min(LOOK_BACK_DAYS, onset.best // per_day)
    if back < QUIET_DAYS + 2:
        return None
    first = onset.best - back * per_day
    spread = spreads(rows.residual_wh[first : onset.best].reshape(back, per_day))
    known = ~np.isnan(spread)
    if known.sum() < QUIET_DAYS + 2:
        return None
    spread = np.interp(np.arange(back), np.flatnonzero(known), spread[known])
    before = np.arange(QUIET_DAYS, back - 1)
    sums = np.concatenate([[0.0], np.cumsum(spread)])
    rise = (sums[back] - sums[before]) / (back - before) - sums[before] / before
    scatter = 1.4826 * np.median(np.abs(np.diff(spread))) / np.sqrt(2) + 1e-3
    t = rise / (scatter * np.sqrt(1 / before + 1 / (back - before)))
    k = int(np.argmax(t))
    if t[k] < T_LEAST or rise[k] < RISE_LEAST:
        return None
    best = first + int(before[k]) * per_day
    return Onset(max(0, best - per_day), best, best + per_day // 2)


def spreads(days_wh: Floats) -> Floats:
    """Logarithm of the spread [D] of each day's rows [D, K] about their median; NaN where half is unknown."""
    known = ~np.isnan(days_wh)
    out = np.full(len(days_wh), np.nan)
    for d in np.flatnonzero(known.mean(1) > 0.5):
        day = days_wh[d][known[d]]
        out[d] = np.log(np.quantile(np.abs(day - np.median(day)), 0.75) + 1e-3)
    return out
