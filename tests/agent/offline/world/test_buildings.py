"""The wide world: energy is conserved, what is wrong is where the truth says it is, and homes live like homes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.offline.world import bystanders, thefts
from agent.offline.world.buildings import HONEST, KINDS, SLOTS, Building, Plan, draw_plan, family_of, make
from agent.offline.world.climate import draw_climate
from agent.offline.world.households import draw_house, draw_loads
from agent.offline.world.network import copper_wh, draw_riser


def building(kind: str, seed: int = 3, **plan: object) -> Building:
    base = Plan(kind, 10, 40, 20, 0.01)
    for attempt in range(6):
        try:
            return make((seed, attempt), replace(base, **plan))  # type: ignore[arg-type]
        except ValueError:
            continue
    raise AssertionError(f"no building for {kind}")


def balance_w(one: Building, first: int, last: int) -> float:
    """Mean of what the main meter shows more than all sub-meters."""
    edges = slice(first * SLOTS, last * SLOTS + 1)
    main, subs = one.main_wh[edges], one.subs_wh[edges]
    known = np.isfinite(main) & np.isfinite(subs).all(1)
    rows = np.flatnonzero(known)
    energy = (main[rows[-1]] - main[rows[0]]) - (subs[rows[-1]] - subs[rows[0]]).sum()
    return float(energy / (rows[-1] - rows[0]) * 2)


def test_there_are_forty_kinds_and_more_and_each_has_a_family() -> None:
    assert len(thefts.WAYS) >= 40
    assert len(KINDS) == len(set(KINDS))
    assert {family_of(kind) for kind in KINDS} >= {"zero", "days", "tap", "common", "clock", "several", HONEST}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_drawn_and_says_who_it_is(kind: str) -> None:
    for number in range(20):
        rng = np.random.default_rng((1, number))
        plan = replace(draw_plan(rng, kind), flats=12)
        try:
            one = make((2, number), plan)
            break
        except ValueError:
            continue
    else:
        raise AssertionError("twenty buildings had no room for it")
    plain = kind.removesuffix(", from the start")
    assert bool(one.guilty) == (plain in thefts.WAYS or plain in ("two", "three", "turns", "sub too fast"))
    assert one.artefact == (plain in bystanders.ARTEFACTS and not one.guilty)
    assert (one.onset_s is None) == (kind == HONEST)
    assert one.subs_wh.shape == (plan.days * SLOTS + 1, 12)
    gone = np.diff(one.subs_wh, axis=0)
    assert (np.nan_to_num(gone) < 0).sum() <= 12  # a register falls only where a meter is exchanged


def test_the_same_seed_draws_the_same_building() -> None:
    one, again, other = building("shunt", 5), building("shunt", 5), building("shunt", 6)
    np.testing.assert_array_equal(one.subs_wh, again.subs_wh)
    assert one.guilty == again.guilty
    assert not np.array_equal(one.main_wh, other.main_wh)


@pytest.mark.parametrize("kind", ["bypass", "timer", "boiler"])
def test_what_is_stolen_is_missing_in_the_balance(kind: str) -> None:
    for seed in range(40):
        one = building(kind, seed, least_share=0.05)
        jumps = np.abs(np.diff(one.subs_wh, axis=0))
        if one.sub_step_wh < 1000 and np.nanmax(jumps) < 1e5:  # no meter was exchanged
            break
    stolen_w = float(one.stolen_wh[20 * SLOTS :].mean() * 2)
    rise_w = balance_w(one, 21, 39) - balance_w(one, 0, 19)
    assert stolen_w > 0.03 * one.load_w
    assert rise_w == pytest.approx(stolen_w, rel=0.35, abs=0.015 * one.load_w)


def test_an_honest_building_loses_some_percent_and_no_more() -> None:
    shares = []
    for seed in range(12):
        one = building(HONEST, seed)
        if np.nanmax(np.abs(np.diff(one.subs_wh, axis=0))) > 1e5:
            continue
        shares.append((balance_w(one, 0, 39) - one.unmetered_w) / one.load_w)
    assert len(shares) >= 6
    assert -0.02 < np.median(shares) < 0.06


def test_copper_grows_with_the_square_and_heats() -> None:
    riser = draw_riser(np.random.default_rng(1), 9)
    flow = np.random.default_rng(2).gamma(1.0, 200.0, (48, 9))
    mild, none = np.full(48, 20.0), np.zeros(48)
    once, twice = (
        copper_wh(riser, flow, none, mild),
        copper_wh(riser, np.vstack([flow, 2 * flow]), np.zeros(96), np.full(96, 20.0)),
    )
    assert twice[48:] == pytest.approx(4 * twice[:48])
    assert (copper_wh(riser, flow, none, mild + 30) > once).all()
    assert (copper_wh(riser, flow, none + 500, mild) > once).all()


def test_homes_live_as_measured_homes_do() -> None:
    """Ranges that hold the 10 to 90 % of 90 homes metered in London in 2013 (Low Carbon London), widened."""
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(4):
        sky = draw_climate(rng, 70, SLOTS)
        rows.append(draw_loads(rng, draw_house(rng), sky, 12).total_wh)
    load = np.concatenate(rows, axis=1)
    days = load.reshape(70, SLOTS, -1)
    daily = days.sum(1)
    assert 150 < np.median(load.mean(0)) * 2 < 700  # W
    assert 0.6 < np.median(load.std(0) / load.mean(0)) < 1.7
    assert 0.12 < np.median(daily.std(0) / daily.mean(0)) < 0.6
    lag = np.median([np.corrcoef(x[1:], x[:-1])[0, 1] for x in load.T])
    assert 0.4 < lag < 0.85
    hours = days.mean((0, 2))
    assert hours[34:44].mean() > 1.3 * hours[4:12].mean()  # evenings against the small hours


def test_with_measured_loads_flats_live_so() -> None:
    loads = np.random.default_rng(0).gamma(1.0, 150.0, (40 * SLOTS, 10))
    one = make((4,), Plan("bypass", 10, 40, 20, 0.01), loads.copy())
    thief = one.guilty[0]
    shown = np.diff(one.subs_wh[: 19 * SLOTS, thief])
    assert np.corrcoef(np.nan_to_num(shown), loads[: 19 * SLOTS - 1, thief])[0, 1] > 0.8
