"""What a flat is expected to use: shape from weeks, level from the last one."""

from __future__ import annotations

import numpy as np
import pytest

from core.attribution.usage import learn, sum_by, weekend

SLOTS = 24


def past(days: int, level: float = 100.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one flat with a peak from 17 to 20 h, twice as high on weekends, from day 0 (a Thursday)."""
    day, slot = np.divmod(np.arange(days * SLOTS), SLOTS)
    peak = np.where((slot >= 17) & (slot < 20), np.where(weekend(day), 400.0, 200.0), 0.0)
    return (level + peak)[:, None], day, slot


def test_day_zero_was_a_thursday() -> None:
    assert weekend(np.arange(7)).tolist() == [False, False, True, True, False, False, False]


def test_weekends_have_a_profile_of_their_own() -> None:
    usage = learn(*past(56), SLOTS)
    thursday, saturday = usage.expected_wh(np.array([56, 58]), np.array([18, 18]))[:, 0]
    # True are 500 and 300; weekends are few, and drawn towards the working days.
    assert 250 < thursday < 350
    assert 1.3 * thursday < saturday < 550


def test_the_level_is_that_of_the_last_week_once_it_has_moved_far() -> None:
    rows, day, slot = past(56)
    rows = np.where((day >= 48)[:, None], 0.05 * rows, rows)
    usage = learn(rows, day, slot, SLOTS)
    assert usage.level_wh[0] == pytest.approx(rows[day >= 49].mean(), rel=0.1)
    assert usage.expected_wh(np.array([60]), np.array([3]))[0, 0] < 12


def test_unknown_rows_teach_nothing() -> None:
    rows, day, slot = past(28)
    holes = rows.copy()
    holes[np.random.default_rng(0).random(len(rows)) < 0.2] = np.nan
    whole, torn = learn(rows, day, slot, SLOTS), learn(holes, day, slot, SLOTS)
    assert torn.profile_wh == pytest.approx(whole.profile_wh, rel=0.1)


def test_without_a_day_of_rows_nothing_is_known_from_before() -> None:
    rows, day, slot = past(1)
    assert learn(rows[:-1], day[:-1], slot[:-1], SLOTS).rows == 0
    assert learn(rows, day, slot, SLOTS, before_onset=False).rows == 0
    assert learn(rows, day, slot, SLOTS).rows == SLOTS


def test_a_steady_household_is_sure_of_its_level_and_a_fitful_one_is_not() -> None:
    rows, day, slot = past(56)
    fitful = rows * np.random.default_rng(1).lognormal(0, 0.8, 56)[day][:, None]
    steady_sd, fitful_sd = (learn(r, day, slot, SLOTS).level_sd(7.0)[0] for r in (rows, fitful))
    assert steady_sd < 0.25 < fitful_sd
    assert learn(fitful, day, slot, SLOTS).level_sd(1.0)[0] > fitful_sd


def test_sums_by_index() -> None:
    rows = np.arange(8.0).reshape(4, 2)
    assert sum_by(np.array([2, 0, 2, 0]), rows, 4).tolist() == [[8, 10], [0, 0], [4, 6], [0, 0]]
