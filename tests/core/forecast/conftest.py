"""Loads for the forecast's tests: a building with days, weekdays, weather and noise, from nothing but a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from core.forecast.calendar import Calendar
from core.forecast.forecaster import Forecaster
from core.forecast.values import Forecast

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


@pytest.fixture
def loads() -> Callable[..., NDArray[np.float64]]:
    """`building_w`."""
    return building_w


class Run:
    """A forecaster that is fed day by day, and what it said at each midnight."""

    def __init__(
        self, load_w: NDArray[np.float64], step_s: float = 1800.0, calendar: Calendar | None = None, **options
    ):
        self.steps, self.step_s = round(DAY_S / step_s), step_s
        self.forecaster = Forecaster("house", step_s, calendar or Calendar(), **options)
        self.load_w = load_w.reshape(-1, self.steps)
        self.said: list[Forecast | None] = []
        for day, row in enumerate(self.load_w):
            issued_s = START_S + day * DAY_S
            self.said.append(self.forecaster.forecast(issued_s))
            self.forecaster.add(ends_s(self.steps, step_s, issued_s), row * step_s / 3600)

    @property
    def next(self) -> Forecast | None:
        """At the midnight after the last day."""
        return self.forecaster.forecast(START_S + len(self.load_w) * DAY_S)


@pytest.fixture
def run() -> type[Run]:
    """`Run`: (load_w, step_s, calendar, **options of the forecaster)."""
    return Run


def assert_sane(forecast: Forecast) -> None:
    """Whatever was fed: finite figures, ordered quantiles, times that are a distribution."""
    assert np.isfinite(forecast.mean_w).all()
    assert np.isfinite(forecast.quantiles_w).all()
    assert (np.diff(forecast.quantiles_w, axis=0) >= 0).all()
    for extreme in (forecast.peak, forecast.trough):
        low, high = extreme.interval_w
        assert np.isfinite([low, extreme.power_w, high]).all()
        assert low <= extreme.power_w <= high
        assert extreme.time_probability.min() >= 0
        assert abs(extreme.time_probability.sum() - 1) < 1e-9
        assert 0 <= extreme.start_s - forecast.issued_s < DAY_S


@pytest.fixture
def sane() -> Callable[[Forecast], None]:
    """`assert_sane`."""
    return assert_sane
