"""The kernels against NumPy oracles that say the same in the plainest way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.balance import _balance
from core.registers import _align

DAY = 48
HOURS = 0.5


class Aligned:
    """State and output of `align_rows` over a whole recording, in blocks of any size."""

    def __init__(self, wh, *, signed=None, block=None):
        rows, meters = wh.shape
        self.state = [np.full(meters, np.nan), *(np.zeros(meters) for _ in range(4))]
        self.profile, self.seen, self.spread = np.zeros((meters, 24)), np.zeros((meters, 24)), np.zeros(meters)
        self.booked, self.energy, self.error, self.lost = (np.empty((rows, meters)) for _ in range(4))
        self.flags = np.empty((rows, meters), np.uint8)
        signed = np.zeros(meters, np.uint8) if signed is None else np.asarray(signed, np.uint8)
        hours, bins = np.full(rows, HOURS), (np.arange(rows) % DAY // 2).astype(np.int32)
        for start in range(0, rows, block or rows):
            part = slice(start, min(rows, start + (block or rows)))
            _align.align_rows(
                np.ascontiguousarray(wh[part]), np.full(wh[part].shape, 3.0), hours[part], bins[part], signed,
                np.full(meters, 50_000.0), *self.state, self.profile, self.seen, self.spread, self.booked[part],
                self.energy[part], self.error[part], self.lost[part], self.flags[part], 40.0,
            )  # fmt: skip


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
    for name in ("booked", "energy", "error", "lost", "flags", "profile", "spread"):
        assert np.array_equal(getattr(whole, name), getattr(single, name)), name


def test_before_anything_is_known_of_a_meter_its_gap_may_hold_any_load():
    wh = registers(np.random.default_rng(8), DAY, 2)
    wh[1:6, 1] = np.nan
    aligned = Aligned(wh)
    wide = 0.1 * 50_000.0 * HOURS  # a tenth of what a flat can draw, over the row
    error = np.abs(aligned.error[1:6, 1]) % 1e5
    assert np.all(error >= wide * (1 - 1e-6))
    assert np.all(np.diff(error) > 0)
    assert np.all(np.abs(aligned.error[6:, 1]) == np.abs(aligned.error[6:, 0]))


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
    assert np.all(aligned.error[gap] < 0)
    assert np.all(np.diff(aligned.error[gap, 0]) < 0), "the longer the gap, the less is known"
    assert aligned.error[206, 0] == 3.0
    assert (aligned.error[200:202] > -1e5).all()
    assert (aligned.error[202:206] < -1e5).all(), "from the third row on it is a long gap"


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
    energy, error = rng.normal(100, 30, (20, 6)), rng.uniform(1, 5, (20, 6))
    error[3, 2], error[4, 2], error[5, 4] = -200.0, -(1e5 + 700.0), -1e6
    lost = np.zeros((20, 6))
    lost[7, 4] = 9e4
    columns, sign = np.array([1, 4, 2, 0], np.int32), np.array([1.0, 1.0, -1.0, 1.0])
    subs, sums = np.empty((20, 3)), np.empty((20, 7))
    _balance.residual_rows(energy, error, lost, columns, sign, subs, sums)
    signed = energy[:, [4, 2, 0]] * sign[1:]
    of_zone = error[:, columns]
    long_gap = (of_zone < -5e4) & (of_zone > -5e5)
    np.testing.assert_allclose(subs, signed)
    np.testing.assert_allclose(sums[:, 0], energy[:, 1])
    np.testing.assert_allclose(sums[:, 2], energy[:, 1] - signed.sum(axis=1))
    np.testing.assert_allclose(sums[:, 3], np.where(long_gap, 0, of_zone**2).sum(axis=1))
    np.testing.assert_allclose(sums[:, 4], lost[:, columns].sum(axis=1))
    np.testing.assert_allclose(sums[:, 5], (of_zone >= 0).mean(axis=1))
    np.testing.assert_allclose(sums[:, 6], np.where(long_gap, (of_zone + 1e5) ** 2, 0).sum(axis=1))


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


def test_predictions_do_not_depend_on_the_block():
    rng = np.random.default_rng(9)
    phi, x = rng.normal(size=(33, 101)), rng.normal(size=101)
    whole, single = np.empty(33), np.empty(33)
    _balance.predict_rows(phi, x, whole)
    for k in range(33):
        _balance.predict_rows(phi[k : k + 1], x, single[k : k + 1])
    assert np.array_equal(whole, single)
    np.testing.assert_allclose(whole, phi @ x, rtol=1e-10, atol=1e-12)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="predict_rows"):
        _balance.predict_rows(np.zeros((2, 3)), np.zeros(4), np.zeros(2))
    with pytest.raises(ValueError, match="out of range"):
        _balance.residual_rows(
            np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), np.array([0, 5], np.int32), np.ones(2),
            np.zeros((1, 1)), np.zeros((1, 7)),
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
