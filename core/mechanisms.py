"""How energy can go missing, each way as what it predicts of the balance and of the flat's own rows.

Every function here adds explanations to a list. Its log prior holds, beside the mechanism's own, the log ratio of the
*flat's* rows under tampering of that kind against normal life; what the residual says is left to the kernel.
"""

from __future__ import annotations

from math import log

import numpy as np

from core.explanations import NOBODY, Explanations
from core.scene import Bools, Scene, within
from core.usage import Floats, Ints

CHANGE_PER_DAY = 0.3 / 365  # moving in or out, holidays: what changes a flat's level and is no theft
EMPTY_SHARE = 0.05  # of flats stand empty, and may show nothing at all
SPOILT_ROWS = 0.04  # share of rows that a badly timed read spoils even where the meter's rows are artificial
CORRELATED_ROWS = 0.3  # what a row of a household's life counts, beside its neighbours
WINDOW_HOURS = (4, 6, 8, 12, 16)
WINDOWS = 24 * len(WINDOW_HOURS)
ANY_LEVEL = 0.2  # what it costs to take the level of an unknown household from the rows themselves
UNLIKE_HISTORY = 0.2  # share of hidden loads that are not as the metered load was


# -- nobody ------------------------------------------------------------------------------------------------------


def taps(scene: Scene) -> Explanations:
    """Ahead of all meters: a steady load, one switched at set hours, or a household of its own.

    The first is the steady one, the next WINDOWS those of set hours (start by start within each length).
    """
    out = Explanations(len(scene.day))
    broad = broad_wh(scene)
    out.add(NOBODY, "steady", log(0.45), design=np.ones(out.rows), theta=0.0, theta_sd=broad)
    for start, length in windows():
        design = scene.inside(start, length)
        out.add(NOBODY, "switched", log(0.45 / WINDOWS), design=design, theta=0.0, theta_sd=broad * 24 / length)
    load = max(missing_wh(scene), 10.0 * scene.hours) * scene.shape
    out.hidden(NOBODY, "unmetered household", log(0.1 * ANY_LEVEL), load=load, spread=0.8 * load, theta_sd=0.5)
    return out


def windows() -> list[tuple[int, int]]:
    """(start hour, length in hours) of every window that is tried."""
    return [(start, length) for length in WINDOW_HOURS for start in range(24)]


def broad_wh(scene: Scene) -> float:
    """A wide prior scale of the missing energy of a row: twice what is missing."""
    return 2.0 * max(abs(missing_wh(scene)), 10.0 * scene.hours)


def missing_wh(scene: Scene) -> float:
    """Mean missing energy of a row."""
    known = scene.residual_wh[~np.isnan(scene.residual_wh)]
    return float(known.mean()) if len(known) else 0.0


# -- a flat's level ----------------------------------------------------------------------------------------------


def level_ratio(scene: Scene, weight: Floats | None = None) -> tuple[Floats, Floats]:
    """Energy over the expected [N] in the weighted rows, and its standard deviation in normal life."""
    weight = np.ones(len(scene.day)) if weight is None else weight
    expected = weight @ scene.expected_wh + 1e-9
    # Short windows: the scatter of single rows counts too (rows correlate over some two hours).
    rows = np.sqrt(weight @ scene.usage.spread_wh[scene.slot] ** 2 * 2 / scene.hours) / expected
    sd = np.hypot(scene.usage.level_sd(scene.days), np.minimum(rows, 2.0) * (1.0 if weight.min() == 0 else 0.5))
    return np.asarray((weight @ scene.sub_wh) / expected), np.asarray(sd)


def log_fallen(scene: Scene, ratio: Floats, sd: Floats) -> Floats:
    """Log ratio [N] of a level ratio when some share of the load, any share, goes missing, against normal life.

    In normal life the level stays, with heavy tails, or changes with the tenant, which is rare.
    """
    change = min(0.5, CHANGE_PER_DAY * (2.0 + 0.5 * scene.days))
    same = 0.38 * (1 + ((ratio - 1.0) / sd) ** 2 / 5) ** -3.0 / sd
    changed = np.where(ratio < 1, 1.0, 0.3 / np.maximum(ratio, 1.0) ** 2)
    fallen = 1 / (1 + np.exp(np.clip(1.7 * (ratio - 1.0) / sd, -50, 50)))
    return np.asarray(np.log(((1 - change) * fallen + change * changed) / ((1 - change) * same + change * changed)))


