"""The coincident peak of many buildings, from the quantiles that each gateway sent: their peaks do not come together.

It owns how quantiles of single buildings become a distribution of their sum. Each building's course is its quantiles
under a Gaussian copula (Sklar 1959): one part of every error is common to all (weather, holidays), the rest its own,
both persistent from step to step. How large the common part is, is learned from past errors. The courses are drawn
from a fixed seed, so that the same forecasts give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COURSES = 1000
SEED = 20_260_101
COMMON, PERSISTENCE = 0.15, 0.6  # before errors were seen; as of 40 London flats' half hours (0.16 and 0.59)
PRIOR_DAYS = 10.0  # how many days that belief is worth
LEAST_BUILDINGS = 3  # two tell nothing of what is common


@dataclass(frozen=True, slots=True)
class Dependence:
    """Share of an error's variance that all buildings have in common; correlation of an error with the next step's."""

    common: float = COMMON
    persistence: float = PERSISTENCE


@dataclass(frozen=True, slots=True)
class FleetForecast:
    """The sum of all buildings: `quantiles_w` [levels, steps]; its peak in quantiles [levels], its time [steps]."""

    levels: Floats
    mean_w: Floats
    quantiles_w: Floats
    peak_w: Floats
    peak_time: Floats
    sum_of_peaks_w: float


def learn(errors: Floats) -> Dependence:
    """Dependence from past errors in spreads, [days, steps, buildings], NaN where missing; shrunk towards the prior.

    The common share is the mean correlation between buildings: from the variance of their sum, whose expectation under
    a common share c is 1/n + c (1 - 1/n) of the square of n single ones.
    """
    known = np.isfinite(errors).all(axis=(1, 2))
    whole = errors[known]
    if errors.shape[2] < LEAST_BUILDINGS or not len(whole):
        return Dependence()
    z = whole - whole.mean()
    n = z.shape[2]
    square = float((z**2).mean())
    if square == 0:
        return Dependence()
    ratio = float((z.mean(axis=2) ** 2).mean()) / square
    common = (ratio - 1 / n) / (1 - 1 / n)
    persistence = float((z[:, 1:] * z[:, :-1]).mean()) / square
    weight = len(whole) / (len(whole) + PRIOR_DAYS)

    def shrunk(seen: float, prior: float) -> float:
        return float(np.clip(weight * seen + (1 - weight) * prior, 0.0, 0.95))

    return Dependence(shrunk(common, COMMON), shrunk(persistence, PERSISTENCE))


def combine(
    levels: Sequence[float], quantiles_w: Floats, dependence: Dependence | None = None, courses: int = COURSES
) -> FleetForecast:
    """The sum of buildings whose `quantiles_w` are [buildings, levels, steps], at rising `levels` [levels].

    Raises:
        ValueError: no building, or a shape that does not fit the levels.
    """
    known = np.asarray(levels, np.float64)
    if quantiles_w.ndim != 3 or not len(quantiles_w) or quantiles_w.shape[1] != len(known):
        raise ValueError(f"expected quantiles of [buildings, {len(known)}, steps], got {quantiles_w.shape}")
    dependence = dependence or Dependence()
    rng = np.random.default_rng(SEED)
    steps = quantiles_w.shape[2]
    shared = _courses(rng, courses, steps, dependence.persistence)
    total = np.zeros((courses, steps))
    peaks = 0.0
    at = np.array([_deviate(level) for level in known])
    for quantiles in quantiles_w:
        own = _courses(rng, courses, steps, dependence.persistence)
        normal = np.sqrt(dependence.common) * shared + np.sqrt(1 - dependence.common) * own
        drawn = _at(normal, at, quantiles)
        total += drawn
        peaks += float(drawn.max(axis=1).mean())
    times = np.bincount(total.argmax(axis=1), minlength=steps) / courses
    return FleetForecast(
        known,
        total.mean(axis=0),
        np.quantile(total, known, axis=0),
        np.quantile(total.max(axis=1), known),
        times,
        peaks,
    )


def _courses(rng: np.random.Generator, courses: int, steps: int, persistence: float) -> Floats:
    """Standard normal series [courses, steps] in which each step remembers the one before."""
    out = rng.standard_normal((courses, steps))
    fresh = np.sqrt(1 - persistence**2)
    for step in range(1, steps):
        out[:, step] = persistence * out[:, step - 1] + fresh * out[:, step]
    return out


def _at(normal: Floats, at: Floats, quantiles: Floats) -> Floats:
    """Loads [courses, steps] at the normal deviates `normal`; linear between the levels `at`, and beyond them."""
    place = np.clip(np.searchsorted(at, normal, side="right") - 1, 0, len(at) - 2)
    share = np.clip((normal - at[place]) / (at[place + 1] - at[place]), -3.0, 4.0)
    column = np.arange(normal.shape[1])
    low, high = quantiles[place, column], quantiles[place + 1, column]
    return np.asarray(low + share * (high - low))


def _deviate(level: float) -> float:
    """The standard normal quantile at `level`."""

    return NormalDist().inv_cdf(level)
