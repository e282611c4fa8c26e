"""A told loss or surplus, from its onset to its end; and what is stated of the sub-meters while it is on.

It owns these values and where the loss runs; how one comes and goes is alarm_life's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from core.arrays import DAY_S, HOUR_S, Floats, Ints, Ints32
from core.balance import _balance
from core.balance.rows import ZoneRows
from core.evidence import Suspect

SUSPECT_MIN = 0.005  # probability below which a sub-meter is not listed
DOUBTED = 0.49  # of each probability, where the interval of the loss includes zero
WIDE = 3.0  # prior standard deviation of a told loss's level, in units of what was told: the rows decide
DRIFT_PER_DAY = 0.02  # of the level: how fast a told loss may grow or fade, one standard deviation
SLOTS, SLOT_H = 8, 3  # of the UTC day: a told loss has a level and a swing of its own in each
SWING_SHARE, WANDER_SHARE = 1.0, 0.15  # how far it is taken to swing over hours, and over days, before its days tell
LEAST_W = 10.0  # a told loss is taken for no smaller


@dataclass(slots=True)
class Alarm:
    """One told loss (`sign` 1) or surplus (-1); rows are counted over all time, times are UTC s.

    scale_w: prior standard deviation of its level. onset_s, lo_s, hi_s: of the onset and its 95 % range, fixed while
    their rows are kept. past_wh: energy lost in rows before `past_to`, which are kept no longer. fading, ended: first
    row of the end's doubt, and the first that surely lies behind it; None while the loss is on. swing_w2: variance of
    its power in each slot of the day, from day to day; wander_w2: of its mean over some days. accepted: why the utility
    takes it for a normal load, "" while it does not. question, common: whether, and how probably, a common load that
    nobody meters explains it. serial: its number among all losses of the zone. One that has ended and is back is told
    under its episode: `returned` lists the rows in which it was on before, and the ended one is `resumed`. rest_until:
    row before which no other loss of this sign is told beside it.
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
    wander_w2: float = 0.0
    swing_w2: list[float] = field(default_factory=lambda: [0.0] * SLOTS)
    accepted: str = ""
    question: bool = False
    common: float = 0.0
    serial: int = 0
    rest_until: int = 0
    returned: list[tuple[int, int]] = field(default_factory=list)
    resumed: bool = False

    def __post_init__(self) -> None:
        if not self.scale_w:
            self.scale_w = WIDE * self.level_w
            self.swing_w2 = [(SWING_SHARE * self.level_w) ** 2] * SLOTS
            self.wander_w2 = (WANDER_SHARE * self.level_w) ** 2

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

    @property
    def first_w(self) -> float:
        """Its size when it was told first, W."""
        return self.scale_w / WIDE

    def columns(self, rows: ZoneRows, first: int, row_h: float) -> Floats:
        """What it may add to rows from row `first` on [T, SLOTS + 3], each column one prior standard deviation.

        A level for each slot of the (UTC) day while it is on, one that grows with time, and one each for the rows
        in which it may have begun or ended.
        """
        at = np.arange(len(rows))
        return self.errors(slot_of(rows.ends_s, row_h), first, row_h).over(at, at + 1)[0]

    def swing_wh2(self, rows: ZoneRows, first: int, row_h: float) -> Floats:
        """Variance of each row's energy because it is not the same every day [T]."""
        at = np.arange(len(rows))
        return self.errors(slot_of(rows.ends_s, row_h), first, row_h).over(at, at + 1)[1]

    def errors(self, slot: Ints32, first: int, row_h: float, free: bool = True) -> ToldErrors:
        """The same by stretches of rows from row `first` on, whose `slot` [T] is known; its levels only if `free`."""
        return ToldErrors(self, slot, first, row_h, free)


@dataclass(frozen=True, slots=True)
class ToldErrors:
    """A told loss as errors of a search."""

    loss: Alarm
    slot: Ints32
    first: int
    row_h: float
    free: bool = True

    def over(self, start: Ints, stop: Ints) -> tuple[Floats, Floats]:
        """Columns [W, SLOTS + 3] of each stretch of rows, and the variance of the swing [W]."""
        loss, row_h = self.loss, self.row_h
        never = self.first + len(self.slot)
        until = never if loss.ended is None else loss.ended
        faded = until if loss.fading is None else loss.fading
        out, variance = np.empty((len(start), SLOTS + 3)), np.empty(len(start))
        drift = DRIFT_PER_DAY * math.sqrt(30.0) / WIDE
        swing = np.array(loss.swing_w2) * (SLOT_H * row_h)
        rows = np.array([self.first, loss.lo, loss.onset, loss.hi, faded], np.intp)
        _balance.told_windows(rows, until, self.slot, row_h, drift, swing, start, stop, out, variance)
        out *= loss.scale_w * row_h
        return (out if self.free else out[:, :0]), variance


def slot_of(ends_s: Floats, row_h: float) -> Ints32:
    """The slot of the UTC day in which the middle of each row lies [T]."""
    return np.asarray((ends_s - 1800.0 * row_h) % DAY_S // (SLOT_H * HOUR_S), np.int32)


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

    def doubted(self) -> Posterior:
        """The same where it is open whether anything is missing at all: more than half is none of these."""
        doubt = 1.0 - DOUBTED * (1.0 - self.none)
        return replace(self, probability=DOUBTED * self.probability, nobody=DOUBTED * self.nobody, none=doubt)
