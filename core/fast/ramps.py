"""How steeply cumulative unexplained energy rises over some boundaries of short rows, and how steep is a loss.

It owns the slope, its standard deviation, and the threshold. It refuses to know how rows come and what is told of them.

What is known of a boundary is of two kinds. Read skew and jitter have tails, and the test is wary of them (`TAIL`). A
register's step is another thing: what is shown is behind what has flowed by less than a step, always. A weighted sum of
such errors has tails thinner than the Gaussian of its variance, and ends: six standard deviations of one register of
100 Wh in a minute do not exist. So the threshold is the least power that the cumulant generating function of both
together allows with the promised probability (Chernoff 1952), where the Gaussian alone would ask for more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from core.arrays import Bools, Floats, Ints

WINDOWS_MIN = (3, 4, 5, 6, 9, 13, 19, 28, 42, 63, 95)
RATE_SHARE = 0.05  # of the promised false alarms that may come from here
TAIL = 1.2  # stretch of the Gaussian quantile: minutes have heavier tails than hours
STEP_TAIL = 1.06  # the same of registers' steps, whose errors are not quite independent from one boundary to the next
FLOOR_SHARE = 0.015  # of the load: what is smaller takes hours, and is the search's
EXPECTED_DOUBT = 0.3  # of what is expected beyond the usual
WRONG_Z, WRONG_WEIGHT = 5.0, 1e-4  # standard deviations beside its neighbours' line: then it is a wrong read
MAD_SD = 1.4826  # median of absolute deviations to standard deviation (Gaussian)
LEAST_WH2 = 0.01  # a boundary is known no better: no register has finer steps
WHITE = 1.5  # white energy errs in a slope by so much more than in a difference, at most
BEFORE = 10  # boundaries that tell the level before
COARSE_WH = 200.0  # registers of larger steps are booked by estimate while they stand still
FEW = 6  # rows of a window in which steps count as bounded errors: in more of them slow waves of these have room
ALIKE = 3.0  # times the power of independent errors that a slow wave of them has; by chance one window of twenty
NEAR_Z = 3.0  # standard deviations of the boundaries below which a slope is no loss, however thin the tails
TILTS = 6.0 * 2.0 ** (np.arange(-16, 13) / 4)  # where the bound is looked for, over the steps' standard deviation
# Columns before those of the flats; cumulative but for the variances of boundary and gap.
UNEXPLAINED, BOUNDARY, GAP, MAIN, EXPECTED, LOST, FLATS = range(7)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of the zone now: nominal load W, variances in W^2 (and W^2 h), and of each flat's error in W.

    per_own, per_wh: standard deviation of a flat's own copper and of its gain, in units of `own_wh`, `subs_wh`.
    usual_w, usual_w2: unexplained power of the day before and its variance, used until the short rows know their own.
    """

    load_w: float
    rough_w2h: float
    slow_w2: float
    level_w2: float
    per_own: float
    per_wh: Floats
    usual_w: float
    rate: float
    usual_w2: float = 0.0


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual in the zone: unexplained power, W, its variance, and the loss that is expected, W."""

    power_w: float
    power_w2: float
    expected_w: float


@cache
def threshold(hours: float, rate_per_year: float) -> float:
    """Standard deviations of a Gaussian from which a window of `hours` is an alarm."""
    looks = 365.25 * 24 / hours
    alone = RATE_SHARE * rate_per_year / len(WINDOWS_MIN)
    return NormalDist().inv_cdf(1 - min(0.01, alone / looks))


class Steps:
    """The steps of a zone's registers, and how large a slope they can feign."""

    def __init__(self, main_wh: float = 0.0, subs_wh: Sequence[float] = ()) -> None:
        self.main_wh = main_wh if main_wh <= COARSE_WH else 0.0
        self._meters = Counter(step for step in (self.main_wh, *subs_wh) if 0.0 < step <= COARSE_WH)
        self._made: dict[int, tuple[float, Floats, Floats]] = {}  # by window

    @staticmethod
    @cache
    def independent(window: int) -> float:
        """Variance of the slope over `window` rows for boundaries of variance one that err independently."""
        at = np.arange(window + 1.0)
        return float(1.0 / (at @ at) + (at.sum() / (at @ at)) ** 2 / BEFORE)

    def of(self, window: int) -> tuple[float, Floats, Floats]:
        """Of the slope over `window` rows: variance, arguments and values of the cumulant generating function.

        In Wh a row; for boundaries that are known alike and registers that move between them.
        """
        if window not in self._made:
            at = np.arange(window + 1.0)
            square, lever = float(at @ at), float(at.sum())
            parts = np.concatenate([at / square, np.full(BEFORE, lever / square / BEFORE)])
            shares = np.multiply.outer(np.array([*self._meters]) / 2.0, parts).ravel()
            count = np.repeat([float(n) for n in self._meters.values()], len(parts))
            variance = float(count @ shares**2) / 3.0
            shares *= STEP_TAIL
            tilts = TILTS / np.sqrt(variance) if variance > 0.0 else TILTS
            self._made[window] = variance, tilts, _log_sinhc(np.multiply.outer(tilts, shares)) @ count
        return self._made[window]


