"""Ridge regression whose past fades: one for each step of the day, pooled with its neighbours, updated once a day.

It owns moments and coefficients; it refuses to know what the features mean. Moments are sums, so nothing grows with
time. (Hoerl and Kennard 1970; exponential forgetting as in recursive least squares.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGE = 3e-3  # of the mean squared feature
PRIOR_WEIGHT = 0.5  # squared features that the prior coefficients are worth: what holds before there are data


class PooledRidge:
    """One regression a step, of `len(prior)` features, shrunk towards `prior`; neighbours about `reach` steps count."""

    def __init__(self, steps: int, prior: Floats, half_life: float, reach: float) -> None:
        count = len(prior)
        self.prior, self.decay = prior, 0.5 ** (1 / half_life)
        apart = np.arange(steps)[:, None] - np.arange(steps)
        self.pool = np.where(np.abs(apart) <= 2 * reach, np.exp(-0.5 * (apart / reach) ** 2), 0.0)
        self.gram = np.zeros((steps, count, count))
        self.moment = np.zeros((steps, count))

    def learn(self, features: Floats, target: Floats) -> None:
        """Take one day: `features` [steps, features], `target` [steps], NaN where not measured."""
        measured = np.isfinite(target)
        x = np.where(measured[:, None], features, 0.0)
        y = np.where(measured, target, 0.0)
        if measured.any():  # a day without readings does not fade what is known
            self.gram *= self.decay
            self.moment *= self.decay
            self.gram += x[:, :, None] * x[:, None, :]
            self.moment += x * y[:, None]

    def coefficients(self) -> Floats:
        """[steps, features]."""
        steps, count = self.moment.shape
        gram = (self.pool @ self.gram.reshape(steps, -1)).reshape(steps, count, count)
        moment = self.pool @ self.moment
        strength = RIDGE * np.trace(gram, axis1=1, axis2=2) / count + PRIOR_WEIGHT
        moment -= gram @ self.prior
        gram += strength[:, None, None] * np.eye(count)
        return np.asarray(self.prior + np.linalg.solve(gram, moment[:, :, None])[:, :, 0])
