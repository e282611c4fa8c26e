"""Houses with electric heating and air conditioning in simulated weather: a load with a physical reason.

Each house is one thermal capacity behind one conductance (the simple hourly method of ISO 13790 with one node): a
thermostat holds 20 C by day and 17 C by night with a heater, and 25 C with a heat pump. Weather: a season, anomalies
that last some days, a daily swing that clouds make smaller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS = 48
STEP_S = 1800.0


def weather_c(days: int, seed: int) -> Floats:
    """Outdoor temperature of each half hour, degrees Celsius, [days * 48]; the first day is the first of January."""
    rng = np.random.default_rng([seed, 1])
    day = np.arange(days)
    anomaly, swing = np.zeros(days), rng.uniform(2, 7, days)
    for d in range(1, days):
        anomaly[d] = 0.75 * anomaly[d - 1] + rng.normal(0, 2.8)
    middle = 11 - 9 * np.cos(2 * np.pi * (day - 20) / 365) + anomaly
    at = np.arange(days * STEPS) / STEPS
    hour = (at % 1) * 24
    return np.asarray(
        np.interp(at, day + 0.5, middle) + np.interp(at, day + 0.5, swing) * np.cos(2 * np.pi * (hour - 15) / 24)
    )


def load_w(outdoor_c: Floats, houses: int, seed: int, heating_w: float = 6000.0) -> Floats:
    """Mean load of `houses` together in each half hour, W; `heating_w` is what one heater can draw, 0 for none."""
    rng = np.random.default_rng([seed, 2])
    count = len(outdoor_c)
    hour = (np.arange(count) % STEPS + 0.5)[:, None] / 2
    conductance_w_k, capacity_j_k = rng.uniform(80, 200, houses), rng.uniform(8e6, 30e6, houses)
    evening = np.exp(-((hour - rng.normal(19, 0.7, houses)) ** 2) / 4)
    base = 150 + 700 * evening * rng.gamma(4, 0.25, (count, houses))
    wanted = np.where((hour > 6.5) & (hour < 22.5), 20.0, 17.0) + rng.normal(0, 0.7, houses)
    inside, electric = np.full(houses, 18.0), np.zeros(count)
    cooling_w = 5000.0 if heating_w else 0.0
    for k in range(count):
        free = inside + STEP_S / capacity_j_k * (conductance_w_k * (outdoor_c[k] - inside) + 0.8 * base[k])
        heat = np.minimum(np.maximum((wanted[k] - free) * capacity_j_k / STEP_S, 0.0), heating_w)
        cold = np.minimum(np.maximum((free - 25.0) * capacity_j_k / STEP_S, 0.0), cooling_w)
        inside = free + STEP_S / capacity_j_k * (heat - cold)
        electric[k] = (heat + cold / 3).sum()  # a heat pump moves three times what it draws
    return np.asarray(base.sum(axis=1) + electric)
