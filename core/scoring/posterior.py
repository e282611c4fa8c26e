"""The one probability that is stated: of each flat, of nobody, and of none of these, by the compact model.

Owns the rows that the model is given and the softmax over its answers. Refuses to know how the evidence came about and
what is done with the probability. Where there is no model, nothing is stated.

The model sees one row a flat, one for "nobody" (a load ahead of all meters) and one for "none of these" (no explanation
known here: a clock, a roof, a main meter), and gives each one logit. A row holds what speaks for the flat, by how far
that beats the best of the other flats, what earlier revisions of the same loss said, and the zone's circumstances. It
was trained on families of thefts, its temperature on families that it had not seen (Guo et al. 2017, temperature
scaling).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from core.arrays import Floats
from core.attribution.attribute import STATISTICS
from core.attribution.flat_evidence import FLAT, ZONE, FlatEvidence

OWN = (
    *FLAT,
    *(name for name in STATISTICS if name not in ("deficit_w", "level_ratio")),  # asinh of each
    "likelihoods",  # log-odds of attribution's posterior
    "signs",  # log-likelihood ratio of the meter's own signs
)
LEAD = (
    "restored_quantiles", "restored_quantiles_all", "distance_restored", "restored_profile", "restored_blocks",
    "restored_days", "restored_level", "vanished_peaks", "day_gain", "days_won", "week_won", "day_likeness",
    "day_contrast", "fit_shown", "fit_fall", "fit_both", "likeness_shown", "likeness_fall", "likeness_fall_within",
    "profile_likeness", "fall_t", "likelihoods", "log_evidence", "under_registration", "bypass",
)  # fmt: skip
FALLING = {  # of these the least is the most suspect
    "restored_quantiles", "restored_quantiles_all", "distance_restored", "restored_profile", "restored_blocks",
    "restored_days", "restored_level", "vanished_peaks", "day_gain", "fit_shown", "fit_fall", "fit_both",
}  # fmt: skip
KEPT = ("restored_quantiles", "restored_days", "day_gain", "fit_shown", "fit_fall", "likeness_fall", "likelihoods")
REVISIONS = 6  # of one loss that are remembered
CIRCUMSTANCES = (
    *ZONE,
    "tap_steady",  # asinh of log weights over the best explanation's
    "tap_switched",
    "tap_household",
    "best_flat",
    "nobody_likelihoods",
    "surplus",
)
KIND = ("flat", "nobody", "none")
FEATURES = (
    *OWN, *(f"{name}_lead" for name in LEAD), *(f"{name}_mean" for name in KEPT), *(f"{name}_most" for name in KEPT),
    *CIRCUMSTANCES, *(f"{name}_best" for name in LEAD), *(f"{name}_gap" for name in LEAD),
    *(f"is_{name}" for name in KIND),
)  # fmt: skip
_OF_FLAT = len(OWN) + len(LEAD) + 2 * len(KEPT)


class Scorer(Protocol):
    """What scores rows: `core.scoring.model.CompactModel`, or a fake of it."""

    features: tuple[str, ...]

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logistic of each row's logit [n]."""


@dataclass(frozen=True, slots=True)
class Findings:
    """One revision's evidence: of the rows, of attribution's likelihoods, and of the meters' signs [N].

    statistics [N, len(STATISTICS)]; probability [N] and nobody: the likelihoods' own posterior; taps: log weights of a
    steady load, of switched ones, of an unmetered household, and of the best flat's explanation.
    """

    evidence: FlatEvidence
    statistics: Floats
    probability: Floats
    nobody: float
    taps: tuple[float, float, float, float]
    signs: Floats
    surplus: bool


@dataclass(frozen=True, slots=True)
class Stated:
    """probability [N], nobody and none sum to 1."""

    probability: Floats
    nobody: float
    none: float


@dataclass(slots=True)
class Memory:
    """What the last revisions of one loss said of each flat: bounded, and forgotten with the loss."""

    kept: deque[Floats] = field(default_factory=lambda: deque(maxlen=REVISIONS))

    @classmethod
    def of(cls, kept: Iterable[Floats]) -> Self:
        """The memory whose `kept` was stored."""
        return cls(deque(kept, maxlen=REVISIONS))


def rows_of(found: Findings, memory: Memory) -> Floats:
    """The model's rows [N + 2, len(FEATURES)]: flats, nobody, none. The revision is added to `memory`."""
    count = len(found.probability)
    columns = dict(zip(FLAT, found.evidence.flat.T, strict=True))
    columns |= {name: np.arcsinh(values) for name, values in zip(STATISTICS, found.statistics.T, strict=True)}
    columns["likelihoods"] = _log_odds(found.probability)
    columns["signs"] = np.clip(found.signs, -5, 5)
    suspect = np.column_stack([-columns[name] if name in FALLING else columns[name] for name in LEAD])
    others, best, second = _others(suspect)
    memory.kept.append(np.column_stack([-columns[n] if n in FALLING else columns[n] for n in KEPT]))
    past = np.stack(list(memory.kept))
    whole = [
        *found.evidence.zone, *_taps(found.taps), float(_log_odds(np.array([found.nobody]))[0]), float(found.surplus),
        *best, *(best - second),
    ]  # fmt: skip
    out = np.zeros((count + 2, len(FEATURES)))
    out[:count, :_OF_FLAT] = np.column_stack(
        [np.column_stack([columns[name] for name in OWN]), suspect - others, past.mean(0), past.max(0)]
    )
    out[:, _OF_FLAT : -len(KIND)] = whole
    out[:count, -3] = out[count, -2] = out[count + 1, -1] = 1.0
    return out


def state(model: Scorer, rows: Floats) -> Stated:
    """The probabilities that the model states of `rows_of`'s rows; all none where a score is missing."""
    order = [FEATURES.index(name) for name in model.features]
    score = model.score(rows[:, order].astype(np.float32)).astype(np.float64)
    if not np.isfinite(score).all():
        return Stated(np.zeros(len(rows) - 2), 0.0, 1.0)
    odds = np.clip(score, 1e-37, 1 - 1e-7)
    odds /= 1 - odds
    share = odds / odds.sum()
    return Stated(share[:-2], float(share[-2]), float(share[-1]))


def _taps(weights: Sequence[float]) -> list[float]:
    best = max(weights)
    return [float(np.arcsinh(np.clip(weight - best, -1e4, 0.0))) for weight in weights]


def _others(suspect: Floats) -> tuple[Floats, Floats, Floats]:
    """For each flat and figure the greatest among the others [N, K]; the greatest [K] and the second [K] of all."""
    if len(suspect) < 2:
        return suspect.copy(), suspect[0], suspect[0]
    order = np.argsort(suspect, axis=0)
    column = np.arange(suspect.shape[1])
    best, second = suspect[order[-1], column], suspect[order[-2], column]
    others = np.tile(best, (len(suspect), 1))
    others[order[-1], column] = second
    return others, best, second


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))
