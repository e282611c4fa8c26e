"""That energy is missing, how much, and since when: a windowed generalised likelihood ratio with a promised rate.

It owns the statistics and their thresholds. It refuses to know meters and zones: it is given the unexplained energy
of one balance, cumulative at row boundaries, with the variance of each boundary.

The unexplained mean power of a bin is  d = W * [bin lies after the onset] + level + weather + roughness + errors:
boundary errors (known variance, shared by neighbouring bins), the level's own uncertainty under the loss model, an
Ornstein-Uhlenbeck process of some days (temperature drift of the meters and the copper), a slow walk, noise whose
power falls with the bin's length, and for each flat the copper that its own power costs beyond the common estimate:
its place along the riser is unknown, and a car that is charged from now on is no theft. Under this covariance C the
log-likelihood ratio of a constant theft since onset k is z_k^2 / 2 with z_k = f_k' C^-1 d / sqrt(f_k' C^-1 f_k); the
largest z_k over its threshold raises the alarm and its k is the onset (Willsky & Jones 1976; window-limited as in Lai
1995). Bins are fine near now (hours) and coarse far back (days), up to 56 days. The same is done for each quarter of
the day alone, day by day: a theft in the evenings only is four times as large there.

False alarms. Gaussian thresholds are wrong by a factor of two and more on real loads, so (a) the size of the weather
term and of the roughness is that of the building's own guarded residuals, without what late and missed reads do to them
(a robust variance with a class prior of a few days' weight, and a least value: calm weeks promise nothing); (b) an age
of onset gets its share of the promised rate by Bonferroni over ages and over the independent windows in a year; (c) its
quantile is stretched by TAIL_..., the ratio that measured loads need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from core.arrays import Floats, Ints
from core.detection.bins import AGES_H, BLOCK_DAYS, BLOCK_H, BLOCKS, WEATHER_H
from core.detection.errors import Errors, sums
from core.detection.noise import PRIOR_DAYS, Noise
from core.detection.threshold import _thresholds, tail

DETECTED_Z = 1.645  # one-sided 95 % of a Gaussian
FLOOR_SHARE = 6e-4  # below it a theft cannot be told from class drift
FLOOR_QUARTER_SHARE = 1e-3  # the same, of the mean over 24 h, for what shows in one quarter of the day only


@dataclass(frozen=True, slots=True)
class Finding:
    """The likeliest onset of a constant theft (or surplus) in a stretch of bins.

    z: signed significance; threshold of its age; power_w: of the loss while it runs; age_h: of the onset that lies
    furthest beyond its threshold; onset_h, young_h, old_h: the likeliest onset before now, and the 95 % range; near_h,
    far_h: edges of the bins beside it; share: of the day that it covers (1, or 1/4 for a block).
    """

    z: float
    threshold: float
    power_w: float
    age_h: float
    onset_h: float
    young_h: float
    old_h: float
    near_h: float
    far_h: float
    share: float

    @property
    def floor_share(self) -> float:
        """Share of the load below which this finding is not told."""
        return floor_share(self.share)

    @property
    def excess(self) -> float:
        """How far beyond its threshold, as a ratio; an alarm from 1 on."""
        return self.z / self.threshold


def floor_share(share: float) -> float:
    """Share of the load below which nothing is told that covers `share` of the day."""
    return FLOOR_QUARTER_SHARE if share < 1 else FLOOR_SHARE


@cache
def _weather(ages_h: tuple[float, ...], width_h: float) -> tuple[Floats, Floats]:
    """Correlation of the weather term between bins, and the hours between bins for the walk (to the older one).

    Bins lie between successive ages (`width_h` 0), or are `width_h` long and end at each age but the last.
    """
    ages = np.asarray(ages_h)
    start = ages[:-1]
    length = np.diff(ages) if width_h == 0 else np.full(len(start), width_h)
    middle = start + length / 2
    apart = np.maximum(np.abs(middle[:, None] - middle[None, :]) - (length[:, None] + length[None, :]) / 2, 0)
    ratio = length / WEATHER_H
    within = (1 - np.exp(-ratio)) / ratio
    corr = within[:, None] * within[None, :] * np.exp(-apart / WEATHER_H)
    np.fill_diagonal(corr, 2 / ratio**2 * (ratio - 1 + np.exp(-ratio)))
    since = ages[-1] - middle
    return corr, np.minimum(since[:, None], since[None, :])


@cache
def _grid(row_h: float, rows: int) -> tuple[tuple[float, ...], Ints, Floats]:
    """Edges of the bins that `rows` rows can fill, from now on: hours before now, rows before now; the bins' hours."""
    ages_h = (0.0, *(float(a) for a in AGES_H if a % row_h == 0 and a / row_h <= rows))
    return ages_h, np.rint(np.asarray(ages_h) / row_h).astype(np.intp), np.diff(ages_h)


