"""The promised number of false alarms a year is a rate: it is bounded from both sides, on tails of any size."""

from __future__ import annotations

import numpy as np
import pytest

from core.detection.own_tail import MOST, SHAPE, OwnTail


def weeks(rng, count):
    """Largest of each week of a building that is livelier or calmer than others."""
    mode, scale = np.clip(rng.normal(0.3, 0.06), 0.15, 0.6), rng.uniform(0.05, 0.11)
    return mode + scale * ((-np.log(rng.uniform(size=count))) ** -SHAPE - 1) / SHAPE


@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_a_rate_is_kept_and_used_in_calm_and_in_lively_buildings(rate):
    rng = np.random.default_rng(3)
    alarms, years = 0, 0.0
    for _ in range(60 if rate > 1 else 200):
        tail = OwnTail()
        for number, largest in enumerate(weeks(rng, 52)):
            alarms += largest >= tail.reach(rate)
            years += 7 / 365.25
            tail.note(number, float(largest))
    assert 0.3 * rate < alarms / years < 1.2 * rate


def test_no_building_s_threshold_is_beyond_the_theory_s_and_a_theft_s_weeks_are_dropped():
    tail = OwnTail()
    for number in range(30):
        tail.note(number, 0.9 + 0.02 * (number % 5))
    assert tail.reach(0.1) == MOST
    tail.note(30, 3.0)
    tail.drop()
    assert max(tail.weeks) < 1.0
    assert len(tail.weeks) == 29


def test_a_stricter_rate_is_a_farther_threshold():
    tail = OwnTail()
    assert tail.reach(10.0) < tail.reach(1.0) < tail.reach(0.1)
