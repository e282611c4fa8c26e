"""A told loss or surplus, from its onset to its end; and what is stated of the sub-meters while it is on.

It owns these values and where the loss runs; how one comes and goes is alarm_life's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from core.arrays import Floats
from core.balance.rows import ZoneRows
from core.detection.bins import BLOCKS
from core.evidence import Suspect

SUSPECT_MIN = 0.005  # probability below which a sub-meter is not listed
WIDE = 3.0  # prior standard deviation of a told loss's level, in units of what was told: the rows decide
DRIFT_PER_DAY = 0.02  # of the level: how fast a told loss may grow or fade, one standard deviation
LEAST_W = 10.0  # a told loss is taken for no smaller


@dataclass(slots=True)
class Alarm:
    """One told loss (`sign` 1) or surplus (-1); rows are counted over all time, times are UTC s.

    scale_w: prior standard deviation of its level. onset_s, lo_s, hi_s: of the onset and its 95 % range, fixed while
    their rows are kept. past_wh: energy lost in rows before `past_to`, which are kept no longer. fading, ended: first
    row of the end's doubt, and the first that surely lies behind it; None while the loss is on. swing_w2: variance of
    its power from day to day. accepted: why the utility takes it for a normal load, "" while it does not. question,
    common: whether, and how probably, a common load that nobody meters explains it. serial: its number among all of the
    zone. A loss that has ended and is back is told under its episode: `returned`, and the ended one `resumed`.
    """

    episode: int
    sign: float
    lo: int
    onset: int
    hi: int
    raised: int
    from_start: bool = False
    revisions: int = 0
    loss_w: float = 0.0
    scale_w: float = 0.0
    onset_s: float = 0.0
    lo_s: float = 0.0
    hi_s: float = 0.0
    past_wh: float = 0.0
    past_to: int = 0
    fading: int | None = None
    ended: int | None = None
    swing_w2: float = 0.0
    accepted: str = ""
    question: bool = False
    common: float = 0.0
    serial: int = 0
    returned: bool = False
    resumed: bool = False

    @property
    def active(self) -> bool:
        """Whether it is on and the utility wants to hear of it."""
        return self.ended is None and not self.accepted

    @property
    def whose(self) -> int:
        """One number for each episode of a zone: what is known of its suspects outlives an end."""
        return 2 * self.episode + (self.sign < 0)

    @property
    def level_w(self) -> float:
        """Its size for a prior, W."""
        return max(LEAST_W, abs(self.loss_w))

    def columns(self, rows: ZoneRows, first: int, row_h: float) -> Floats:
        """What it may add to rows from row `first` on [T, BLOCKS + 3], each column one prior standard deviation.

        A level for each quarter of the (UTC) day while it is on, one that grows with time, and one each for the rows
        in which it may have begun or ended.
        """
        at = first + np.arange(len(rows))
        until = np.inf if self.ended is None else float(self.ended)
        faded = until if self.fading is None else float(self.fading)
        on = (at >= self.onset) & (at < faded)
        quarter = ((rows.ends_s - 1800.0 * row_h) % 86_400.0 // (86_400.0 / BLOCKS)).astype(np.intp)
        out = np.zeros((len(at), BLOCKS + 3))
        out[np.arange(len(at)), quarter] = on
        days = (at - self.onset) * row_h / 24.0
        out[:, BLOCKS] = np.where(on, DRIFT_PER_DAY * np.sqrt(np.maximum(days, 0.0) * 30.0), 0.0) / WIDE
        out[:, BLOCKS + 1] = (at >= self.lo) & (at < self.hi) & (self.hi > self.lo + 1)
        out[:, BLOCKS + 2] = (at >= faded) & (at < until)
        return np.asarray(out * (self.scale_w * row_h))

    def swing_wh2(self, rows: ZoneRows, first: int, row_h: float) -> Floats:
        """Variance of each row's energy because it is not the same every day [T]."""
        at = first + np.arange(len(rows))
        until = np.inf if self.ended is None else float(self.ended)
        return np.where((at >= self.lo) & (at < until), self.swing_w2 * 24.0 * row_h, 0.0)


@dataclass(slots=True)
class Posterior:
    """What is stated of each sub-meter after the last attribution; probability, nobody and none sum to 1."""

    probability: Floats
    nobody: float
    mechanism: tuple[str, ...]
    statistics: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    none: float = 0.0

    def suspects(self, subs: Sequence[str]) -> tuple[Suspect, ...]:
        """The sub-meters in order of decreasing probability, without those that are out of the question."""
        order = np.argsort(-self.probability, kind="stable")
        return tuple(
            Suspect(subs[j], float(self.probability[j]), self.mechanism[j])
            for j in order
            if self.probability[j] >= SUSPECT_MIN
        )
