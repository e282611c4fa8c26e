"""The sky over a town: outdoor temperature, daylight and sun, row by row.

Owns weather only. Refuses to know buildings and meters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

# Ranges of European towns between Malaga and Helsinki (climate normals 1991-2020 of the national weather services).
MEAN_C, SEASON_C, SWING_C = (6.0, 18.0), (5.0, 12.0), (1.5, 6.0)
FRONT_C, FRONT_PERSISTENCE = (1.5, 3.5), (0.55, 0.85)  # sd from day to day, and how much of it stays
LATITUDE_DEG = (36.0, 60.0)


@dataclass(frozen=True, slots=True)
class Climate:
    """temperature_c, sun (0..1, of a clear sky's noon), dark (0..1), each [time]; summer time starts at row `dst`."""

    temperature_c: F64
    sun: F64
    dark: F64
    day: NDArray[np.intp]  # days since the first, local
    hour: F64  # of the local day, at the row's middle
    weekend: NDArray[np.bool_]


def draw_climate(rng: np.random.Generator, days: int, slots: int) -> Climate:
    """A town's weather over `days` of `slots` rows each; the first day is a Monday of any season."""
    day = np.repeat(np.arange(days), slots)
    hour = np.tile((np.arange(slots) + 0.5) * 24.0 / slots, days)
    year_day = rng.uniform(0, 365) + day
    front = np.zeros(days + 1)
    stays, sd = rng.uniform(*FRONT_PERSISTENCE), rng.uniform(*FRONT_C)
    for k in range(days):
        front[k + 1] = stays * front[k] + sd * np.sqrt(1 - stays**2) * rng.normal()
    season = -np.cos(2 * np.pi * (year_day - rng.uniform(12, 32)) / 365.25)
    temperature = (
        rng.uniform(*MEAN_C)
        + rng.uniform(*SEASON_C) * season
        + np.interp(day + hour / 24, np.arange(days + 1), front)
        - rng.uniform(*SWING_C) * np.cos(2 * np.pi * (hour - 14.5 + 12) / 24)
    )
    # Cooper's declination; solar elevation at the local solar hour.
    declination = np.deg2rad(23.45) * np.sin(2 * np.pi * (284 + year_day) / 365)
    latitude = np.deg2rad(rng.uniform(*LATITUDE_DEG))
    elevation = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(
        np.pi * (hour - 12.5) / 12
    )
    cloud = np.clip(rng.beta(2.0, 1.6, days)[day] + rng.normal(0, 0.12, len(day)), 0.05, 1.0)
    sun = np.maximum(elevation, 0.0) * cloud
    dark = np.clip((0.12 - elevation) / 0.24, 0.0, 1.0)
    return Climate(temperature, sun, dark, day, hour, day % 7 >= 5)
