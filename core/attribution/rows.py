"""Rows and Onset: the input."""

from __future__ import annotations

from dataclasses import dataclass

from core.arrays import Bools, Floats, Ints

SLOTS_MAX = 48  # finer rows are added up: a household's life has no finer grain, and reads have errors


@dataclass(frozen=True, slots=True)
class Rows:
    """Energy of one zone in rows of equal length without holes, oldest first.

    sub_wh [T, N]: energy per row of every sub-meter; over a gap of reads the energy between the two registers is
    spread over the rows (so that sums hold) and `estimated` [T, N] is true there; NaN where nothing is known.
    residual_wh [T]: main - sum - technical loss expected under the model as it was before the onset; NaN unknown.
    boundary_variance_wh2 [T + 1]: variance of the error of the residual's *cumulative* energy at each boundary.
    day [T]: local day number (days since 1970-01-01); slot [T]: row of the local day, 0 .. slots_per_day - 1.
    resolution_wh [N]: the step of each sub-meter's register.
    """

    sub_wh: Floats
    residual_wh: Floats
    boundary_variance_wh2: Floats
    day: Ints
    slot: Ints
    slots_per_day: int
    estimated: Bools | None = None
    resolution_wh: Floats | None = None


@dataclass(frozen=True, slots=True)
class Onset:
    """First row that carries the loss: the best row, and the first and last that are credible. 0: from the start."""

    lo: int
    best: int
    hi: int
