"""A large loss in one zone, from short rows: a sum over some minutes against what those minutes can honestly do.

It owns the test between two looks of the monitor; the monitor's search owns everything that needs hours. It refuses to
know alarms and suspects.

Let C be the cumulative unexplained energy without what is usual, its mean power over the day before. While nothing is
lost C stays where it is, but for the error of each boundary: quantisation, read skew and jitter, independent from one
to the next. A loss makes it a ramp. So for a loss that began w rows ago, its level before is the weighted mean of the
boundaries just before, and its slope the weighted least squares of those since (weights: the boundaries' variances):
after w rows the boundaries' part in the slope's error falls with w^1.5, where two boundaries alone would give w. What
else there is of it is white (rough), wanders (weather, quarter of the day), or is as large as the flats make it: a
flat's own copper and its meter's gain err in proportion to what just ran through it, for as long as it runs. All of it
is known, so the test knows itself when a minute is enough. It is the likelihood ratio test of the onset of a ramp
(Basseville & Nikiforov 1993, 7.2), at a choice of w. A slope counts only if half of it stood out one row ago as well:
one read that is wrong makes no loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from core.arrays import DAY_S, Z95, Floats
from core.evidence import Evidence, LossKind, Residual
from core.fast.pyramid import Pyramid

WINDOWS_MIN = (3, 4, 6, 9, 13, 19, 28, 42, 63, 95)
RATE_SHARE = 0.05  # of the promised false alarms that may come from here
TAIL = 1.2  # stretch of the Gaussian quantile: minutes have heavier tails than hours
FLOOR_SHARE = 0.015  # of the load: what is smaller takes hours, and is the search's
USUAL_S, USUAL_LEAST_S = 86_400.0, 12 * 3600.0  # the day whose mean is usual, up to the longest window; half is enough
ROWS_LEAST = 3
USUAL_EVERY_S = 10_800.0  # what is usual is looked up so often
EXPECTED_SHARE, EXPECTED_DOUBT = 0.03, 0.3  # of the load, until a day is known; of what is expected beyond it
WRONG_Z, WRONG_WEIGHT = 5.0, 1e-4  # standard deviations beside its neighbours' line: then it is a wrong read
HALF = 0.5  # of the threshold has to stand one row ago
MEASURE_S = 2700.0  # length of the slopes by which the roughness is measured
ROUGH_LEAST = 3e-4  # of the load, over an hour: however calm the last days were
KEPT, DOUBT = 0.8, 2.0  # a day's roughness fades so; and as it is known from some days only, it counts so much more
MAD_SD = 1.4826  # median of absolute deviations to standard deviation (Gaussian)
LEAST_WH2 = 0.01  # a boundary is known no better: no register has finer steps
WHITE = 1.5  # white energy errs in a slope by so much more than in a difference, at most
BEFORE = 10  # boundaries that tell the level before
# Columns before those of the flats; cumulative but for the variances of boundary and gap.
UNEXPLAINED, BOUNDARY, GAP, MAIN, EXPECTED, LOST, FLATS = range(7)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of the zone now: nominal load W, variances in W^2 (and W^2 h), and of each flat's error in W.

    per_own, per_wh: standard deviation of a flat's own copper and of its gain, in units of `own_wh`, `subs_wh`.
    usual_w: unexplained power of the day before, used until the short rows know their own.
    """

    load_w: float
    rough_w2h: float
    slow_w2: float
    level_w2: float
    per_own: float
    per_wh: Floats
    usual_w: float
    rate: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Short rows: ends [T] UTC s, energies Wh [T], variances [T] of boundaries, gaps and losses, flats [T, N]."""

    ends_s: Floats
    unexplained_wh: Floats
    expected_wh: Floats
    main_wh: Floats
    boundary_wh2: Floats
    gap_wh2: Floats
    lost_wh2: Floats
    own_wh: Floats
    subs_wh: Floats


@dataclass(frozen=True, slots=True)
class LargeLoss:
    """What was found: when, how much, and since when at the earliest and at the latest; UTC seconds, W."""

    at_s: float
    power_w: float
    sd_w: float
    onset_s: float
    lo_s: float
    hi_s: float
    main_wh: float
    expected_wh: float


@cache
def threshold(hours: float, rate_per_year: float) -> float:
    """Standard deviations from which a window of `hours` is an alarm."""
    looks = 365.25 * 24 / hours
    alone = RATE_SHARE * rate_per_year / len(WINDOWS_MIN)
    return TAIL * NormalDist().inv_cdf(1 - min(0.01, alone / looks))


class LargeLossTest:
    """One zone's. `step` takes short rows in order."""

    def __init__(self, row_s: float, subs: int) -> None:
        self.row_s = row_s
        self._windows = sorted({max(ROWS_LEAST, round(60 * m / row_s)) for m in WINDOWS_MIN})
        self._pyramid = Pyramid(row_s, FLATS + 2 * subs)
        self._total = np.zeros(FLATS + 2 * subs)
        self._subs = subs
        self._rough_w2h: float | None = None  # as the short rows of the last days show it
        self._measured_s = -math.inf

    def reset(self) -> None:
        """Begin again: what was before is of another balance."""
        self._pyramid.clear()
        self._total[:] = 0.0

    def step(self, rows: Rows, scene: Scene, quiet: bool = False) -> LargeLoss | None:
        """Take rows that follow the last ones; the first large loss, or None. `quiet`: take them and look for none."""
        if not len(rows.ends_s):
            return None
        reach = max(self._windows) + BEFORE + 2
        _, before = self._pyramid.newest(reach * self.row_s)
        own = rows.unexplained_wh, rows.boundary_wh2, rows.gap_wh2, rows.main_wh, rows.expected_wh, rows.lost_wh2
        figures = np.column_stack([*own, rows.own_wh, rows.subs_wh]).cumsum(axis=0)
        figures += self._total
        figures[:, BOUNDARY], figures[:, GAP] = rows.boundary_wh2, rows.gap_wh2
        if not quiet:
            self._measure(float(rows.ends_s[0]), scene)
        if self._rough_w2h is not None:
            scene = replace(scene, rough_w2h=min(scene.rough_w2h, DOUBT * self._rough_w2h))
        found = None if quiet else self._look(before.copy(), figures, rows, scene)
        self._pyramid.append(rows.ends_s, figures)
        self._total = figures[-1].copy()
        self._total[[BOUNDARY, GAP]] = 0.0
        return found

    def _measure(self, at_s: float, scene: Scene) -> None:
        """Once a day, see how rough the last day was: hours, which the monitor learns from, overstate minutes."""
        if at_s // DAY_S == self._measured_s // DAY_S:
            return
        self._measured_s = at_s
        _, whole = self._pyramid.newest(DAY_S)
        window = max(ROWS_LEAST, round(MEASURE_S / self.row_s))
        if len(whole) * self.row_s < DAY_S / 2:
            return
        bare = replace(scene, rough_w2h=0.0, slow_w2=0.0)
        usual = _Usual(scene.usual_w, 0.0, 0.0)
        seen = _Ramps(whole.copy(), self.row_s / 3600.0, usual, bare).rough_w2h(window)
        least = (ROUGH_LEAST * scene.load_w) ** 2
        seen = max(seen, least)
        self._rough_w2h = seen if self._rough_w2h is None else max(seen, KEPT * self._rough_w2h + (1 - KEPT) * seen)

    def _look(self, before: Floats, fresh: Floats, rows: Rows, scene: Scene) -> LargeLoss | None:
        """The first fresh boundary at which a window stands out."""
        whole = np.vstack([before, fresh])
        first = len(before)
        ramps = _Ramps(whole, self.row_s / 3600.0, self._usual(float(rows.ends_s[0]), scene), scene)
        end: int | None = None
        for window in self._windows:
            if window + BEFORE >= len(whole):
                break
            now, before_now = ramps.excess(window)[1:], ramps.excess(window, HALF)[:-1]
            over = np.flatnonzero((now > 0.0) & (before_now > 0.0)) + window + BEFORE
            over = over[over >= first]
            if len(over) and (end is None or over[0] < end):
                end = int(over[0])
        if end is None:
            return None
        window, power_w, sd_w = self._likeliest(ramps, end)
        at_s = float(rows.ends_s[end - first])
        onset_s = at_s - window * self.row_s
        return LargeLoss(
            at_s=at_s,
            power_w=power_w,
            sd_w=sd_w,
            onset_s=onset_s,
            lo_s=onset_s - max(window, 2) * self.row_s,
            hi_s=at_s - self.row_s,
            main_wh=float(whole[end, MAIN] - whole[end - window, MAIN]),
            expected_wh=float(whole[end, EXPECTED] - whole[end - window, EXPECTED]),
        )

    def _likeliest(self, ramps: _Ramps, end: int) -> tuple[int, float, float]:
        """The window up to boundary `end` that stands out most, the power in it, W, and its standard deviation."""
        found = []
        for window in self._windows:
            k = end - window - BEFORE + 1
            if k >= 0:
                power_w, sd_w = (float(part[k]) for part in ramps.slope(window))
                found.append((power_w / sd_w, window, power_w, sd_w))
        return max(found)[1:]

    def _usual(self, at_s: float, scene: Scene) -> _Usual:
        """The day before the longest window."""
        at_s = math.ceil(at_s / USUAL_EVERY_S - 1.0) * USUAL_EVERY_S  # however the rows come in parts
        until_s = at_s - (max(self._windows) + 2) * self.row_s
        new, old = self._pyramid.at(until_s), self._pyramid.at(until_s - USUAL_S)
        if old is None:
            old = self._pyramid.at(until_s - USUAL_LEAST_S)
        if new is None or old is None or new[0] - old[0] < USUAL_LEAST_S / 2:
            return _Usual(scene.usual_w, scene.level_w2, EXPECTED_SHARE * scene.load_w)
        hours = (new[0] - old[0]) / 3600.0
        edges = float(new[1][BOUNDARY] + old[1][BOUNDARY] + new[1][GAP] + old[1][GAP]) / hours**2
        gained = (new[1] - old[1]) / hours
        return _Usual(float(gained[UNEXPLAINED]), scene.rough_w2h / hours + edges, float(gained[EXPECTED]))


