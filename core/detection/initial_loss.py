"""What was lost before we came: nothing changes then, so only class, copper and custom can give it away.

It owns the question whether an honest building explains its first weeks. It refuses to know alarms and time.

All rows so far are fitted with a free unmetered load, and all but single late reads count. Three things give a loss
away: the gain of a meter far beyond its class; an unmetered load that no house has; a residual that is restless, far
beyond what meters and copper do: somebody's life (a bypass). A slow meter explains the restlessness; what a bypass
leaves unexplained is taken as noise, so that copper and gains do not learn it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from core.arrays import HOUR_S, Floats
from core.balance.losses import BURDEN_W, COMMON, HOURS, OWN_SD, LossModel
from core.balance.rows import ZoneRows
from core.detection.bins import BLOCK_H

GAIN_Z = 8.0  # standard deviations of the class
GAIN_LEAST = 0.1  # of what it shows; less is a meter out of its class, to be seen at its next check
LOSS_LEAST = 1.2e-3  # of the load
COPPER_Z = 3.0  # standard deviations of what the flat's own power may lose in the riser
GAIN_FREE = 5.0
LEFT = 0.5  # a slow meter leaves no more than this share of what was restless; of a bypass it leaves nine tenths
CLIP = 6.0  # a late read of the main meter, in standard deviations; what a life does is less at a time
Z2_MOST = 16.0  # a row counts for no more
RESTLESS = 2.0  # mean z^2 of rows; honest buildings stay below 1.6, most bypasses of one per cent are beyond 3
UNMETERED_FREE = 10.0  # times the prior's width
COMMON_DAY_W, COMMON_MEAN_W = 5.0, 9.0  # unmetered load per sub-meter that a house may have: by day, over 24 h
LIT_FROM_H, LIT_UNTIL_H = 18, 8  # local hours: stairs are lit between them in any season
LEVEL_Z = 3.0
LIFE_LEAST = 2e-3  # of the load: a restless residual without unmetered energy is a gap that was badly bridged
RESTLESS_SHARE = 2.5e-3  # of the load, by the quarter of the day; honest buildings stay below 7e-4
RESTLESS_LEAST = 4e-3  # of the load, unmetered, with it
# Unmetered common load of a house, W per sub-meter: lit stairs with a lift take 35-105 kWh a flat and year (4-12 W).
COMMON_MEDIAN_W, COMMON_SPREAD = 4.0, 0.8
THEFT_PRIOR, THEFT_MOST_W = 0.03, 50.0  # that a house has a theft from the start, and how much it may be, per sub-meter
LIFE_RATIO = 10.0  # how much likelier a theft has a household's restless life in it than a lift has
COMMON_ASKED = 0.1  # the house is asked for its common load from this probability on


@dataclass(frozen=True, slots=True)
class InitialLoss:
    """A loss that was there before the first row.

    fit: the loss model after all rows; reference [1 + P]: its coefficients as they would be without the loss. power_w:
    of the loss in the mean. suspect: the sub-meter that is far beyond its class, if one is. question: a common load
    that nobody meters could explain it, with probability `common`.
    """

    fit: LossModel
    reference: Floats
    power_w: float
    suspect: int | None = None
    question: bool = False
    common: float = 0.0


def initial_loss(
    rows: ZoneRows, fresh: Callable[[], LossModel], rough_w2h: float, offset_s: float
) -> InitialLoss | None:
    """The loss that no honest building explains; None where nothing is lost.

    `fresh` makes a loss model that has learned nothing; `rough_w2h`: how restless the residual is (noise.Noise);
    `offset_s`: local standard time minus UTC, by which the day's hours are told from the night's.
    """
    fit, scatter, restless = _fit(rows, fresh())
    sd = fit.sd[COMMON:]
    told = sd**2 - fit.p.diagonal()[1 + COMMON :]  # variance that the rows have taken off the prior
    gains = fit.x[1 + COMMON :] / np.sqrt(np.maximum(told, 1e-3 * sd**2))
    suspect = int(np.argmax(gains))
    if gains[suspect] > GAIN_Z:
        slow, _, left = _fit(rows, fresh(), suspect=suspect)
        gain = float(slow.x[1 + COMMON + suspect])
        worth_w = gain * float(rows.subs_wh[:, suspect].mean()) / slow.hours
        copper_w = OWN_SD * float(slow.own_wh(rows)[:, suspect].mean()) / slow.hours  # it may live far up the riser
        least_w = max(LOSS_LEAST * slow.load_w, COPPER_Z * copper_w)
        if left < LEFT * restless and gain > GAIN_LEAST and worth_w > least_w:
            reference = slow.x.copy()
            # What a house may have in common stays explained: else it would look like a tap beside the slow meter.
            known_w = slow.mean[0] - BURDEN_W
            most = COMMON_DAY_W + known_w if _implausible_unmetered_load(slow, offset_s) else math.inf
            reference[1 : 1 + HOURS] = np.clip(reference[1 : 1 + HOURS], 0.0, most)
            reference[1 + COMMON + suspect] = 0.0
            return InitialLoss(slow, reference, worth_w, suspect)
    fit, *_ = _fit(rows, fresh(), noise_wh2=scatter)
    spare_w = float(fit.x[1 : 1 + HOURS].mean() - fit.mean[0])  # per sub-meter
    unmetered = spare_w * fit.count / fit.load_w
    copper_w2 = float(np.square(OWN_SD * fit.own_wh(rows).mean(axis=0) / fit.hours).sum())
    rough = rough_w2h / BLOCK_H > (RESTLESS_SHARE * fit.load_w) ** 2 + copper_w2
    lived = (restless > RESTLESS and unmetered > LIFE_LEAST) or (rough and unmetered > RESTLESS_LEAST)
    if not lived and not _implausible_unmetered_load(fit, offset_s):
        return None
    reference = fit.x.copy()
    reference[1 : 1 + HOURS] = fit.mean[:HOURS]
    common = common_probability(spare_w, lived)
    return InitialLoss(fit, reference, spare_w * fit.count, question=common > COMMON_ASKED, common=common)


def common_probability(spare_w: float, lived: bool) -> float:
    """Probability that stairs, lift and pumps are what goes unmetered, `spare_w` per sub-meter in the mean.

    Common loads are taken for lognormal (COMMON_MEDIAN_W, COMMON_SPREAD), thefts from the start for even up to
    THEFT_MOST_W per sub-meter; somebody's life in the residual speaks for a theft, but lifts are used by people, too.
    """
    if spare_w <= 0:
        return 1.0
    z = math.log(spare_w / COMMON_MEDIAN_W) / COMMON_SPREAD
    common = math.exp(-0.5 * z * z) / (spare_w * COMMON_SPREAD * math.sqrt(2 * math.pi))
    theft = THEFT_PRIOR / THEFT_MOST_W * (LIFE_RATIO if lived else 1.0)
    return common / (common + theft)


def _fit(
    rows: ZoneRows, model: LossModel, suspect: int | None = None, noise_wh2: float = 0.0
) -> tuple[LossModel, float, float]:
    """`model` after all rows; the variance of its later innovations beyond what it foretold; their mean z^2.

    `suspect`: a sub-meter whose gain is free; `noise_wh2`: variance of energy in a row that nothing explains.
    """
    model.p[1 : HOURS + 1, 1 : HOURS + 1] *= UNMETERED_FREE**2
    if suspect is not None:
        model.p[1 + COMMON + suspect, 1 + COMMON + suspect] = GAIN_FREE**2
    innovation, variance = model.absorb(replace(rows, lost_wh2=rows.lost_wh2 + noise_wh2), clip=CLIP)[
        len(rows) // 2 :
    ].T
    usual = variance < 4 * np.median(variance)
    excess = max(0.0, float(np.mean(innovation[usual] ** 2 - variance[usual])))
    return model, excess, float(np.mean(np.minimum(innovation**2 / variance, Z2_MOST)))


def _implausible_unmetered_load(fit: LossModel, offset_s: float) -> bool:
    """Whether the unmetered load is more than a house may have: over 24 h, or by day when no stairs are lit."""
    hours, cov = fit.x[1 : 1 + HOURS], fit.p[1 : 1 + HOURS, 1 : 1 + HOURS]
    known_w = fit.mean[0] - BURDEN_W  # common load that is known to be there
    local_hour = (np.arange(HOURS) + 0.5 + offset_s / HOUR_S) % HOURS  # the coefficients are those of UTC hours
    by_day = (local_hour >= LIT_UNTIL_H) & (local_hour < LIT_FROM_H)
    for weight, limit in ((np.full(HOURS, 1 / HOURS), COMMON_MEAN_W), (by_day / by_day.sum(), COMMON_DAY_W)):
        if float(weight @ hours) - known_w - limit > LEVEL_Z * math.sqrt(float(weight @ cov @ weight)):
            return True
    return False
