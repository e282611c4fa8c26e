"""The rows around an alarm, made ready for weighing: what came before as expectation, what came after as evidence.

Owns the cut at the onset, the change to rows of half an hour, and how noisy the balance is. Knows no hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.arrays import Bools, Floats, Ints
from core.attribution.residual_noise import BalanceNoise, evidence, measure, spoilt
from core.attribution.rows import SLOTS_MAX, Onset, Rows
from core.attribution.usage import Usage, learn, sum_by


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
    noise: BalanceNoise

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
