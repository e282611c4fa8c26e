"""What a finding must bear before it is an alarm: late reads make none, a loss of the same size does."""

from __future__ import annotations

import numpy as np
import pytest

from core.balance.rows import ZoneRows
from core.detection.noise import learn_noise
from core.detection.search import confirmed, exceeds_uncertainty, rows_of, search_is_due, search_window

DAYS, DAY, LEARNED = 40, 48, 26
FLATS = 12
QUARTER = DAY // 4


def now(history, model, stop=None):
    """The balance as the monitor would search it; noise from the days that were learned."""
    booked, variance = history.booked(DAY, LEARNED * DAY)
    level_w = model.level_sd_w(history.rows(history.count - 3 * DAY, history.count))
    noise = learn_noise(booked[::QUARTER], variance[::QUARTER], model.load_w, level_w, level_w)
    return search_window(history, model, noise, 0.1, 0)


def test_a_reading_left_out_is_as_one_that_never_came(house, followed):
    rows = house(DAYS).rows()
    row, last = len(rows) - 20, len(rows) - 5
    history, model, follower = followed(rows, house(DAYS).model(), LEARNED)
    boundary = rows.boundary_wh2.copy()
    boundary[[row, last]] = 1e12
    never = ZoneRows(*(getattr(rows, name) if name != "boundary_wh2" else boundary for name in rows.__slots__))
    oracle, _, _ = followed(never, house(DAYS).model(), 0)
    oracle_follower = type(follower)()
    oracle_follower.explain(oracle, model, model.x)
    booked, variance = follower.without(history, model, row, last)
    expected, expected_variance = oracle.booked(row, oracle.count)
    np.testing.assert_allclose(np.diff(booked), np.diff(expected[1:]), atol=0.5)
    np.testing.assert_allclose(variance, expected_variance[1:], rtol=1e-3)


def test_late_reads_of_the_main_meter_are_no_loss(house, followed):
    honest = house(DAYS)
    late = np.zeros(DAYS * DAY)
    late[-2:] = 900.0  # two boundaries at which the main meter was read minutes later than the others
    history, model, follower = followed(honest.rows(late), honest.model(), LEARNED)
    booked, _ = history.booked(history.count - 2, history.count)
    assert booked[-1] - booked[0] < 900.0  # two boundaries are not believed whole
    current = now(history, model)
    found = current.search(1.0)
    assert found.excess < 1.0 or not confirmed(1.0, current, history, model, follower)
    # The same energy over four hours is a loss.
    real = honest.tapped(np.where(np.arange(DAYS * DAY) >= DAYS * DAY - 8, 450.0, 0.0))
    history, model, follower = followed(real.rows(), honest.model(), LEARNED)
    current = now(history, model)
    assert current.search(1.0).excess > 1.0
    assert confirmed(1.0, current, history, model, follower)


def test_what_rests_on_two_readings_alone_is_not_confirmed(house, followed):
    honest = house(DAYS)
    rows = honest.rows()
    rows.boundary_wh2[-4:] += 1e10
    history, model, follower = followed(rows, honest.model(), LEARNED)
    booked, variance = history.booked(history.count - 5, history.count)
    # As if the follower had believed one reading five rows ago, and nobody was read since.
    history.write_booked(history.count - 5, booked[1:] + 4000.0, variance[1:])
    current = now(history, model)
    assert current.search(1.0).excess > 1.0
    assert not confirmed(1.0, current, history, model, follower)


@pytest.mark.parametrize("power_w", [150.0, -150.0])
def test_a_steady_loss_or_surplus_is_confirmed_with_its_onset(house, followed, power_w):
    honest, onset = house(DAYS), (DAYS - 2) * DAY
    there = honest.tapped(np.where(np.arange(DAYS * DAY) >= onset, power_w, 0.0))
    history, model, follower = followed(there.rows(), honest.model(), LEARNED)
    current, sign = now(history, model), np.sign(power_w)
    found = current.search(sign)
    assert found.excess > 1.0
    assert confirmed(sign, current, history, model, follower)
    lo, best, hi = rows_of(found, sign, current, history.count)
    assert lo <= onset <= hi + 2
    assert best == pytest.approx(onset, abs=DAY // 2)
    assert exceeds_uncertainty(onset, sign, current, history.count)
    assert not exceeds_uncertainty(onset, -sign, current, history.count)


def test_a_revised_onset_lies_before_the_alarm(house, followed):
    honest, rows = house(DAYS), DAYS * DAY
    theft = np.where(np.arange(rows) >= rows - 6 * DAY, 120.0, 0.0) + np.where(
        np.arange(rows) >= rows - DAY, 600.0, 0.0
    )
    history, model, _ = followed(honest.tapped(theft).rows(), honest.model(), LEARNED)
    current = now(history, model)
    assert current.search(1.0).age_h <= 48.0
    assert current.search(1.0, 5 * 24.0).age_h >= 5 * 24.0
    assert current.search(1.0, 1e6) is None


def test_a_look_between_two_searches_is_worth_it_only_when_the_balance_stirs(house, followed):
    honest = house(DAYS)
    for power_w, expected in ((0.0, False), (800.0, True)):
        tap = np.where(np.arange(DAYS * DAY) >= DAYS * DAY - 6, power_w, 0.0)
        history, model, _ = followed(honest.tapped(tap).rows(), honest.model(), LEARNED)
        assert search_is_due(history, now(history, model).noise, model.hours, 0) is expected
