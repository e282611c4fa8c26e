"""The load of a zone over the next three local days: typical number, spread and standardised errors of each step.

It owns what is learned of one zone's curve: regressions for one and for two days ahead, spread by step, the errors of
the last eight weeks. All works in the numbers of `Scale`; it refuses to know instants and watts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.forecast.calendar import SATURDAY, SUNDAY, Calendar
from core.forecast.conformal import Tracker, weighted_quantiles
from core.forecast.outdoor import OutdoorTemperature
from core.forecast.regression import PooledRidge
from core.forecast.values import LEVELS
from core.forecast.weather import WeatherTerm
from core.forecast.window import DAYS

Floats = NDArray[np.float64]

LEADS = 3  # local days ahead: an hour after midnight 48 h reach into the third
FIRST = 3  # days of numbers before anything is predicted
PATHS = 56  # days whose errors are kept
PATH_HALF_LIFE = 40.0  # days; of their weights
SPREAD_HALF_LIFE = 30.0
PRIOR_SPREAD, PRIOR_DAYS = 0.2, 1.0  # what is believed of the spread before it was seen, and for how many days
NORMAL_DAYS = 3.0  # of normal errors among those that are kept: few days have no tails
TYPICAL_HALF_LIFE, OTHER_KIND = 8.3, 0.15  # days; weight of a Sunday in a working day's typical curve
RATE = 0.15  # of the conformal correction, in spreads a day
BEYOND_SEEN, BEYOND_LEAST = 0.5, 0.7  # an expectation may pass the numbers seen by this share of their range, at least
WHOLE = 0.9  # share of steps that make a day a whole one
SLOW_HALF_LIFE = 30.0  # of the typical curve that keeps the season
HALF_LIFE, REACH_S = 120.0, 3600.0  # of the regressions: days, and how far a step's neighbours count
# typical curve smoothed and raw, mean of 3 and of 6 days, of the same weekdays, yesterday; yesterday's level, its last
# 90 min, the level a week ago against what was typical then; Saturday, Sunday, one; last 30 and 90 min, fading; the
# season's typical curve, the first one smoothed widely, last 7 days raw, yesterday against typical, smoothed widely
PRIOR = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1, *[0.0] * 12])
# Shares below which the finer quantiles of the errors lie; beyond the outermost ones they end within `TAIL` spreads.
SHARES = np.array([0.0005, 0.002, 0.005, 0.01, 0.02, *LEVELS.tolist(), 0.98, 0.99, 0.995, 0.998, 0.9995])
TAIL = 0.3


class LoadModel:
    """What is learned of the curve; `day` is the first local day that is not known.

    After `learn` of a day, `mean` and `spread` [LEADS, steps] hold for the days from `day` on. `paths` [n, steps] are
    errors of whole days in spreads, oldest first, with `weights` [n]. `blind`: the temperature that it went by is
    missing.
    """

    def __init__(self, step_s: float, calendar: Calendar, day: int, outdoor: OutdoorTemperature | None = None) -> None:
        self.calendar, self.day = calendar, day
        self.steps = round(86_400 / step_s)
        self.known = 0
        self.numbers = np.zeros((DAYS, self.steps))  # a missing one is what was expected
        self.levels = np.zeros(DAYS)  # of a day against what was typical of it
        self._late = tuple(max(1, round(s / step_s)) for s in (1800, 5400))
        steps = np.arange(self.steps)
        self._fade = tuple(np.exp(-steps * step_s / s) for s in (3600, 14_400))
        half = max(1, round(3600 / step_s))
        apart = np.abs(steps[:, None] - steps)
        self._triangle = _rows(np.maximum(half + 1 - apart, 0))
        self._wide = _rows(np.maximum(round(2.5 * half) + 1 - apart, 0))
        self._bell = _rows(np.exp(-0.5 * (apart * step_s / 10_800) ** 2))
        self._box = _rows(apart <= half)
        reach = max(1.0, REACH_S / step_s)
        self._ridge = tuple(PooledRidge(self.steps, PRIOR, HALF_LIFE, reach) for _ in range(2))
        self._outdoor, self._reach, self.blind = outdoor, reach, False
        self._weather: tuple[WeatherTerm, ...] = ()  # from the first temperature on
        self._squares = np.full((2, self.steps), PRIOR_DAYS * PRIOR_SPREAD**2)
        self._weight = np.full((2, self.steps), PRIOR_DAYS)
        self._tracker = tuple(Tracker(LEVELS, RATE) for _ in range(2))
        self._paths = np.zeros((PATHS, self.steps))
        self._path_day = np.full(PATHS, -1)
        self._path_count = 0
        self._seen = np.full((2, DAYS), np.nan)  # lowest and highest number of each day
        self._bounds = -np.inf, np.inf  # of an expectation: it feeds the next one, and must not run away without news
        self.silent = 0  # days without any reading, up to now
        self._features = np.zeros((LEADS, self.steps, len(PRIOR)))
        self._typical = np.zeros(self.steps)
        self._off = np.zeros(self.steps)  # the last day against what was typical of it
        self.mean = np.zeros((LEADS, self.steps))
        self.spread = np.full((LEADS, self.steps), PRIOR_SPREAD)
        self._correlation: Floats | None = None  # of `paths`, until the next day
        self._second: tuple[Floats, Floats, Floats, Floats] | None = None  # what was said of `day` two days before
        self._second_weather: tuple[Floats, Floats, Floats] | None = None
        self._quantiles = np.zeros((2, len(LEVELS)))
        self.points = np.linspace(-3.0, 3.0, len(SHARES) + 2)  # below which 0, SHARES, 1 of the errors lie

    # -- in -----------------------------------------------------------------------------------------------------------

    def learn(self, numbers: Floats) -> None:
        """Take the day `day`, [steps], NaN where not measured, and say what comes after it."""
        measured = np.isfinite(numbers)
        if self.known > FIRST:
            self._judge(numbers, measured)
        expected = self.mean[0] if self.known else np.full(self.steps, np.nanmean(numbers) if measured.any() else 0.0)
        filled = np.where(measured, numbers, expected)
        self.numbers[:-1], self.levels[:-1] = self.numbers[1:], self.levels[1:]
        self.numbers[-1] = filled
        self._bound(numbers[measured])
        self._off = filled - self._typical if self.known else np.zeros(self.steps)
        self.levels[-1] = self._off.mean()
        self._late_levels = tuple(float(self._off[-n:].mean()) for n in self._late)
        self.known = min(self.known + 1, DAYS)
        self.silent = 0 if measured.any() else self.silent + 1
        self.day += 1
        self._correlation = None
        self._predict()

    def _bound(self, numbers: Floats) -> None:
        """Take a day's numbers [n] into the range in which expectations stay; it holds on through days without any."""
        self._seen[:, :-1] = self._seen[:, 1:]
        self._seen[:, -1] = (numbers.min(), numbers.max()) if len(numbers) else np.nan
        if np.isfinite(self._seen).any():
            low, high = float(np.nanmin(self._seen[0])), float(np.nanmax(self._seen[1]))
            margin = max(BEYOND_SEEN * (high - low), BEYOND_LEAST)
            self._bounds = low - margin, high + margin

    def _judge(self, numbers: Floats, measured: NDArray[np.bool_]) -> None:
        """Learn from how far the forecasts for `day` were off."""
        said = [(self._features[0], self.mean[0], self.spread[0], self._quantiles[0])]
        if self._second is not None:
            said.append(self._second)
        for lead, (features, mean, spread, quantiles) in enumerate(said):
            error = np.where(measured, numbers - mean, np.nan)
            standard = error / spread
            self._tracker[lead].learn(quantiles, standard)
            decay = np.where(measured, 0.5 ** (1 / SPREAD_HALF_LIFE), 1.0)
            self._squares[lead] = decay * self._squares[lead] + np.where(measured, error**2, 0.0)
            self._weight[lead] = decay * self._weight[lead] + measured
            self._ridge[lead].learn(features, numbers)
            if self._weather:
                term = self._weather[lead]
                term.learn(self._second_weather if lead else term.said(), numbers)
            if lead == 0 and measured.mean() >= WHOLE:
                at = self._path_count % PATHS
                self._paths[at] = np.clip(np.where(measured, standard, 0.0), -8, 8)
                self._path_day[at] = self.day
                self._path_count += 1

    # -- what comes ---------------------------------------------------------------------------------------------------

    def _predict(self) -> None:
        if self.known < FIRST:
            self._typical = self._features_for(1)[:, 1]
            self.mean[:] = self._typical
            return
        self._second = (
            (self._features[1].copy(), self.mean[1].copy(), self.spread[1].copy(), self._quantiles[1].copy())
            if self.known > FIRST + 1
            else None
        )
        self._second_weather = self._weather[1].said() if self._weather else None
        coefficients = [ridge.coefficients() for ridge in self._ridge]
        variance = (self._squares / self._weight) @ self._box
        for lead in range(LEADS):
            features = self._features[lead] = self._features_for(lead + 1)
            which = min(lead, 1)
            plain = (features * coefficients[which]).sum(axis=1)
            if lead < 2:  # the third day moves as the second does
                moved, wider = self._by_weather(lead, features, plain)
            self.mean[lead] = np.clip(plain + moved, *self._bounds)
            self.spread[lead] = wider * np.sqrt(variance[which]) + 1e-3
        self._typical = self._features[0][:, 1].copy()
        raw = self._raw_quantiles()
        self.points = np.concatenate([[raw[0] - TAIL], raw + 1e-6 * np.arange(len(raw)), [raw[-1] + TAIL]])
        for lead, tracker in enumerate(self._tracker):
            self._quantiles[lead] = tracker.apply(np.interp(LEVELS, SHARES, raw))

    def _by_weather(self, lead: int, features: Floats, plain: Floats) -> tuple[Floats, float]:
        """What the temperature adds to the curve `plain` [steps], and how much wider the band is for want of it."""
        if self._outdoor is None:
            return np.zeros(self.steps), 1.0
        regressors = self._outdoor.regressors(self.day + lead, self.day - 1, self.steps)
        if not self._weather:
            if regressors is None:
                return np.zeros(self.steps), 1.0
            self._weather = tuple(WeatherTerm(self.steps, PRIOR, HALF_LIFE, self._reach) for _ in range(2))
        if lead == 0:
            self.blind = regressors is None
        moved = self._weather[lead].predict(features, regressors, plain)
        return moved, 1.0 if regressors is not None else self._weather[lead].blindness

    @property
    def widening(self) -> float:
        """How much wider all bands are for what is not known: few errors seen, days without readings."""
        return float((1 + 8 / (self._path_count + 1) ** 2) * min(1 + self.silent, 9) ** 0.5)

    def _features_for(self, lead: int) -> Floats:
        """[steps, features] of the day `lead` days after the last known one."""
        target = self.day - 1 + lead
        days = np.arange(self.day - self.known, self.day)
        age = (target - days).astype(np.float64)
        kinds = np.array([self.calendar.kind(int(day)) for day in days])
        kind = self.calendar.kind(target)
        weights = np.stack(
            [
                0.5 ** (age / TYPICAL_HALF_LIFE) * np.where(kinds == kind, 1.0, OTHER_KIND),
                0.5 ** (age / 3),
                0.5 ** (age / 6),
                (age % 7 == 0) & (age <= 28),
                0.5 ** (age / SLOW_HALF_LIFE) * np.where(kinds == kind, 1.0, OTHER_KIND),
                age < 7 + lead,
            ]
        )
        total = weights.sum(axis=1, keepdims=True)
        known = self.numbers[-self.known :]
        typical, three, six, same, slow, week = weights @ known / np.maximum(total, 1e-9)
        if not total[3]:
            same = typical
        curves = np.stack([typical, three, six, same, known[-1], slow]) @ self._triangle.T
        week_ago = self.levels[-int(8 - lead)] if self.known >= 8 - lead else 0.0
        last_30, last_90 = self._late_levels
        one = np.ones(self.steps)
        return np.stack(
            [
                curves[0],
                typical,
                *curves[1:5],
                one * self.levels[-1],
                one * last_90,
                one * week_ago,
                one * (kind == SATURDAY),
                one * (kind == SUNDAY),
                one,
                last_30 * self._fade[0] * (lead == 1),
                last_90 * self._fade[1] * (lead == 1),
                curves[5],
                self._wide @ typical,
                week,
                self._bell @ self._off,
            ],
            axis=1,
        )

    # -- errors -------------------------------------------------------------------------------------------------------

    @property
    def paths(self) -> Floats:
        """Errors of whole days in spreads, [n, steps], oldest first."""
        if self._path_count <= PATHS:
            return self._paths[: self._path_count]
        return np.roll(self._paths, -(self._path_count % PATHS), axis=0)

    @property
    def weights(self) -> Floats:
        """How much each of `paths` counts, [n], sum 1."""
        count = min(self._path_count, PATHS)
        days = (
            self._path_day[:count]
            if self._path_count <= PATHS
            else np.roll(self._path_day, -(self._path_count % PATHS))
        )
        weights: Floats = np.power(0.5, (self.day - days) / PATH_HALF_LIFE)
        return weights / weights.sum() if count else np.empty(0)

    def _raw_quantiles(self) -> Floats:
        """Those of the standardised errors of all steps that are kept, [SHARES]."""
        paths = self.paths
        share = NORMAL_DAYS / (NORMAL_DAYS + len(paths))
        values = np.concatenate([_NORMAL_POINTS, paths.ravel()])
        weights = np.concatenate(
            [
                np.full(len(_NORMAL_POINTS), share / len(_NORMAL_POINTS)),
                np.repeat((1 - share) * self.weights / self.steps, self.steps),
            ]
        )
        return weighted_quantiles(values, weights, SHARES)

    def quantiles(self, lead: int) -> Floats:
        """Quantiles of the standardised errors of the day `lead` (0 is `day`), [19], corrected, wider without news."""
        return np.asarray(self._quantiles[min(lead, 1)] * self.widening, np.float64)

    def correlation(self) -> Floats:
        """How far an error of now tells that of so many steps later, [steps]: 1 at 0, falling, none beyond 12 h."""
        paths, count = self.paths, self.steps // 2
        if self._correlation is not None:
            return self._correlation
        out = np.zeros(self.steps)
        out[0] = 1.0
        square = float((paths**2).mean()) if len(paths) >= 7 else 0.0
        if square > 0:
            for lag in range(1, count):
                out[lag] = float((paths[:, lag:] * paths[:, :-lag]).mean()) / square
        self._correlation = np.asarray(np.minimum.accumulate(np.clip(out, 0.0, 1.0)), np.float64)
        return self._correlation


def _rows(weights: NDArray[np.generic]) -> Floats:
    """Each row's weights divided by their sum."""
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


# Standard normal quantiles at the middles of 20 equal shares.
_HALF = np.array([0.063, 0.189, 0.319, 0.454, 0.598, 0.755, 0.935, 1.150, 1.440, 1.960])
_NORMAL_POINTS = np.concatenate([-_HALF[::-1], _HALF])
