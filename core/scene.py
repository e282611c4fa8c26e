"""The rows around an alarm, made ready for weighing: what came before as expectation, what came after as evidence.

Owns the cut at the onset, the change to rows of half an hour, and how noisy the balance is. Knows no hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core._attribution import log_evidence
from core.usage import Floats, Ints, Usage, learn, sum_by

Bools = NDArray[np.bool_]

SLOTS_MAX = 48  # finer rows are added up: a household's life has no finer grain, and reads have errors
NOISE_DAYS = 28  # how far back the noise of the balance is measured
SLOW_DAYS = 2.0  # how long the slow error of the balance (temperature, load mix) stays what it is
PERSISTENCE = 0.6  # correlation of a household's deviation from one half hour to the next
ROBUSTNESS = 6.0  # degrees of freedom of an innovation
THETA_DRIFT = 1e-3  # variance that an amplitude gains a day, in parts of its prior variance: nothing stays exact
NOISE_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
SLOW_SHARES = (0.0003, 0.0006, 0.001, 0.002, 0.004)
SLOW_DEFAULT = 0.001
SLOW_UNLEARNED = 0.005  # no row from before the onset: copper and class are as wide as their priors


@dataclass(frozen=True, slots=True)
class Rows:
    """Energy of one zone in rows of equal length without holes, oldest first.

    sub_wh [T, N]: energy per row of every sub-meter; over a gap of reads the energy between the two registers is
    spread over the rows (so that sums hold) and `estimated` [T, N] is true there; NaN where nothing is known.
    residual_wh [T]: main - sum - technical loss expected under the model as it was before the onset; NaN unknown.
    boundary_variance_wh2 [T + 1]: variance of the error of the residual's *cumulative* energy at each boundary.
    day [T]: local day number (days since 1970-01-01); slot [T]: row of the local day, 0 .. slots_per_day - 1.
    resolution_wh [N]: the step of each sub-meter's register.
    """

    sub_wh: Floats
    residual_wh: Floats
    boundary_variance_wh2: Floats
    day: Ints
    slot: Ints
    slots_per_day: int
    estimated: Bools | None = None
    resolution_wh: Floats | None = None


@dataclass(frozen=True, slots=True)
class Onset:
    """First row that carries the loss: the best row, and the first and last that are credible. 0: from the start."""

    lo: int
    best: int
    hi: int


@dataclass(frozen=True, slots=True)
class Noise:
    """Errors of the balance: boundary variance [T + 1], and the slow error's sd as a share of `slow` [T]."""

    variance: Floats
    slow: Floats
    slow_share: float
    slow_days: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Rows after the onset: residual [T], the flats' rows [T, N] and what they are expected to use [T, N].

    past_wh [P, N] are the rows before, record_* [R + T, N] all of them with the doubtful ones between; *_by_slot are
    sums by slot of the day [slots, N] and [slots]. With `usage.rows` 0 nothing is known from before: the loss was
    always there.
    """

    residual_wh: Floats
    sub_wh: Floats
    estimated: Bools
    day: Ints
    slot: Ints
    slots: int
    resolution_wh: Floats
    usage: Usage
    expected_wh: Floats
    past_wh: Floats
    past_slot: Ints
    record_wh: Floats
    record_estimated: Bools
    sub_by_slot: Floats
    expected_by_slot: Floats
    rows_by_slot: Floats
    noise: Noise

    @property
    def days(self) -> float:
        return len(self.day) / self.slots

    @property
    def hours(self) -> float:
        """Length of a row."""
        return 24.0 / self.slots

    @property
    def shape(self) -> Floats:
        """Load of an average household of this building in the rows [T], mean 1."""
        shape = self.expected_wh.mean(1)
        return np.asarray(shape / max(float(shape.mean()), 1e-9))

    def inside(self, start: float, length: float) -> Floats:
        """1 in the rows [T] whose time of day lies within `length` hours from `start`, else 0."""
        return within(self.slot, self.slots, start, length).astype(float)


def within(slot: Ints, slots: int, start: float, length: float) -> Bools:
    """Whether each slot's middle lies within `length` hours from hour `start`, round midnight."""
    hour = (slot + 0.5) * 24.0 / slots
    return np.asarray(((hour - start) % 24) < length)


