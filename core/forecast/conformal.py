"""Quantiles that keep their promise: what is exceeded too often moves out, what is exceeded too rarely moves in.

It owns the corrections, one a level. It refuses to know what is forecast. The rule is the quantile tracker of
Angelopoulos, Candes and Tibshirani (Conformal PID control for time series prediction, 2023), after Gibbs and Candes
2021: whatever the series does, the share below a level tends to that level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Tracker:
    """Shifts of quantiles at `levels`, in units of the errors' spread; at most `limit` of them either way."""

    def __init__(self, levels: Floats, rate: float, limit: float = 2.0) -> None:
        self.levels, self.rate, self.limit = levels, rate, limit
        self.shift = np.zeros(len(levels))

    def apply(self, quantiles: Floats) -> Floats:
        """`quantiles` [levels] with their corrections, in rising order."""
        return np.sort(quantiles + self.shift)

    def learn(self, quantiles: Floats, errors: Floats) -> None:
        """Take the errors [n] that came of `quantiles` [levels] as `apply` gave them; NaN are left out."""
        errors = errors[np.isfinite(errors)]
        if len(errors):
            below = (errors[:, None] <= quantiles).mean(axis=0)
            self.shift = np.clip(self.shift + self.rate * (self.levels - below), -self.limit, self.limit)


def weighted_quantiles(values: Floats, weights: Floats, levels: Floats) -> Floats:
    """Quantiles [levels] of `values` [n] under `weights` [n] > 0, between their mid-points linear."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    return np.asarray(np.interp(levels, (share - 0.5 * weights[order]) / share[-1], values[order]))
