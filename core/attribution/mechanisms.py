"""How energy can go missing, each way as what it predicts of the balance and of the flat's own rows.

Every function here adds explanations to a list. Its log prior holds, beside the mechanism's own, the log ratio of the
*flat's* rows under tampering of that kind against normal life; what the residual says is left to the kernel.
"""

from __future__ import annotations

from math import log

import numpy as np

from core.arrays import Floats, Ints
from core.attribution.hypotheses import NOBODY, Explanations
from core.attribution.scene import Scene, within
from core.attribution.signatures import Signatures, circuit, moved, zeroed

WINDOW_HOURS = (4, 6, 8, 12, 16)
WINDOWS = 24 * len(WINDOW_HOURS)
ANY_LEVEL = 0.2  # what it costs to take the level of an unknown household from the rows themselves
LEAST = -4.0  # nat: what a flat's own rows speak against so strongly is not tried
UNLIKE_HISTORY = 0.2  # share of hidden loads that are not as the metered load was


# -- nobody ------------------------------------------------------------------------------------------------------


def taps(scene: Scene, surplus: bool = False) -> Explanations:
    """Ahead of all meters: a steady load, one switched at set hours, or a household of its own.

    A surplus has their likes with the sign turned round: a slow main meter, generation that nobody reads. The first is
    the steady one, the next WINDOWS those of set hours (start by start within each length).
    """
    out, sign = Explanations(len(scene.day)), -1.0 if surplus else 1.0
    broad = broad_wh(scene)
    out.add(NOBODY, "steady", log(0.45), design=sign * np.ones(out.rows), theta=0.0, theta_sd=broad)
    for start, length in windows():
        design = sign * scene.inside(start, length)
        out.add(NOBODY, "switched", log(0.45 / WINDOWS), design=design, theta=0.0, theta_sd=broad * 24 / length)
    load = max(sign * missing_wh(scene), 10.0 * scene.hours) * scene.shape
    out.hidden(
        NOBODY, "unmetered household", log(0.1 * ANY_LEVEL), load=sign * load, spread=0.8 * load, theta_sd=0.5
    )  # fmt: skip
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


# -- under-registration ------------------------------------------------------------------------------------------


def fast(scene: Scene, out: Explanations, log_prior: float) -> None:
    """The meter shows more than its load, by up to a half: a surplus of a share of its rows."""
    for i in np.flatnonzero(scene.sub_wh.sum(0) > 0):
        design = -np.ascontiguousarray(scene.sub_wh[:, i])
        out.add(int(i), "over-registration", log_prior, design=design, theta=0.0, theta_sd=0.25)


def proportional(scene: Scene, own: Signatures, out: Explanations, log_prior: float) -> None:
    """The meter shows a share s of its load: the residual is (1/s - 1) times its rows."""
    for i in np.flatnonzero(scene.sub_wh.sum(0) > 0):
        design = np.ascontiguousarray(scene.sub_wh[:, i])
        step = float(scene.resolution_wh[i] ** 2 / 12)
        if scene.usage.rows:
            r = max(float(own.ratio[i]), 0.03)
            guesses = [(max(1 / r - 1, 0.0), float(own.ratio_sd[i]) / r + 0.05, float(own.fallen[i]))]
        else:
            guesses = [(theta, spread, -log(3)) for theta, spread in ((0.4, 0.4), (1.5, 1.5), (5.0, 4.0))]
        for theta, spread, evidence in guesses:
            out.add(
                int(i), "under-registration", log_prior + evidence, design=design, theta=theta, theta_sd=spread,
                design_variance=step,
            )  # fmt: skip


# -- rows that have nothing to do with the load -------------------------------------------------------------------


