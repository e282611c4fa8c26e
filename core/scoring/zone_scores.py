"""Where features and model meet, per zone: the day's features, the calibrated probability, the prior for attribution.

It owns the fusion. The probability of theft takes everything into account, attribution's posterior too. What enters
attribution as a prior is only what the model says *without* the balance's evidence: else the same evidence would be
counted twice, and the more often the alarm is revised the surer it would become.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.arrays import DAY_S, Floats
from core.balance.history import History
from core.scoring.features import FEATURES, NO_EVIDENCE, RING_DAYS, THEFT_SIGNS, WEEK, Day, Loss, ZoneFeatures
from core.signs import MeterSign

PRIOR_LIMIT = 3.0  # nat: habits may make a flat twenty times more or less likely, the balance decides
EDGE = 1e-6


class Scorer(Protocol):
    """What scores rows of features: `core.scoring.model.CompactModel`, or a fake of it."""

    features: tuple[str, ...]

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of theft [n] for [n, len(features)]; NaN where a row is not finite."""


def probability(scorer: Scorer, rows: Floats) -> Floats:
    """Calibrated probability of theft [N] of the flats with features `rows` [N, len(FEATURES)]."""
    places = [FEATURES.index(name) for name in scorer.features]
    return scorer.score(rows[:, places].astype(np.float32)).astype(np.float64)


def prior_log_odds(scorer: Scorer, rows: Floats) -> Floats:
    """Log-odds of each flat [N] relative to an average flat, from what the balance has not said."""
    blind = rows.copy()
    for name, neutral in NO_EVIDENCE.items():
        blind[:, FEATURES.index(name)] = neutral
    score = np.nan_to_num(probability(scorer, blind), nan=0.5)
    inside = np.clip(score, EDGE, 1 - EDGE)
    odds = np.log(inside / (1 - inside))
    return np.asarray(np.clip(odds - np.median(odds), -PRIOR_LIMIT, PRIOR_LIMIT))


class ZoneScores:
    """One zone's features and scores, kept up from its rows. `offset_s`: local time minus UTC."""

    def __init__(self, subs: Sequence[str], row_h: float, offset_s: float = 0.0, scorer: Scorer | None = None) -> None:
        self.scorer = scorer
        self.features = ZoneFeatures(len(subs))
        self._place = {meter: j for j, meter in enumerate(subs)}
        self._day_rows = round(24 / row_h)
        self._offset_s = offset_s
        self._taken = 0  # rows of all time that are in the features

    def follow(self, history: History, signs: Iterable[MeterSign], onset: int | None) -> None:
        """Take the local days that are whole by now. `onset`: row of the latched loss, None where there is none."""
        signs = list(signs)
        while (stop := self._next_midnight(history)) <= history.count:
            if stop - self._day_rows >= history.first:
                self.features.add(self._day(history, stop, signs))
            self._taken = stop
        self.features.latch(None if onset is None else (self._taken - onset) / self._day_rows)

    def restore(self, history: History, signs: Iterable[MeterSign], onset: int | None, before: Floats | None) -> None:
        """Make anew from `history` what was known when `before` (`features.before`) was put into a checkpoint."""
        self.features = ZoneFeatures(len(self._place))
        self.features.before = before
        self._taken = max(history.first, history.count - (RING_DAYS + WEEK + 1) * self._day_rows)
        self.follow(history, signs, onset)

    def rows(self, loss: Loss | None, suspicion: Floats | None = None) -> Floats:
        """Features [N, len(FEATURES)]; see ZoneFeatures.rows."""
        return self.features.rows(loss, suspicion)

    def prior(self) -> Floats | None:
        """The model's word before attribution [N]; None without a model."""
        return None if self.scorer is None else prior_log_odds(self.scorer, self.features.rows())

    def probability(self, rows: Floats) -> Floats | None:
        """Calibrated probability of theft [N] of `rows()`; None without a model."""
        return None if self.scorer is None else probability(self.scorer, rows)

    def _next_midnight(self, history: History) -> int:
        """The first row count after `_taken` at which a local day ends; beyond `history.count` if there is none."""
        start = max(self._taken, history.first)
        if start >= history.count:
            return history.count + 1
        first_s = float(history.rows(start, start + 1).ends_s[0]) + self._offset_s
        left_s = (DAY_S - first_s % DAY_S) % DAY_S
        return start + 1 + round(left_s / DAY_S * self._day_rows)

    def _day(self, history: History, stop: int, signs: list[MeterSign]) -> Day:
        rows = history.rows(stop - self._day_rows, stop)
        end_s = float(rows.ends_s[-1])
        count = np.zeros(len(self._place))
        for sign in signs:
            if sign.kind in THEFT_SIGNS and end_s - DAY_S <= sign.time_s < end_s:
                count[self._place[sign.meter]] += 1
        return Day(rows.subs_wh, rows.main_wh, history.missed(stop - self._day_rows, stop), count)
