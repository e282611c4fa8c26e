"""Follows a balance's unexplained energy from boundary to boundary, through late reads and gaps.

It owns the follower's state and what a row may do to it: how far true energy may move in a row, which boundaries a late
read may have spoiled, how a large loss shows between two searches. It refuses to know alarms and onsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.arrays import UNKNOWN_WH2, Floats
from core.balance import _balance
from core.balance.history import History
from core.balance.losses import LossModel
from core.balance.rows import ZoneRows, jumps_wh2

DRIFT_SHARE = 3e-3  # scatter of true unexplained energy in a row, as a share of its load
OUTLIER = 4.0
INITIAL_STATE = (0.0, UNKNOWN_WH2, 0.0, 0.0, 0.0)  # offset unknown, no outlier, no CUSUM, nothing booked
OFFSET, VARIANCE, OUTLIERS, CUSUM, BOOKED = range(5)  # places in the state
GAP_TAIL = 3.0  # what a flat used while it was not heard of is heavy-tailed: an oven is a rare, large miss
LATE_S = 60.0  # a read that had to be repeated comes so late
FAST_SHARE = 0.02  # loss that the CUSUM between two searches looks for, as a share of load


class Follower:
    """State of the cumulative unexplained energy; `state` [5] is packed with the monitor's."""

    def __init__(self) -> None:
        self.state = np.array(INITIAL_STATE)
        self._cusum = np.empty(0)  # of the rows followed last

    def forget(self) -> None:
        """Start anew: nothing is known of the balance before the next row."""
        self.state[:] = INITIAL_STATE

    def advance(self, history: History, model: LossModel, coefficients: Floats, first: int) -> None:
        """Explain rows from `first` on by `coefficients` and follow what they leave; both go into the history."""
        stop = history.count
        rows = history.rows(first, stop)
        if not len(rows):
            return
        expected = model.expected(rows, history.main_before(first), coefficients)
        history.write_expected(first, expected)
        out = _track(self.state, rows, rows.residual_wh - expected, model, history.gap_before(first))
        history.write_booked(first, out[:, 0], out[:, 1] + GAP_TAIL**2 * rows.gap_wh2)
        self._cusum = out[:, 2]

    def first_large(self, history: History, model: LossModel, count: int) -> int | None:
        """The row after the first of the last `count` at which a large loss shows; None if none does."""
        start = history.count - count
        variance = history.booked(start, history.count)[1][1:]
        limit = FAST_SHARE * model.load_w + 6.0 * np.sqrt(variance + 1.0)
        over = np.flatnonzero(self._cusum[-count:] > limit)
        return start + int(over[0]) + 1 if len(over) else None

    def without(self, history: History, model: LossModel, *unread: int) -> tuple[Floats, Floats]:
        """Booked energy and its variance behind the first of rows `unread` on, as if these rows were missing."""
        row, stop = min(unread), history.count
        rows = history.rows(row, stop)
        unexplained = rows.residual_wh - history.expected(row, stop)
        booked, variance = history.booked(row, stop)
        state = np.array(INITIAL_STATE)
        # What was booked apart from what was seen, then: from the difference now.
        state[OFFSET] = self.state[OFFSET] - (booked[-1] - booked[0]) + float(unexplained.sum())
        state[VARIANCE] = max(1.0, variance[0] - GAP_TAIL**2 * history.gap_before(row))
        state[BOOKED] = booked[0]
        out = _track(state, rows, unexplained, model, history.gap_before(row), [k - row for k in unread])
        return out[:, 0], out[:, 1] + GAP_TAIL**2 * rows.gap_wh2


def _track(
    state: Floats,
    rows: ZoneRows,
    unexplained_wh: Floats,
    model: LossModel,
    gap_before_wh2: float,
    unread: Sequence[int] = (),
) -> Floats:
    """Booked energy, its variance and the CUSUM [T, 3]; `unread`: rows whose boundaries are taken as not read."""
    jumps = jumps_wh2(rows, gap_before_wh2)
    # Where the energy may jump, only the next boundary can tell a jump from a read that came late.
    boundary = rows.boundary_wh2 + np.where(jumps > rows.boundary_wh2, (LATE_S * model.late(rows)) ** 2, 0.0)
    boundary[list(unread)] += UNKNOWN_WH2
    out = np.empty((len(rows), 3))
    _balance.track_rows(
        state,
        np.ascontiguousarray(unexplained_wh),
        boundary,
        (DRIFT_SHARE * rows.main_wh) ** 2 + model.scatter_wh2(rows) + jumps,
        np.full(len(rows), FAST_SHARE * model.load_w * model.hours),
        OUTLIER,
        out,
    )
    return out
