"""Measures of a binary prediction, in NumPy: ranking, calibration, and what chance may have done to them.

It knows numbers only. `truth` is 0 or 1, `score` rises with suspicion; ties count half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at falling thresholds: one point for each different score, from the highest on."""

    threshold: F64
    true_positive: F64  # rows with truth 1 and score >= threshold
    false_positive: F64

    @property
    def recall(self) -> F64:
        return np.asarray(self.true_positive / self.true_positive[-1])

    @property
    def false_positive_rate(self) -> F64:
        return np.asarray(self.false_positive / self.false_positive[-1])

    @property
    def precision(self) -> F64:
        return np.asarray(self.true_positive / (self.true_positive + self.false_positive))

    @property
    def named_share(self) -> F64:
        """Share of all rows with a score at or above the threshold."""
        named, rows = self.true_positive + self.false_positive, self.true_positive[-1] + self.false_positive[-1]
        return np.asarray(named / rows)

    @property
    def lift(self) -> F64:
        """Precision over that of a random choice."""
        return np.asarray(
            self.precision / (self.true_positive[-1] / (self.true_positive[-1] + self.false_positive[-1]))
        )

    @property
    def f1(self) -> F64:
        wanted = self.true_positive + self.false_positive + self.true_positive[-1]
        return np.asarray(2 * self.true_positive / wanted)

    def auc(self) -> float:
        """Area under recall against false-positive rate; NaN where one class is absent."""
        return _area(self.true_positive, self.false_positive)

    def average_precision(self) -> float:
        """Mean precision over the recall gained (step form, no interpolation)."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def ks(self) -> float:
        """Kolmogorov-Smirnov: greatest gap between recall and false-positive rate."""
        return float(np.max(self.recall - self.false_positive_rate))

    def recall_at(self, false_positive_rate: float) -> float:
        """Greatest recall at no more than this false-positive rate."""
        allowed = self.recall[self.false_positive_rate <= false_positive_rate]
        return float(allowed[-1]) if len(allowed) else 0.0


def _area(true_positive: F64, false_positive: F64) -> float:
    if not true_positive[-1] or not false_positive[-1]:
        return float("nan")
    above = np.concatenate([[0.0], true_positive[:-1]])
    gained = np.diff(false_positive, prepend=0.0)
    return float(np.sum(gained * (above + true_positive) / 2) / (true_positive[-1] * false_positive[-1]))


def curve(truth: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Curve:
    """The counts behind every ranking measure; `weight` counts a row more than once."""
    truth, score = np.asarray(truth, float), np.asarray(score, float)
    weight = np.ones(len(truth)) if weight is None else np.asarray(weight, float)
    levels, level = np.unique(score, return_inverse=True)
    hits = np.bincount(level, weight * truth, len(levels))[::-1]
    misses = np.bincount(level, weight * (1 - truth), len(levels))[::-1]
    return Curve(levels[::-1], np.cumsum(hits), np.cumsum(misses))


def auc(truth: ArrayLike, score: ArrayLike) -> float:
    """Probability that a row of truth 1 scores above one of truth 0 (Mann-Whitney)."""
    return curve(truth, score).auc()


def auc_interval(
    truth: ArrayLike, score: ArrayLike, group: ArrayLike | None = None, *, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the AUC; whole groups are drawn where rows of a group go together."""
    truth, score = np.asarray(truth, float), np.asarray(score, float)
    unit = np.arange(len(truth)) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    rng, units = np.random.default_rng(seed), int(unit.max()) + 1
    levels, level = np.unique(score, return_inverse=True)
    drawn = []
    for _ in range(draws):
        weight = np.bincount(rng.integers(0, units, units).astype(np.intp), minlength=units)[unit].astype(float)
        hits = np.cumsum(np.bincount(level, weight * truth, len(levels))[::-1])
        misses = np.cumsum(np.bincount(level, weight * (1 - truth), len(levels))[::-1])
        drawn.append(_area(hits, misses))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean prediction and share of truth 1 in bins; `ece` is the expected calibration error."""

    predicted: F64
    observed: F64
    count: NDArray[np.intp]
    ece: float


def calibration(truth: ArrayLike, probability: ArrayLike, bins: int = 10) -> Calibration:
    """Bins of equal width over [0, 1], empty ones left out; the ECE weighs them by their rows."""
    truth, probability = np.asarray(truth, float), np.asarray(probability, float)
    place = np.clip((probability * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    predicted = np.bincount(place, probability, bins)[filled] / count[filled]
    observed = np.bincount(place, truth, bins)[filled] / count[filled]
    ece = float(np.sum(count[filled] * np.abs(predicted - observed)) / len(truth))
    return Calibration(predicted, observed, count[filled].astype(np.intp), ece)


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at one threshold."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def precision(self) -> float:
        named = self.true_positive + self.false_positive
        return self.true_positive / named if named else float("nan")

    @property
    def recall(self) -> float:
        return self.true_positive / max(1, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        wrong = self.false_positive + self.false_negative
        return 2 * self.true_positive / max(1, 2 * self.true_positive + wrong)

    @property
    def accuracy(self) -> float:
        right = self.true_positive + self.true_negative
        return right / max(1, right + self.false_positive + self.false_negative)


def confusion(truth: ArrayLike, probability: ArrayLike, threshold: float) -> Confusion:
    """Rows at or above `threshold` are named."""
    guilty, named = np.asarray(truth) == 1, np.asarray(probability) >= threshold
    return Confusion(
        int((guilty & named).sum()),
        int((~guilty & named).sum()),
        int((guilty & ~named).sum()),
        int((~guilty & ~named).sum()),
    )
