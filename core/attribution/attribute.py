"""Whose energy is missing: a posterior over N flats and "nobody", from the rows around an alarm.

Owns the hypotheses' priors and their weighing. Every flat is as guilty as its mechanisms together make it, against a
loss ahead of all meters; see mechanisms.py for what each says of the rows, and docs/attribution.md for what the
probabilities mean. Knows nothing of registers, clocks, alarms or alerts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np

from core.arrays import Floats
from core.attribution import mechanisms
from core.attribution.earlier_onset import earlier
from core.attribution.flat_evidence import FlatEvidence, gather
from core.attribution.hypotheses import Explanations, temper, weigh
from core.attribution.rows import Onset, Rows
from core.attribution.scene import Scene, coarse, head, later, log_nothing, stage
from core.attribution.second_loss import Weighed, beside
from core.attribution.signatures import Signatures, conserved, read

__all__ = ["STATISTICS", "Attribution", "Onset", "Priors", "Rows", "attribute"]

STATISTICS = (
    "log_evidence",  # of the flat's mechanisms together against nobody, nat; so are the next nine, by mechanism
    "under_registration",
    "bypass",
    "constant",
    "recording",
    "unrelated",
    "ceiling",
    "zeroed_hours",
    "bypassed_circuit",
    "over_registration",
    "conservation_t",  # (expected - shown) energy over its standard deviation in normal life
    "conservation_match",  # log ratio that the flat fell by just what is missing, against not at all
    "deficit_w",  # mean power by which the flat fell against its own past
    "level_ratio",  # shown over expected
    "flat_signature",  # log ratios of the flat's own rows: one value, a recording, a ceiling, against normal life
    "repeat_signature",
    "ceiling_signature",
)
NAMES = (
    "under-registration",
    "bypass",
    "constant",
    "recording",
    "unrelated",
    "ceiling",
    "zeroed hours",
    "bypassed circuit",
    "over-registration",
)
FLOOR = -50.0  # nat: what was not even tried
WINDOWS_TRIED = 8
LAPSE_DAYS = 3.0
AFTER_DAYS = 45  # rows later than this after the onset add cost, not knowledge


@dataclass(frozen=True, slots=True)
class Priors:
    """Priors of the hypotheses: facts about the world, not about one building."""

    nobody_prior: float = 0.15
    second_prior: float = 0.03
    lapse: float = 0.005  # probability that something is at work which no hypothesis here describes
    lapse_at_once: float = 0.08  # the same on the first day, when an oven looks like a ceiling; it fades


@dataclass(frozen=True, slots=True)
class Attribution:
    """probability [N] and nobody sum to 1. `mechanism` [N] names each flat's best explanation.

    statistics [N, len(STATISTICS)]: the named columns, for the compact model and for inspectors. Who else may steal is
    not said here: a second loss is told as a loss of its own (core.monitor).
    `evidence` (None: no row is known) and `taps`, the log weights of a steady load, of switched ones, of an unmetered
    household and of the best flat, are for the model that states the probability.
    """

    probability: Floats
    nobody: float
    mechanism: tuple[str, ...]
    statistics: Floats
    evidence: FlatEvidence | None = None
    taps: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


def attribute(
    rows: Rows,
    onset: Onset,
    *,
    signs: Floats | None = None,
    prior_log_odds: Floats | None = None,
    priors: Priors | None = None,
    surplus: bool = False,
) -> Attribution:
    """Weigh every flat and nobody.

    With `surplus` more energy is shown than went in. A meter that shows a recording or one value does that too, on some
    days, so the same explanations are weighed, against a fast meter and against nobody's with the sign turned round.

    `signs` [N]: log-likelihood ratios from meter events and currents (0 says nothing). `prior_log_odds` [N]: from the
    compact model, against an average flat (0 says nothing).
    """
    priors = priors or Priors()
    rows, onset = coarse(rows, onset)
    rows = head(rows, onset.hi + AFTER_DAYS * rows.slots_per_day)
    count = rows.sub_wh.shape[1]
    if np.isnan(rows.residual_wh[onset.best :]).all():
        prior = np.full(count, (1 - priors.nobody_prior) / max(count, 1))
        return Attribution(prior, priors.nobody_prior, ("",) * count, np.zeros((count, len(STATISTICS))))
    case = choose(rows, onset, surplus)
    scene = case.scene
    nobody = log_sum(case.taps.weight)
    total, table = by_flat(case.flats, count, nobody)
    outside = np.zeros(count) + (0.0 if signs is None else signs) + (0.0 if prior_log_odds is None else prior_log_odds)
    first = int(np.argmax(total))
    days = (len(rows.residual_wh) - onset.best) / rows.slots_per_day
    lapse = max(priors.lapse, priors.lapse_at_once * exp(-days / LAPSE_DAYS))
    if case.unmetered > 0.5:
        # A household that nobody meters is the explanation of last resort: two thieves are weighed against it.
        total[first] = np.logaddexp(total[first], beside(scene, case.flats, first, priors.second_prior) - nobody)
    posterior = normalise(total + outside, priors.nobody_prior, lapse)
    best = tuple(NAMES[int(k)] for k in np.argmax(table, axis=1))
    statistics = np.column_stack([total, table, *own_statistics(scene, case.own)])
    return Attribution(
        posterior[:-1], float(posterior[-1]), best, statistics, gather(scene, surplus), case.by_kind_of_tap(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One onset's scene with everything weighed: nobody's explanations, and the flats'."""

    scene: Scene
    own: Signatures
    taps: Weighed
    flats: Weighed

    @property
    def unmetered(self) -> float:
        """What share of nobody's weight an unmetered household has."""
        return float(np.exp(log_sum(self.taps.weight[1 + mechanisms.WINDOWS :]) - log_sum(self.taps.weight)))

    def by_kind_of_tap(self) -> tuple[float, float, float, float]:
        """Log weights of a steady load, of switched ones, of an unmetered household, and of the best flat."""
        weight, switched = self.taps.weight, 1 + mechanisms.WINDOWS
        flat = float(self.flats.weight.max()) if len(self.flats.weight) else -np.inf
        return float(weight[0]), log_sum(weight[1:switched]), log_sum(weight[switched:]), flat

    @property
    def weight(self) -> float:
        """Log weight of the best that can be said of this onset."""
        return float(np.concatenate([self.taps.weight, self.flats.weight]).max())