def _log_sinhc(x: Floats) -> Floats:
    """log(sinh(x) / x) for x >= 0: the cumulant generating function of a uniform error."""
    small, large = np.minimum(x, 0.5), np.maximum(x, 0.5)
    series = small**2 / 6 - small**4 / 180 + small**6 / 2835
    return np.asarray(np.where(x < 0.5, series, large + np.log1p(-np.exp(-2 * large)) - np.log(2 * large)))


@dataclass(frozen=True, slots=True)
class _Line:
    """Slopes over a window: power W, variance by the boundaries' errors, Wh^2 a row, and the level's weight in each.

    apart: whether the main register's errors were independent enough for what steps can feign to be bounded.
    """

    power_w: Floats
    edge_wh2: Floats
    lever: Floats
    apart: Bools


class Ramps:
    """Slopes of the cumulative unexplained energy over some boundaries, whose figures are `whole` [K, FLATS + 2 N]."""

    def __init__(self, whole: Floats, row_h: float, usual: Usual, scene: Scene, steps: Steps) -> None:
        self._whole, self._row_h, self._usual, self._scene, self._steps = whole, row_h, usual, scene, steps
        at = np.arange(len(whole), dtype=np.float64)
        energy = whole[:, UNEXPLAINED] - whole[0, UNEXPLAINED] - usual.power_w * row_h * at
        weight = self._weights(energy, np.maximum(whole[:, BOUNDARY], LEAST_WH2))
        parts = [weight, weight * at, weight * at * at, weight * energy, weight * energy * at]
        if steps.main_wh > 0.0:  # how far between two of its steps the main register is, but for a constant
            flowed = whole[:, MAIN] - whole[0, MAIN] - energy
            phase = weight * np.exp((2j * np.pi / steps.main_wh) * flowed)
            parts += [phase, phase * at]
        self._sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in parts]
        self._gaps = bool(whole[:, GAP].any())
        self._per_flat = np.concatenate([np.full(len(scene.per_wh), scene.per_own), scene.per_wh])

    @staticmethod
    def _weights(energy_wh: Floats, boundary_wh2: Floats) -> Floats:
        """One over each boundary's variance; next to nothing for those that lie beside the line of their neighbours."""
        weight: Floats = 1.0 / boundary_wh2
        if len(energy_wh) > 2:
            beside = energy_wh[1:-1] - (energy_wh[:-2] + energy_wh[2:]) / 2
            known = boundary_wh2[1:-1] + (boundary_wh2[:-2] + boundary_wh2[2:]) / 4
            weight[1:-1][beside**2 > WRONG_Z**2 * known] *= WRONG_WEIGHT
        return weight

    def standing(self, window: int, share: float, first: int) -> Ints:
        """The ends, boundaries from `first` on, at which a loss that began `window` rows ago stands out.

        And stood out by a `share` of that one row before.
        """
        first = max(first - 1, window + BEFORE - 1)
        line = self._line(window, first)
        edge_w = np.sqrt(line.edge_wh2) / self._row_h
        near = np.flatnonzero(line.power_w > np.maximum(NEAR_Z * edge_w, FLOOR_SHARE * self._scene.load_w))
        near = near[near > 0]
        if not len(near):
            return near
        now, before = (
            line.power_w[at] - part * self._least_w(window, line, first, at)
            for at, part in ((near, 1.0), (near - 1, share))
        )
        return near[(now > 0.0) & (before > 0.0)] + first

    def _least_w(self, window: int, line: _Line, first: int, at: Ints) -> Floats:
        """The power from which slopes `at` of a line are a loss, W."""
        scene, steps = self._scene, self._steps
        z = threshold(window * self._row_h, scene.rate)
        sd_w = self._sd_w(window, line, first, at)
        least_w = TAIL * z * sd_w
        if window <= FEW:
            variance_wh2, tilts, cumulant = steps.of(window)
            rest_wh2 = TAIL**2 * np.maximum((sd_w * self._row_h) ** 2 - variance_wh2, 0.0)
            bound = (cumulant + 0.5 * rest_wh2[:, None] * tilts**2 + 0.5 * z * z) / tilts
            least_w = np.where(line.apart[at], np.minimum(least_w, bound.min(axis=1) / self._row_h), least_w)
        return np.maximum(least_w, FLOOR_SHARE * scene.load_w)

    def rough_w2h(self, window: int) -> float:
        """White noise that the slopes show beyond all that is known of them, W^2 h; large ones do not count."""
        power_w, sd_w = self.slope(window)
        spread_w2 = float(np.median(np.abs(power_w - np.median(power_w))) * MAD_SD) ** 2
        hours = window * self._row_h
        known_w2 = float(np.median(sd_w)) ** 2 - WHITE * self._scene.rough_w2h / hours
        # The level before is known as if no white noise were in it: what it has of it is a part of what is measured.
        return max(0.0, spread_w2 - max(0.0, known_w2)) * hours / WHITE

    def slope(self, window: int, first: int = 0) -> tuple[Floats, Floats]:
        """Its power and standard deviation, W, for each end from boundary `first`, or `window` + BEFORE - 1, on."""
        first = max(first, window + BEFORE - 1)
        line = self._line(window, first)
        return line.power_w, self._sd_w(window, line, first, np.arange(len(line.power_w)))

    def _line(self, window: int, first: int) -> _Line:
        """The slopes up to each end from boundary `first` on.

        A register's error is a sawtooth of what has flowed through it, mostly its first harmonic (Widrow & Kollar 2008,
        ch. 3), and what has flowed the sub-meters tell. Where a steady load of about a step a row, or far less, makes
        of the main register's errors a slow wave, that wave has a slope like a loss; then its variance is that much
        more.
        """
        count, steps = len(self._whole), self._steps
        start = np.arange(first - window, count - window)  # the last boundary before the loss
        since, behind = slice(first - window + 1, count - window + 1), slice(first + 1, count + 1)
        ahead = slice(first - window + 1 - BEFORE, count - window + 1 - BEFORE)
        zero, one, two, *lines = (s[behind] - s[since] for s in self._sums)
        before, *levels = (s[since] - s[ahead] for s in (self._sums[0], *self._sums[3::2]))
        lever = one - start * zero
        square = two - 2 * start * one + start * start * zero
        slope, *wave = (
            (moment - start * energy - level / before * lever) / square
            for energy, moment, level in zip(lines[::2], lines[1::2], levels, strict=True)
        )
        lever /= square
        edge_wh2 = 1.0 / square + lever**2 / before
        if not wave:
            return _Line(slope / self._row_h, edge_wh2, lever, np.ones(len(slope), np.bool_))
        alike = np.abs(wave[0]) ** 2 / steps.independent(window)
        phase, weight = (self._sums[n][behind] - self._sums[n][ahead] for n in (5, 0))
        together = np.abs(phase / weight) ** 2 * (window + BEFORE)  # all near the end of a step: a jump comes next
        apart = (alike <= ALIKE) & (together <= ALIKE)
        more_wh2 = np.where(
            alike <= ALIKE, 0.0, (alike - 1.0) * steps.independent(window) * steps.main_wh**2 / (2 * np.pi**2)
        )
        return _Line(slope / self._row_h, edge_wh2 + more_wh2, lever, apart)

    def _sd_w(self, window: int, line: _Line, first: int, at: Ints) -> Floats:
        """The standard deviations of slopes `at` of a line, W."""
        whole, row_h, scene = self._whole, self._row_h, self._scene
        end, start = first + at, first + at - window
        flats = (whole[end, FLATS:] - whole[start, FLATS:]) * self._per_flat
        spread = np.einsum("tn,tn->t", flats, flats) + whole[end, LOST] - whole[np.maximum(start - BEFORE, 0), LOST]
        if self._gaps:  # a gap errs by what it grows meanwhile; where a meter answers, by all that was estimated
            gaps = sliding_window_view(whole[:, GAP], window + BEFORE)[start - BEFORE + 1]
            spread += 4 * (gaps.max(axis=1) - gaps.min(axis=1))
        rough_wh2 = scene.rough_w2h * row_h  # of a row
        variance = (
            line.edge_wh2[at]
            + line.lever[at] ** 2 * rough_wh2 * BEFORE / 3
            + WHITE * rough_wh2 / window
            + spread / window**2
        )
        # Copper is learned from rows in which peaks are levelled out: beyond what is usual it is known by a share only.
        expected_w = (whole[end, EXPECTED] - whole[start, EXPECTED]) / (window * row_h)
        copper_w = EXPECTED_DOUBT * np.maximum(expected_w - self._usual.expected_w, 0.0)
        return np.asarray(np.sqrt(variance / row_h**2 + scene.slow_w2 + self._usual.power_w2 + copper_w**2))
