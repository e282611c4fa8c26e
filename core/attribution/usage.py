"""What each flat normally uses: its profile by time of day, its spread, its level and how far that level wanders.

Owns the statistics of a flat's own past. Knows nothing of residuals, thieves or hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.arrays import Floats, Ints

PROFILE_DAYS = 56  # older days say little about a season's shape
HALF_LIFE_DAYS = 14.0
LEVEL_DAYS = 7
DRIFT = 0.15  # relative sd of a household's level from fortnight to fortnight, beyond the scatter of its days


@dataclass(frozen=True, slots=True)
class Usage:
    """Expectation of N flats over T rows to come, from their rows before.

    profile_wh [2, slots, N]: mean energy of a row by weekday/weekend and slot, at the level of the last week.
    spread_wh [slots, N]: standard deviation of a row about it. level_wh [N]: mean row of the last week.
    day_cv [N]: relative sd of a day's energy. rows: how many rows of the past it rests on (0: nothing is known, and
    the profile is that of the rows it is asked about).
    """

    profile_wh: Floats
    spread_wh: Floats
    level_wh: Floats
    day_cv: Floats
    rows: int

    def expected_wh(self, day: Ints, slot: Ints) -> Floats:
        """Expected energy [T, N] of the rows at (day, slot)."""
        return np.asarray(self.profile_wh[weekend(day).astype(np.intp), slot])

    def level_sd(self, days: float) -> Floats:
        """Relative standard deviation [N] of the mean over the next `days` about the level."""
        if not self.rows:
            return np.full(len(self.level_wh), 0.6)
        independent = max(1.0, min(days, 14.0) / 1.5)
        return np.asarray(np.sqrt(self.day_cv**2 * (1 / independent + 1.5 / LEVEL_DAYS) + DRIFT**2))


def weekend(day: Ints) -> NDArray[np.bool_]:
    """Whether a local day number is a Saturday or a Sunday (day 0 was a Thursday)."""
    weekday: NDArray[np.bool_] = (day + 3) % 7 >= 5
    return weekday


def learn(sub_wh: Floats, day: Ints, slot: Ints, slots: int, before_onset: bool = True) -> Usage:
    """Usage from the rows [T, N] of the past; NaN rows are left out.

    With `before_onset` false the rows are those that carry the loss, for want of others: they give shapes, no levels.
    """
    if len(day):
        recent = day > day[-1] - PROFILE_DAYS
        sub_wh, day, slot = sub_wh[recent], day[recent], slot[recent]
    rows, count = sub_wh.shape
    if rows < slots:
        level = np.nan_to_num(np.nanmean(sub_wh, 0)) if rows else np.zeros(count)
        return Usage(
            np.broadcast_to(level, (2, slots, count)).copy(),
            np.tile(level + 1, (slots, 1)),
            level,
            np.full(count, 0.5),
            0,
        )
    known = ~np.isnan(sub_wh)
    energy = np.where(known, sub_wh, 0.0)
    weight = known * np.exp2((day - day[-1]) / HALF_LIFE_DAYS)[:, None]
    ends = weekend(day)
    kind = ends.astype(np.intp) * slots + slot
    total = smooth(sum_by(kind, energy * weight, 2 * slots).reshape(2, slots, count))
    mass = smooth(sum_by(kind, weight, 2 * slots).reshape(2, slots, count))
    pooled = total.sum(0) / np.maximum(mass.sum(0), 1e-9)
    profile = (total + 3.0 * pooled) / (mass + 3.0)
    deviation = np.where(known, sub_wh - profile[ends.astype(np.intp), slot], 0.0)
    square, seen = smooth(sum_by(slot, deviation**2 * weight, slots)), smooth(sum_by(slot, weight, slots))
    overall = square.sum(0) / np.maximum(seen.sum(0), 1e-9)
    spread = np.sqrt((square + 2.0 * overall) / (seen + 2.0))

    index = day - day[0]
    days = int(index[-1]) + 1
    per_day, in_day = sum_by(index, energy, days), sum_by(index, known.astype(float), days)
    daily = np.where(in_day > 0.5 * slots, per_day / np.maximum(in_day, 1), np.nan)
    month, week = nanmean(daily[-28:]), nanmean(daily[-LEVEL_DAYS:])
    moved = (week < 0.5 * month) | (week > 2.0 * month)
    level = np.where(moved, week, 0.65 * week + 0.35 * month)
    level = np.where(np.isnan(level), np.nanmean(sub_wh, 0), level)
    last = daily[-28:]
    # The lesser of two: a fortnight's absence within the month is no scatter of days.
    around = np.abs(last - np.where(np.isnan(last).all(0), 0.0, np.nanmedian(np.nan_to_num(last), axis=0)))
    robust = 1.3 * 1.4826 * np.nanmedian(np.nan_to_num(around), axis=0)
    day_cv = np.minimum(np.sqrt(nanmean((last - nanmean(last)) ** 2)), robust) / np.maximum(np.fmax(level, month), 1.0)
    mean = np.maximum(pooled.mean(0), 1e-3)
    ratio = np.clip(level / mean, 0.02, 5.0)
    scatter = np.clip(np.nan_to_num(day_cv, nan=0.5), 0.1, 1.0)
    return Usage(profile * ratio, spread * np.sqrt(ratio), level, scatter, rows if before_onset else 0)


def sum_by(index: Ints, rows: Floats, size: int) -> Floats:
    """Sums [size, N] of the rows [T, N] that share an index."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    out = np.zeros((size, rows.shape[1]))
    out[ordered[first]] = np.add.reduceat(rows[order], first, axis=0)
    return out


def nanmean(values: Floats) -> Floats:
    """Mean over the first axis without NaN; NaN where there is nothing."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0.0).sum(0) / known.sum(0)
    return mean


def smooth(table: Floats) -> Floats:
    """A (1, 2, 1)/4 average over the slots of a day (the last axis but one), round midnight."""
    return 0.5 * table + 0.25 * (np.roll(table, 1, -2) + np.roll(table, -1, -2))


def weighted_quantiles(shares: Floats, ordered: Floats, weight: Floats) -> Floats:
    """Quantiles [Q, N] at `shares` [Q] of columns that rise, with their rows' weights."""
    share = np.cumsum(weight, axis=0)
    out = np.empty((len(shares), ordered.shape[1]))
    for column in range(ordered.shape[1]):
        at = np.searchsorted(share[:, column], shares * share[-1, column])
        out[:, column] = ordered[np.minimum(at, len(ordered) - 1), column]
    return out
