"""Quantiles of single buildings add up to the fleet's: sums that are known, and a centre that has all courses."""

from __future__ import annotations

import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest

from agent.utility.fleet import coincident
from agent.utility.fleet.coincident import (
    LEVELS,
    Courses,
    Dependence,
    Persistence,
    SumOfBuildings,
    day_errors,
    learn,
    scores_of,
)


def combine(levels, quantiles, dependence=None, past=None):
    """With the median as the expected load."""
    return coincident.combine(levels, quantiles, quantiles[:, len(levels) // 2], dependence, past)


def ar(common, persistence):
    return Dependence(common, Persistence(0.0, persistence), Persistence(0.0, persistence))


def normal_quantiles(mean, sd, steps=24):
    at = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    return np.tile((mean + sd * at)[:, None], (1, steps))


def test_independent_buildings_even_each_other_out_and_common_errors_do_not():
    fleet = np.array([normal_quantiles(10.0, 2.0) for _ in range(100)])
    apart = combine(LEVELS, fleet, ar(0.0, 0.5))
    together = combine(LEVELS, fleet, ar(1.0, 0.5))

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


def test_a_building_is_the_same_in_whatever_company():
    quantiles = normal_quantiles(10.0, 2.0)
    drawn = Courses(Dependence(), 24)
    alone = drawn.of(-7, LEVELS, quantiles)
    drawn.of(8, LEVELS, quantiles)
    np.testing.assert_array_equal(drawn.of(-7, LEVELS, quantiles), alone)
    assert not np.array_equal(drawn.of(8, LEVELS, quantiles), alone)


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


def learned(scores):
    """From [days, steps, buildings]."""
    return learn(day_errors(day.T) for day in scores)


@pytest.mark.parametrize(("common", "persistence"), [(0.0, 0.3), (0.2, 0.6), (0.6, 0.8)])
def test_the_dependence_is_learned_from_past_errors(common, persistence):
    found = learned(errors(common, persistence))
    assert found.common == pytest.approx(common, abs=0.05)
    assert found.own.after(1) == pytest.approx(persistence, abs=0.05)
    assert found.own.after(24) == pytest.approx(0, abs=0.1)
    if common:
        assert found.shared.after(1) == pytest.approx(persistence, abs=0.05)


def test_what_lasts_the_whole_day_is_told_from_what_the_next_step_still_knows():
    """A common part that is one number a day beside own parts that last an hour."""
    rng = np.random.default_rng(5)
    scores = 0.5 * rng.standard_normal((400, 1, 1)) + np.sqrt(0.75) * errors(0.0, 0.5)
    found = learned(scores)
    assert found.common == pytest.approx(0.25, abs=0.05)
    assert found.shared.level > 0.85
    assert found.own.level < 0.1
    drawn = Courses(found, 48)
    fleet = SumOfBuildings(48)
    for building in range(100):
        fleet.add(drawn.of(building, LEVELS, normal_quantiles(10.0, 2.0, 48)), np.full(48, 10.0))
    said = fleet.forecast()
    # 100 sd 2, of whose variance a quarter is common: the mean of a day spreads by a bit less than 100.
    assert (said.quantiles_w[-1] - said.quantiles_w[0]).mean() / (2 * 1.645) == pytest.approx(101, rel=0.1)


def test_of_few_buildings_or_days_the_prior_is_believed():
    prior = Dependence()
    assert learn([]) == prior
    assert learned(errors(0.9, 0.9, buildings=2)) == prior
    one_day = learned(errors(0.9, 0.9, days=1))
    assert prior.common < one_day.common < 0.4
    assert prior.own.after(1) < one_day.own.after(1) < 0.75


def test_a_day_that_cannot_be_is_bounded():
    """A fault of a thousand times the load weighs as an error of four spreads."""
    low, mean, high = np.full(48, 8.0), np.full(48, 10.0), np.full(48, 15.0)
    assert scores_of(np.full(48, 1e4), low, mean, high).max() == 4
    assert scores_of(np.full(48, 15.0), low, mean, high) == pytest.approx(1.645, abs=1e-3)
    assert scores_of(np.full(48, 8.0), low, mean, high) == pytest.approx(-1.645, abs=1e-3)
    assert scores_of(mean, mean, mean, mean) == pytest.approx(0)


def test_the_sums_own_past_counts_as_much_as_the_copula_after_four_weeks():
    fleet = np.array([normal_quantiles(10.0, 0.01) for _ in range(10)])
    past = np.zeros((28, 24))
    past[:, 7] = 0.5  # each day the sum was half as much again at seven
    without, pooled = combine(LEVELS, fleet), combine(LEVELS, fleet, past=past)
    assert without.peak_w[9] == pytest.approx(100, rel=0.01)
    assert pooled.peak_w[-1] == pytest.approx(150, rel=0.01)
    assert pooled.peak_w[0] == pytest.approx(100, rel=0.01)
    assert pooled.peak_time[7] == pytest.approx(0.5, abs=0.05)
    assert combine(LEVELS, fleet, past=past[:3]).peak_time[7] < 0.2
    np.testing.assert_array_equal(combine(LEVELS, fleet, past=past[:0]).peaks_w, without.peaks_w)


def test_the_probability_to_pass_a_capacity():
    said = combine(LEVELS, np.array([normal_quantiles(10.0, 2.0) for _ in range(50)]))
    assert said.over(said.peak_w[9]) == pytest.approx(0.5, abs=0.01)
    assert said.over(said.peak_w[-1]) == pytest.approx(0.05, abs=0.01)
    assert 0 < said.over(1e9) < 0.001
    assert 0.999 < said.over(0.0) < 1


def test_memory_does_not_grow_with_the_fleet():
    drawn, fleet = Courses(Dependence(), 48), SumOfBuildings(48)
    quantiles, mean = normal_quantiles(10.0, 2.0, 48), np.full(48, 10.0)
    fleet.add(drawn.of(0, LEVELS, quantiles), mean)
    tracemalloc.start()
    for building in range(50):
        fleet.add(drawn.of(building, LEVELS, quantiles), mean)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fleet.zones == 51
    assert kept < 1e5
    assert most < 4e6  # of one building's courses, 48 x 1000


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
            said = combine(LEVELS, sent, ar(0.2, 0.6)).peak_w
        ours.append(np.mean(np.maximum(LEVELS * (total[0] - said), (LEVELS - 1) * (total[0] - said))))
        best = np.quantile(total[1:], LEVELS)
        centre.append(np.mean(np.maximum(LEVELS * (total[0] - best), (LEVELS - 1) * (total[0] - best))))
    assert np.mean(ours) < 1.05 * np.mean(centre)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected quantiles"):
        coincident.combine(LEVELS, np.empty((0, 19, 48)), np.empty((0, 48)))
    with pytest.raises(ValueError, match="expected quantiles"):
        coincident.combine(LEVELS, np.ones((2, 18, 48)), np.ones((2, 48)))
    with pytest.raises(ValueError, match="no building"):
        SumOfBuildings(48).forecast()
