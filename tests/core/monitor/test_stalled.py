"""Registers that stand still though energy flows: nobody read them anew. They catch up, and nothing was missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.evidence import LossKind
from core.monitor.spec import Settings
from core.monitor.zone_monitor import ZoneMonitor

from .conftest import DAY, FLATS, HOURS, watched, zone

STALL = slice(34 * DAY + 9, 35 * DAY + 4)  # 21.5 h


def behind(energy_wh, stall=STALL):
    """What a register shows that stands still in the rows of `stall` and catches up in the next."""
    shown = energy_wh.copy()
    shown[stall] = 0.0
    shown[stall.stop] += energy_wh[stall].sum(axis=0)
    return shown


class Rows:
    """A building whose rows are given."""

    def __init__(self, rows):
        self._rows = rows

    def rows(self):
        return self._rows


def of_main(building, main_wh):
    rows = building.rows()
    return Rows(replace(rows, main_wh=main_wh, residual_wh=rows.residual_wh + main_wh - rows.main_wh))


def whole_steps(subs_wh):
    return np.maximum(subs_wh, 1.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sub_meters_that_all_stand_still_and_catch_up_alarm_nobody(house, seed):
    building = house(50, seed)
    _, evidence = watched(building.stolen(behind(building.subs_wh)))
    assert evidence == []


def test_a_main_meter_that_stands_still_and_catches_up_alarms_nobody(house):
    building = house(50)
    _, evidence = watched(of_main(building, behind(building.rows().main_wh)))
    assert evidence == []


@pytest.mark.parametrize("block", [1, 7, DAY])
def test_however_the_rows_come_the_gap_is_the_same(house, block):
    building = house(36)
    stalled = building.stolen(behind(building.subs_wh))
    monitor, _ = watched(stalled, block=block)
    whole, _ = watched(stalled)
    first = 30 * DAY
    for mine, theirs in zip(
        monitor.history.booked(first, 36 * DAY), whole.history.booked(first, 36 * DAY), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert monitor.history.missed(STALL.start + 2, STALL.stop).all()


def test_a_concentrator_that_stands_still_for_days_is_told_then_withdrawn(house):
    building = house(50)
    long = slice(STALL.start, STALL.start + 3 * DAY)
    _, evidence = watched(building.stolen(behind(building.subs_wh, long)))
    assert evidence[0].active
    assert evidence[0].time_s > (long.start + DAY) * 1800.0  # a day of it is taken for a gap
    assert evidence[-1].episode == 1
    assert not evidence[-1].active
    assert evidence[-1].time_s <= (long.stop + 2 * DAY) * 1800.0
    assert all(max((s.probability for s in e.suspects), default=0.0) < 0.9 for e in evidence)


def test_what_one_sub_meter_catches_up_with_withdraws_the_loss(house):
    """Until then it looks like a theft. Then nothing is missing, and the next day nobody is named any more."""
    building = house(60)
    shown = building.subs_wh.copy()
    shown[:, 4] = behind(whole_steps(3.0 * shown[:, 4]), slice(STALL.start, STALL.start + DAY + 20))
    _, evidence = watched(replace(building, main_wh=building.main_wh + 2.0 * building.subs_wh[:, 4]).stolen(shown))
    assert evidence
    assert evidence[0].active
    assert not evidence[-1].active
    assert evidence[-1].time_s <= (STALL.start + 3 * DAY) * 1800.0
    assert abs(evidence[-1].loss_kwh) < 0.5
    assert evidence[-1].suspects == ()
    assert {e.episode for e in evidence} == {1}
    assert not any(e.kind is LossKind.BALANCE_SURPLUS for e in evidence)


def test_a_flat_that_comes_home_is_no_meter_that_catches_up(house):
    building = house(50)
    shown = building.subs_wh.copy()
    shown[STALL, 4] = 0.0
    monitor, _ = watched(building.stolen(shown))
    assert not monitor.learning.caught


def test_a_restart_behind_a_catch_up_goes_on_bit_for_bit(house):
    building = house(60)
    shown = building.subs_wh.copy()
    shown[:, 4] = behind(shown[:, 4], slice(STALL.start, STALL.start + DAY + 20))
    building = building.stolen(shown)
    whole, told = watched(building)
    cut = 44 * DAY + 11
    stopped, before = watched(Rows(building.rows()[:cut]))
    assert stopped.learning.caught
    again = ZoneMonitor(zone(), HOURS, Settings())
    first = stopped.history.first
    count = cut - first
    again.restore(stopped.pack(), building.rows()[first:cut], np.zeros((count, FLATS), np.bool_), np.ones(count))
    _, after = watched(building, monitor=again, first=cut)
    assert before + after == told
    np.testing.assert_array_equal(again.history.booked(first, 60 * DAY)[0], whole.history.booked(first, 60 * DAY)[0])


def test_while_a_meter_does_not_answer_a_loss_is_told_by_what_was_known_before(house, watched, since):
    """In a gap what was used is a guess: a loss of 300 W is not told as -200 W, give or take thousands."""
    building = house(60).tapped(since(60 * DAY, 30, 300.0))
    rows = building.rows()
    gap = slice(31 * DAY, 34 * DAY)
    flowed = np.zeros(len(rows))
    flowed[gap] = np.cumsum(rows.main_wh[gap])
    guessed = rows.residual_wh.copy()
    guessed[gap] -= 0.2 * rows.main_wh[gap]  # what the profile has for the silent meters is too much
    guessed[gap.stop] += 0.2 * rows.main_wh[gap].sum()
    _, evidence = watched(Rows(replace(rows, residual_wh=guessed, gap_wh2=(0.2 * flowed) ** 2)))
    inside = [e for e in evidence if gap.start < e.time_s / 1800.0 <= gap.stop]
    assert inside
    for e in inside:
        low, high = e.loss_w_interval
        assert e.loss_w == pytest.approx(300, rel=0.25)  # by the onset that is believed, some hours off
        assert high - low < 60
