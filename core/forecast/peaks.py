"""Peak and trough of the next 24 h by heads of their own: the highest of a mean curve is too low, the lowest too high.

It owns what was learned of one extreme: its height against the curve's, its short memory, its errors, when it comes.
All works in the numbers of `Scale`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from core.forecast.calendar import Calendar
from core.forecast.conformal import Tracker, weighted_quantiles
from core.forecast.load import WHOLE

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

BAND = np.array([0.05, 0.95])
RAW_BAND = np.array([0.034, 0.966])  # of the errors that are kept: they count as about 58, and (1 + 1/58) 95 % of 58
ERRORS = 90  # days kept
ERROR_HALF_LIFE = 40.0
QUICK_HALF_LIFE, CURVE_HALF_LIFE = 4.0, 15.0  # days; of the last extremes, and of extremes against the curve's
CURVE_SHARE = 0.6  # of the height; the rest is the short memory
TIME_HALF_LIFE, TIME_OTHER_KIND = 25.0, 0.3
PRIOR_ERROR = 0.2  # spread before errors were seen
RATE = 0.08
ABOUT_S = 2700.0  # times of days before are spread so far
CURVE_TIME_SHARE = 0.6  # of the time's probability; the rest is when it came on such days
OWN_SPREAD = 0.9  # of a step's spread: what an error has in common with the whole day moves no extreme in time
GRID = 160  # heights at which a step is compared with all others
PRIOR_TIME = 0.02  # share of the time's probability that is spread evenly: nothing is impossible


class Fading:
    """A mean whose past fades, with the weight of what it rests on."""

    __slots__ = ("_decay", "_sum", "weight")

    def __init__(self, half_life: float, value: float = 0.0, weight: float = 0.0) -> None:
        self._decay, self._sum, self.weight = 0.5 ** (1 / half_life), value * weight, weight

    def add(self, value: float) -> None:
        """Take one more value."""
        self._sum = self._decay * self._sum + value
        self.weight = self._decay * self.weight + 1

    @property
    def mean(self) -> float:
        """0 before anything was added."""
        return self._sum / self.weight if self.weight else 0.0


class ExtremeHead:
    """Height and time of the highest (`sign` 1) or lowest (-1) step of a local day."""

    def __init__(self, sign: int, step_s: float, calendar: Calendar) -> None:
        self.sign, self.calendar = sign, calendar
        self.steps = round(86_400 / step_s)
        self._quick, self._curve = Fading(QUICK_HALF_LIFE), Fading(CURVE_HALF_LIFE)
        self._square = Fading(30.0, PRIOR_ERROR**2, 3.0)
        self._errors: list[float] = []
        self._tracker = Tracker(BAND, RATE)
        self._times: list[tuple[int, int]] = []  # (local day, step) of extremes
        self._said: tuple[float, Floats] | None = None
        apart = (np.arange(self.steps)[:, None] - np.arange(self.steps)) * step_s
        self._about = _blur(apart, ABOUT_S)

    def best(self, numbers: Floats) -> Floats:
        """The extremes along the last axis."""
        return np.asarray(numbers.max(axis=-1) if self.sign > 0 else numbers.min(axis=-1))

    def where(self, numbers: Floats) -> Ints:
        """Their steps."""
        return np.asarray(numbers.argmax(axis=-1) if self.sign > 0 else numbers.argmin(axis=-1), np.intp)

    def _of_curve(self, mean: Floats) -> float:
        """The curve's extreme as the mean of its sixth that is nearest to it: steadier than one step."""
        count = max(1, self.steps // 6)
        ordered = np.sort(mean)
        return float((ordered[-count:] if self.sign > 0 else ordered[:count]).mean())

    def learn(self, day: int, numbers: Floats, mean: Floats) -> None:
        """Take a day [steps], NaN where not measured, for which `mean` [steps] was the forecast curve."""
        measured = np.isfinite(numbers)
        if measured.mean() < WHOLE:
            self._said = None
            return
        numbers = np.where(measured, numbers, mean)
        height = float(self.best(numbers))
        if self._said is not None:
            centre, band = self._said
            error = height - centre
            spread = self.spread
            self._tracker.learn((band - centre) / spread, np.array([error / spread]))
            self._errors = [*self._errors[1 - ERRORS :], error]
            self._square.add(min(error * error, 25 * spread * spread))
        self._quick.add(height)
        self._curve.add(height - self._of_curve(mean))
        self._times = [*self._times[1 - ERRORS :], (day, int(self.where(numbers)))]

    def predict(self, mean: Floats, *, ratio: bool) -> tuple[float, Floats]:
        """Height and its 90 % band [2] for the day with the forecast curve `mean` [steps].

        `ratio`: numbers are logarithms, so that half the variance is taken off for the power to be right on average.
        """
        curve = self._of_curve(mean) + self._curve.mean
        centre = CURVE_SHARE * curve + (1 - CURVE_SHARE) * self._quick.mean if self._quick.weight else curve
        if ratio and len(self._errors) >= 7:
            centre -= 0.5 * min(self._square.mean, PRIOR_ERROR**2)
        band = centre + self._tracker.apply(self._quantiles() / self.spread) * self.spread
        self._said = (centre, band)
        return self._said

    @property
    def spread(self) -> float:
        """Standard error of the height."""
        return math.sqrt(self._square.mean) + 1e-3

    def _weighted_errors(self) -> tuple[Floats, Floats]:
        """Errors with their weights; the prior's stand first and count little once errors were seen."""
        prior = PRIOR_ERROR * np.array([-1.8, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8])
        ages = np.arange(len(self._errors), 0, -1)
        values = np.concatenate([prior, self._errors])
        return values, np.concatenate([np.full(len(prior), 0.1), 0.5 ** (ages / ERROR_HALF_LIFE)])

    def _quantiles(self) -> Floats:
        return weighted_quantiles(*self._weighted_errors(), RAW_BAND)

    def beyond(self, number: float, centre: float, widen: float = 1.0) -> float:
        """Probability that the extreme lies above `number` where `centre` is expected."""
        errors, weights = self._weighted_errors()
        width = 0.35 * self.spread * widen
        z = (centre + errors * widen - number) / (width * math.sqrt(2))
        above = np.array([0.5 * (1 + math.erf(v)) for v in z])
        return float(weights @ above / weights.sum())

    def times(self, kind: int, day: int) -> Floats:
        """How often it came at each step of a local day, [steps], sum 1: days of the same kind count most."""
        frequency = np.full(self.steps, 1e-9)
        for past, step in self._times:
            weight = 0.5 ** ((day - past) / TIME_HALF_LIFE)
            frequency[step] += weight * (1.0 if self.calendar.kind(past) == kind else TIME_OTHER_KIND)
        frequency = frequency @ self._about
        return np.asarray(frequency / frequency.sum())

    def probability(self, mean: Floats, spread: Floats, points: Floats, shares: Floats, habit: Floats) -> Floats:
        """Probability of each step [steps]: what the curve says, and `habit` [steps].

        Errors of `spread` [steps] about `mean` [steps] lie with probability `shares` [n] below `points` [n] spreads.
        """
        mixed = CURVE_TIME_SHARE * self._of_errors(mean, spread, points, shares) + (1 - CURVE_TIME_SHARE) * habit
        return np.asarray((1 - PRIOR_TIME) * mixed / mixed.sum() + PRIOR_TIME / self.steps)

    def _of_errors(self, mean: Floats, spread: Floats, points: Floats, shares: Floats) -> Floats:
        """Probability that a step lies beyond all others, were their errors independent: over the heights, that it
        lies there and all others do not.
        """
        if self.sign < 0:
            mean, points, shares = -mean, -points[::-1], 1 - shares[::-1]
        scale = OWN_SPREAD * spread
        lowest, highest = (mean + scale * points[0]).max(), (mean + scale * points[-1]).max()
        heights = np.linspace(lowest, highest, GRID + 1)
        below = np.maximum(np.interp((heights - mean[:, None]) / scale[:, None], points, shares), 1e-9)
        logs = np.log(0.5 * (below[:, 1:] + below[:, :-1]))
        chance = (np.diff(below, axis=1) * np.exp(logs.sum(axis=0) - logs)).sum(axis=1)
        return np.asarray(chance / chance.sum())


def _blur(apart_s: Floats, width_s: float) -> Floats:
    kernel = np.exp(-0.5 * (apart_s / width_s) ** 2)
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True))
