"""What a flat's own rows say after the onset, whatever the balance: fallen, flat, a recording, crowded, zeroed.

Every function gives log ratios [N]: the rows under tampering of a kind against the same rows in normal life, as the
flat's own past and the rarity of coincidences tell it. Knows nothing of residuals and of priors of guilt.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from core.arrays import Bools, Floats
from core.attribution.scene import Scene, within

CHANGE_PER_DAY = 0.3 / 365  # moving in or out, holidays: what changes a flat's level and is no theft
EMPTY_SHARE = 0.05  # of flats stand empty, and may show nothing at all
SPOILT_ROWS = 0.04  # share of rows that a badly timed read spoils even where the meter's rows are artificial
CORRELATED_ROWS = 0.3  # what a row of a household's life counts, beside its neighbours


@dataclass(frozen=True, slots=True)
class Signatures:
    """The log ratios [N] that need no window, and what they rest on.

    ratio, ratio_sd: level over the expected. fallen: some of the load is missing. flat: the rows are one value, which
    is `low` (next to nothing) or not. repeat: they are a recording. crowd: they crowd at a `ceiling` (`at` [T, N]).
    """

    ratio: Floats
    ratio_sd: Floats
    fallen: Floats
    flat: Floats
    low: Bools
    repeat: Floats
    crowd: Floats
    ceiling: Floats
    at: Bools


def read(scene: Scene) -> Signatures:
    """All of them."""
    ratio, sd = level_ratio(scene, np.ones(scene.slots))
    flat, low = flatness(scene)
    crowd, ceiling, at = ceilings(scene)
    repeat = np.where(flat > 0, -np.inf, repetition(scene))  # one value repeats itself and is no recording
    return Signatures(ratio, sd, log_fallen(scene, ratio, sd), flat, low, repeat, crowd, ceiling, at)


# -- levels: `hours` [slots] weighs the slots of the day ----------------------------------------------------------


def level_ratio(scene: Scene, hours: Floats) -> tuple[Floats, Floats]:
    """Energy over the expected [N] in the weighted slots, and its standard deviation in normal life."""
    expected = hours @ scene.expected_by_slot + 1e-9
    # Short windows: the scatter of single rows counts too (rows correlate over some two hours).
    rows = np.sqrt((hours * scene.rows_by_slot) @ scene.usage.spread_wh**2 * 2 / scene.hours) / expected
    sd = np.hypot(scene.usage.level_sd(scene.days), np.minimum(rows, 2.0) * (1.0 if hours.min() == 0 else 0.5))
    return np.asarray((hours @ scene.sub_by_slot) / expected), np.asarray(sd)


def log_fallen(scene: Scene, ratio: Floats, sd: Floats) -> Floats:
    """Log ratio [N] of a level ratio when some share of the load, any share, goes missing, against normal life.

    In normal life the level stays, with heavy tails, or changes with the tenant, which is rare.
    """
    change = min(0.5, CHANGE_PER_DAY * (2.0 + 0.5 * scene.days))
    same = 0.38 * (1 + ((ratio - 1.0) / sd) ** 2 / 5) ** -3.0 / sd
    changed = np.where(ratio < 1, 1.0, 0.3 / np.maximum(ratio, 1.0) ** 2)
    fallen = 1 / (1 + np.exp(np.clip(1.7 * (ratio - 1.0) / sd, -50, 50)))
    return np.asarray(np.log(((1 - change) * fallen + change * changed) / ((1 - change) * same + change * changed)))


def conserved(scene: Scene, hours: Floats, level: Floats, power_wh: float) -> Floats:
    """Log ratio [N] that each flat fell by `power_wh` a row in the weighted slots, against not at all.

    `level` [N] is by how much the flat's other hours have moved.
    """
    rows = hours @ scene.rows_by_slot
    if not rows:
        return np.zeros(scene.sub_wh.shape[1])
    _, sd = level_ratio(scene, hours)
    expected = level * (hours @ scene.expected_by_slot) / rows + 1e-9
    spread = sd * expected + 1.5 * scene.hours
    fall = expected - (hours @ scene.sub_by_slot) / rows
    return np.asarray(3.0 * (np.log1p((fall / spread) ** 2 / 5) - np.log1p(((fall - power_wh) / spread) ** 2 / 5)))


def moved(scene: Scene, hours: Floats) -> Floats:
    """How far each flat's level has moved [N] in the weighted slots, drawn to 1 where they are few."""
    if hours @ scene.rows_by_slot < scene.slots:
        return np.ones(scene.sub_wh.shape[1])
    ratio, _ = level_ratio(scene, hours)
    return np.asarray(np.clip(ratio, 0.1, 10.0) ** 0.8)


