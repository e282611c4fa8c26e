"""Loads for the forecast's tests: a building with days, weekdays, weather and noise, from nothing but a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

START_S = 1_704_067_200.0  # 2024-01-01, a Monday, 00:00 UTC
DAY_S = 86_400.0


def building_w(days: int, step_s: float = 1800.0, seed: int = 1, level_w: float = 10_000.0) -> NDArray[np.float64]:
    """Mean load of each step, [days * steps]: an evening peak, a quiet night, quieter Sundays, errors that persist."""
    rng = np.random.default_rng(seed)
    steps = round(DAY_S / step_s)
    hour = (np.arange(steps) + 0.5) * step_s / 3600
    shape = 0.45 + 0.35 * np.exp(-0.5 * ((hour - 8) / 1.5) ** 2) + 0.9 * np.exp(-0.5 * ((hour - 19) / 2) ** 2)
    weekday = np.array([1, 1, 1, 1, 1, 1.05, 0.9])[np.arange(days) % 7]
    weather = np.zeros(days)
    for day in range(1, days):
        weather[day] = 0.8 * weather[day - 1] + rng.normal(0, 0.04)
    noise = rng.normal(0, 0.1, (days, steps))
    noise[:, 1:] += 0.5 * noise[:, :-1]
    return np.asarray(level_w * np.exp(np.log(shape) + np.log(weekday)[:, None] + weather[:, None] + noise)).ravel()


def ends_s(count: int, step_s: float = 1800.0, start_s: float = START_S) -> NDArray[np.float64]:
    """Ends of `count` intervals from `start_s` on."""
    return start_s + step_s * np.arange(1.0, count + 1)
