"""One zone's short rows: explained as the monitor explains its own, and watched for a large loss.

It owns what of a short row is known less well than of a long one. It refuses to know the alignment and the monitor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.arrays import Bools
from core.balance.losses import GAP_TAIL, OWN_FACTOR, OWN_LIMIT_W, LossModel
from core.balance.rows import ZoneRows
from core.fast.large_loss import LargeLoss, LargeLossTest, Rows
from core.fast.last_known import LastKnown
from core.fast.ramps import Scene, Steps

OVER_SHARE = 0.3  # of what a flat shows beyond what one phase bears may be anything: copper, a late read, a gap's end


class ZoneWatch:
    """One zone's. `step` takes short rows in order. steps_wh: of its registers, the main meter's first."""

    def __init__(self, row_s: float, steps_wh: Sequence[float]) -> None:
        self._test = LargeLossTest(row_s, len(steps_wh) - 1, Steps(steps_wh[0], steps_wh[1:]))
        self._last = LastKnown(len(steps_wh))
        self._main_wh = 0.0

    def step(
        self, rows: ZoneRows, missed: Bools, known: tuple[LossModel, Scene] | None, *, quiet: bool
    ) -> LargeLoss | None:
        """Take rows that follow the last ones; the first large loss, or None.

        missed [T, 1 + N]: which meters were not read, the main meter first. known: the loss model for rows so short and
        the noise around it, None while it is too early for either. `quiet`: look for none.
        """
        short_wh2, long_wh2 = self._last.doubt_wh2(np.column_stack([rows.main_wh, rows.subs_wh]), missed)
        if known is None:
            return None
        model, scene = known
        expected = model.expected(rows, self._main_wh or float(rows.main_wh[0]))
        self._main_wh = float(rows.main_wh[-1])
        over = np.maximum(rows.subs_wh - OWN_LIMIT_W * model.hours, 0.0)
        short = Rows(
            ends_s=rows.ends_s,
            unexplained_wh=rows.residual_wh - expected,
            expected_wh=expected,
            main_wh=rows.main_wh,
            boundary_wh2=rows.boundary_wh2 + short_wh2,
            gap_wh2=GAP_TAIL**2 * rows.gap_wh2 + long_wh2,
            lost_wh2=rows.lost_wh2 + np.square(OVER_SHARE * over).sum(axis=1),
            # Without the bound of the loss model: in a minute a flat may draw so much, and what that loses is doubtful.
            own_wh=np.square(rows.subs_wh) * (OWN_FACTOR / (scene.load_w * model.hours)),
            subs_wh=rows.subs_wh,
        )
        return self._test.step(short, scene, quiet)
