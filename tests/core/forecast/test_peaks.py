"""The time of a day's extreme, from the curve and its errors: probabilities, on every word size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.forecast.calendar import Calendar
from core.forecast.peaks import CURVE_TIME_SHARE, OWN_SPREAD, PRIOR_TIME, ExtremeHead

POINTS = np.linspace(-4, 4, 81)
SHARES = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in POINTS])
SHARES[[0, -1]] = 0, 1


@pytest.mark.parametrize(("sign", "step"), [(1, 70), (-1, 20)])
def test_where_the_curve_has_its_extreme_it_is_expected(sign: int, step: int) -> None:
    head = ExtremeHead(sign, 900.0, Calendar())
    curve, spread = np.full(head.steps, 5.0), np.full(head.steps, 0.1)
    curve[step] += sign * 3.0
    found = head.probability(curve, spread, POINTS, SHARES, head.times(0, 20_000))
    assert found.argmax() == step
    assert found.min() > 0
    assert found.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_probability_of_a_step_is_how_often_it_is_the_extreme_of_drawn_courses(sign: int) -> None:
    """Steps of unequal height and spread, independent normal errors: against counting in 200,000 draws."""
    rng = np.random.default_rng(7)
    head = ExtremeHead(sign, 3600.0, Calendar())
    curve, spread = np.sin(np.arange(head.steps) / 3), rng.uniform(0.1, 0.8, head.steps)
    drawn = curve + OWN_SPREAD * spread * rng.standard_normal((200_000, head.steps))
    counted = np.bincount((sign * drawn).argmax(axis=1), minlength=head.steps) / len(drawn)
    even = np.full(head.steps, 1 / head.steps)
    found = head.probability(curve, spread, POINTS, SHARES, even)
    said = ((found - PRIOR_TIME / head.steps) / (1 - PRIOR_TIME) - (1 - CURVE_TIME_SHARE) * even) / CURVE_TIME_SHARE
    np.testing.assert_allclose(said, counted, atol=0.004)


@pytest.mark.parametrize("wide", [1e-3, 50.0])
def test_spreads_of_any_size_give_a_distribution(wide: float) -> None:
    head = ExtremeHead(1, 1800.0, Calendar())
    spread = np.full(head.steps, 1e-3)
    spread[::7] = wide
    found = head.probability(np.linspace(-9, 9, head.steps), spread, POINTS, SHARES, np.full(48, 1 / 48))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1.0)


def test_the_place_of_an_instant_is_an_index_and_right_beyond_32_bits() -> None:
    day, step = Calendar((), (3600.0,)).place(np.array([1_700_000_000.0, 4_300_000_000.0]), 900.0)
    assert day.dtype == step.dtype == np.intp
    assert day.tolist() == [19_675, 49_768]
    assert step.tolist() == [92, 53]
