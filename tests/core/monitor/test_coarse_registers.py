"""Registers of 1 kWh: they stand still for hours, and what they hide meanwhile is at most a step."""

from __future__ import annotations

import numpy as np
import pytest

from core.balance import _balance
from core.balance.rows import ZoneRows
from core.monitor.spec import ZoneSpec
from core.monitor.zone_monitor import ZoneMonitor
from core.registers.align import Aligner, Flag
from core.registers.samples import RegisterSpec

DAY, FLATS, STEP_WH, HALF_H = 48, 12, 1000.0, 1800.0


def aligned(energy_wh, step_wh=STEP_WH, seed=1):
    """Rows of meters that show whole steps only, and the true energy until each row's end [T, M]."""
    true = np.cumsum(energy_wh, axis=0) + np.random.default_rng(seed).uniform(0, 5e6, energy_wh.shape[1])
    box = Aligner([RegisterSpec(f"m{j}", resolution_wh=step_wh) for j in range(energy_wh.shape[1])], HALF_H)
    box.feed_block(HALF_H * (1 + np.arange(len(true))), np.floor(true / step_wh) * step_wh)
    return box.close(1e12), true


def watch(building):
    """Evidence of a house whose sub-meters show whole kilowatt-hours."""
    rows, _ = aligned(np.column_stack([building.main_wh, building.subs_wh]))
    zone = ZoneRows.empty(rows.ends_s, FLATS)
    read, columns = np.empty(len(rows)), np.arange(1 + FLATS, dtype=np.int32)
    _balance.residual_rows(
        rows.energy_wh, rows.sd_wh, rows.lost_wh2, rows.flags, columns, np.ones(1 + FLATS), zone, read
    )
    spec = ZoneSpec("building", tuple(f"flat-{k}" for k in range(FLATS)), (1.0,) * FLATS)
    monitor, evidence = ZoneMonitor(spec, 0.5), []
    missed = (rows.flags[:, 1:] & np.uint8(Flag.MISSED)) > 0
    for start in range(0, len(rows), DAY):
        part = slice(start, start + DAY)
        evidence += monitor.step(zone[part], missed[part], read[part])
    return evidence


def test_what_is_booked_is_never_further_than_a_step_from_the_truth_and_as_far_as_it_says(house):
    energy = house(40).subs_wh
    rows, true = aligned(energy)
    off = (rows.booked_wh - rows.booked_wh[-1]) - (true - true[-1])
    off = off[10 * DAY :] - off[10 * DAY :].mean(axis=0)
    assert np.ptp(off, axis=0).max() < 2 * STEP_WH
    stands = (rows.flags[10 * DAY :] & Flag.STANDS) > 0
    assert 0.1 < stands.mean() < 0.9
    for which in (stands, ~stands):
        assert off[which].std() == pytest.approx(np.sqrt(np.square(rows.sd_wh[10 * DAY :][which]).mean()), rel=0.5)
    assert off[~stands].std() < 0.7 * STEP_WH / np.sqrt(12), "where it moves it is known better than to a step"


def test_a_meter_that_no_longer_counts_is_booked_one_step_and_then_nothing(house):
    energy = house(20).subs_wh.copy()
    energy[10 * DAY :, 0] = 0.0
    rows, _ = aligned(energy)
    assert rows.energy_wh[10 * DAY :, 0].sum() <= STEP_WH
    assert not rows.energy_wh[14 * DAY :, 0].any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_honest_house_is_left_in_peace(house, seed):
    assert watch(house(45, seed=seed)) == []


def test_a_theft_is_found_there_too(house, since):
    building = house(45).tapped(since(45 * DAY, 30, 200.0))
    evidence = watch(building)
    assert 30 < evidence[0].time_s / 86_400 < 36
    assert evidence[-1].loss_w == pytest.approx(200, rel=0.3)
