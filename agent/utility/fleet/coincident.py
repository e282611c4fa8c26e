"""The coincident peak of many buildings, from the quantiles that each gateway sent: their peaks do not come together.

It owns how quantiles of single buildings become a distribution of their sum. Each building's course is its quantiles
under a Gaussian copula (Sklar 1959) with one common factor: part of every error is common to all (weather, holidays),
the rest its own; both persist over the day. How much is common and how long it persists is learned from past errors,
shrunk towards what London flats showed. Where the sum's own past errors are known, up to half of the courses are the
expected course with those laid on it: a linear pool of two views of one day (Stone 1961). Each building has a seed of
its own, so that the same forecasts give the same answer in whatever company. Buildings are added one by one: memory
does not grow with the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

COURSES = 1000
SEED = 20_260_101
LEVELS = np.arange(1, 20) / 20  # of what is said of the sum: 5 % .. 95 %
PRIOR_DAYS = 10.0  # how many days the belief before errors were seen is worth
LEAST_BUILDINGS = 3  # two tell nothing of what is common
POOL_DAYS = 28.0  # so many days of the sum's own errors count as much as the copula
LARGEST_SCORE = 4.0  # a larger error is a fault or a theft
_REACH, _PER_UNIT = 4.0, 16  # the table of a building's quantiles: normal scores from -4 to 4, 16 a unit


@dataclass(frozen=True, slots=True)
class Persistence:
    """Of an error: the share of its variance that lasts the whole day, and the rest's correlation with the next step's.

    Steps are half hours.
    """

    level: float
    next_step: float

    def after(self, steps: int) -> float:
        """Correlation with the error so many steps later."""
        return float(self.level + (1 - self.level) * self.next_step**steps)


@dataclass(frozen=True, slots=True)
class Dependence:
    """Share of an error's variance that all buildings have in common; how the common and the own part persist.

    The defaults hold before errors were seen: 40 London flats' half hours.
    """

    common: float = 0.15
    shared: Persistence = Persistence(0.06, 0.52)
    own: Persistence = Persistence(0.05, 0.44)


@dataclass(frozen=True, slots=True)
class DayErrors:
    """One past day of `zones` buildings, errors as normal scores.

    `scores` [steps] their mean over the buildings; means over buildings and steps of the `square`, of the product with
    the `neighbour` step, and over buildings of the square of the day's mean (`level`).
    """

    zones: int
    scores: Floats
    square: float
    neighbour: float
    level: float


@dataclass(frozen=True, slots=True)
class FleetForecast:
    """The sum of `zones` buildings: `quantiles_w` [19, steps]; its peak in quantiles [19], its time [steps].

    `peaks_w` are the peaks of the courses behind it, in rising order.
    """

    zones: int
    mean_w: Floats
    quantiles_w: Floats
    peak_w: Floats
    peak_time: Floats
    sum_of_peaks_w: float
    peaks_w: Floats

    def over(self, capacity_w: float) -> float:
        """Probability that the sum passes a capacity; never quite 0 or 1, of so many courses."""
        count = len(self.peaks_w)
        return float((count - np.searchsorted(self.peaks_w, capacity_w, side="right") + 0.5) / (count + 1))


def scores_of(load_w: Floats, low_w: Floats, mean_w: Floats, high_w: Floats) -> Floats:
    """Normal scores of loads against a 5 %, a middle and a 95 % curve: each side has a spread of its own."""
    spread = np.where(load_w > mean_w, high_w - mean_w, mean_w - low_w)
    at = NormalDist().inv_cdf(0.95)
    return np.asarray(np.clip(at * (load_w - mean_w) / np.maximum(spread, 1.0), -LARGEST_SCORE, LARGEST_SCORE))


def day_errors(scores: Floats) -> DayErrors:
    """The errors of one day, [buildings, steps], as far as the dependence is learned from them."""
    return DayErrors(
        len(scores),
        scores.mean(axis=0),
        float((scores**2).mean()),
        float((scores[:, 1:] * scores[:, :-1]).mean()),
        float((scores.mean(axis=1) ** 2).mean()),
    )


def learn(days: Iterable[DayErrors]) -> Dependence:
    """Dependence from past days, shrunk towards the prior.

    With n buildings the square of their mean score is expected to be c + (1 - c) / n of a single one's: that gives the
    common share c, and the same in lagged products its persistence.
    """
    known = [day for day in days if day.zones >= LEAST_BUILDINGS and day.square > 0]
    prior = Dependence()
    if not known:
        return prior
    both, shared = np.zeros(3), np.zeros(3)
    for day in known:
        single = np.array([day.square, day.neighbour, day.level])
        mean = day.scores
        summed = np.array([(mean**2).mean(), (mean[1:] * mean[:-1]).mean(), mean.mean() ** 2])
        both += single
        shared += (summed - single / day.zones) / (1 - 1 / day.zones)
    weight = len(known) / (len(known) + PRIOR_DAYS)
    steps = len(known[0].scores)

    def shrunk(seen: float, before: float, most: float) -> float:
        return float(np.clip(weight * seen + (1 - weight) * before, 0.0, most))

    def persistence(moments: Floats, before: Persistence) -> Persistence:
        if moments[0] <= 1e-3 * both[0]:
            return before
        seen = _persistence(moments[1] / moments[0], moments[2] / moments[0], steps)
        return Persistence(shrunk(seen.level, before.level, 0.95), shrunk(seen.next_step, before.next_step, 0.98))

    return Dependence(
        shrunk(shared[0] / both[0], prior.common, 0.99),
        persistence(shared, prior.shared),
        persistence(both - shared, prior.own),
    )


def _persistence(neighbour: float, level: float, steps: int) -> Persistence:
    """What has this correlation with the next step and this variance of a day's mean: by a grid, best fit."""
    share, after = np.linspace(0, 0.95, 39)[:, None], np.linspace(0, 0.98, 99)
    apart = np.arange(1, steps)
    mean = (1 + 2 * ((1 - apart / steps) @ after[None, :] ** apart[:, None])) / steps
    misfit = (share + (1 - share) * after - neighbour) ** 2 + (share + (1 - share) * mean - level) ** 2
    row, column = np.unravel_index(int(misfit.argmin()), misfit.shape)
    return Persistence(float(share[row, 0]), float(after[column]))


