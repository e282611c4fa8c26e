"""ZoneRows: one zone's residual with its variances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arrays import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class ZoneRows:
    """Rows of one zone: energies in Wh [T], `subs_wh` [T, N].

    boundary_wh2: variance at the row's end, independent from row to row; gap_wh2: the same of meters in a long gap,
    whose error lasts until they answer; lost_wh2: variance of energy that is lost for good.
    """

    ends_s: Floats
    main_wh: Floats
    subs_wh: Floats
    residual_wh: Floats
    boundary_wh2: Floats
    lost_wh2: Floats
    gap_wh2: Floats

    @classmethod
    def empty(cls, ends_s: Floats, subs: int) -> ZoneRows:
        """Rows that end at `ends_s` [T], to be filled by the kernel."""
        count = len(ends_s)
        return cls(
            ends_s,
            np.empty(count),
            np.empty((count, subs)),
            np.empty(count),
            np.empty(count),
            np.empty(count),
            np.empty(count),
        )

    def __len__(self) -> int:
        return len(self.ends_s)

    def where(self, mask: Bools) -> ZoneRows:
        """The rows at which `mask` [T] is true."""
        return ZoneRows(
            self.ends_s[mask],
            self.main_wh[mask],
            self.subs_wh[mask],
            self.residual_wh[mask],
            self.boundary_wh2[mask],
            self.lost_wh2[mask],
            self.gap_wh2[mask],
        )

    def __getitem__(self, rows: slice) -> ZoneRows:
        return ZoneRows(
            self.ends_s[rows],
            self.main_wh[rows],
            self.subs_wh[rows],
            self.residual_wh[rows],
            self.boundary_wh2[rows],
            self.lost_wh2[rows],
            self.gap_wh2[rows],
        )


def jumps_wh2(rows: ZoneRows, gap_before_wh2: float) -> Floats:
    """Variance by which each row's booked energy may jump: energy lost, errors of long gaps as they come and go.

    `gap_before_wh2`: that of the boundary before the first row.
    """
    steps: Floats = rows.lost_wh2 + np.abs(np.diff(rows.gap_wh2, prepend=gap_before_wh2))
    return steps


def window_sums(values: Floats, start: Ints, stop: Ints) -> Floats:
    """Sums [W, K] of `values` [T, K] over windows of rows start .. stop - 1."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    sums: Floats = total[stop] - total[start]
    return sums