def replaced(scene: Scene, own: Signatures, out: Explanations, log_prior: float) -> None:
    """The meter shows nothing, one value, or an old recording: residual + shown is the flat's load."""
    sd, shape, missing = scene.usage.level_sd(scene.days), scene.shape, missing_wh(scene)
    # Any other rows: no signature but the level's, for which something must be known from before.
    unrelated = own.fallen + log(0.1) if scene.usage.rows else np.full(len(sd), -np.inf)
    for i in range(len(sd)):
        shown = -np.ascontiguousarray(scene.sub_wh[:, i])
        level = max(missing - float(shown.mean()), 10.0 * scene.hours)
        flat = "bypass" if own.low[i] else "constant"
        for evidence, name in ((own.flat[i], flat), (own.repeat[i], "recording"), (unrelated[i], "unrelated")):
            if evidence < LEAST:
                continue
            prior = log_prior - log(2) + float(evidence)
            if scene.usage.rows:
                spread = mellow(scene.usage.spread_wh[:, i])[scene.slot]
                load = np.ascontiguousarray(scene.expected_wh[:, i])
                out.hidden(
                    i, name, prior + log(1 - UNLIKE_HISTORY), mean=shown, load=load, spread=spread,
                    theta_sd=float(sd[i]),
                )  # fmt: skip
                prior += log(UNLIKE_HISTORY)
            load = level * shape
            out.hidden(i, name, prior + log(ANY_LEVEL), mean=shown, load=load, spread=0.8 * load, theta_sd=0.5)


def mellow(spread: Floats) -> Floats:
    """Spread by slot, drawn towards the day's: a quiet hour of the past is no promise."""
    return np.asarray(1.1 * np.sqrt(0.7 * spread**2 + 0.3 * np.mean(spread**2)))


# -- a ceiling ---------------------------------------------------------------------------------------------------


def clipped(scene: Scene, own: Signatures, out: Explanations, log_prior: float) -> None:
    """The meter shows no more than a ceiling: the residual is what exceeded it, and only there."""
    if not scene.usage.rows:
        return
    for i in np.flatnonzero((own.crowd > LEAST) & (own.ceiling > 1.5 * scene.resolution_wh)):
        excess = np.maximum(scene.past_wh[:, i] - own.ceiling[i], 0.0)
        if not excess.any():
            continue
        mean, spread = excess_by_slot(excess, scene.past_slot, scene.slots)
        # Where the row is spread over a gap, nobody saw whether it was at the ceiling.
        share = np.where(scene.estimated[:, i], own.at[:, i].mean(), own.at[:, i])
        out.hidden(
            int(i), "ceiling", log_prior + float(own.crowd[i]), load=share * mean[scene.slot],
            spread=np.hypot(share * spread[scene.slot], 0.05 * mean.mean()), theta_sd=0.4,
        )  # fmt: skip


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
    broad, share, sd = broad_wh(scene), log_prior - log(2 * WINDOWS), scene.usage.level_sd(scene.days)
    running = scene.sub_wh > 1.5 * scene.resolution_wh
    for start, length, power in tried:
        weight = scene.inside(start, length)
        if not weight.any():
            continue
        level = moved(scene, 1.0 - within(np.arange(scene.slots), scene.slots, start, length))
        zero, fall = zeroed(scene, start, length), circuit(scene, start, length, power)
        for i in np.flatnonzero(zero > LEAST):
            out.hidden(
                int(i), "zeroed hours", share + float(zero[i]), mean=-weight * scene.sub_wh[:, i],
                load=level[i] * weight * scene.expected_wh[:, i],
                spread=weight * mellow(scene.usage.spread_wh[:, i])[scene.slot], theta_sd=float(sd[i]),
            )  # fmt: skip
        for i in np.flatnonzero(fall > LEAST):
            on = weight * running[:, i]
            off = weight - on  # less than the circuit's power is used, and all of it is missing
            out.add(
                int(i), "bypassed circuit", share + float(fall[i]), design=on + 0.6 * off,
                scale=0.3 * off * max(power, 0.0), theta=0.0, theta_sd=broad * 24 / length,
            )  # fmt: skip