def conserved(scene: Scene, weight: Floats, level: Floats, power_wh: float) -> Floats:
    """Log ratio [N] that each flat fell by `power_wh` a row in the weighted rows, against not at all.

    `level` [N] is by how much the flat's other hours have moved.
    """
    rows = weight.sum()
    if not rows:
        return np.zeros(scene.sub_wh.shape[1])
    _, sd = level_ratio(scene, weight)
    expected = level * ((weight @ scene.expected_wh) / rows) + 1e-9
    spread = sd * expected + 1.5 * scene.hours
    fall = expected - (weight @ scene.sub_wh) / rows
    return np.asarray(3.0 * (np.log1p((fall / spread) ** 2 / 5) - np.log1p(((fall - power_wh) / spread) ** 2 / 5)))


# -- under-registration ------------------------------------------------------------------------------------------


def proportional(scene: Scene, out: Explanations, log_prior: float) -> None:
    """The meter shows a share s of its load: the residual is (1/s - 1) times its rows."""
    ratio, sd = level_ratio(scene)
    own = log_fallen(scene, ratio, sd)
    for i in np.flatnonzero(scene.sub_wh.sum(0) > 0):
        design = np.ascontiguousarray(scene.sub_wh[:, i])
        step = float(scene.resolution_wh[i] ** 2 / 12)
        if scene.usage.rows:
            r = max(float(ratio[i]), 0.03)
            guesses = [(max(1 / r - 1, 0.0), float(sd[i]) / r + 0.05, float(own[i]))]
        else:
            guesses = [(theta, spread, -log(3)) for theta, spread in ((0.4, 0.4), (1.5, 1.5), (5.0, 4.0))]
        for theta, spread, ratio_own in guesses:
            out.add(
                int(i), "under-registration", log_prior + ratio_own, design=design, theta=theta, theta_sd=spread,
                design_variance=step,
            )  # fmt: skip


# -- artificial rows: nothing, one value, a recording -----------------------------------------------------------


def log_artificial(hits: Floats, rows: Floats, normal: Floats) -> Floats:
    """Log ratio of `hits` among `rows`: artificial rows hit but for the spoilt, normal ones at the rate `normal`."""
    normal = np.clip(normal, 0.002, 1 - SPOILT_ROWS)
    ratio = hits * np.log((1 - SPOILT_ROWS) / normal) + (rows - hits) * np.log(SPOILT_ROWS / (1 - normal))
    return np.asarray(CORRELATED_ROWS * ratio)


def capped(ratio: Floats, rare: Floats | float) -> Floats:
    """A log ratio when normal life may look just so, by itself, with probability `rare`."""
    return np.asarray(-np.logaddexp(-ratio, np.log(rare)))


def replaced(scene: Scene, out: Explanations, log_prior: float) -> None:
    """The meter shows nothing, one value, or an old recording: residual + shown is the flat's load."""
    flat, low = flatness(scene)
    repeat, sd, shape = repetition(scene), scene.usage.level_sd(scene.days), scene.shape
    # Any other rows that have nothing to do with the load: no signature but the level's.
    unlike = log_fallen(scene, *level_ratio(scene)) + log(0.1)
    missing = missing_wh(scene)
    for i in range(scene.sub_wh.shape[1]):
        signatures = ((flat[i], "bypass" if low[i] else "constant"), (repeat[i], "recording"), (unlike[i], "unrelated"))
        for own, name in signatures[: 3 if scene.usage.rows else 2]:
            if own < -3.0:
                continue
            prior = log_prior - log(2) + float(own)
            shown = -np.ascontiguousarray(scene.sub_wh[:, i])
            if scene.usage.rows:
                spread = mellow(scene.usage.spread_wh[:, i])[scene.slot]
                load = np.ascontiguousarray(scene.expected_wh[:, i])
                out.hidden(i, name, prior + log(1 - UNLIKE_HISTORY), mean=shown, load=load, spread=spread,
                           theta_sd=float(sd[i]))  # fmt: skip
                prior += log(UNLIKE_HISTORY)
            load = max(missing - float(shown.mean()), 10.0 * scene.hours) * shape
            out.hidden(i, name, prior + log(ANY_LEVEL), mean=shown, load=load, spread=0.8 * load, theta_sd=0.5)


def mellow(spread: Floats) -> Floats:
    """Spread by slot, drawn towards the day's: a quiet hour of the past is no promise."""
    return np.asarray(1.1 * np.sqrt(0.7 * spread**2 + 0.3 * np.mean(spread**2)))


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


# -- a ceiling ---------------------------------------------------------------------------------------------------


