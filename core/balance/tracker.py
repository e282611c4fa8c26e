"""Follows a balance's unexplained energy from boundary to boundary, through late reads and gaps.

It owns the follower's state and what a row may do to it: how far true energy may move in a row, which boundaries a late
read may have spoiled, how a large loss shows between two searches. It refuses to know alarms and onsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arrays import UNKNOWN_WH2, Bools, Floats
from core.balance import _balance
from core.balance.history import History
from core.balance.losses import GAP_TAIL, LossModel
from core.balance.rows import ZoneRows, jumps_wh2

DRIFT_SHARE = 3e-3  # scatter of true unexplained energy in a row, as a share of its load
OUTLIER = 4.0
INITIAL_STATE = (0.0, UNKNOWN_WH2, 0.0, 0.0, 0.0)  # offset unknown, no outlier, no CUSUM, nothing booked
OFFSET, VARIANCE, OUTLIERS, CUSUM, BOOKED = range(5)  # places in the state
LATE_S = 60.0  # a read that had to be repeated comes so late
FAST_Z = 6.0  # and by how many standard deviations of the boundary it has to stand out
FAST_SHARE = 0.02  # loss that the CUSUM between two searches looks for, as a share of load


@dataclass(frozen=True, slots=True)
class Explained:
    """Rows with what is expected of them and how far they may err; all [T], Wh and Wh^2."""

    rows: ZoneRows
    expected_wh: Floats
    unexplained_wh: Floats
    boundary_wh2: Floats
    drift_wh2: Floats
    allowed_wh: Floats
    gap_wh2: Floats


def explained(
    rows: ZoneRows, model: LossModel, coefficients: Floats, before_wh: float, gap_before_wh2: float
) -> Explained:
    """`rows` under the model of now; `before_wh`, `gap_before_wh2`: main energy and gap of the row before the first."""
    expected, scatter = model.explained(rows, before_wh, coefficients)
    return _explained(rows, model, expected, scatter, gap_before_wh2)


def _explained(rows: ZoneRows, model: LossModel, expected: Floats, scatter: Floats, gap_before_wh2: float) -> Explained:
    jumps = jumps_wh2(rows, gap_before_wh2)
    # Where the energy may jump, only the next boundary can tell a jump from a read that came late.
    boundary = rows.boundary_wh2 + np.where(jumps > rows.boundary_wh2, (LATE_S * model.late(rows)) ** 2, 0.0)
    return Explained(
        rows,
        expected,
        rows.residual_wh - expected,
        boundary,
        (DRIFT_SHARE * rows.main_wh) ** 2 + scatter + jumps,
        np.full(len(rows), FAST_SHARE * model.load_w * model.hours),
        GAP_TAIL**2 * rows.gap_wh2,
    )


class Follower:
    """State of the cumulative unexplained energy; `state` [5] is packed with the monitor's."""

    def __init__(self) -> None:
        self.state = np.array(INITIAL_STATE)

    def explain(self, history: History, model: LossModel, coefficients: Floats) -> None:
        """Explain all kept rows by `coefficients` and follow what they leave, knowing nothing before them."""
        self.state[:] = INITIAL_STATE
        first = history.first
        rows = history.rows(first, history.count)
        if not len(rows):
            return
        said = explained(rows, model, coefficients, history.main_before(first), history.gap_before(first))
        out = _track(self.state, said, slice(None))
        history.write_expected(first, said.expected_wh)
        history.write_booked(first, out[:, 0], out[:, 1] + said.gap_wh2)

    def ready(self, history: History, model: LossModel, coefficients: Floats, rows: ZoneRows) -> Explained:
        """Rows that follow the last ones, explained before they are appended."""
        first = history.count
        before_wh = history.main_before(first) if first > history.first else float(rows.main_wh[0])
        return explained(rows, model, coefficients, before_wh, history.gap_before(first))

    def append(
        self,
        history: History,
        model: LossModel,
        said: Explained,
        part: slice,
        missed: Bools,
        read: Floats,
        until_large: bool,
    ) -> tuple[int, bool]:
        """Append the rows `part` of those explained: how many, and whether a large loss shows.

        With `until_large`, rows behind the first at which a large loss shows are left: it is judged without them.
        """
        first = history.count
        state = self.state.copy()
        out = _track(state, said, part)
        variance = out[:, 1] + said.gap_wh2[part]
        count, large = len(out), False
        if until_large:
            over = np.flatnonzero(out[:, 2] > FAST_SHARE * model.load_w + FAST_Z * np.sqrt(variance + 1.0))
            if len(over):
                count, large = int(over[0]) + 1, True
        taken = slice(part.start, part.start + count)
        if count < len(out):
            _track(self.state, said, taken)
        else:
            self.state[:] = state
        history.append(said.rows[taken], missed[:count], read[:count])
        history.write_expected(first, said.expected_wh[taken])
        history.write_booked(first, out[:count, 0], variance[:count])
        return count, large

    def without(self, history: History, model: LossModel, *unread: int) -> tuple[Floats, Floats]:
        """Booked energy and its variance behind the first of rows `unread` on, as if these rows were missing."""
        row, stop = min(unread), history.count
        rows = history.rows(row, stop)
        expected = history.expected(row, stop)
        said = _explained(rows, model, expected, model.scatter_wh2(rows), history.gap_before(row))
        booked, variance = history.booked(row, stop)
        state = np.array(INITIAL_STATE)
        # What was booked apart from what was seen, then: from the difference now.
        state[OFFSET] = self.state[OFFSET] - (booked[-1] - booked[0]) + float(said.unexplained_wh.sum())
        state[VARIANCE] = max(1.0, variance[0] - GAP_TAIL**2 * history.gap_before(row))
        state[BOOKED] = booked[0]
        said.boundary_wh2[[k - row for k in unread]] += UNKNOWN_WH2
        out = _track(state, said, slice(None))
        return out[:, 0], out[:, 1] + said.gap_wh2


def _track(state: Floats, said: Explained, part: slice) -> Floats:
    """Booked energy, its variance and the CUSUM [T, 3] of a part of the rows."""
    unexplained = said.unexplained_wh[part]
    out = np.empty((len(unexplained), 3))
    _balance.track_rows(
        state, unexplained, said.boundary_wh2[part], said.drift_wh2[part], said.allowed_wh[part], OUTLIER, out
    )
    return out