def choose(rows: Rows, onset: Onset, surplus: bool) -> Case:
    """The case of the given onset, or of an earlier one if the rows between speak for it."""
    scene = stage(rows, onset)
    before = earlier(rows, onset)
    if before is None:
        return explain(scene, scene.days, surplus)
    older = stage(rows, before)
    scene = later(older, scene)
    old, new = explain(older, older.days, surplus), explain(scene, older.days, surplus)
    quiet = temper(older.days) * log_nothing(older, scene)
    return old if old.weight > new.weight + quiet else new


def explain(scene: Scene, days: float, surplus: bool) -> Case:
    """Weigh every explanation of a scene."""
    taps = mechanisms.taps(scene, surplus)
    weight, theta = weigh(taps, scene.residual_wh, scene.noise, scene.slots, days)
    flats, own = Explanations(len(scene.day)), read(scene)
    mechanisms.replaced(scene, own, flats, log(0.3))
    if surplus:
        mechanisms.fast(scene, flats, log(0.3))
    else:
        order = 1 + np.argsort(-weight[1 : 1 + mechanisms.WINDOWS])[:WINDOWS_TRIED]
        hours = mechanisms.windows()
        tried = [(*hours[k - 1], float(theta[k])) for k in order] + [(0, 24, float(theta[0]))]
        mechanisms.proportional(scene, own, flats, log(0.35))
        mechanisms.windowed(scene, flats, log(0.2), tried)
        mechanisms.clipped(scene, own, flats, log(0.15))
    weighed = Weighed(flats, *weigh(flats, scene.residual_wh, scene.noise, scene.slots, days))
    return Case(scene, own, Weighed(taps, weight, theta), weighed)


def by_flat(flats: Weighed, count: int, nobody: float) -> tuple[Floats, Floats]:
    """Log evidence against nobody of each flat [N], and of each flat and mechanism [N, len(NAMES)]."""
    column = np.array([NAMES.index(name) for name in flats.what.name], dtype=np.intp)
    table = np.full((count, len(NAMES)), -np.inf)
    np.logaddexp.at(table, (np.array(flats.what.flat, dtype=np.intp), column), flats.weight - nobody)
    table = np.maximum(table, FLOOR)
    return np.asarray(np.logaddexp.reduce(table, axis=1)), table


def normalise(total: Floats, nobody_prior: float, lapse: float) -> Floats:
    """Posterior [N + 1] over the flats and nobody from the flats' log evidence against nobody."""
    count = len(total)
    prior = np.append(np.full(count, (1 - nobody_prior) / max(count, 1)), nobody_prior)
    score = np.append(total, 0.0) + np.log(prior)
    weight = np.exp(score - score.max())
    return np.asarray((1 - lapse) * weight / weight.sum() + lapse * prior)


def own_statistics(scene: Scene, own: Signatures) -> list[Floats]:
    """What the flats' own rows say, one column [N] each."""
    ones = np.ones(scene.sub_wh.shape[1])
    match = conserved(scene, np.ones(scene.slots), ones, mechanisms.missing_wh(scene))
    deficit_w = (scene.expected_wh - scene.sub_wh).mean(0) / scene.hours
    signatures = [np.maximum(ratio, FLOOR) for ratio in (own.flat, own.repeat, own.crowd)]
    return [(1 - own.ratio) / own.ratio_sd, match, deficit_w, own.ratio, *signatures]


def log_sum(values: Floats) -> float:
    """log(sum(exp(values)))."""
    return float(np.logaddexp.reduce(values))
