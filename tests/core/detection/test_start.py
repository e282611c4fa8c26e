"""What was lost before we came: a slow meter, somebody's life behind no meter, and honest buildings that look odd."""

from __future__ import annotations

import numpy as np
import pytest

from core.balance.losses import BURDEN_W, COMMON, HOURS, LossModel
from core.detection.initial_loss import initial_loss

DAYS, DAY = 14, 48
QUIET_W2H = 200.0  # how restless the quarters of an honest building of this size are


def test_an_initial_loss_is_one_though_its_main_meter_is_read_late_at_times(house):
    honest = house(DAYS)
    late = np.zeros(DAYS * DAY)
    late[np.random.default_rng(3).choice(DAYS * DAY, 7, replace=False)] = 800.0
    assert initial_loss(honest.rows(late), honest.model, QUIET_W2H, 0.0) is None


@pytest.mark.parametrize("boundary_wh", [15.0, 60.0])
def test_a_slow_meter_is_seen_also_where_reads_are_poor(house, boundary_wh):
    honest = house(DAYS)
    shown = honest.subs_wh.copy()
    shown[:, 4] *= 0.5
    slow = honest.stolen(shown)
    found = initial_loss(slow.rows(boundary_wh=boundary_wh), slow.model, QUIET_W2H, 0.0)
    assert found is not None
    assert found.reference[1 + COMMON + 4] == 0.0
    assert found.suspect == 4
    assert not found.question
    lost_wh = slow.rows(boundary_wh=boundary_wh).residual_wh - slow.model().expected(slow.rows(), 0.0, found.reference)
    assert lost_wh.sum() == pytest.approx((honest.subs_wh - shown).sum(), rel=0.2)


def test_a_flat_without_a_meter_is_seen_by_how_restless_its_life_is(house):
    honest = house(DAYS, seed=2)
    shown = honest.subs_wh.copy()
    shown[:, 4] = 1.0
    bypassed = honest.stolen(shown)
    found = initial_loss(bypassed.rows(), bypassed.model, QUIET_W2H, 0.0)
    assert found is not None
    np.testing.assert_array_equal(found.reference[1 : 1 + HOURS], BURDEN_W)


def test_a_common_load_that_a_house_may_have_is_left_alone_and_a_larger_one_is_not(house):
    honest, rows = house(DAYS), DAYS * DAY
    lit = honest.tapped(np.full(rows, 3.0 * 12))
    assert initial_loss(lit.rows(), lit.model, QUIET_W2H, 0.0) is None
    tapped = honest.tapped(np.full(rows, 20.0 * 12))
    found = initial_loss(tapped.rows(), tapped.model, QUIET_W2H, 0.0)
    assert found.power_w == pytest.approx(20.0 * 12, rel=0.15)
    assert found.question, "stairs, a lift and pumps may take as much"
    larger = honest.tapped(np.full(rows, 60.0 * 12))
    assert not initial_loss(larger.rows(), larger.model, QUIET_W2H, 0.0).question


def test_what_is_known_to_be_unmetered_is_no_loss(house):
    honest = house(DAYS)
    lit = honest.tapped(np.full(DAYS * DAY, 20.0 * 12))

    def model():
        return LossModel(0.5, 0.5, [1.0] * 12, honest.load_w, unmetered_w=20.0 * 12)

    assert initial_loss(lit.rows(), model, QUIET_W2H, 0.0) is None


@pytest.mark.parametrize("offset_h", [0.0, 8.0, -8.0, 5.5, -3.0, 10.0])
def test_lights_of_the_stairs_are_judged_by_the_hours_of_the_people_who_live_there(house, offset_h):
    """9 W a flat from 20 to 6 o'clock local time, 3.75 W in the mean: an ordinary lit house, wherever it stands."""
    honest, rows = house(DAYS), DAYS * DAY
    local_hour = (np.arange(rows) % DAY / 2 + offset_h) % 24
    lit = honest.tapped(np.where((local_hour >= 20) | (local_hour < 6), 9.0 * 12, 0.0))
    assert initial_loss(lit.rows(), lit.model, QUIET_W2H, offset_h * 3600) is None
    by_day = honest.tapped(np.where((local_hour >= 8) & (local_hour < 18), 12.0 * 12, 0.0))
    assert initial_loss(by_day.rows(), by_day.model, QUIET_W2H, offset_h * 3600) is not None
