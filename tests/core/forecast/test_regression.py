"""The fading ridge: exact where it can be, the prior where it cannot, and as one least-squares problem says."""

from __future__ import annotations

import numpy as np

from core.forecast.regression import PRIOR_WEIGHT, RIDGE, PooledRidge


def test_without_data_the_prior_holds():
    prior = np.array([0.7, 0.2])
    np.testing.assert_allclose(PooledRidge(5, prior, 60.0, 1.0).coefficients(), np.tile(prior, (5, 1)))


def test_it_is_the_weighted_least_squares_problem_written_out():
    steps, days, prior, half_life = 6, 9, np.array([0.5, 0.1, 0.0]), 10.0
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(days, steps, 3)), rng.normal(size=(days, steps))
    y[2, 3] = np.nan
    ridge = PooledRidge(steps, prior, half_life, 1.0)
    for day in range(days):
        ridge.learn(x[day], y[day])
    for step in range(steps):
        near = [t for t in range(steps) if abs(t - step) <= 2]
        rows = [
            (0.5 ** ((days - 1 - d) / half_life) * np.exp(-0.5 * (t - step) ** 2), x[d, t], y[d, t])
            for d in range(days)
            for t in near
            if np.isfinite(y[d, t])
        ]
        gram = sum(w * np.outer(a, a) for w, a, _ in rows)
        strength = RIDGE * np.trace(gram) / 3 + PRIOR_WEIGHT
        want = prior + np.linalg.solve(gram + strength * np.eye(3), sum(w * a * (b - a @ prior) for w, a, b in rows))
        np.testing.assert_allclose(ridge.coefficients()[step], want)


def test_a_day_without_readings_changes_nothing():
    ridge = PooledRidge(4, np.zeros(2), 10.0, 1.0)
    ridge.learn(np.ones((4, 2)), np.arange(4.0))
    before = ridge.coefficients()
    ridge.learn(np.full((4, 2), 9.0), np.full(4, np.nan))
    np.testing.assert_array_equal(ridge.coefficients(), before)
