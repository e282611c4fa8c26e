"""Outdoor temperature of one town: season, time of day and weather, a pure function of (seed, time).

It knows nothing of meters or flats; households heat by it and meter errors drift with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

DAY_S = 86_400
YEAR_S = 365.2425 * DAY_S
MEMORY_DAYS = 16  # 0.8 ** 16 = 3 %: what is older no longer matters to the day's weather
_PERIOD_DAYS = 512  # noise is drawn in lots of this many days


@lru_cache(maxsize=64)
def _lot(key: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return np.random.default_rng(key).standard_normal(_PERIOD_DAYS)


def daily_noise(key: tuple[int, ...], first_day: int, days: int) -> npt.NDArray[np.float64]:
    """Independent standard normals for `days` days from `first_day` on (days since the epoch), any day any time."""
    start, stop = first_day // _PERIOD_DAYS, (first_day + days - 1) // _PERIOD_DAYS
    lots = np.concatenate([_lot((*key, lot)) for lot in range(start, stop + 1)])
    offset = first_day - start * _PERIOD_DAYS
    return lots[offset : offset + days]


def daily_walk(key: tuple[int, ...], first_day: int, days: int, memory: float) -> npt.NDArray[np.float64]:
    """A stationary AR(1)-like series, variance 1, correlation `memory` from day to day, as a finite filter.

    The finite filter (MEMORY_DAYS) is what makes any day computable without the days before it.
    """
    weights = memory ** np.arange(MEMORY_DAYS)
    weights /= math.sqrt(float(weights @ weights))
    noise = daily_noise(key, first_day - MEMORY_DAYS + 1, days + MEMORY_DAYS - 1)
    return np.convolve(noise, weights, mode="valid")


@dataclass(frozen=True, slots=True)
class Weather:
    """A temperate town; `southern` turns the seasons round."""

    seed: int = 0
    mean_c: float = 11.0
    season_c: float = 8.0
    day_c: float = 4.0
    weather_c: float = 3.0
    southern: bool = False

    def season(self, times_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Minus one in the middle of winter, plus one in the middle of summer."""
        phase = 2 * math.pi * (np.asarray(times_s, float) / YEAR_S - 200 / 365)
        summer: npt.NDArray[np.float64] = np.cos(phase)
        return -summer if self.southern else summer

    def daily_c(self, first_day: int, days: int) -> npt.NDArray[np.float64]:
        """Mean temperature of each day, days counted from the epoch, UTC."""
        noon = (first_day + np.arange(days) + 0.5) * DAY_S
        walk = daily_walk((self.seed, 0x77656174), first_day, days, 0.8)
        return self.mean_c + self.season_c * self.season(noon) + self.weather_c * walk

    def temperature_c(self, times_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Temperature at each time (UTC seconds), warmest at 15 h."""
        times = np.atleast_1d(np.asarray(times_s, float))
        days = np.floor(times / DAY_S - 0.5)
        first = int(days.min())
        daily = self.daily_c(first, int(days.max()) - first + 2)
        at = (days - first).astype(int)
        part = times / DAY_S - 0.5 - days  # from one noon to the next
        smooth = daily[at] * (1 - part) + daily[at + 1] * part
        temperature: npt.NDArray[np.float64] = smooth + self.day_c * np.cos(2 * math.pi * (times / DAY_S - 15 / 24))
        return temperature
