"""Follows a balance's unexplained energy from boundary to boundary, through late reads and gaps.

It owns the follower's state and what a row may do to it: how far true energy may move in a row, which boundaries a late
read may have spoiled, how a large loss shows between two searches. It refuses to know alarms and onsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.arrays import UNKNOWN_WH2, Bools, Floats
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
FAST_Z = 6.0  # and by how many standard deviations of the boundary it has to stand out
FAST_SHARE = 0.02  # loss that the CUSUM between two searches looks for, as a share of load


class Follower:
    """State of the cumulative unexplained energy; `state` [5] is packed with the monitor's."""

    def __init__(self) -> None:
        self.state = np.array(INITIAL_STATE)

    def explain(self, history: History, model: LossModel, coefficients: Floats) -> None:
        """Explain all kept rows by `coefficients` and follow what they leave, knowing nothing before them."""
        self.state[:] = INITIAL_STATE
        rows = history.rows(history.first, history.count)
        if not len(rows):
            return
        expected = model.expected(rows, history.main_before(history.first), coefficients)
        out = _track(self.state, rows, rows.residual_wh - expected, model, history.gap_before(history.first))
        history.write_expected(history.first, expected)
        history.write_booked(history.first, out[:, 0], out[:, 1] + GAP_TAIL**2 * rows.gap_wh2)

    def append(
        self,
        history: History,
        model: LossModel,
        coefficients: Floats,
        rows: ZoneRows,
        missed: Bools,
        read: Floats,
        until_large: bool,
    ) -> tuple[int, bool]:
        """Explain rows that follow the last ones and append them: how many, and whether a large loss shows.

        With `until_large`, rows behind the first at which a large loss shows are left: it is judged without them.
        """
        first = history.count
        before_wh = history.main_before(first) if first > history.first else float(rows.main_wh[0])
        expected = model.expected(rows, before_wh, coefficients)
        unexplained, gap_wh2 = rows.residual_wh - expected, history.gap_before(first)
        state = self.state.copy()
        out = _track(state, rows, unexplained, model, gap_wh2)
        variance = out[:, 1] + GAP_TAIL**2 * rows.gap_wh2
        limit = FAST_SHARE * model.load_w + FAST_Z * np.sqrt(variance + 1.0)
        over = np.flatnonzero(out[:, 2] > limit) if until_large else np.empty(0, np.intp)
        count = int(over[0]) + 1 if len(over) else len(rows)
        if count < len(rows):
            _track(self.state, rows[:count], unexplained[:count], model, gap_wh2)
        else:
            self.state[:] = state
        history.append(rows[:count], missed[:count], read[:count])
        history.write_expected(first, expected[:count])
        history.write_booked(first, out[:count, 0], variance[:count])
        return count, bool(len(over))

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
