"""The kernels against NumPy oracles that say the same in the plainest way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.balance import _balance
from core.balance.losses import DELAY
from core.balance.rows import ZoneRows
from core.registers import _align
from core.registers.align import AlignedRows, Flag

DAY = 48
HOURS = 0.5


class Aligned:
    """State and output of `align_rows` over a whole recording, in blocks of any size."""

    def __init__(self, wh, *, signed=None, block=None):
        count, meters = wh.shape
        signed = np.zeros(meters, np.uint8) if signed is None else np.asarray(signed, np.uint8)
        self.state = _align.AlignState(np.full(meters, 50_000.0), signed, HOURS, 40.0)
        self.profile, self.spread = self.state.arrays["profile_w"], self.state.arrays["spread_w2"]
        self.booked, self.energy, self.sd, self.lost = (np.empty((count, meters)) for _ in range(4))
        self.flags = np.empty((count, meters), np.uint8)
        utc_hour = (np.arange(count) % DAY // 2).astype(np.int32)
        for start in range(0, count, block or count):
            part = slice(start, min(count, start + (block or count)))
            out = AlignedRows(
                np.zeros(len(wh[part])), HOURS, self.booked[part], self.energy[part], self.sd[part], self.lost[part],
                self.flags[part],
            )  # fmt: skip
            _align.align_rows(self.state, np.ascontiguousarray(wh[part]), np.full(wh[part].shape, 3.0), utc_hour[part],
                              out)  # fmt: skip


def registers(rng, rows=4 * DAY, meters=5):
    return np.floor(np.cumsum(rng.lognormal(5, 0.8, (rows, meters)), axis=0) / 10) * 10


def test_whole_rows_are_plain_differences():
    wh = registers(np.random.default_rng(1))
    aligned = Aligned(wh)
    assert np.array_equal(aligned.energy[1:], np.diff(wh, axis=0))
    assert np.all(aligned.energy[0] == 0)
    assert np.all(aligned.lost[1:] == 0)


def test_profile_is_the_mean_power_by_hour_of_day():
    wh = registers(np.random.default_rng(2))
    aligned = Aligned(wh)
    power = np.diff(wh, axis=0) / HOURS
    hour = np.arange(1, len(wh)) % DAY // 2
    oracle = np.array([power[hour == h].mean(axis=0) for h in range(24)]).T
    np.testing.assert_allclose(aligned.profile, oracle, rtol=1e-12)


def test_blocks_of_any_size_give_the_same_bits():
    wh = registers(np.random.default_rng(3))
    wh[np.random.default_rng(4).random(wh.shape) < 0.1] = np.nan
    whole, single = Aligned(wh), Aligned(wh, block=1)
    for name in ("booked", "energy", "sd", "lost", "flags", "profile", "spread"):
        assert np.array_equal(getattr(whole, name), getattr(single, name), equal_nan=name == "sd"), name


def test_before_anything_is_known_of_a_meter_its_gap_may_hold_any_load():
    wh = registers(np.random.default_rng(8), DAY, 2)
    wh[1:6, 1] = np.nan
    aligned = Aligned(wh)
    wide = 0.1 * 50_000.0 * HOURS  # a tenth of what a flat can draw, over the row
    sd = aligned.sd[1:6, 1]
    assert np.all(sd >= wide * (1 - 1e-6))
    assert np.all(np.diff(sd) > 0)
    assert np.array_equal(aligned.sd[6:, 1], aligned.sd[6:, 0])


def test_a_gap_is_bridged_by_the_profile_and_set_right_when_the_meter_answers():
    wh = registers(np.random.default_rng(5), 6 * DAY, 1)
    gap = slice(200, 206)
    missing = wh.copy()
    missing[gap] = np.nan
    aligned = Aligned(missing)
    before = Aligned(missing[:200])
    hour = np.arange(200, 206) % DAY // 2
    np.testing.assert_allclose(aligned.energy[gap, 0], before.profile[0, hour] * HOURS, rtol=1e-12)
    assert aligned.energy[200:207].sum() == pytest.approx(wh[206, 0] - wh[199, 0], abs=1e-6)
    assert np.all(np.diff(aligned.sd[gap, 0]) > 0), "the longer the gap, the less is known"
    assert aligned.sd[206, 0] == 3.0
    assert np.all(aligned.flags[200:202, 0] == Flag.MISSED)
    assert np.all(aligned.flags[202:206, 0] == Flag.MISSED | Flag.LONG_GAP), "from the third row on it is a long gap"


def test_what_was_never_read_has_no_error_and_says_so():
    wh = registers(np.random.default_rng(15), 6, 2)
    wh[:3, 1] = np.nan
    aligned = Aligned(wh)
    assert np.isnan(aligned.sd[:3, 1]).all()
    assert np.all(aligned.flags[:3, 1] == Flag.MISSED | Flag.NEVER_READ)
    assert aligned.flags[3, 1] == Flag.FIRST
    assert np.isfinite(aligned.sd[3:]).all()


def test_a_large_error_of_a_short_gap_keeps_its_meaning():
    """A main meter of 40 flats that misses its second reading errs by more than 1e5 Wh, and is in no long gap."""
    state = _align.AlignState(np.full(1, 40 * 50_000.0), np.zeros(1, np.uint8), 0.25, 40.0)
    out = AlignedRows(np.zeros(2), 0.25, *(np.empty((2, 1)) for _ in range(4)), np.empty((2, 1), np.uint8))
    _align.align_rows(state, np.array([[1000.0], [np.nan]]), np.full((2, 1), 3.0), np.zeros(2, np.int32), out)
    assert out.sd_wh[1, 0] == pytest.approx(0.1 * 40 * 50_000 * np.sqrt(0.25 * (1 + 0.8 * 0.25)))
    assert out.sd_wh[1, 0] > 1e5
    assert out.flags[1, 0] == Flag.MISSED
    rows = ZoneRows.empty(np.zeros(2), 0)
    _balance.residual_rows(
        out.energy_wh, out.sd_wh, out.lost_wh2, out.flags, np.zeros(1, np.int32), np.ones(1), rows, np.empty(2)
    )
    assert rows.boundary_wh2[1] == pytest.approx(out.sd_wh[1, 0] ** 2)
    assert rows.gap_wh2[1] == 0.0


@pytest.mark.parametrize(
    ("last", "after", "flag", "gained"),
    [(999_990.0, 40.0, 4, 50.0), (512_340.0, 40.0, 2, None), (512_340.0, 5_512_340.0, 8, None)],
    ids=["rollover", "replaced", "jump"],
)
def test_breaks_of_a_register(last, after, flag, gained):
    """Energy across a rollover is exact; across a replacement and a jump it is the expected one, and owned up to."""
    rows = 3 * DAY
    wh = np.full((rows, 1), 100.0).cumsum(axis=0)
    wh += last - wh[-10, 0]
    wh[-9:] = after + 100.0 * np.arange(9)[:, None]
    aligned = Aligned(wh)
    assert aligned.flags[-9, 0] == flag
    expected = gained if gained is not None else 100.0
    assert aligned.energy[-9, 0] == pytest.approx(expected)
    assert (aligned.lost[-9, 0] > 0) == (gained is None)
    np.testing.assert_allclose(aligned.energy[-8:, 0], 100.0)


def test_a_register_that_may_fall_is_not_replaced():
    wh = 1000.0 + np.cumsum(np.where(np.arange(96) % 2, 30.0, -50.0))[:, None]
    assert not Aligned(wh, signed=[1]).flags[1:].any()
    assert Aligned(wh, signed=[0]).flags[1:].any()


def test_residual_of_a_zone_with_signs_gaps_and_losses():
    rng = np.random.default_rng(6)
    energy, sd = rng.normal(100, 30, (20, 6)), rng.uniform(1, 5, (20, 6))
    flags = np.zeros((20, 6), np.uint8)
    sd[3, 2], sd[4, 2], sd[5, 4] = 200.0, 70_000.0, np.nan
    flags[3, 2], flags[4, 2], flags[5, 4] = Flag.MISSED, Flag.MISSED | Flag.LONG_GAP, Flag.MISSED | Flag.NEVER_READ
    lost = np.zeros((20, 6))
    lost[7, 4] = 9e4
    columns, sign = np.array([1, 4, 2, 0], np.int32), np.array([1.0, 1.0, -1.0, 1.0])
    rows, read = ZoneRows.empty(np.arange(20.0), 3), np.empty(20)
    _balance.residual_rows(energy, sd, lost, flags, columns, sign, rows, read)
    signed = energy[:, [4, 2, 0]] * sign[1:]
    of_zone = np.where(np.isnan(sd), 1e6, sd)[:, columns] ** 2
    long_gap = (flags[:, columns] & Flag.LONG_GAP) > 0
    np.testing.assert_allclose(rows.subs_wh, signed)
    np.testing.assert_allclose(rows.main_wh, energy[:, 1])
    np.testing.assert_allclose(rows.residual_wh, energy[:, 1] - signed.sum(axis=1))
    np.testing.assert_allclose(rows.boundary_wh2, np.where(long_gap, 0, of_zone).sum(axis=1))
    np.testing.assert_allclose(rows.lost_wh2, lost[:, columns].sum(axis=1))
    np.testing.assert_allclose(read, ((flags[:, columns] & Flag.MISSED) == 0).mean(axis=1))
    np.testing.assert_allclose(rows.gap_wh2, np.where(long_gap, of_zone, 0).sum(axis=1))


def kalman_oracle(x, p, phi, y, boundary, drift, walk, keep, late, skew, clip):
    """The filter of core.balance.losses in matrices (Harvey 1989, section 3.2), clipped as Huber (1964)."""
    x, p, out = x.copy(), p.copy(), []
    n = len(x)
    for t in range(len(y)):
        transition = np.eye(n)
        transition[0, 1:] = phi[t]
        x, p = transition @ x, transition @ p @ transition.T
        x[0] -= y[t]
        p[0, 0] += drift[t]
        fade = np.append(1.0, np.where(keep == 1, 1.0, 1 - (1 - keep) * HOURS))
        x, p = x * fade, p * np.outer(fade, fade)
        p[range(1, n), range(1, n)] += walk * HOURS
        h = np.zeros(n)
        h[0], h[skew] = 1.0, -late[t]
        innovation, scatter = -h @ x, h @ p @ h + boundary[t]
        out.append((innovation, scatter))
        used = max(scatter, innovation**2 / clip**2)
        gain = p @ h / used
        x, p = x + gain * innovation, p - np.outer(gain, h @ p)
    return x, p, np.array(out)


def test_kalman_rows_against_matrices():
    rng = np.random.default_rng(7)
    rows, size = 60, 7
    phi, y = rng.normal(100, 40, (rows, size)), rng.normal(0, 60, rows)
    y[20] += 5000  # an outlier, to be clipped
    boundary, drift, late = rng.uniform(100, 2000, rows), rng.uniform(1, 50, rows), rng.uniform(2, 6, rows)
    walk, keep = rng.uniform(0, 1e-6, size), np.where(np.arange(size) == 3, 0.99, 1.0)
    x, root = np.append(0.0, rng.normal(0, 0.01, size)), rng.normal(0, 0.05, (size + 1, size + 1))
    p = root @ root.T
    expected = kalman_oracle(x, p, phi, y, boundary, drift, walk, keep, late, 5, 4.0)
    out = np.empty((rows, 2))
    _balance.absorb_rows(
        x, p, phi, y, boundary, drift, np.full(rows, HOURS), walk, keep, late, 5, 4.0, np.empty(size + 1), out
    )
    np.testing.assert_allclose(out, expected[2], rtol=1e-8)
    np.testing.assert_allclose(x, expected[0], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(p, expected[1], rtol=1e-6, atol=1e-9)
    assert np.array_equal(p, p.T) or np.allclose(p, p.T, rtol=1e-12)


def follow(r, boundary=400.0, drift=100.0, allowed=50.0):
    state, out = np.array([0.0, boundary, 0.0, 0.0, 0.0]), np.empty((len(r), 3))
    size = len(r)
    _balance.track_rows(
        state, np.asarray(r, float), np.full(size, boundary), np.full(size, drift), np.full(size, allowed), 4.0, out
    )
    return out


def test_followed_energy_is_the_scalar_kalman_filter():
    r = np.random.default_rng(8).normal(0, 20, 50)
    z, p, total, booked = 0.0, 400.0, 0.0, []
    for value in r:
        total += value
        p += 100.0
        gain = p / (p + 400.0)
        z += gain * (total - z)
        p *= 1 - gain
        booked.append(z)
    out = follow(r)
    np.testing.assert_allclose(out[:, 0], booked, rtol=1e-9, atol=1e-9)
    assert out[-1, 1] == pytest.approx(p)


def test_a_late_read_is_no_energy_but_what_stays_is():
    late = np.zeros(40)
    late[20], late[21] = 600.0, -600.0
    assert np.abs(follow(late)[:, 0]).max() < 100
    stays = np.zeros(40)
    stays[20] = 600.0
    assert follow(stays)[22, 0] > 300
    assert follow(stays)[-1, 0] == pytest.approx(600, rel=0.02)


def test_cusum_sums_what_exceeds_the_allowed():
    out = follow(np.full(30, 80.0), drift=1e9)
    np.testing.assert_allclose(out[-1, 2], np.maximum(0, np.diff(out[:, 0], prepend=0) - 50).sum())


def test_explained_rows_are_the_design_times_the_coefficients_whatever_the_block(house):
    rows, model = house(2).rows(), house(2).model()
    model.absorb(rows)
    expected, scatter = model.explained(rows, 0.0)
    late = np.diff(model.late(rows), prepend=0.0)
    np.testing.assert_allclose(expected, model.design(rows) @ model.x[1:] - model.x[1 + DELAY] * late, rtol=1e-9)
    np.testing.assert_allclose(scatter, model.own_sd**2 * np.square(model.own_wh(rows)).sum(axis=1), rtol=1e-9)
    before = 0.0
    for k in range(len(rows)):
        single = model.explained(rows[k : k + 1], before)
        assert (single[0][0], single[1][0]) == (expected[k], scatter[k])
        before = rows.main_wh[k]


def test_own_copper_by_windows_is_the_sum_over_their_rows(house):
    rows, model = house(2).rows(), house(2).model()
    rows.subs_wh[5, 3] = 1e6  # the end of a gap counts as much as a flat can draw
    start, stop = np.array([0, 7, 90, 4], np.intp), np.array([96, 7, 96, 6], np.intp)
    own, square = model.own_in(rows, start, stop)
    whole = model.own_wh(rows)
    for w in range(len(start)):
        part = whole[start[w] : stop[w]]
        np.testing.assert_allclose(own[w], part.sum(axis=0), rtol=1e-9)
        np.testing.assert_allclose(square[w], np.square(part).sum(), rtol=1e-9)
    with pytest.raises(ValueError, match="window"):
        model.own_in(rows, np.array([0], np.intp), np.array([97], np.intp))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="own_windows"):
        _balance.own_windows(
            np.zeros((2, 3)), np.zeros(1, np.intp), np.ones(2, np.intp), 1.0, 1.0, np.zeros(3), np.zeros((1, 3)),
            np.zeros(1),
        )  # fmt: skip
    with pytest.raises(ValueError, match="out of range"):
        _balance.residual_rows(
            *(np.zeros((1, 2)) for _ in range(3)), np.zeros((1, 2), np.uint8), np.array([0, 5], np.int32), np.ones(2),
            ZoneRows.empty(np.zeros(1), 1), np.zeros(1),
        )  # fmt: skip
    assert math.isfinite(follow([0.0])[0, 0])


def test_a_gap_is_spread_as_it_was_estimated_and_sums_hold():
    subs = np.array([[5.0, 1.0], [2.0, 1.0], [4.0, 1.0], [12.0, 1.0], [7.0, 1.0], [0.0, 9.0]])
    missed = np.zeros(subs.shape, np.uint8)
    missed[1:3, 0] = missed[4, 1] = missed[5, 0] = 1
    whole = subs.copy()
    _align.spread_gaps(whole, missed)
    np.testing.assert_allclose(whole[:, 0], [5, 4, 8, 6, 7, 0])  # 18 in the shape 2 : 4 : 3; the open gap stays
    np.testing.assert_allclose(whole[:, 1], [1, 1, 1, 1, 5, 5])
    np.testing.assert_allclose(whole.sum(axis=0), subs.sum(axis=0))
