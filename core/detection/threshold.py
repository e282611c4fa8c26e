"""Thresholds that keep the promised rate of false alarms."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np

from core.arrays import Floats
from core.detection.bins import AGES_H, BLOCKS
from core.detection.noise import PRIOR_DAYS

REFERENCE_RATE = 0.1  # a year: for it the theory's thresholds are made, and own_tail says how far they are right
# Stretch of the Gaussian quantile by what the finding rests on: days of all day, hours of all day, days of one quarter,
# one quarter of one day. Missed polls and late reads make short stretches heavy-tailed.
TAIL_DAYS, TAIL_HOURS, TAIL_QUARTERS, TAIL_QUARTER = 1.45, 1.4, 1.35, 1.75


def threshold(age_h: float, share: float, rate_per_year: float, days: int) -> float:
    """Significance from which an onset `age_h` ago is an alarm, at `rate_per_year` false alarms in all.

    With a noise known from `days` days only it is Student's quantile.
    """
    looks = 365.25 * 24 / age_h * share
    alone = rate_per_year / (len(AGES_H) / 3 * (1 + BLOCKS) / 2)
    student = students_quantile(alone / looks / 2, PRIOR_DAYS + days)
    return student * float(tail(np.array(age_h), share))


def students_quantile(beyond: float, n: float) -> float:
    """What Student's t of `n` degrees of freedom exceeds with probability `beyond` (Abramowitz & Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(1 - min(0.01, beyond))
    return z * (1 + (z**2 + 1) / (4 * n) + (5 * z**4 + 16 * z**2 + 3) / (96 * n**2))


def tail(age_h: Floats, share: float) -> Floats:
    """Stretch of the Gaussian quantile for onsets so long ago."""
    if share < 1:
        return np.where(age_h <= 24, TAIL_QUARTER, TAIL_QUARTERS)
    return np.where(age_h <= 12, TAIL_HOURS, TAIL_DAYS)


@cache
def _thresholds(ages_h: tuple[float, ...], share: float, rate_per_year: float, days: int) -> Floats:
    return np.array([threshold(age, share, rate_per_year, days) for age in ages_h])
