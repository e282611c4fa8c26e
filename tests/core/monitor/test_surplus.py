"""A surplus that ends in a loss, a loss beside a surplus, and two main meters that err."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.detection.main_fault import follows_the_flats
from core.evidence import LossKind
from core.monitor.spec import Settings, ZoneSpec
from core.monitor.zone_monitor import ZoneMonitor

FLATS, DAY, HOURS = 12, 48, 0.5
SURPLUS = LossKind.BALANCE_SURPLUS


def day_of(item) -> float:
    return item.time_s / 86_400


def test_a_surplus_that_has_become_a_loss_ends_with_its_energy_and_the_loss_is_told(house, watched, since) -> None:
    rows = 50 * DAY
    _, evidence = watched(house(50).tapped(since(rows, 41, 250.0) - since(rows, 30, 400.0, 41)))
    surplus = [item for item in evidence if item.kind is SURPLUS]
    assert [item.active for item in surplus].count(False) == 1
    assert not surplus[-1].active
    assert day_of(surplus[-1]) < 46.5
    assert surplus[-1].loss_kwh == pytest.approx(0.4 * 24 * 11, rel=0.05)
    assert all(item.loss_w_interval[1] > 0 for item in evidence)
    losses = [item for item in evidence if item.kind is not SURPLUS]
    assert losses
    assert day_of(losses[0]) < 44
    assert losses[-1].loss_w == pytest.approx(250, rel=0.2)


def test_a_theft_beside_an_unread_roof_is_told_within_days(house, watched, since) -> None:
    rows = 52 * DAY
    hour = np.arange(rows) % DAY / 2
    clear = np.repeat(np.random.default_rng(3).uniform(0.3, 1.0, 52), DAY)
    roof = 1500.0 * clear * np.clip(np.cos((hour - 12) / 5 * np.pi / 2), 0, None) * (np.abs(hour - 12) < 5)
    _, evidence = watched(house(52).tapped(since(rows, 40, 250.0) - roof * (np.arange(rows) >= 28 * DAY)))
    told = [day_of(item) for item in evidence if item.kind is not SURPLUS]
    assert any(item.kind is SURPLUS for item in evidence)
    assert told
    assert 42 <= told[0] < 48


@pytest.mark.parametrize("import_only", [True, False])
def test_what_an_unread_export_of_the_main_meter_hides_is_no_loss(house, watched, import_only) -> None:
    honest = house(34)
    rows = 34 * DAY
    hour = np.arange(rows) % DAY / 2
    roof = 9000.0 * np.clip(np.cos((hour - 12) / 5 * np.pi / 2), 0, None) * (np.abs(hour - 12) < 5) * HOURS
    roof[: 25 * DAY] = 0.0
    subs = honest.subs_wh.copy()
    subs[:, 5] -= roof
    house_net = replace(honest, subs_wh=subs, main_wh=np.abs(honest.main_wh - roof))
    spec = ZoneSpec("building", tuple(f"flat-{k}" for k in range(FLATS)), (1.0,) * FLATS, import_only=import_only)
    monitor, evidence = watched(house_net, monitor=ZoneMonitor(spec, HOURS, Settings()))
    assert monitor.export_unread == import_only
    assert bool(evidence) != import_only


def test_a_main_meter_on_a_wrong_phase_follows_many_flats_and_thieves_follow_few(house) -> None:
    subs = house(4).subs_wh
    noise = np.random.default_rng(5).normal(0, 15.0, len(subs))
    wrong = subs[:, 1::3].sum(axis=1) - subs[:, 2::3].sum(axis=1)
    assert follows_the_flats(subs, wrong + noise)
    assert not follows_the_flats(subs, 0.6 * subs[:, 3] + noise)
    assert not follows_the_flats(subs, 0.6 * subs[:, 3] + subs[:, 7] + noise)
    assert not follows_the_flats(subs, 300.0 + noise)
    assert not follows_the_flats(subs[:20], wrong[:20])
