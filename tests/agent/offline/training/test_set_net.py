"""The posterior's network: its gradient, its mean, its temperature, and that it learns who it is."""

from __future__ import annotations

import numpy as np
import pytest

from agent.offline.training import set_net
from agent.offline.training.set_net import Case, Net, Recipe, fit, log_loss, softmax, temperature


def cases(count: int, seed: int = 0) -> list[Case]:
    """The right row has the greatest first figure, but for noise."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        rows = rng.normal(0, 1, (int(rng.integers(4, 9)), 6)).astype(np.float32)
        right = np.zeros(len(rows), np.bool_)
        right[int(np.argmax(rows[:, 0] + rng.normal(0, 0.3, len(rows))))] = True
        out.append(Case(rows, right, number))
    return out


def test_the_gradient_is_the_losss() -> None:
    rng = np.random.default_rng(1)
    params = [rng.normal(0, 0.7, s) for s in ((5, 6), (5,), (4, 5), (4,), (1, 4), (1,))]
    x, zone = rng.normal(0, 1, (11, 6)), np.repeat([0, 1, 2], [4, 4, 3])
    right = np.array([0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1], np.bool_)

    def loss(values: list[np.ndarray]) -> float:
        h = np.maximum(x @ values[0].T + values[1], 0)
        h = np.maximum(h @ values[2].T + values[3], 0)
        p = softmax((h @ values[4].T + values[5])[:, 0], zone, 3)
        return float(-np.log(np.bincount(zone, p * right, 3)).mean())

    found = set_net._gradient(params, x, right, zone, 3)
    for k, g in enumerate(found):
        for place in [(0,) * g.ndim, tuple(n - 1 for n in g.shape)]:
            up, down = [p.copy() for p in params], [p.copy() for p in params]
            up[k][place] += 1e-5
            down[k][place] -= 1e-5
            assert g[place] == pytest.approx((loss(up) - loss(down)) / 2e-5, abs=2e-5)


def test_it_learns_who_it_is_and_the_same_seed_learns_the_same() -> None:
    recipe = Recipe(hidden=(8, 4), epochs=40, dropout=0.0, seeds=1)
    net, again = fit(cases(300), recipe, 1), fit(cases(300), recipe, 1)
    unseen = cases(200, seed=9)
    hits = [case.right[int(np.argmax(net.logit(case.rows)))] for case in unseen]
    assert np.mean(hits) > 0.7
    np.testing.assert_array_equal(net.layers[0][0], again.layers[0][0])


def test_several_seeds_are_the_mean_of_their_logits() -> None:
    both = fit(cases(60), Recipe(hidden=(6, 3), epochs=2, seeds=2), 3)
    mean, scale = set_net.scaling(cases(60))
    parts = [set_net._fit_one(cases(60), Recipe(hidden=(6, 3), epochs=2, seeds=2), (3, k), mean, scale) for k in (0, 1)]
    rows = cases(1, seed=5)[0].rows
    assert both.logit(rows) == pytest.approx(np.mean([net.logit(rows) for net in parts], axis=0))


def test_the_temperature_cools_what_is_too_sure() -> None:
    rng = np.random.default_rng(2)
    told, logits = [], []
    for number in range(400):
        logit = rng.normal(0, 1.5, 5)
        p = np.exp(logit) / np.exp(logit).sum()
        right = np.zeros(5, np.bool_)
        right[rng.choice(5, p=p)] = True
        told.append(Case(np.zeros((5, 1), np.float32), right, number))
        logits.append(logit * 2.0)  # twice as sure as is true
    assert temperature(logits, told) == pytest.approx(2.0, rel=0.15)
    assert log_loss(logits, told, 2.0) < log_loss(logits, told, 1.0)


def test_a_net_of_no_scale_is_refused_nothing() -> None:
    rows = np.ones((3, 2), np.float32)
    mean, scale = set_net.scaling([Case(rows, np.array([True, False, False]), 0)])
    net = Net(mean, scale, ((np.ones((1, 2)), np.zeros(1)), (np.ones((1, 1)), np.zeros(1))))
    assert np.isfinite(net.logit(rows)).all()
