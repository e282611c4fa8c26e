"""BalanceNoise, its fit, and the one call into the kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arrays import Floats
from core.attribution._attribution import log_evidence, log_quiet
from core.attribution.rows import SLOTS_MAX, Rows

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
class BalanceNoise:
    """Errors of the balance: boundary variance [T + 1], and the slow error's sd as a share of `slow` [T]."""

    variance: Floats
    slow: Floats
    slow_share: float
    slow_days: float


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


def measure(rows: Rows, lo: int, variance: Floats, total_wh: Floats) -> BalanceNoise:
    """The noise that fits the rows before `lo` best: a factor on the boundary variance, and the slow share."""
    count = min(lo, NOISE_DAYS * rows.slots_per_day)
    if lo < rows.slots_per_day:
        # Copper grows with the square of the load: the largest part of what an unlearned balance lacks.
        return BalanceNoise(variance, total_wh**2 / max(float(np.mean(total_wh)), 1e-9), SLOW_UNLEARNED, 60.0)
    if count < 4 * rows.slots_per_day:
        return BalanceNoise(variance, total_wh, SLOW_DEFAULT, SLOW_DAYS)
    residual = np.ascontiguousarray(rows.residual_wh[lo - count : lo])
    before = spoilt(residual, rows.boundary_variance_wh2[lo - count : lo + 1])
    load = np.nan_to_num(rows.sub_wh[lo - count : lo]).sum(1)
    table = np.empty((len(NOISE_FACTORS), len(SLOW_SHARES)))
    phi = float(np.exp(-1 / (SLOW_DAYS * rows.slots_per_day)))
    log_quiet(residual, before, load, np.array(NOISE_FACTORS), np.array(SLOW_SHARES), phi, ROBUSTNESS, table)
    i, j = np.unravel_index(int(np.argmax(table)), table.shape)
    return BalanceNoise(NOISE_FACTORS[i] * variance, total_wh, SLOW_SHARES[j], SLOW_DAYS)


def evidence(
    residual_wh: Floats,
    noise: BalanceNoise,
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
