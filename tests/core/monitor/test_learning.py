"""What is learned as normal, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.balance.losses import BURDEN_W, CLASS_TO_SD, COMMON, HOURS
from core.monitor.alarm import Alarm
from core.monitor.learning import Learning
from core.monitor.spec import Settings, ZoneSpec

FLATS, DAY = 12, 48


def learning(building, told=(), **zone):
    """Learned day by day; `told` losses are known from their onset on."""
    spec = ZoneSpec("building", tuple(f"flat-{k}" for k in range(FLATS)), (1.0,) * FLATS, **zone)
    one = Learning(spec, 0.5, Settings())
    rows = building.rows()
    for start in range(0, len(rows), DAY):
        part = rows[start : start + DAY]
        one.take(one.ready(part), slice(0, DAY), np.zeros((DAY, FLATS), np.bool_), np.ones(DAY), until_large=False)
        one.daily([loss for loss in told if loss.raised <= start])
    return one


def tap(onset, power_w):
    return Alarm(1, 1.0, onset, onset, onset, onset + 6, loss_w=power_w, serial=1)


def test_only_rows_that_have_aged_are_learned(house):
    one = learning(house(40))
    assert one.absorbed == 26 * DAY
    assert one.noise.days == pytest.approx(25, abs=1)


def test_rows_of_a_told_loss_are_not_learned(house, since):
    honest, onset = house(60), 26 * DAY
    stolen = honest.tapped(since(60 * DAY, 26, 150.0))
    on = learning(stolen, [tap(onset, 150.0)])
    assert on.absorbed == onset
    over = learning(stolen, [replace(tap(onset, 150.0), fading=35 * DAY, ended=36 * DAY)])
    assert over.absorbed == 46 * DAY
    assert over.noise.days < 40


def test_an_accepted_load_is_a_state_of_its_own_and_the_learning_goes_on(house, since):
    """Else a month of 150 W would go into the gains and the unmetered load."""
    honest, onset = house(60), 26 * DAY
    stolen = honest.tapped(since(60 * DAY, 26, 150.0))
    with_it, without = learning(stolen, [replace(tap(onset, 150.0), accepted="pump")]), learning(honest)
    assert with_it.absorbed == without.absorbed == 46 * DAY
    assert len(with_it.model.x) == len(without.model.x) + len(with_it.model.told)
    spare = slice(1, 1 + HOURS)
    assert abs((with_it.model.x[spare] - without.model.x[spare]).mean() * FLATS) < 15.0
    gains = slice(1 + COMMON, 1 + COMMON + FLATS)
    off = with_it.model.x[gains] - without.model.x[gains]
    assert np.abs(off).max() < CLASS_TO_SD, "less than one standard deviation"
    untold = learning(stolen)
    assert np.abs(off).max() < np.abs(untold.model.x[gains] - without.model.x[gains]).max()


def test_a_load_that_is_known_to_have_no_meter_is_expected(house):
    lit = house(3).tapped(np.full(3 * DAY, 60.0))
    one = learning(lit, unmetered_w=60.0)
    assert one.model.mean[:HOURS] == pytest.approx(np.full(HOURS, BURDEN_W + 5.0))


def test_a_large_loss_is_seen_at_its_row_and_the_rows_behind_it_are_left(house, since):
    building = house(12).tapped(since(12 * DAY, 11.5, 8000.0))
    one = learning(house(11))
    rows = building.rows()[11 * DAY :]
    none = np.zeros((DAY, FLATS), np.bool_)
    taken, large = one.take(one.ready(rows), slice(0, DAY), none, np.ones(DAY), until_large=True)
    assert large
    assert 24 < taken < 30
    assert one.history.count == 11 * DAY + taken


def test_what_is_read_from_history_cannot_be_written(house):
    one = learning(house(2))
    booked, _ = one.history.booked(0, one.history.count)
    for view in (booked, one.history.rows(0, 5).main_wh, one.history.expected(0, 5), one.history.missed(0, 5)):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1.0