@dataclass(frozen=True, slots=True)
class OnsetScores:
    """Onsets at the far end of bins 0..k, k = 0..n-1, weighed under one covariance; `finding` asks for a sign.

    top, bottom [n]: f' C^-1 d and f' C^-1 f of each, z [n] their significance; ages_h [n + 1]: edges of the bins;
    share: of the day they cover.
    """

    top: Floats
    bottom: Floats
    ages_h: tuple[float, ...]
    share: float
    limit: Floats
    z: Floats

    def detectable_w(self, within_h: float, least_h: float, excess: float) -> float:
        """The smallest steady loss that an onset at most `within_h` ago would show beyond `excess` times its threshold.

        With DETECTED_Z to spare, so that 19 of 20 are found; infinite where no onset lies in that time.
        """
        ages = np.asarray(self.ages_h)[1:]
        there = (ages <= within_h) & (ages >= least_h)
        if not there.any():
            return math.inf
        return float(((excess * self.limit + DETECTED_Z) / np.sqrt(self.bottom))[there].min())

    def reached(self, floor_w: float) -> float:
        """How far the best onset of either sign comes towards its threshold, of those that would be told."""
        over = np.abs(self.z) / self.limit
        return float(over[np.abs(self.top / self.bottom) * self.share >= floor_w].max(initial=0.0))

    def finding(self, sign: float = 1.0, least_h: float = 0.0, least_excess: float = -math.inf) -> Finding | None:
        """The best onset at least `least_h` ago; None if there is none, or none beyond so much of its threshold."""
        z = self.z if sign > 0 else -self.z
        ages = np.asarray(self.ages_h)
        allowed = ages[1:] >= least_h
        if least_h > ages[1]:
            if not allowed.any():
                return None
            z = np.where(allowed, z, -np.inf)
        over = z / self.limit
        best = int(over.argmax())
        if over[best] < least_excess:
            return None
        mode = int(np.argmax(z / tail(ages[1:], self.share)))
        # Onsets weigh exp(z^2 / 2), each by the hours its bin stands for.
        log_weight = np.where(allowed, 0.5 * np.maximum(z, 0) ** 2 + np.log(np.diff(ages)), -np.inf)
        mass = np.cumsum(np.exp(log_weight - log_weight.max()))
        mass /= mass[-1]
        young = int(np.searchsorted(mass, 0.025))
        old = int(np.searchsorted(mass, 0.975))
        return Finding(
            float(z[best]),
            float(self.limit[best]),
            float(sign * self.top[best] / self.bottom[best]),
            float(ages[best + 1]),
            float(ages[mode + 1]),
            float(ages[young]),
            float(ages[min(old + 2, len(ages) - 1)]),
            float(ages[mode]),
            float(ages[min(mode + 2, len(ages) - 1)]),
            self.share,
        )