def circuit(scene: Scene, start: int, length: int, power_wh: float) -> Floats:
    """Log ratio [N] that a flat fell by `power_wh` a row in every part of a window, as its other hours have moved.

    The parts share a household's wandering level, so that their terms count for half.
    """
    slots = np.arange(scene.slots)
    level = moved(scene, 1.0 - within(slots, scene.slots, start, length))
    parts = max(1, round(length / 4))
    terms = [
        conserved(scene, within(slots, scene.slots, start + k * length / parts, length / parts) * 1.0, level, power_wh)
        for k in range(parts)
    ]
    return np.asarray(0.5 * np.sum(terms, axis=0) - 0.5)


# -- artificial rows ---------------------------------------------------------------------------------------------


def log_artificial(hits: Floats, rows: Floats, normal: Floats) -> Floats:
    """Log ratio of `hits` among `rows`: artificial rows hit but for the spoilt, normal ones at the rate `normal`."""
    normal = np.clip(normal, 0.002, 1 - SPOILT_ROWS)
    ratio = hits * np.log((1 - SPOILT_ROWS) / normal) + (rows - hits) * np.log(SPOILT_ROWS / (1 - normal))
    return np.asarray(CORRELATED_ROWS * ratio)


def capped(ratio: Floats, rare: Floats | float) -> Floats:
    """A log ratio when normal life may look just so, by itself, with probability `rare`."""
    return np.asarray(-np.logaddexp(-ratio, np.log(rare)))


def flatness(scene: Scene) -> tuple[Floats, Bools]:
    """Log ratio [N] that the rows show one value, and whether that value is next to nothing."""
    live = ~scene.estimated
    value = np.median(scene.sub_wh, axis=0)
    tolerance = 1.5 * scene.resolution_wh + 0.03 * value
    hits = (live & (np.abs(scene.sub_wh - value) <= tolerance)).sum(0).astype(float)
    ratio = log_artificial(hits, live.sum(0).astype(float), flattest(scene, tolerance))
    if not scene.usage.rows:
        low = value <= 2 * scene.resolution_wh
        return capped(ratio, np.where(low, EMPTY_SHARE, 1e-4)), low
    # An empty flat is as flat, but only near zero, and it must have fallen empty at the very onset.
    low = value <= np.maximum(0.15 * scene.usage.level_wh, 2 * scene.resolution_wh)
    empty = min(0.5, CHANGE_PER_DAY * (2.0 + 0.1 * scene.days)) * 0.5
    return capped(ratio, np.where(low, empty, 1e-5)), low


def flattest(scene: Scene, tolerance: Floats) -> Floats:
    """Share of rows [N] within `tolerance` of the day's median, on the flattest eighth of the past days."""
    days = len(scene.past_wh) // scene.slots
    if not days:
        return np.full(scene.sub_wh.shape[1], 0.4)
    tail = scene.past_wh[len(scene.past_wh) - days * scene.slots :].reshape(days, scene.slots, -1)
    near = (np.abs(tail - np.median(tail, axis=1, keepdims=True)) <= tolerance).mean(1)
    return np.asarray(np.quantile(near, 0.875, axis=0))


