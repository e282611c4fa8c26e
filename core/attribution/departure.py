"""When a flat fell, and to what: in the row in which energy begins to be missing or in another, and to which life.

Owns what tells a bypass from a household that moves out in the week of somebody else's tap. A bypass takes effect in
one row, in the flat and in the balance at once, and leaves nothing or the same life on a smaller scale. Who moves out
does so at an hour of his own, and leaves what runs by itself: a fridge, a router, standby. Refuses to know residuals'
causes and priors.
"""

from __future__ import annotations

import numpy as np

from core.arrays import Floats
from core.attribution.scene import Scene

DEPARTURE = (
    "fallen",  # asinh of how plainly the flat's rows changed level about the onset
    "apart",  # asinh of what it costs that this change and the loss began in one and the same row
    "calm",  # log of the rows' relative scatter over the past's: an empty flat has no evenings
    "to_base",  # log of what it shows over what it used in its quietest hours
)
LEAST_W = 15.0  # a few lamps: below it a ratio of powers says little
ABOUT_DAYS = 4.0  # about the onset
CORRELATED_H = 2.0  # rows of a household within these hours count as one
QUIET = 0.2  # quantile of the past that is taken for what runs by itself


def departure(scene: Scene, sign: float) -> dict[str, Floats]:
    """The figures of DEPARTURE [N] each. `sign` -1: a surplus, and what changes is a rise."""
    return {**_times(scene, sign), **_manner(scene)}


def _times(scene: Scene, sign: float) -> dict[str, Floats]:
    total, count = len(scene.record_wh), scene.sub_wh.shape[1]
    start, about = total - len(scene.sub_wh), round(ABOUT_DAYS * scene.slots)
    lo, hi = max(0, start - about), min(total, start + about)
    if not scene.usage.rows or start - lo < scene.slots // 2:
        return {"fallen": np.zeros(count), "apart": np.zeros(count)}
    at = np.arange(lo, hi) - start + int(scene.slot[0])
    slot, day = at % scene.slots, int(scene.day[0]) + at // scene.slots
    after = slice(start - lo, None)
    hours = scene.hours
    expected = scene.usage.expected_wh(day, slot)
    shown = scene.record_wh[lo:hi]
    shown = np.where(np.isnan(shown), expected, shown)
    level = np.log(np.maximum(shown, 0.0) / hours + LEAST_W) - np.log(np.maximum(expected, 0.0) / hours + LEAST_W)
    missing = sign * np.nan_to_num(scene.record_residual_wh[lo:hi])[:, None] / hours
    mean = missing[after].mean()
    # Half of the loss is taken to be steady: few rows tell little of its hours.
    by_slot = np.bincount(slot[after], missing[after, 0], scene.slots)
    seen = np.bincount(slot[after], minlength=scene.slots)
    profile = ((by_slot + mean) / (seen + 1.0))[slot][:, None]
    rows = max(1.0, CORRELATED_H / hours)
    of_loss = _cost(missing, profile, (LEAST_W / 3) ** 2) / rows
    of_flat = _cost(level, level[after].mean(0), 0.01) / rows
    together = (of_loss + of_flat).min(0) - of_loss.min(0) - of_flat.min(0)
    return {"fallen": np.arcsinh(of_flat[-1] - of_flat.min(0)), "apart": np.arcsinh(together)}


def _cost(rows: Floats, then: Floats, floor: float) -> Floats:
    """Error [T + 1, N] of rows [T, N] that are 0 before and `then` from row k on, in units of the best one's mean."""
    early, late = rows**2, (rows - then) ** 2
    zero = np.zeros((1, rows.shape[1]))
    cost = np.concatenate([zero, np.cumsum(early, axis=0)])
    cost += np.concatenate([np.cumsum(late[::-1], axis=0)[::-1], zero])
    return np.asarray(cost / (cost.min(0) / len(rows) + floor))


def _manner(scene: Scene) -> dict[str, Floats]:
    past = scene.past_wh if len(scene.past_wh) >= scene.slots else scene.expected_wh
    least = LEAST_W / 3 * scene.hours + scene.resolution_wh
    shown = scene.sub_wh[len(scene.sub_wh) // 2 :]  # who moves out after the loss began has lived here at first
    base = np.maximum(np.quantile(past, QUIET, axis=0), 0.0)
    ratio = [(rows.std(0) + 0.2 * least) / (np.maximum(rows.mean(0), 0.0) + least) for rows in (shown, past)]
    return {
        "calm": np.clip(np.log(ratio[0] / ratio[1]), -4, 4),
        "to_base": np.clip(np.log((np.maximum(shown.mean(0), 0.0) + least) / (base + least)), -4, 4),
    }