def stage(rows: Rows, onset: Onset) -> Scene:
    """Cut the (coarse) rows at the onset. Rows that may or may not carry the loss are left out, at most a quarter."""
    total, count = rows.sub_wh.shape
    start = min(onset.hi, onset.best + (total - onset.best) // 4)
    before, after = slice(0, onset.lo), slice(start, total)
    past, shown, day, slot = rows.sub_wh[before], rows.sub_wh[after], rows.day[after], rows.slot[after]
    usage = learn(past, rows.day[before], rows.slot[before], rows.slots_per_day)
    if not usage.rows:
        usage = learn(shown, day, slot, rows.slots_per_day, before_onset=False)
    expected = usage.expected_wh(day, slot)
    record = rows.sub_wh[: after.stop]
    estimated = np.isnan(record) if rows.estimated is None else np.isnan(record) | rows.estimated[: after.stop]
    shown = np.where(np.isnan(shown), expected, shown)
    past = np.where(np.isnan(past), usage.expected_wh(rows.day[before], rows.slot[before]), past)
    resolution = np.full(count, 10.0) if rows.resolution_wh is None else rows.resolution_wh
    residual = np.ascontiguousarray(rows.residual_wh[after])
    variance = spoilt(residual, rows.boundary_variance_wh2[start : start + len(day) + 1])
    noise = measure(rows, onset.lo, variance, shown.sum(1))
    return Scene(
        residual, shown, estimated[start:], day, slot, rows.slots_per_day, resolution, usage, expected, past,
        rows.slot[before], record, estimated, *by_slot(shown, expected, slot, rows.slots_per_day), noise,
    )  # fmt: skip


def by_slot(shown: Floats, expected: Floats, slot: Ints, slots: int) -> tuple[Floats, Floats, Floats]:
    """Sums of the rows shown and expected [slots, N], and number of rows [slots]."""
    return sum_by(slot, shown, slots), sum_by(slot, expected, slots), np.bincount(slot, minlength=slots).astype(float)


def head(rows: Rows, stop: int) -> Rows:
    """The first `stop` rows."""
    if stop >= len(rows.day):
        return rows
    estimated = None if rows.estimated is None else rows.estimated[:stop]
    return replace(
        rows, sub_wh=rows.sub_wh[:stop], residual_wh=rows.residual_wh[:stop], day=rows.day[:stop],
        boundary_variance_wh2=rows.boundary_variance_wh2[: stop + 1], slot=rows.slot[:stop], estimated=estimated,
    )  # fmt: skip


def later(older: Scene, scene: Scene) -> Scene:
    """`scene` with the noise of an older one that ends with the same row: that before the older onset."""
    rows = len(scene.day)
    noise = replace(older.noise, variance=older.noise.variance[-rows - 1 :], slow=older.noise.slow[-rows:])
    return replace(scene, noise=noise)


def log_nothing(older: Scene, scene: Scene) -> float:
    """Log evidence that nothing is missing in the rows of `older` before those of `scene`."""
    rows = len(older.day) - len(scene.day)
    if rows <= 0:
        return 0.0
    noise = replace(older.noise, variance=older.noise.variance[: rows + 1], slow=older.noise.slow[:rows])
    nothing = [np.zeros(rows)]
    residual = np.ascontiguousarray(older.residual_wh[:rows])
    fit, _, _ = evidence(residual, noise, older.slots, nothing, nothing, nothing, [0.0], [1e-6], [0.0])
    return float(fit[0])


def coarse(rows: Rows, onset: Onset) -> tuple[Rows, Onset]:
    """The same in rows of half an hour, if they are finer; the onset's bounds on both sides of its best."""
    onset = Onset(min(onset.lo, onset.best), onset.best, max(onset.hi, onset.best))
    join = rows.slots_per_day // SLOTS_MAX
    if join < 2 or rows.slots_per_day % SLOTS_MAX:
        return rows, onset
    first = int(-rows.slot[0] % join)
    count = (len(rows.slot) - first) // join
    inner = slice(first, first + count * join)

    def added(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values[inner].reshape(count, join, *values.shape[1:]).sum(1))

    return Rows(
        added(rows.sub_wh),
        added(rows.residual_wh),
        rows.boundary_variance_wh2[first : first + count * join + 1 : join],
        rows.day[inner][::join],
        rows.slot[inner][::join] // join,
        rows.slots_per_day // join,
        None if rows.estimated is None else added(rows.estimated) > 0,
        rows.resolution_wh,
    ), Onset(max(0, onset.lo - first) // join, max(0, onset.best - first) // join, -(-max(0, onset.hi - first) // join))


def spoilt(residual_wh: Floats, variance: Floats) -> Floats:
    """`variance` with the boundaries whose error is far beyond it: the rows on both sides tell, with opposite signs."""
    known = residual_wh[~np.isnan(residual_wh)]
    centred = np.nan_to_num(residual_wh - (np.median(known) if len(known) else 0.0))
    left, right = centred[:-1], centred[1:]
    least = np.where(left * right < 0, np.minimum(np.abs(left), np.abs(right)), 0.0)
    out = np.array(variance, dtype=float)
    bad = least > 4 * np.sqrt(2 * variance[1:-1])
    out[1:-1][bad] += least[bad] ** 2
    return out


def measure(rows: Rows, lo: int, variance: Floats, total_wh: Floats) -> Noise:
    """The noise that fits the rows before `lo` best: a factor on the boundary variance, and the slow share."""
    count = min(lo, NOISE_DAYS * rows.slots_per_day)
    if lo < rows.slots_per_day:
        # Copper grows with the square of the load: the largest part of what an unlearned balance lacks.
        return Noise(variance, total_wh**2 / max(float(np.mean(total_wh)), 1e-9), SLOW_UNLEARNED, 60.0)
    if count < 4 * rows.slots_per_day:
        return Noise(variance, total_wh, SLOW_DEFAULT, SLOW_DAYS)
    residual = np.ascontiguousarray(rows.residual_wh[lo - count : lo])
    before = spoilt(residual, rows.boundary_variance_wh2[lo - count : lo + 1])
    load = np.nan_to_num(rows.sub_wh[lo - count : lo]).sum(1)
    nothing = [np.zeros(count)]
    best = (-np.inf, 1.0, SLOW_DEFAULT)
    for factor in NOISE_FACTORS:
        for share in SLOW_SHARES:
            noise = Noise(factor * before, load, share, SLOW_DAYS)
            fit, _, _ = evidence(residual, noise, rows.slots_per_day, nothing, nothing, nothing, [0.0], [1e-6], [0.0])
            best = max(best, (float(fit[0]), factor, share))
    return Noise(best[1] * variance, total_wh, best[2], SLOW_DAYS)


def evidence(
    residual_wh: Floats,
    noise: Noise,
    slots: int,
    mean: list[Floats],
    scale: list[Floats],
    design: list[Floats],
    theta: list[float],
    theta_sd: list[float],
    design_variance: list[float],
) -> tuple[Floats, Floats, Floats]:
    """Log evidence [H] of residual_t = mean + scale * x + design * theta, and theta's mean and sd after the rows."""
    after = [np.empty(len(theta)) for _ in range(3)]
    log_evidence(
        residual_wh,
        np.ascontiguousarray(noise.variance, dtype=float),
        np.ascontiguousarray(noise.slow, dtype=float),
        np.ascontiguousarray(mean, dtype=float),
        np.ascontiguousarray(scale, dtype=float),
        np.ascontiguousarray(design, dtype=float),
        np.array(theta, dtype=float),
        np.square(np.array(theta_sd, dtype=float)),
        np.array(design_variance, dtype=float),
        PERSISTENCE ** (SLOTS_MAX / slots),
        noise.slow_share**2,
        float(np.exp(-1 / (noise.slow_days * slots))),
        ROBUSTNESS,
        THETA_DRIFT / slots,
        *after,
    )
    return after[0], after[1], np.sqrt(after[2])
