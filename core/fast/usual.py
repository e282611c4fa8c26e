"""What is usual in a zone, from the rows that are judged: until short rows know a day by themselves.

It owns which boundaries of that day may be trusted: what was booked while a meter was silent is an estimate, and the
day's mean must not begin or end in one. It refuses to know what is made of the mean.
"""

from __future__ import annotations

import numpy as np

from core.balance.history import History

DOUBTFUL = 4.0  # times the usual variance: such a boundary lies in a gap


def usual_power(history: History, first: int, row_h: float) -> tuple[float, float]:
    """Mean unexplained power of the rows from `first` on, W, and its variance, W^2, by how well its ends are known."""
    booked_wh, variance_wh2 = history.booked(first, history.count)
    lost_wh2 = history.rows(first, history.count).lost_wh2
    count = len(booked_wh) - 1
    start, stop = 0, count
    known = np.flatnonzero(variance_wh2 <= DOUBTFUL * np.median(variance_wh2))
    if known[-1] - known[0] >= count / 2:
        start, stop = int(known[0]), int(known[-1])
    hours = (stop - start) * row_h
    variance = variance_wh2[start] + variance_wh2[stop] + lost_wh2[start:stop].sum()
    return float(booked_wh[stop] - booked_wh[start]) / hours, float(variance) / hours**2