def clipped(scene: Scene, out: Explanations, log_prior: float) -> None:
    """The meter shows no more than a ceiling: the residual is what exceeded it, and only there."""
    if not scene.usage.rows:
        return
    ratio, ceiling, at = ceilings(scene)
    for i in np.flatnonzero((ratio > -3.0) & (ceiling > 1.5 * scene.resolution_wh)):
        excess = np.maximum(np.nan_to_num(scene.past_wh[:, i]) - ceiling[i], 0.0)
        if not excess.any():
            continue
        mean, spread = excess_by_slot(excess, scene.past_slot, scene.slots)
        # Where the row is spread over a gap, nobody saw whether it was at the ceiling.
        share = np.where(scene.estimated[:, i], at[:, i].mean(), at[:, i])
        out.hidden(
            int(i), "ceiling", log_prior + float(ratio[i]), load=share * mean[scene.slot],
            spread=np.hypot(share * spread[scene.slot], 0.05 * mean.mean()), theta_sd=0.4,
        )  # fmt: skip


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


def excess_by_slot(excess: Floats, slot: Ints, slots: int) -> tuple[Floats, Floats]:
    """Mean and sd [slots] of what exceeds a ceiling where it is exceeded, shrunk to the day's."""
    above = excess > 0
    total, square = np.bincount(slot, excess, slots), np.bincount(slot, excess**2, slots)
    seen = np.bincount(slot, above.astype(float), slots)
    mean, power = float(excess[above].mean()), float((excess[above] ** 2).mean())
    by_slot = (total + 5 * mean) / (seen + 5)
    spread = np.sqrt(np.maximum((square + 5 * power) / (seen + 5) - by_slot**2, (0.1 * mean) ** 2))
    return by_slot, spread


# -- set hours ---------------------------------------------------------------------------------------------------


def windowed(scene: Scene, out: Explanations, log_prior: float, tried: list[tuple[int, int, float]]) -> None:
    """Within set hours the flat, or one circuit of it, passes the meter by: it falls to zero, or by a fixed power.

    `tried`: start hour, length in hours and the missing energy of a row, of the windows that fit the residual best.
    """
    if not scene.usage.rows:
        return
    broad, share = broad_wh(scene), log_prior - log(2 * WINDOWS)
    running = scene.sub_wh > 1.5 * scene.resolution_wh
    for start, length, power in tried:
        weight = scene.inside(start, length)
        if not weight.any():
            continue
        level = moved(scene, 1.0 - weight)
        zero, fall = zeroed(scene, start, length), circuit(scene, start, length, level, power)
        sd = scene.usage.level_sd(scene.days)
        for i in np.flatnonzero(zero > -2.0):
            out.hidden(
                int(i), "zeroed hours", share + float(zero[i]), mean=-weight * scene.sub_wh[:, i],
                load=level[i] * weight * scene.expected_wh[:, i],
                spread=weight * mellow(scene.usage.spread_wh[:, i])[scene.slot], theta_sd=float(sd[i]),
            )  # fmt: skip
        for i in np.flatnonzero(fall > -4.0):
            on = weight * running[:, i]
            off = weight - on  # less than the circuit's power is used, and all of it is missing
            out.add(
                int(i), "bypassed circuit", share + float(fall[i]), design=on + 0.6 * off,
                scale=0.3 * off * max(power, 0.0), theta=0.0, theta_sd=broad * 24 / length,
            )  # fmt: skip


def moved(scene: Scene, weight: Floats) -> Floats:
    """How far each flat's level has moved [N] in the weighted rows, drawn to 1 where they are few."""
    if weight.sum() < scene.slots:
        return np.ones(scene.sub_wh.shape[1])
    ratio, _ = level_ratio(scene, weight)
    return np.asarray(np.clip(ratio, 0.1, 10.0) ** 0.8)


def zeroed(scene: Scene, start: int, length: int) -> Floats:
    """Log ratio [N] that a flat shows nothing in a window."""
    live = ~scene.estimated & (scene.inside(start, length) > 0)[:, None]
    zero = live & (scene.sub_wh <= 0.5 * scene.resolution_wh)
    past = scene.past_wh[within(scene.past_slot, scene.slots, start, length)]
    normal = (past <= 0.5 * scene.resolution_wh).mean(0)
    return capped(log_artificial(zero.sum(0).astype(float), live.sum(0).astype(float), normal + 0.02), 1e-6)


def circuit(scene: Scene, start: int, length: int, level: Floats, power_wh: float) -> Floats:
    """Log ratio [N] that a flat fell by `power_wh` a row in every part of a window.

    The parts share a household's wandering level, so that their terms count for half.
    """
    parts = max(1, round(length / 4))
    terms = [
        conserved(scene, scene.inside(start + k * length / parts, length / parts), level, power_wh)
        for k in range(parts)
    ]
    return np.asarray(0.5 * np.sum(terms, axis=0) - 0.5)
