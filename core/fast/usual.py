"""What is usual in a zone, from the rows that are judged: until short rows know a day by themselves.

It owns which boundaries of that day may be trusted: what was booked while a meter was silent is an estimate, and the
day's mean must not begin or end in one. It refuses to know what is made of the mean.
"""

from __future__ import annotations

import numpy as np

from core.balance.history import History

DOUBTFUL = 4.0  # times the usual variance: such a boundary lies in a gap


def usual_power(history: History, first: int, row_h: float) -> tuple[float, float]:
    """Mean unexplained power of the rows from `first` on, W, and its variance, W^2, by its parts' ends.

    Rows that touch a gap are left out, if half of the day is left without them: an estimate is no measure, and what is
    set right at its end belongs to no hour.
    """
    booked_wh, variance_wh2 = history.booked(first, history.count)
    lost_wh2 = history.rows(first, history.count).lost_wh2
    known = variance_wh2 <= DOUBTFUL * np.median(variance_wh2)
    whole = known[1:] & known[:-1]
    if 2 * whole.sum() < len(whole):
        whole = np.ones(len(whole), np.bool_)
    hours = float(whole.sum()) * row_h
    ends = np.diff(whole, prepend=False, append=False)
    variance = variance_wh2[ends].sum() + lost_wh2[whole].sum()
    return float(np.diff(booked_wh)[whole].sum()) / hours, float(variance) / hours**2