def repetition(scene: Scene) -> Floats:
    """Log ratio [N] that the rows are a recording: each day equal, but for read errors, to one some whole days before.

    A recording that is played again and again, or that does not start with its first day, is at another lag from day to
    day: the best lag is sought day by day, and paid for. How well the week before the onset repeats what was before it
    is what a regular life can do, and is taken off.
    """
    shown, slots = scene.record_wh, scene.slots
    start, stop = len(shown) - len(scene.sub_wh), len(shown)
    usual_days = min(7, start // (2 * slots))
    first = start - usual_days * slots
    span = stop // slots
    lags = sorted({*range(1, min(14, span) + 1), *range(7, span + 1, 7)})
    edges = np.arange(0, stop - first, slots)
    live, idle = ~scene.record_estimated, 4 * scene.resolution_wh
    tolerance = 2.0 * scene.resolution_wh + 0.05 * np.nan_to_num(shown)
    busy = shown > idle
    hits = np.zeros((len(lags), len(edges), shown.shape[1]))
    seen = np.zeros_like(hits)
    for k, lag in enumerate(lags):
        shift = lag * slots
        since = max(first, shift)  # rows before this have no row so long ago
        if since >= stop:
            continue
        now, then = slice(since, stop), slice(since - shift, stop - shift)
        use = live[now] & live[then] & (busy[now] | busy[then])
        equal = use & (np.abs(shown[now] - shown[then]) <= tolerance[now])
        padding = ((since - first, 0), (0, 0))
        seen[k] = np.add.reduceat(np.pad(use, padding), edges, axis=0, dtype=float)
        hits[k] = np.add.reduceat(np.pad(equal, padding), edges, axis=0, dtype=float)
    # What most lags reach is chance, or a flat that is too regular to tell.
    rate = hits.sum(1) / np.maximum(seen.sum(1), 1.0)
    chance = np.clip(np.quantile(rate, 0.5, axis=0) + 0.1, 0.1, 0.9) if lags else np.zeros(shown.shape[1])
    daily = np.where(seen > 0, log_artificial(hits, seen, chance), -np.inf).max(0, initial=-np.inf)
    daily = np.where(np.isfinite(daily), daily - log(max(len(lags), 1)), 0.0)
    usual = np.maximum(daily[:usual_days].mean(0), 0.0) if usual_days else 0.0
    return capped((daily[usual_days:] - usual).sum(0), 10.0 ** -min(6.0, 3.0 + scene.days))


def ceilings(scene: Scene) -> tuple[Floats, Floats, Bools]:
    """Log ratio [N] that the rows crowd at a ceiling as never before, the ceiling [N], and the rows at it [T, N]."""
    live = ~scene.estimated
    ceiling = np.quantile(scene.sub_wh, 0.97, axis=0)
    width = 1.01 * scene.resolution_wh + 0.05 * ceiling
    at = scene.sub_wh >= ceiling - width
    rows = live.sum(0).astype(float)
    hits = (at & live).sum(0).astype(float)
    over = ((scene.sub_wh > ceiling + width) & live).sum(0)
    normal = crowding(scene, width)
    share = np.clip(hits / np.maximum(rows, 1.0), 0.01, 0.99)
    gain = hits * np.log(share / normal) + (rows - hits) * np.log((1 - share) / (1 - normal))
    ratio = np.where(share > 1.3 * normal, CORRELATED_ROWS * gain - 0.5 * over, -np.inf)
    # A flat that stands empty crowds at its few watts.
    empty = min(0.5, CHANGE_PER_DAY * (2.0 + 0.1 * scene.days))
    low = ceiling <= np.maximum(0.3 * scene.usage.level_wh, 3 * scene.resolution_wh)
    return capped(ratio, np.where(low, empty, 1e-4)), ceiling, at


def crowding(scene: Scene, width: Floats) -> Floats:
    """Share of rows [N] within `width` of the ceiling of their own past stretch, in the most crowded of ten.

    A stretch is as long as the rows after the onset, but a week at most: a single day crowds more than a month.
    """
    length = min(max(len(scene.sub_wh), scene.slots // 4), 7 * scene.slots)
    stretches = len(scene.past_wh) // length
    if not stretches:
        return np.full(scene.sub_wh.shape[1], 0.3)
    past = scene.past_wh[len(scene.past_wh) - stretches * length :].reshape(stretches, length, -1)
    near = (past >= np.quantile(past, 0.97, axis=1, keepdims=True) - width).mean(1)
    return np.asarray(np.clip(np.quantile(near, 0.9, axis=0), 0.03, 0.9))


def zeroed(scene: Scene, start: int, length: int) -> Floats:
    """Log ratio [N] that a flat shows nothing in a window; -inf where it shows as little in the other hours."""
    inside = scene.inside(start, length)[:, None] > 0
    live, dead = ~scene.estimated, scene.sub_wh <= 0.5 * scene.resolution_wh
    hits, rows = (live & dead & inside).sum(0).astype(float), (live & inside).sum(0).astype(float)
    past = scene.past_wh[within(scene.past_slot, scene.slots, start, length)]
    normal = (past <= 0.5 * scene.resolution_wh).mean(0) + 0.02
    elsewhere = (live & dead & ~inside).sum(0) / np.maximum((live & ~inside).sum(0), 1)
    lives = (elsewhere < 0.5) & (live & ~inside).any(0)
    return np.where(lives, capped(log_artificial(hits, rows, normal), 1e-6), -np.inf)