def _weigh(
    power_w: Floats, cov: Floats, ages_h: tuple[float, ...], share: float, rate: float, days: int
) -> OnsetScores:
    weight = np.linalg.inv(cov)
    bottom = np.cumsum(np.cumsum(weight, axis=0), axis=1).diagonal()
    limit = _thresholds(ages_h[1:], share, rate, min(days, 60))
    top, bottom = np.cumsum(weight @ power_w), np.maximum(bottom, 1e-300)
    return OnsetScores(top, bottom, ages_h, share, limit, top / np.sqrt(bottom))


def weigh_all_day(
    booked_wh: Floats,
    boundary_wh2: Floats,
    lost_wh2: Floats,
    errors: tuple[Errors, ...],
    row_h: float,
    noise: Noise,
    rate: float,
) -> OnsetScores | None:
    """Weigh onsets in the last 56 days of all-day power; None where there are too few rows.

    booked_wh [T + 1]: cumulative unexplained energy at boundaries, boundary_wh2 [T + 1] its variance; lost_wh2 [T + 1]:
    cumulative variance of energy that was lost for good; errors: the copper that is a flat's own, told losses, the
    coefficients of the loss model.
    """
    last = len(booked_wh) - 1
    ages_h, back, length = _grid(row_h, min(last, round(AGES_H[-1] / row_h)))
    if len(length) < 4:
        return None
    at = last - back
    there = booked_wh[at]
    power = (there[:-1] - there[1:]) / length
    corr, since = _weather(ages_h, 0.0)
    cov = noise.weather_w2 * corr + noise.walk_w2_h * since + noise.level_w2
    own, rest = sums(errors, at[1:], at[:-1])
    own /= length[:, None]
    cov += own @ own.T
    v, lost = boundary_wh2[at], lost_wh2[at]
    n = np.arange(len(power))
    cov[n, n] += (v[:-1] + v[1:] + lost[:-1] - lost[1:] + rest) / length**2 + noise.rough_w2h / length
    cov[n, n] += np.where(length < 24, noise.quarter_w2, 0.0)
    shared = v[1:-1] / (length[:-1] * length[1:])
    cov[n[:-1], n[1:]] -= shared
    cov[n[1:], n[:-1]] -= shared
    return _weigh(power, cov, ages_h, 1.0, rate, noise.days)


def weigh_block(
    booked_wh: Floats,
    boundary_wh2: Floats,
    lost_wh2: Floats,
    errors: tuple[Errors, ...],
    row_h: float,
    noise: Noise,
    rate: float,
) -> OnsetScores | None:
    """Weigh onsets in one quarter of the last 28 days, the one that ends at the last boundary; None: too few days."""
    rows, day = round(BLOCK_H / row_h), round(24 / row_h)
    days = min(BLOCK_DAYS, (len(booked_wh) - 1 - rows) // day + 1)
    if days < 3:
        return None
    ends = len(booked_wh) - 1 - day * np.arange(days)
    power = (booked_wh[ends] - booked_wh[ends - rows]) / BLOCK_H
    ages_h = tuple(24.0 * k for k in range(days + 1))
    corr, since = _weather(ages_h, float(BLOCK_H))
    cov = noise.weather_w2 * corr + noise.walk_w2_h * since + noise.level_w2 + noise.quarter_w2
    own, rest = sums(errors, ends - rows, ends)
    own /= BLOCK_H
    cov += own @ own.T
    # A block wanders against the day: what its own past shows, with the day's variance as prior.
    steps = np.diff(power[min(14, days // 2) :]) ** 2
    if len(steps) > 3:
        steps = np.minimum(steps, 9 * np.median(steps))
    rough = (PRIOR_DAYS * noise.rough_w2h / BLOCK_H + float(steps.sum()) / 2) / (PRIOR_DAYS + len(steps))
    n = np.arange(days)
    lost = lost_wh2[ends] - lost_wh2[ends - rows] + rest
    cov[n, n] += (boundary_wh2[ends] + boundary_wh2[ends - rows] + lost) / BLOCK_H**2 + rough
    return _weigh(power, cov, ages_h, 1 / BLOCKS, rate, noise.days)
