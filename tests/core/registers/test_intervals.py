"""Alignment: whatever is missing, energy is conserved; what breaks a register is an event, not an energy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.registers.align import Aligner, Flag
from core.registers.samples import RegisterSample, RegisterSpec

INTERVAL_S = 900.0
START_S = 1_700_006_400.0


def aligner(meters=2, **options):
    return Aligner([RegisterSpec(f"m{j}", **options) for j in range(meters)], INTERVAL_S)


def sample(meter, t, wh, **more):
    return RegisterSample(f"m{meter}", START_S + t, import_wh=wh, **more)


@settings(max_examples=60, deadline=None)
@given(
    energies=hnp.arrays(np.float64, (60, 3), elements=st.integers(0, 900).map(float)),
    missed=hnp.arrays(np.bool_, (60, 3)),
)
def test_energy_is_conserved_whatever_is_missing(energies, missed):
    wh = np.cumsum(energies, axis=0)
    missed[0] = missed[-1] = False
    seen = np.where(missed, np.nan, wh)
    box = aligner(3)
    box.feed_block(START_S + INTERVAL_S * np.arange(60), seen)
    rows = box.close(START_S + 1e6)
    np.testing.assert_allclose(rows.energy_wh.sum(axis=0), wh[-1] - wh[0], atol=1e-6)
    np.testing.assert_allclose(np.cumsum(rows.energy_wh, axis=0), rows.booked_wh, atol=1e-6)
    assert np.array_equal((rows.flags & Flag.MISSED) > 0, missed)
    assert not np.isnan(rows.sd_wh).any()


def test_a_long_silence_without_a_profile_loses_nothing():
    """A day at 2 kW behind the first reading is no jump: the bound on energy grows with the gap."""
    wh = np.arange(97.0) * 500.0
    seen = np.full((97, 1), np.nan)
    seen[[0, 96], 0] = wh[[0, 96]]
    box = aligner(1)
    box.feed_block(START_S + INTERVAL_S * np.arange(97), seen)
    rows = box.close(START_S + 1e6)
    assert rows.energy_wh.sum() == pytest.approx(48_000.0)
    assert not rows.lost_wh2[1:].any()


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(1.0, 400.0), min_size=20, max_size=150),
    power=st.lists(st.floats(0.0, 5000.0), min_size=150, max_size=150),
    order=st.randoms(use_true_random=False),
)
def test_samples_in_any_order_conserve_energy(gaps, power, order):
    """Polls at any times, handed over in any order: the booked energy ends near the register, within its error."""
    times = np.cumsum(gaps)
    wh = np.cumsum(np.diff(times, prepend=0.0) * np.array(power[: len(times)]) / 3600)
    samples = [sample(0, float(t), float(e)) for t, e in zip(times, wh, strict=True)]
    order.shuffle(samples)
    box = aligner(1)
    box.feed(samples)
    rows = box.close(START_S + float(times[-1]))
    if rows is None:
        assert times[-1] < 2 * INTERVAL_S
        return
    at = np.interp(rows.ends_s - START_S, times, wh)
    read = (rows.flags[:, 0] & Flag.MISSED) == 0
    drawn = rows.booked_wh[read, 0] - rows.booked_wh[read, 0][0] if read.any() else np.zeros(0)
    true = at[read] - at[read][0] if read.any() else np.zeros(0)
    np.testing.assert_allclose(drawn, true, atol=1e-6)


def test_a_boundary_waits_for_the_last_meter_but_not_for_ever():
    box = aligner()
    box.feed([sample(0, 0, 0.0), sample(1, 0, 0.0), sample(0, 900, 100.0)])
    assert len(box.close(START_S + 0.5)) == 1
    assert box.close(START_S + 1100) is None
    rows = box.close(START_S + 1201)
    assert rows.flags.tolist() == [[0, Flag.MISSED]]


def test_between_two_polls_the_register_is_interpolated_and_says_how_well():
    near, far = aligner(1), aligner(1)
    near.feed([sample(0, 0, 0.0), sample(0, 890, 890.0), sample(0, 910, 910.0)])
    far.feed([sample(0, 0, 0.0), sample(0, 600, 600.0), sample(0, 1200, 1200.0)])
    rows = [box.close(START_S + 1300) for box in (near, far)]
    assert [float(r.booked_wh[-1, 0]) for r in rows] == pytest.approx([900.0, 900.0])
    errors = [float(r.sd_wh[1, 0]) for r in rows]
    assert 3 < errors[0] < 10 < errors[1]


def test_a_profile_sample_is_exact_in_time():
    live, stored = aligner(1), aligner(1)
    live.feed([sample(0, t, 2.0 * t, uncertainty_s=5.0) for t in (0, 900)])
    stored.feed([sample(0, t, 2.0 * t, from_profile=True) for t in (0, 900)])
    errors = [float(box.close(START_S + 900).sd_wh[1, 0]) for box in (live, stored)]
    assert errors[1] == pytest.approx(10 / np.sqrt(12), rel=1e-6)
    assert errors[0] > 2 * errors[1]


def test_what_cannot_be_used_is_counted():
    box = aligner(1)
    box.feed([sample(7, 0, 1.0), sample(0, 0, float("nan")), sample(0, 0, 0.0), sample(0, 1800, 10.0)])
    box.close(START_S + 1800)
    box.feed([sample(0, -90_000, 5.0)])
    assert (box.counters.unknown_meter, box.counters.not_a_number, box.counters.late) == (1, 1, 1)


def test_export_is_taken_off_and_may_make_the_register_fall():
    box = aligner(1, exports=True)
    box.feed([sample(0, 900 * k, 100.0 * k, export_wh=300.0 * k) for k in range(4)])
    rows = box.close(START_S + 2700)
    assert rows.energy_wh[1:, 0].tolist() == [-200.0] * 3
    assert not (rows.flags & Flag.REPLACED).any()


def test_absent_rows_of_a_block_are_rows_in_which_nobody_answered():
    box = aligner(1)
    box.feed_block(START_S + INTERVAL_S * np.array([0, 1, 4]), np.array([[0.0], [100.0], [400.0]]))
    rows = box.close(START_S + 1e5)
    assert len(rows) == 5
    assert (rows.flags[:, 0] == Flag.MISSED).tolist() == [False, False, True, True, False]
    assert rows.energy_wh.sum() == pytest.approx(400.0)


def test_a_clock_far_ahead_keeps_no_more_than_the_bound():
    box = aligner(1)
    box.feed(sample(0, 1e6 + 15.0 * t, float(t)) for t in range(5000))
    assert box.counters.overflow == 5000 - 4096


@pytest.mark.parametrize("phase_s", [0.0, 0.4])
def test_a_poll_a_second_gives_the_same_registers_as_are_read_beside_the_boundaries_and_keeps_few(phase_s):
    flow = np.cumsum(np.random.default_rng(3).gamma(0.5, 1.0, 4000))
    every = [sample(0, t + phase_s, float(wh)) for t, wh in enumerate(flow)]
    beside = [s for s in every if min((s.time_s - START_S) % 900, -(s.time_s - START_S) % 900) <= 2]
    dense, sparse = aligner(1), aligner(1)
    kept = 0
    for one in every:
        dense.feed([one])
        kept = max(kept, len(dense._samples[0].time_s))
    sparse.feed(beside)
    rows, others = dense.close(START_S + 4000), sparse.close(START_S + 4000)
    np.testing.assert_allclose(rows.booked_wh, others.booked_wh)
    assert len(rows) == 5 - (phase_s > 0)
    assert kept < 400
    assert dense.counters.overflow == 0


def test_a_boundary_is_held_open_for_a_stored_row_that_is_to_come_but_not_for_ever():
    box = aligner(2)
    box.feed([sample(0, -5, 0.0), sample(1, -5, 0.0), sample(0, 5, 10.0), sample(1, 5, 10.0)])
    box.awaits({"m0": START_S, "unknown": START_S})
    assert box.close(START_S + 20) is None
    box.feed([sample(0, 0, 4.0, from_profile=True)])
    rows = box.close(START_S + 20)
    assert rows.booked_wh[0].tolist() == [0.0, 0.0]  # both counts begin here
    box.feed([sample(0, 905, 20.0), sample(1, 905, 20.0)])
    box.awaits({"m0": START_S + 900})
    assert box.close(START_S + 910) is None
    box.awaits({"m0": float("-inf")})
    assert len(box.close(START_S + 910)) == 1
    box.feed([sample(0, 1805, 20.0), sample(1, 1805, 20.0)])
    box.awaits({"m0": START_S + 1800})
    assert box.close(START_S + 2090) is None
    assert len(box.close(START_S + 2101)) == 1  # its grace time is over


def test_an_interval_that_does_not_divide_the_day_is_refused():
    with pytest.raises(ValueError, match="divide the day"):
        Aligner([RegisterSpec("m0")], 7000.0)


def test_rows_are_rebuilt_from_booked_energy_bit_for_bit():
    rng = np.random.default_rng(3)
    wh = np.cumsum(rng.integers(0, 90, (80, 2)) * 10.0, axis=0)
    wh[rng.random(wh.shape) < 0.2] = np.nan
    box = aligner(2)
    box.feed_block(START_S + INTERVAL_S * np.arange(80), wh)
    rows = box.close(START_S + 1e6)
    again = box.rebuild(rows.ends_s[9:], rows.booked_wh[9:], rows.sd_wh[9:], rows.flags[9:])
    assert np.array_equal(again.energy_wh, rows.energy_wh[10:])
    assert np.array_equal(again.flags, rows.flags[10:])
    assert np.array_equal(again.sd_wh, rows.sd_wh[10:])


@pytest.mark.parametrize("late_s", [5.0, 80.0])
def test_one_poll_an_interval_just_behind_the_boundary_tells_every_row(late_s):
    """Polls of a whole interval apart jitter over it; a register that is read beside the boundary is known there."""
    box = aligner(1)
    for k in range(12):
        t = INTERVAL_S * k + late_s + (k % 3) * 2.0
        box.feed([sample(0, t, 0.25 * t)])
    rows = box.close(START_S + 1e6)
    assert not (rows.flags[1:11] & Flag.MISSED).any()
    np.testing.assert_allclose(rows.energy_wh[2:11, 0], 225.0, atol=1e-6)


def test_a_poll_in_the_middle_of_every_other_interval_tells_no_boundary():
    box = aligner(1)
    for k in range(12):
        box.feed([sample(0, 2 * INTERVAL_S * k + 450.0, 500.0 * k)])
    rows = box.close(START_S + 1e6)
    assert (rows.flags[2:20] & Flag.MISSED).all()
