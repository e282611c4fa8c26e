"""Where features and model meet, per zone: the day's features, the calibrated probability, the prior for attribution.

It owns the fusion. The probability of theft takes everything into account, attribution's posterior too. What enters
attribution as a prior is only what the model says *without* the balance's evidence: else the same evidence would be
counted twice, and the more often the alarm is revised the surer it would become.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.features import FEATURES, NO_EVIDENCE

F64 = NDArray[np.float64]

PRIOR_LIMIT = 3.0  # nat: habits may make a flat twenty times more or less likely, the balance decides
EDGE = 1e-6


class Scorer(Protocol):
    """What scores rows of features: `core.model.CompactModel`, or a fake of it."""

    features: tuple[str, ...]

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of theft [n] for [n, len(features)]; NaN where a row is not finite."""


def probability(scorer: Scorer, rows: F64) -> F64:
    """Calibrated probability of theft [N] of the flats with features `rows` [N, len(FEATURES)]."""
    places = [FEATURES.index(name) for name in scorer.features]
    return scorer.score(rows[:, places].astype(np.float32)).astype(np.float64)


def prior_log_odds(scorer: Scorer, rows: F64) -> F64:
    """Log-odds of each flat [N] relative to an average flat, from what the balance has not said."""
    blind = rows.copy()
    for name, neutral in NO_EVIDENCE.items():
        blind[:, FEATURES.index(name)] = neutral
    score = np.nan_to_num(probability(scorer, blind), nan=0.5)
    inside = np.clip(score, EDGE, 1 - EDGE)
    odds = np.log(inside / (1 - inside))
    return np.asarray(np.clip(odds - np.median(odds), -PRIOR_LIMIT, PRIOR_LIMIT))
