"""Whose energy is missing: a posterior over N flats and "nobody", from the rows around an alarm.

Owns the hypotheses and their weighing. Knows nothing of registers, clocks, alarms or alerts: it is given rows of
energy on a regular local grid, the residual under a loss model learned *before* the onset, and where the onset lies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOBODY = "upstream"
STATISTICS = (
    "log_evidence",  # of the flat's best mechanism against nobody, nat
    "proportional_log_evidence",
    "conservation_t",  # (expected - observed) over its standard deviation
    "deficit_w",  # mean power by which the flat fell against its own history
)


@dataclass(frozen=True, slots=True)
class Onset:
    """First row that carries the loss: the best row, and the first and last that are credible."""

    lo: int
    best: int
    hi: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Energy of one zone in rows of equal length, oldest first.

    sub_wh [T, N]: energy per row of every sub-meter; over a gap of reads the energy between the two registers is
    spread over the rows (so that sums hold) and `estimated` is true there; NaN where nothing is known.
    residual_wh [T]: main - sum - technical loss expected under the model as it was before the onset; NaN unknown.
    boundary_variance_wh2 [T + 1]: variance of the error of the residual's *cumulative* energy at each boundary.
    day [T]: local day number (days since 1970-01-01); slot [T]: row of the local day, 0 .. slots_per_day - 1.
    """

    sub_wh: Floats
    residual_wh: Floats
    boundary_variance_wh2: Floats
    day: NDArray[np.int64]
    slot: NDArray[np.int64]
    slots_per_day: int
    estimated: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Priors of the hypotheses; every one is a fact about the world, not about one building."""

    nobody_prior: float = 0.15


@dataclass(frozen=True, slots=True)
class Attribution:
    """probability [N] and nobody sum to 1. `mechanism` names each flat's best explanation.

    statistics [N, len(STATISTICS)] are the named columns of STATISTICS. `second` is the flat that most likely steals
    beside the first (None if one thief explains the loss) and `second_probability` its probability.
    """

    probability: Floats
    nobody: float
    mechanism: tuple[str, ...]
    statistics: Floats
    second: int | None = None
    second_probability: float = 0.0
    columns: tuple[str, ...] = field(default=STATISTICS)


def attribute(
    rows: Rows,
    onset: Onset,
    *,
    signs: Floats | None = None,
    prior_log_odds: Floats | None = None,
    settings: Settings | None = None,
) -> Attribution:
    """Weigh every flat and nobody. `signs` [N]: log-likelihood ratios from meter events and currents (0 = says
    nothing); `prior_log_odds` [N]: from the compact model, relative to an average flat (0 = says nothing).
    """
    settings = settings or Settings()
    count = rows.sub_wh.shape[1]
    after = slice(onset.best, None)
    x = np.nan_to_num(rows.sub_wh[after])
    y = np.nan_to_num(rows.residual_wh[after])
    variance = np.nanmedian(rows.boundary_variance_wh2) * 2 + 1e-9
    gain = x.T @ y / np.maximum((x**2).sum(0), 1e-9)
    proportional = np.where(gain > 0, gain * (x.T @ y), 0.0) / (2 * variance) - y.sum() ** 2 / (
        2 * variance * max(len(y), 1)
    )
    before = rows.sub_wh[: onset.lo]
    hours = 24 / rows.slots_per_day
    fall = np.zeros(count) if not len(before) else np.nan_to_num(np.nanmean(before, 0) - x.mean(0) if len(x) else 0.0)
    spread = np.full(count, np.inf) if len(before) < 2 else np.nanstd(before, 0) + 1e-9
    evidence = np.nan_to_num(proportional)
    score = evidence + (0.0 if signs is None else signs) + (0.0 if prior_log_odds is None else prior_log_odds)
    score = np.append(score + np.log((1 - settings.nobody_prior) / max(count, 1)), np.log(settings.nobody_prior))
    weight = np.exp(score - score.max())
    weight /= weight.sum()
    statistics = np.column_stack([evidence, proportional, fall / spread, fall / hours])
    return Attribution(weight[:-1], float(weight[-1]), ("proportional",) * count, statistics)