@dataclass(frozen=True, slots=True)
class _Usual:
    """What is usual in the zone: unexplained power, W, its variance, and the loss that is expected, W."""

    power_w: float
    power_w2: float
    expected_w: float


class _Ramps:
    """Slopes of the cumulative unexplained energy over some boundaries, whose figures are `whole` [K, FLATS + 2 N]."""

    def __init__(self, whole: Floats, row_h: float, usual: _Usual, scene: Scene) -> None:
        self._whole, self._row_h, self._usual, self._scene = whole, row_h, usual, scene
        at = np.arange(len(whole), dtype=np.float64)
        energy = whole[:, UNEXPLAINED] - whole[0, UNEXPLAINED] - usual.power_w * row_h * at
        weight = self._weights(energy, np.maximum(whole[:, BOUNDARY], LEAST_WH2))
        parts = weight, weight * at, weight * at * at, weight * energy, weight * energy * at
        self._sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in parts]

    @staticmethod
    def _weights(energy_wh: Floats, boundary_wh2: Floats) -> Floats:
        """One over each boundary's variance; next to nothing for those that lie beside the line of their neighbours."""
        weight: Floats = 1.0 / boundary_wh2
        if len(energy_wh) > 2:
            beside = energy_wh[1:-1] - (energy_wh[:-2] + energy_wh[2:]) / 2
            known = boundary_wh2[1:-1] + (boundary_wh2[:-2] + boundary_wh2[2:]) / 4
            weight[1:-1][beside**2 > WRONG_Z**2 * known] *= WRONG_WEIGHT
        return weight

    def excess(self, window: int, share: float = 1.0) -> Floats:
        """Standard deviations beyond a share of the threshold of a loss that began `window` rows ago.

        For each end from boundary `window` + BEFORE - 1 on.
        """
        power_w, sd_w = self.slope(window)
        scene = self._scene
        least_w = np.maximum(threshold(window * self._row_h, scene.rate) * sd_w, FLOOR_SHARE * scene.load_w)
        return np.asarray((power_w - share * least_w) / sd_w)

    def rough_w2h(self, window: int) -> float:
        """White noise that the slopes show beyond all that is known of them, W^2 h; large ones do not count."""
        power_w, sd_w = self.slope(window)
        spread_w2 = float(np.median(np.abs(power_w - np.median(power_w))) * MAD_SD) ** 2
        hours = window * self._row_h
        known_w2 = float(np.median(sd_w)) ** 2 - WHITE * self._scene.rough_w2h / hours
        # The level before is known as if no white noise were in it: what it has of it is a part of what is measured.
        return max(0.0, spread_w2 - max(0.0, known_w2)) * hours / WHITE

    def slope(self, window: int) -> tuple[Floats, Floats]:
        """Its power and standard deviation, W, for each end from boundary `window` + BEFORE - 1 on."""
        whole, row_h, scene = self._whole, self._row_h, self._scene
        start = np.arange(BEFORE - 1, len(whole) - window)  # the last boundary before the loss
        zero, one, two, energy, moment = ((s[start + window + 1] - s[start + 1]) for s in self._sums)
        before, level = ((self._sums[n][start + 1] - self._sums[n][start + 1 - BEFORE]) for n in (0, 3))
        level = level / before
        lever = one - start * zero
        square = two - 2 * start * one + start * start * zero
        slope = (moment - start * energy - level * lever) / square
        flats = whole[start + window, FLATS:] - whole[start, FLATS:]
        flats = flats * np.concatenate([np.full(flats.shape[1] // 2, scene.per_own), scene.per_wh])
        # A gap errs by what it grows meanwhile; where a meter answers, by all that was estimated.
        gaps = sliding_window_view(whole[:, GAP], window + BEFORE)[: len(start)]
        long = gaps.max(axis=1) - gaps.min(axis=1)
        lost = whole[start + window, LOST] - whole[np.maximum(start - BEFORE, 0), LOST]
        spread = np.einsum("tn,tn->t", flats, flats) + 4 * long + lost
        rough_wh2 = scene.rough_w2h * row_h  # of a row
        variance = (
            1.0 / square
            + (lever / square) ** 2 * (1.0 / before + rough_wh2 * BEFORE / 3)
            + WHITE * rough_wh2 / window
            + spread / window**2
        )
        # Copper is learned from rows in which peaks are levelled out: beyond what is usual it is known by a share only.
        expected_w = (whole[start + window, EXPECTED] - whole[start, EXPECTED]) / (window * row_h)
        copper_w = EXPECTED_DOUBT * np.maximum(expected_w - self._usual.expected_w, 0.0)
        power_sd_w = np.sqrt(variance / row_h**2 + scene.slow_w2 + self._usual.power_w2 + copper_w**2)
        return np.asarray(slope / row_h), np.asarray(power_sd_w)


def large_loss_evidence(zone: str, episode: int, found: LargeLoss, hours: float) -> Evidence:
    """What is told of a large loss at once: how much and since when, and of nobody yet."""
    kwh = found.power_w * hours / 1000.0
    around_w = Z95 * found.sd_w
    return Evidence(
        zone=zone,
        time_s=found.at_s,
        active=True,
        episode=episode,
        kind=LossKind.NON_TECHNICAL_LOSS,
        onset_s=found.onset_s,
        onset_window_s=(found.lo_s, found.hi_s),
        loss_w=found.power_w,
        loss_w_interval=(found.power_w - around_w, found.power_w + around_w),
        loss_kwh=kwh,
        suspects=(),
        upstream_probability=0.0,
        unexplained_probability=1.0,
        residual=Residual(
            energy_kwh=kwh,
            percent=100_000.0 * kwh / found.main_wh if found.main_wh > 0 else 0.0,
            uncertainty_kwh=around_w * hours / 1000.0,
            technical_loss_kwh=found.expected_wh / 1000.0,
        ),
        coverage=1.0,
    )


def onset_rows(found: LargeLoss, last_end_s: float, row_s: float, count: int, first: int) -> tuple[int, int, int]:
    """First credible, likeliest and last credible row of all time in which the loss began, of rows of `row_s`.

    The last of them is `count`: the row that is not over yet.
    """

    def row(at_s: float) -> int:
        return min(count, max(first, count + math.floor((at_s - last_end_s) / row_s)))

    return row(found.lo_s), row(found.onset_s), row(found.hi_s)
