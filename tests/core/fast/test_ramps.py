"""How large a slope registers' steps can feign, and what is usual where a day begins or ends in a gap."""

from __future__ import annotations

import numpy as np
import pytest

from core.balance.history import History
from core.balance.rows import ZoneRows
from core.fast.large_loss import LargeLossTest, Rows
from core.fast.ramps import BEFORE, Scene, Steps
from core.fast.usual import usual_power

FLATS, LOAD_W = 20, 10_000.0
SCENE = Scene(LOAD_W, 15.0**2, 15.0**2, 10.0**2, 0.003, np.full(FLATS, 0.002), 0.0, 0.1)


def feigned(steps_wh, window, draws=200_000, seed=1):
    """Slopes that errors within the steps alone make, Wh a row: least squares through the level before."""
    rng = np.random.default_rng(seed)
    at = np.arange(1, window + 1)
    slopes = np.zeros(draws)
    for step in steps_wh:
        errors = rng.uniform(-step / 2, step / 2, (draws, BEFORE + window))
        slopes += (errors[:, BEFORE:] - errors[:, :BEFORE].mean(axis=1)[:, None]) @ at / (at @ at)
    return slopes


@pytest.mark.parametrize("window", [3, 6, 13])
@pytest.mark.parametrize("steps_wh", [[100.0, 10.0, 10.0, 10.0], [100.0]])
def test_the_threshold_is_what_steps_alone_exceed_no_oftener_than_promised(window, steps_wh):
    variance, tilts, cumulant = Steps(steps_wh[0], steps_wh[1:]).of(window)
    slopes = feigned(steps_wh, window)
    assert np.var(slopes) == pytest.approx(variance, rel=0.02)
    for z, at_most in ((2.5, 6.2e-3), (3.0, 1.35e-3), (3.5, 2.3e-4)):
        bound = float(((cumulant + z * z / 2) / tilts).min())
        assert (slopes > bound).mean() <= at_most
    rare = float(((cumulant + 6.0**2 / 2) / tilts).min())
    assert slopes.max() < rare < 6.0 * np.sqrt(variance)  # thinner than the Gaussian of the same variance


def test_registers_so_coarse_that_they_are_booked_by_estimate_are_no_bounded_steps():
    assert Steps(1000.0, [10.0]).of(3)[0] == Steps(0.0, [10.0]).of(3)[0]
    assert Steps().of(3)[0] == 0.0


def shown(load_wh, step_wh, rows, loss_wh=0.0, onset=0, seed=1):
    """Rows of a main register in steps in front of flats that are known well, with a load of so much a row."""
    rng = np.random.default_rng(seed)
    load = np.broadcast_to(load_wh, rows) * rng.uniform(0.95, 1.05, rows)
    true = np.concatenate([[0.0], np.cumsum(load + np.where(np.arange(rows) >= onset, loss_wh, 0.0))])
    main = np.diff(np.floor(true / step_wh) * step_wh)
    flats = np.repeat(load[:, None] / FLATS, FLATS, axis=1)
    none = np.zeros(rows)
    return Rows(
        60.0 * np.arange(1, rows + 1), main - load, none, main, np.full(rows, step_wh**2 / 12 + 20.0), none, none,
        none[:, None] + flats**2 * 1e-3, flats,
    )  # fmt: skip


def first(rows, steps):
    test = LargeLossTest(60.0, FLATS, steps)
    for start in range(0, len(rows.ends_s), 180):
        found = test.step(Rows(*(getattr(rows, name)[start : start + 180] for name in Rows.__slots__)), SCENE)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("load_wh", [12.0, 33.0, 101.0, 166.0, 203.0])
def test_a_coarse_main_register_is_no_loss_also_where_it_moves_in_time_with_the_rows(load_wh):
    assert first(shown(load_wh, 100.0, 12_000), Steps(100.0, [10.0] * FLATS)) is None


def test_a_large_loss_behind_a_coarse_register_is_found_sooner_where_its_step_is_known():
    delays = {True: [], False: []}
    for seed in range(12):
        rows = shown(166.0, 100.0, 1500, 0.2 * LOAD_W / 60, 1400, seed)
        for known, steps in ((True, Steps(100.0, [10.0] * FLATS)), (False, Steps())):
            delays[known].append(first(rows, steps).at_s / 60 - 1400)
    assert min(delays[True]) > 0
    assert np.mean(delays[True]) < np.mean(delays[False])
    assert np.median(delays[True]) <= 6


def test_a_day_that_begins_or_ends_in_a_gap_tells_what_is_usual_from_what_lies_between():
    rows, row_h = 96, 0.25
    history = History(200, 2)
    none = np.zeros(rows)
    lost = none.copy()
    zone = ZoneRows(900.0 * np.arange(1, rows + 1), none + 1e3, np.ones((rows, 2)), none, none, lost, none)
    for at in range(0, rows, 48):
        history.append(zone[at : at + 48], np.zeros((48, 2), bool), np.ones(48))
    booked, variance = 5.0 * np.arange(1, rows + 1), none + 300.0
    booked[:10] += 13_000.0  # estimated while a meter was silent, and too much
    variance[:10] = 2e4**2
    history.write_booked(0, booked, variance)
    power_w, variance_w2 = usual_power(history, 1, row_h)
    assert power_w == pytest.approx(20.0)
    assert variance_w2 < 10.0
    variance[:] = 2e4**2
    variance[40:50] = 300.0  # silent nearly all day: the whole day, and hardly known
    history.write_booked(0, booked, variance)
    assert usual_power(history, 1, row_h)[1] > 1000.0**2
