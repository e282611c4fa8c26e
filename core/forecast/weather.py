"""How much the outdoor temperature moves the forecast of a day: only as far as it has proved to.

It owns a second regression, with the temperature among its features, and the share that it has of the forecast. It
refuses to know where temperatures come from. The share is that of the least squared error so far (Bates and Granger
1969), from 0 at the beginning: temperatures that say nothing of a load change nothing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from core.forecast.outdoor import REGRESSORS
from core.forecast.regression import PooledRidge

Floats = NDArray[np.float64]

HALF_LIFE = 45.0  # days; of the share's memory
WIDEST = 3.0  # of a band without temperatures against one with them


class WeatherTerm:
    """For one lead: what is added to the forecast curve [steps] because of the temperature."""

    def __init__(self, steps: int, prior: Floats, half_life: float, reach: float) -> None:
        self._ridge = PooledRidge(steps, np.concatenate([prior, np.zeros(REGRESSORS)]), half_life, reach)
        self._decay = 0.5 ** (1 / HALF_LIFE)
        # Of error times change, of change squared: means over a day's steps, faded; the first one's variance by chance.
        self._gain, self._move, self._chance = 0.0, 0.0, 0.0
        self._plain, self._used = 0.0, 0.0  # squared errors without and with
        self._said: tuple[Floats, Floats, Floats] | None = None

    @property
    def share(self) -> float:
        """Of the second regression in the forecast, 0 to 1: by the gain that is left within its standard error."""
        sure = self._gain - math.sqrt(self._chance)
        return float(np.clip(sure / self._move, 0.0, 1.0)) if self._move > 0 else 0.0

    @property
    def blindness(self) -> float:
        """By how much errors are larger where temperatures are missing, at least 1."""
        ratio = self._plain / self._used if self._used > 0 else 1.0
        return float(np.clip(math.sqrt(max(ratio, 0.0)), 1.0, WIDEST))

    def predict(self, features: Floats, regressors: Floats | None, plain: Floats) -> Floats:
        """What to add to `plain` [steps], the forecast by `features` [steps, n] alone; zeros without temperatures."""
        if regressors is None:
            self._said = None
            return np.zeros(len(plain))
        whole = np.concatenate([features, regressors], axis=1)
        change = (whole * self._ridge.coefficients()).sum(axis=1) - plain
        self._said = whole, plain, change
        return np.asarray(self.share * change)

    def said(self) -> tuple[Floats, Floats, Floats] | None:
        """What was said last, for `learn`; None where it was without temperatures."""
        return self._said

    def learn(self, said: tuple[Floats, Floats, Floats] | None, numbers: Floats) -> None:
        """Take the day [steps], NaN where not measured, for which `said` was the forecast."""
        measured = np.isfinite(numbers)
        if said is None or not measured.any():
            return
        whole, plain, change = said
        error = (numbers - plain)[measured]
        moved = change[measured]
        used = error - self.share * moved
        gain = float((error * moved).mean())
        self._gain = self._decay * self._gain + gain
        self._chance = self._decay**2 * self._chance + gain * gain
        self._move = self._decay * self._move + float((moved * moved).mean())
        self._plain = self._decay * self._plain + float((error * error).mean())
        self._used = self._decay * self._used + float((used * used).mean())
        self._ridge.learn(whole, numbers)
