"""Noise of an honest balance, learned with a prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.arrays import Floats
from core.detection.bins import BLOCK_H, BLOCKS, WEATHER_H

PRIOR_SHARE = 5e-4  # standard deviation of a day's unexplained power, as a share of load, before we know better

PRIOR_DAYS = 6.0

WEATHER_LEAST = 4.5e-4  # and however calm the past was: two degrees of a front are within the class of any main meter

POOR_SHARE = 0.02  # of the load: a boundary less certain than this says nothing of the noise

_STEP = 0.4  # share of the weather's variance by which two successive days differ

_WALK_SHARE = 0.16  # variance that the level gains in a month, in units of the weather's


@dataclass(frozen=True, slots=True)
class Noise:
    """What the unexplained power of a balance does without theft: variances in W^2 (and W^2 h).

    weather: slow wander; level: of the mean under the loss model; quarter: the same for a quarter of the day beyond
    the mean; rough: white; days: how many days of its own stand behind it.
    """

    weather_w2: float
    level_w2: float
    quarter_w2: float
    rough_w2h: float
    days: int = 0

    @property
    def walk_w2_h(self) -> float:
        """Variance that the level gains in an hour."""
        return _WALK_SHARE * self.weather_w2 / (30 * 24.0)

    def power_sd_w(self, hours: float, boundary_wh2: float) -> float:
        """Standard deviation of the mean unexplained power over so many hours, between boundaries of that variance."""
        ratio = hours / WEATHER_H
        weather = 2 / ratio**2 * (ratio - 1 + math.exp(-ratio)) * self.weather_w2
        return math.sqrt(weather + self.level_w2 + self.rough_w2h / hours + boundary_wh2 / hours**2)


def learn_noise(
    booked_wh: Floats, boundary_wh2: Floats, load_w: float, level_sd_w: float, quarter_sd_w: float
) -> Noise:
    """The building's own noise from the guarded unexplained energy of past days.

    booked_wh, boundary_wh2 [K * BLOCKS + 1]: at the quarters' boundaries, cumulative, and its variance. What a
    boundary's error does to the days beside it is taken off: the searches add it where they look.
    """
    prior = (PRIOR_SHARE * load_w) ** 2
    quarters = np.diff(booked_wh) / BLOCK_H
    poor = boundary_wh2 > (POOR_SHARE * load_w * BLOCK_H) ** 2
    quarters[poor[1:] | poor[:-1]] = np.nan
    quarters = quarters.reshape(-1, BLOCKS)
    daily = quarters.mean(axis=1)
    midnight = boundary_wh2[::BLOCKS]
    known = (midnight[:-2] + 4 * midnight[1:-1] + midnight[2:]) / (24.0**2 * _STEP)
    weather = _variance(np.diff(daily) / math.sqrt(_STEP), known, prior)
    weather = max(weather, (WEATHER_LEAST * load_w) ** 2)
    known = (boundary_wh2[:-1] + boundary_wh2[1:]) / BLOCK_H**2
    away = (quarters - daily[:, None]).ravel() * math.sqrt(BLOCKS / (BLOCKS - 1))
    rough = _variance(away, known, prior / BLOCK_H)
    return Noise(weather, level_sd_w**2, quarter_sd_w**2, rough * BLOCK_H, int((~np.isnan(daily)).sum()))


def _variance(values: Floats, known: Floats, prior: float) -> float:
    """Variance about zero beyond the `known` one, large values clipped, with a prior of some days' weight."""
    usable = ~np.isnan(values)
    square, known = values[usable] ** 2, known[usable]
    if len(square) > 3:
        most = 9 * np.median(square)
        square, known = np.minimum(square, most), np.minimum(known, most)
    return (PRIOR_DAYS * prior + max(0.0, float((square - known).sum()))) / (PRIOR_DAYS + len(square))
