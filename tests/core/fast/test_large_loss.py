"""A large loss in short rows: found soon, dated, sized; and no quantisation, late read or gap is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from core.fast.large_loss import LargeLossTest, Rows, onset_rows
from core.fast.last_known import LastKnown
from core.fast.ramps import Scene, threshold

ROW_S, FLATS, LOAD_W = 60.0, 20, 10_000.0
SCENE = Scene(LOAD_W, 15.0**2, 15.0**2, 10.0**2, 0.003, np.full(FLATS, 0.002), 0.0, 0.1)


def building(rows, loss_w=0.0, onset=0, step_wh=10.0, seed=1, bad=(), start=0):
    """Short rows of a building with registers in steps; `bad` boundaries are read `bad[k]` Wh wrong."""
    rng = np.random.default_rng(seed)
    flats = rng.gamma(0.6, LOAD_W / FLATS / 0.6, (rows, FLATS)) / 60
    true = np.zeros(rows + 1)
    true[1:] = np.cumsum(np.where(np.arange(rows) >= onset, loss_w / 60, 0.0))
    steps = rng.uniform(-0.5, 0.5, (rows + 1, FLATS + 1)).sum(axis=1) * step_wh
    seen = true + steps
    for k, wh in dict(bad).items():
        seen[k] += wh
    variance = np.full(rows, (FLATS + 1) * step_wh**2 / 12)
    none = np.zeros(rows)
    return Rows(
        ends_s=ROW_S * (start + np.arange(1, rows + 1)),
        unexplained_wh=np.diff(seen),
        expected_wh=0.02 * flats.sum(axis=1),
        main_wh=flats.sum(axis=1),
        boundary_wh2=variance,
        gap_wh2=none,
        lost_wh2=none,
        own_wh=flats**2 * 4.5 * 60 / LOAD_W,
        subs_wh=flats,
    )


def watched(rows, part=180, test=None):
    """The first loss that is found, fed in parts."""
    test = test or LargeLossTest(ROW_S, FLATS)
    for start in range(0, len(rows.ends_s), part):
        piece = Rows(*(getattr(rows, name)[start : start + part] for name in Rows.__slots__))
        found = test.step(piece, SCENE)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize(("share", "minutes"), [(0.2, 6), (0.1, 9), (0.05, 14), (0.02, 45)])
def test_a_loss_is_found_within_minutes_the_sooner_the_larger(share, minutes):
    delays = []
    for seed in range(5):
        found = watched(building(2400, share * LOAD_W, 2000, seed=seed))
        delays.append(found.at_s / 60 - 2000)
        assert 0.5 < found.power_w / (share * LOAD_W) < 2.0  # the first crossing flatters it
        assert found.lo_s <= 2000 * ROW_S + 60
        assert found.hi_s >= 2000 * ROW_S - 60
    assert min(delays) > 0
    assert np.median(delays) <= minutes


def test_registers_in_steps_alone_are_no_loss():
    for seed in range(4):
        assert watched(building(15_000, seed=10 + seed)) is None


@pytest.mark.parametrize("part", [1, 9, 60])
def test_the_parts_in_which_rows_come_do_not_matter(part):
    assert watched(building(1700, 600.0, 1600), part).at_s == watched(building(1700, 600.0, 1600)).at_s


def test_one_boundary_that_is_read_wrong_is_no_loss():
    assert watched(building(3000, bad={2000: 3000.0, 2500: -3000.0})) is None


def test_what_is_lost_with_a_meter_or_estimated_in_a_gap_is_no_loss():
    rows = building(3000)
    rows.unexplained_wh[2000] += 4000.0  # a new meter
    rows.lost_wh2[2000] = 2000.0**2
    rows.unexplained_wh[2400] += 2000.0  # an answer after a gap
    rows.gap_wh2[2300:2400] = np.linspace(10.0, 900.0, 100) ** 2
    assert watched(rows) is None


def test_a_surplus_is_none_and_a_quiet_test_looks_for_nothing():
    assert watched(building(2400, -2000.0, 2000)) is None
    test = LargeLossTest(ROW_S, FLATS)
    assert test.step(building(2400, 3000.0, 2000), SCENE, quiet=True) is None
    assert test.step(building(0), SCENE) is None


def test_the_threshold_is_higher_where_there_are_more_looks():
    assert threshold(0.05, 0.1) > threshold(1.0, 0.1) > threshold(1.0, 1.0) > 4.0


def test_the_onset_lies_in_the_row_that_is_not_over_yet_or_before():
    found = watched(building(2400, 2000.0, 2000))
    assert onset_rows(found, 1990 * ROW_S, 900.0, 133, 0) == (133, 133, 133)
    lo, onset, hi = onset_rows(found, 2010 * ROW_S, 900.0, 134, 0)
    assert 131 <= lo <= onset <= hi <= 134


def test_what_ran_when_a_meter_was_missed_may_run_on():
    known = LastKnown(2)
    energy = np.array([[100.0, 5.0], [1.0, 5.0], [1.0, 5.0], [1.0, 5.0], [300.0, 5.0]])
    missed = np.array([[0, 0], [1, 0], [1, 0], [1, 0], [0, 1]], bool)
    short, long = known.doubt_wh2(energy[:3], missed[:3])
    assert short.tolist() == [0.0, 100.0**2, 200.0**2]
    assert not long.any()
    short, long = known.doubt_wh2(energy[3:], missed[3:])  # goes on where it was
    assert (short[0], long[0]) == (0.0, 300.0**2)
    assert short[1] == 5.0**2