class Courses:
    """Draws the possible courses of one building after the other; what is common to all is the same in each."""

    def __init__(self, dependence: Dependence, steps: int, courses: int = COURSES) -> None:
        self.steps, self.courses = steps, courses
        self._own = dependence.own
        shared = self._scores(dependence.shared, np.random.default_rng(SEED))
        self._shared = np.float32(dependence.common**0.5) * shared
        self._weight = np.float32((1 - dependence.common) ** 0.5)

    def _scores(self, persistence: Persistence, rng: np.random.Generator) -> Singles:
        """Standard normal series [steps, courses] with this persistence."""
        out = rng.standard_normal((self.steps, self.courses), np.float32)
        keep, fresh = np.float32(persistence.next_step), np.float32((1 - persistence.next_step**2) ** 0.5)
        for step in range(1, self.steps):
            out[step] = keep * out[step - 1] + fresh * out[step]
        out *= np.float32((1 - persistence.level) ** 0.5)
        out += np.float32(persistence.level**0.5) * rng.standard_normal(self.courses, np.float32)
        return out

    def of(self, building: int, levels: Sequence[float] | Floats, quantiles_w: Floats) -> Singles:
        """Loads [steps, courses] of a building with `quantiles_w` [levels, steps] at rising `levels`.

        `building` is its number, by which its own part is drawn. Between the levels, and beyond them, linear in the
        normal score.
        """
        rng = np.random.default_rng((SEED, building % (1 << 64)))
        normal = self._shared + self._weight * self._scores(self._own, rng)
        table = _table(levels, quantiles_w)
        place = np.clip((normal + np.float32(_REACH)) * np.float32(_PER_UNIT), 0, len(table) - 1.001)
        whole = place.astype(np.int32)
        place -= whole
        column = np.arange(self.steps)[:, None]
        low = table[whole, column]
        return np.asarray(low + place * (table[whole + 1, column] - low))


def _table(levels: Sequence[float] | Floats, quantiles_w: Floats) -> Singles:
    """A building's loads [scores, steps] at equally spaced normal scores."""
    at = np.array([NormalDist().inv_cdf(float(level)) for level in levels])
    scores = np.linspace(-_REACH, _REACH, round(2 * _REACH * _PER_UNIT) + 1)
    place = np.clip(np.searchsorted(at, scores, side="right") - 1, 0, len(at) - 2)
    share = np.clip((scores - at[place]) / (at[place + 1] - at[place]), -3.0, 4.0)[:, None]
    low, high = quantiles_w[place], quantiles_w[place + 1]
    return np.asarray(low + share * (high - low), np.float32)


class SumOfBuildings:
    """The sum of courses, building by building."""

    def __init__(self, steps: int, courses: int = COURSES) -> None:
        self.zones, self.sum_of_peaks_w = 0, 0.0
        self._mean_w = np.zeros(steps)
        self._total = np.zeros((steps, courses))

    def add(self, drawn_w: Singles, mean_w: Floats) -> None:
        """One more building: its courses [steps, courses] and its expected load [steps]."""
        self.zones += 1
        self._mean_w += mean_w
        self._total += drawn_w
        self.sum_of_peaks_w += float(drawn_w.max(axis=0).mean())

    def forecast(self, past: Floats | None = None) -> FleetForecast:
        """What is expected of the sum.

        `past` [days, steps]: errors of this sum on past days at the same times of day, by the mean load of the day.

        Raises:
            ValueError: no building was added.
        """
        if not self.zones:
            raise ValueError("a sum of no building has no forecast")
        total = self._total.T
        if past is not None and len(past):
            replaced = round(len(total) * len(past) / (len(past) + POOL_DAYS))
            own = self._mean_w + past * np.abs(self._mean_w).mean()
            total = np.concatenate([total[: len(total) - replaced], own[np.arange(replaced) % len(own)]])
        peaks = np.sort(total.max(axis=1))
        times = np.bincount(total.argmax(axis=1), minlength=total.shape[1]) / len(total)
        return FleetForecast(
            self.zones,
            total.mean(axis=0),
            np.quantile(total, LEVELS, axis=0),
            np.quantile(peaks, LEVELS),
            times,
            self.sum_of_peaks_w,
            peaks,
        )


def combine(
    levels: Sequence[float] | Floats,
    quantiles_w: Floats,
    mean_w: Floats,
    dependence: Dependence | None = None,
    past: Floats | None = None,
    courses: int = COURSES,
) -> FleetForecast:
    """The sum of buildings whose `quantiles_w` are [buildings, levels, steps] and `mean_w` [buildings, steps].

    Raises:
        ValueError: no building, or a shape that does not fit the levels.
    """
    if quantiles_w.ndim != 3 or not len(quantiles_w) or quantiles_w.shape[1] != len(levels):
        raise ValueError(f"expected quantiles of [buildings, {len(levels)}, steps], got {quantiles_w.shape}")
    drawn = Courses(dependence or Dependence(), quantiles_w.shape[2], courses)
    added = SumOfBuildings(quantiles_w.shape[2], courses)
    for building, (quantiles, mean) in enumerate(zip(quantiles_w, mean_w, strict=True)):
        added.add(drawn.of(building, levels, quantiles), mean)
    return added.forecast(past)
