"""Quantile trackers and weighted quantiles: promised shares are kept, whatever the errors are."""

from __future__ import annotations

import numpy as np
import pytest

from core.forecast.conformal import Tracker, weighted_quantiles


def test_equal_weights_give_the_usual_quantiles():
    values = np.random.default_rng(1).normal(size=2001)
    levels = np.array([0.05, 0.5, 0.95])
    got = weighted_quantiles(values, np.ones(len(values)), levels)
    np.testing.assert_allclose(got, np.quantile(values, levels, method="hazen"), atol=1e-12)


def test_a_heavy_value_is_the_median():
    assert weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.array([0.1, 5.0, 0.1]), np.array([0.5]))[
        0
    ] == pytest.approx(1, abs=0.1)


def test_wrong_quantiles_come_to_keep_their_promise():
    levels = np.array([0.05, 0.5, 0.95])
    tracker, rng = Tracker(levels, 0.1), np.random.default_rng(2)
    below = []
    for _ in range(2000):
        said = tracker.apply(np.array([-0.5, 0.3, 0.5]))
        errors = rng.normal(size=4)
        below.append((errors[:, None] <= said).mean(axis=0))
        tracker.learn(said, errors)
    np.testing.assert_allclose(np.mean(below[500:], axis=0), levels, atol=0.02)


def test_corrections_are_bounded_and_nan_is_left_out():
    tracker = Tracker(np.array([0.5]), 1.0, limit=2.0)
    for _ in range(20):
        tracker.learn(tracker.apply(np.zeros(1)), np.array([np.nan, 1e9]))
    assert tracker.shift[0] == 2.0
    tracker.learn(np.zeros(1), np.array([np.nan]))
    assert tracker.shift[0] == 2.0


def test_quantiles_stay_in_order():
    tracker = Tracker(np.array([0.4, 0.6]), 0.1)
    tracker.shift[:] = 1.0, -1.0
    assert (np.diff(tracker.apply(np.array([0.0, 0.1]))) >= 0).all()
