"""Quantiles of single buildings add up to the fleet's: sums that are known, and a centre that has all courses."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from agent.utility.fleet.coincident import COMMON, PERSISTENCE, Dependence, combine, learn

LEVELS = np.arange(1, 20) / 20


def normal_quantiles(mean, sd, steps=24):
    at = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    return np.tile((mean + sd * at)[:, None], (1, steps))


def test_independent_buildings_even_each_other_out_and_common_errors_do_not():
    fleet = np.array([normal_quantiles(10.0, 2.0) for _ in range(100)])
    apart = combine(LEVELS, fleet, Dependence(0.0, 0.5))
    together = combine(LEVELS, fleet, Dependence(1.0, 0.5))

    def spread(said):
        return float((said.quantiles_w[-1] - said.quantiles_w[0]).mean()) / (2 * 1.645)

    assert apart.mean_w.mean() == pytest.approx(1000, rel=0.01)
    assert spread(apart) == pytest.approx(2 * 10, rel=0.15)  # sd grows with the root of 100
    assert spread(together) == pytest.approx(2 * 100, rel=0.15)
    assert apart.peak_w[9] < together.peak_w[9] < together.sum_of_peaks_w * 1.05


def test_peaks_at_different_times_do_not_add_up():
    early, late = normal_quantiles(1.0, 0.01), normal_quantiles(1.0, 0.01)
    early[:, 4] += 10
    late[:, 20] += 10
    said = combine(LEVELS, np.array([early, late]))
    assert said.peak_w[9] == pytest.approx(12, rel=0.02)
    assert said.sum_of_peaks_w == pytest.approx(22, rel=0.02)
    assert said.peak_time[[4, 20]].sum() == pytest.approx(1)


def test_the_same_quantiles_give_the_same_answer():
    fleet = np.array([normal_quantiles(10.0, 2.0)])
    a, b = combine(LEVELS, fleet), combine(LEVELS, fleet)
    np.testing.assert_array_equal(a.quantiles_w, b.quantiles_w)


def errors(common, persistence, days=400, steps=48, buildings=20, seed=3):
    rng = np.random.default_rng(seed)

    def series(*shape):
        out = rng.standard_normal(shape)
        for k in range(1, steps):
            out[:, k] = persistence * out[:, k - 1] + np.sqrt(1 - persistence**2) * out[:, k]
        return out

    shared = series(days, steps)[:, :, None]
    own = series(days, steps, buildings)
    return np.sqrt(common) * shared + np.sqrt(1 - common) * own


@pytest.mark.parametrize(("common", "persistence"), [(0.0, 0.3), (0.2, 0.6), (0.6, 0.8)])
def test_the_dependence_is_learned_from_past_errors(common, persistence):
    learned = learn(errors(common, persistence))
    assert learned.common == pytest.approx(common, abs=0.05)
    assert learned.persistence == pytest.approx(persistence, abs=0.05)


def test_of_few_buildings_or_days_the_prior_is_believed():
    assert learn(np.empty((0, 48, 10))) == Dependence()
    assert learn(errors(0.9, 0.9, buildings=2)) == Dependence()
    assert learn(np.full((5, 48, 10), np.nan)) == Dependence()
    one_day = learn(errors(0.9, 0.9, days=1))
    assert COMMON < one_day.common < 0.4
    assert PERSISTENCE < one_day.persistence < 0.75


def test_the_peak_from_quantiles_alone_is_as_good_as_from_all_courses():
    """CRPS of the peak of 100 buildings: within 5 % of a centre that draws from the true joint distribution."""
    rng = np.random.default_rng(7)
    shape = 1 + np.exp(-0.5 * ((np.arange(48) - 38) / 4) ** 2)
    size = rng.uniform(5, 20, 100)
    ours, centre = [], []
    for day in range(40):
        e = errors(0.2, 0.6, days=301, buildings=100, seed=100 + day)
        total = ((size * shape[:, None]) * (1 + 0.15 * e)).sum(axis=2).max(axis=1)
        if day == 0:
            at = np.array([np.quantile(np.random.default_rng(1).standard_normal(200_000), level) for level in LEVELS])
            sent = size[:, None, None] * shape * (1 + 0.15 * at[:, None])
            said = combine(LEVELS, sent, Dependence(0.2, 0.6)).peak_w
        ours.append(np.mean(np.maximum(LEVELS * (total[0] - said), (LEVELS - 1) * (total[0] - said))))
        best = np.quantile(total[1:], LEVELS)
        centre.append(np.mean(np.maximum(LEVELS * (total[0] - best), (LEVELS - 1) * (total[0] - best))))
    assert np.mean(ours) < 1.05 * np.mean(centre)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected quantiles"):
        combine(LEVELS, np.empty((0, 19, 48)))
    with pytest.raises(ValueError, match="expected quantiles"):
        combine(LEVELS, np.ones((2, 18, 48)))
