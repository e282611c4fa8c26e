"""Virtual buildings: energy goes where it must, and what is drawn is what was planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.offline.evaluation.virtual_buildings import (
    DAY_S,
    KINDS,
    TAP,
    Building,
    Plan,
    Pool,
    household_pool,
    make_building,
    measured_pool,
    plans,
)

PLAN = Plan(flats=12, days=60, onset_day=30)


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Loads with the daily shape and scatter of homes, cheap to draw."""
    rng = np.random.default_rng(11)
    hour = np.arange(70 * 48) % 48 / 2
    shape = 0.4 + np.exp(-((hour - 19) ** 2) / 12) + 0.5 * np.exp(-((hour - 8) ** 2) / 6)
    level = rng.lognormal(0, 0.5, 30) * np.repeat(rng.lognormal(0, 0.4, (10, 30)), 7 * 48, axis=0)  # by week
    return Pool(130.0 * shape[:, None] * level * rng.gamma(2.0, 0.5, (len(hour), 30)), 1800)


def known(register: np.ndarray) -> np.ndarray:
    return register[np.isfinite(register)]


def balance_w(building: Building, first_day: int, last_day: int) -> float:
    """Main meter less sub-meters over whole days, by registers read at both ends."""
    per_day = round(DAY_S / (building.times_s[1] - building.times_s[0]))
    rows = np.column_stack([building.main_wh, building.subs_wh])
    whole = np.flatnonzero(np.isfinite(rows).all(axis=1))
    first = whole[np.searchsorted(whole, first_day * per_day)]
    last = whole[np.searchsorted(whole, last_day * per_day, side="right") - 1]
    grown = rows[last] - rows[first]
    return float((grown[0] - grown[1:].sum()) / ((last - first) / per_day * 24))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stolen_is_missing(pool: Pool, kind: str) -> None:
    plan = replace(PLAN, theft=kind, least_share=0.02)
    for seed in range(20):  # one in which no meter was replaced: its energy would be lost to this sum
        building = make_building((seed,), pool, plan)
        if all((np.diff(known(r)) >= 0).all() for r in building.subs_wh.T):
            break
    stolen_w = building.stolen_w(float(building.times_s[-1]))
    grown_w = balance_w(building, 31, 59) - balance_w(building, 1, 29)
    assert stolen_w > 0.015 * building.load_w
    assert grown_w == pytest.approx(stolen_w, rel=0.25, abs=0.008 * building.load_w)
    assert (building.thieves == ()) == (kind == TAP)
    assert not building.stolen_wh[: 30 * 48].any()


def test_a_quiet_building_loses_what_copper_and_meters_take(pool: Pool) -> None:
    building = make_building((3,), pool, replace(PLAN, theft=None))
    assert 0 < balance_w(building, 1, 59) < 0.04 * building.load_w + 1.2 * 12
    assert building.onset_s is None
    assert building.stolen_w(float(building.times_s[-1])) == 0


def test_a_seed_is_a_building(pool: Pool) -> None:
    plan = replace(PLAN, theft="scaled", harsh=True)
    one, same, other = (make_building(seed, pool, plan) for seed in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(one.subs_wh, same.subs_wh, equal_nan=True)
    assert np.array_equal(one.main_wh, same.main_wh)
    assert one.signs == same.signs
    assert not np.array_equal(one.main_wh, other.main_wh)


def test_registers_rise_in_whole_steps_but_for_a_new_meter(pool: Pool) -> None:
    building = make_building((5,), pool, replace(PLAN, theft="bypassed", days=60, harsh=True))
    assert (np.diff(building.main_wh) >= 0).all()
    assert np.allclose(building.main_wh % building.main_step_wh, 0)
    missed = np.isnan(building.subs_wh)
    assert 0.03 < missed.mean() < 0.12
    assert not missed[[0, -1]].any()
    for register in building.subs_wh.T:
        assert (np.diff(known(register)) < 0).sum() <= 1


def test_two_thieves_and_a_theft_that_was_always_there(pool: Pool) -> None:
    two = make_building((6,), pool, replace(PLAN, theft="scaled", thieves=2))
    assert len(two.thieves) == 2
    always = make_building((7,), pool, replace(PLAN, theft="replayed", onset_day=0))
    assert always.onset_s == always.times_s[0]
    assert always.stolen_wh[:48].any()


def test_signs_are_mostly_the_thiefs(pool: Pool) -> None:
    found = [make_building((8, n), pool, replace(PLAN, theft="scaled")) for n in range(40)]
    guilty = sum(any(flat in b.thieves for flat, _, _ in b.signs) for b in found)
    innocent = sum(sum(flat not in b.thieves for flat, _, _ in b.signs) for b in found)
    assert 3 <= guilty <= 20
    assert innocent < 40 * 12 * 60 / 365 * 0.1
    for building in found:
        times = [time_s for _, time_s, _ in building.signs]
        assert times == sorted(times)


def test_a_pool_that_is_too_small_is_named(pool: Pool) -> None:
    with pytest.raises(ValueError, match="70 days of loads, the building needs 100"):
        make_building((1,), pool, replace(PLAN, days=100))
    idle = Pool(np.full_like(pool.energy_wh, 1.0), 1800)
    with pytest.raises(ValueError, match=r"no theft of kind 'evening' of 50\.0%"):
        make_building((1,), idle, replace(PLAN, theft="evening", least_share=0.5))


def test_a_pool_of_ones_own(tmp_path: Path) -> None:
    kwh = np.random.default_rng(0).gamma(2, 0.1, (48 * 21, 6)).astype(np.float32)
    kwh[100:110, 2] = np.nan
    kwh[:, 5] = np.nan
    np.savez(tmp_path / "loads.npz", kwh=kwh, interval_s=1800)
    pool = measured_pool(tmp_path / "loads.npz")
    assert pool.energy_wh.shape == (48 * 21, 5)
    assert pool.energy_wh[105, 2] == pytest.approx(kwh[105 - 336, 2] * 1000, rel=1e-6)
    np.savez(tmp_path / "other.npz", load=kwh)
    with pytest.raises(ValueError, match="needs the arrays kwh"):
        measured_pool(tmp_path / "other.npz")


def test_households_of_two_seeds_are_other_people() -> None:
    one, other = (household_pool(seed, households=3, days=7) for seed in (1, 2))
    assert one.energy_wh.shape == (7 * 48, 3)
    assert not np.allclose(one.energy_wh, other.energy_wh)
    assert 20 < one.energy_wh.mean() * 2 < 2000


def test_the_cases_of_a_measure() -> None:
    cases = plans(Plan(), per_kind=2, from_start=1, clean=3)
    assert len(cases) == 2 * len(KINDS) + 3 + 3
    assert {plan.theft for plan in cases} == {*KINDS, None}
    assert sum(plan.onset_day == 0 for plan in cases) == 3
