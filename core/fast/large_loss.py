"""A large loss in one zone, from short rows: a sum over some minutes against what those minutes can honestly do.

It owns the test between two looks of the monitor; the monitor's search owns everything that needs hours. It refuses to
know alarms and suspects.

Over a window of h hours the unexplained energy is S = C(now) - C(now - h) - h * usual, where C is cumulative and `usual`
its mean over the day before. The errors of the rows telescope: of quantisation, read skew and jitter only those of the
two boundaries are left, b1 and b2. What is in between is white (rough * h), wanders (weather, quarter: h^2), and is as
large as the flats make it: a flat's own copper and its meter's gain err in proportion to what just ran through it, and
do so for as long as it runs. All of it is known, so the test knows itself when a minute is enough. A window counts
only if it would without the newest boundary, and without the one at its beginning: one read that is late makes no
loss (Page's CUSUM, which is the maximum over all windows, at a choice of lengths; Basseville & Nikiforov 1993, 2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from core.arrays import Z95, Floats
from core.evidence import Evidence, LossKind, Residual
from core.fast.pyramid import Pyramid

WINDOWS_MIN = (1, 2, 3, 5, 8, 12, 20, 30, 45, 75, 120)
RATE_SHARE = 0.05  # of the promised false alarms that may come from here
TAIL = 1.6  # stretch of the Gaussian quantile: minutes have heavier tails than hours
FLOOR_SHARE = 0.015  # of the load: what is smaller takes hours, and is the search's
USUAL_S, USUAL_LEAST_S = 86_400.0, 12 * 3600.0  # the day whose mean is usual, up to the longest window; half is enough
ROWS_LEAST = 2
FLATS = 5  # columns before those of the flats: unexplained, boundary variance (not summed up), main, expected, lost


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
    """Short rows: ends [T] UTC s, energies Wh [T], variances [T] of boundaries and of what is lost, flats [T, N]."""

    ends_s: Floats
    unexplained_wh: Floats
    expected_wh: Floats
    main_wh: Floats
    boundary_wh2: Floats
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

    def reset(self) -> None:
        """Begin again: what was before is of another balance."""
        self._pyramid.clear()
        self._total[:] = 0.0

    def step(self, rows: Rows, scene: Scene, quiet: bool = False) -> LargeLoss | None:
        """Take rows that follow the last ones; the first large loss, or None. `quiet`: take them and look for none."""
        if not len(rows.ends_s):
            return None
        reach = max(self._windows) + 2
        _, before = self._pyramid.newest(reach * self.row_s)
        energies = rows.unexplained_wh, rows.boundary_wh2, rows.main_wh, rows.expected_wh, rows.lost_wh2
        figures = np.column_stack([*energies, rows.own_wh, rows.subs_wh]).cumsum(axis=0)
        figures += self._total
        figures[:, 1] = rows.boundary_wh2
        found = None if quiet else self._look(before.copy(), figures, rows, scene)
        self._pyramid.append(rows.ends_s, figures)
        self._total = figures[-1].copy()
        self._total[1] = 0.0
        return found

    def _look(self, before: Floats, fresh: Floats, rows: Rows, scene: Scene) -> LargeLoss | None:
        """The first fresh boundary at which a window stands out."""
        whole = np.vstack([before, fresh])
        first = len(before)
        usual_w, usual_w2 = self._usual(float(rows.ends_s[0]), scene)
        best: tuple[int, int] | None = None
        for window in self._windows:
            excess, _, _ = self._excess(whole, window, usual_w, usual_w2, scene)  # at boundary window + k
            if len(excess) < 2:
                continue
            longer, _, _ = self._excess(whole, window + 1, usual_w, usual_w2, scene)
            ends = np.arange(window + 1, len(whole))
            # It has to stand out as well with one row more before it, and one row ago.
            least = np.minimum(np.minimum(excess[1:], longer), excess[:-1])
            over = np.flatnonzero((least > 0.0) & (ends >= first))
            if len(over) and (best is None or ends[over[0]] < best[0]):
                best = int(ends[over[0]]), window
        if best is None:
            return None
        end, window = best
        excess, power_w, sd_w = self._excess(whole, window, usual_w, usual_w2, scene)
        k = end - window
        at_s = float(rows.ends_s[end - first])
        onset_s = at_s - window * self.row_s
        reach_s = min(end, max(self._windows)) * self.row_s
        return LargeLoss(
            at_s=at_s,
            power_w=float(power_w[k]),
            sd_w=float(sd_w[k]),
            onset_s=onset_s,
            lo_s=max(at_s - reach_s, onset_s - max(window, 2) * self.row_s),
            hi_s=min(at_s, onset_s + (window - 1) * self.row_s),
            main_wh=float(whole[end, 2] - whole[k, 2]),
            expected_wh=float(whole[end, 3] - whole[k, 3]),
        )

    def _excess(
        self, whole: Floats, window: int, usual_w: float, usual_w2: float, scene: Scene
    ) -> tuple[Floats, Floats, Floats]:
        """For each window that ends at boundary `window` + k: standard deviations beyond the threshold, W, W."""
        hours = window * self.row_s / 3600.0
        gained = whole[window:] - whole[:-window]
        power_w = gained[:, 0] / hours - usual_w
        own = gained[:, FLATS : FLATS + self._subs] * scene.per_own
        gain = gained[:, FLATS + self._subs :] * scene.per_wh
        flats_wh2 = np.einsum("tn,tn->t", own, own) + np.einsum("tn,tn->t", gain, gain)
        edges_wh2 = whole[window:, 1] + whole[:-window, 1]
        own_wh2 = flats_wh2 + edges_wh2 + gained[:, 4]
        variance = scene.slow_w2 + usual_w2 + scene.rough_w2h / hours + own_wh2 / hours**2
        sd_w = np.sqrt(variance)
        excess = power_w - np.maximum(threshold(hours, scene.rate) * sd_w, FLOOR_SHARE * scene.load_w)
        return excess / sd_w, power_w, sd_w

    def _usual(self, at_s: float, scene: Scene) -> tuple[float, float]:
        """The mean unexplained power of the day before the longest window, W, and its variance."""
        until_s = at_s - (max(self._windows) + 2) * self.row_s
        new, old = self._pyramid.at(until_s), self._pyramid.at(until_s - USUAL_S)
        if old is None:
            old = self._pyramid.at(until_s - USUAL_LEAST_S)
        if new is None or old is None or new[0] - old[0] < USUAL_LEAST_S / 2:
            return scene.usual_w, scene.level_w2
        hours = (new[0] - old[0]) / 3600.0
        edges = float(new[1][1] + old[1][1]) / hours**2
        return float(new[1][0] - old[1][0]) / hours, scene.rough_w2h / hours + edges


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
