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

import numpy as np

from core.arrays import DAY_S, Z95, Floats
from core.evidence import Evidence, LossKind, Residual
from core.fast.pyramid import Pyramid
from core.fast.ramps import (
    BEFORE,
    BOUNDARY,
    EXPECTED,
    FLATS,
    GAP,
    LOST,
    MAIN,
    UNEXPLAINED,
    WINDOWS_MIN,
    Ramps,
    Scene,
    Steps,
    Usual,
)

USUAL_S, USUAL_LEAST_S = 86_400.0, 12 * 3600.0  # the day whose mean is usual, up to the longest window; half is enough
ROWS_LEAST = 3
USUAL_EVERY_S = 10_800.0  # what is usual is looked up so often
EXPECTED_SHARE = 0.03  # of the load, until a day is known
DOUBTFUL = 4.0  # times the variance of the longer rows' mean: then that is the better one
HALF = 0.5  # of the threshold has to stand one row ago
MEASURE_S = 2700.0  # length of the slopes by which the roughness is measured
ROUGH_LEAST = 3e-4  # of the load, over an hour: however calm the last days were
KEPT, DOUBT = 0.8, 2.0  # a day's roughness fades so; and as it is known from some days only, it counts so much more


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


class LargeLossTest:
    """One zone's. `step` takes short rows in order."""

    def __init__(self, row_s: float, subs: int, steps: Steps | None = None) -> None:
        self.row_s = row_s
        self._steps = steps or Steps()
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
        usual = Usual(scene.usual_w, 0.0, 0.0)
        seen = Ramps(whole.copy(), self.row_s / 3600.0, usual, bare, self._steps).rough_w2h(window)
        least = (ROUGH_LEAST * scene.load_w) ** 2
        seen = max(seen, least)
        self._rough_w2h = seen if self._rough_w2h is None else max(seen, KEPT * self._rough_w2h + (1 - KEPT) * seen)

    def _look(self, before: Floats, fresh: Floats, rows: Rows, scene: Scene) -> LargeLoss | None:
        """The first fresh boundary at which a window stands out."""
        whole = np.vstack([before, fresh])
        first = len(before)
        usual = self._usual(float(rows.ends_s[0]), scene)
        ramps = Ramps(whole, self.row_s / 3600.0, usual, scene, self._steps)
        end: int | None = None
        for window in self._windows:
            if window + BEFORE >= len(whole):
                break
            over = ramps.standing(window, HALF, first)
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

    def _likeliest(self, ramps: Ramps, end: int) -> tuple[int, float, float]:
        """The window up to boundary `end` that stands out most, the power in it, W, and its standard deviation."""
        found = []
        for window in self._windows:
            if end >= window + BEFORE - 1:
                power_w, sd_w = (float(part[0]) for part in ramps.slope(window, end))
                found.append((power_w / sd_w, window, power_w, sd_w))
        return max(found)[1:]

    def _usual(self, at_s: float, scene: Scene) -> Usual:
        """The day before the longest window."""
        at_s = math.ceil(at_s / USUAL_EVERY_S - 1.0) * USUAL_EVERY_S  # however the rows come in parts
        until_s = at_s - (max(self._windows) + 2) * self.row_s
        new, old = self._pyramid.at(until_s), self._pyramid.at(until_s - USUAL_S)
        if old is None:
            old = self._pyramid.at(until_s - USUAL_LEAST_S)
        before = Usual(scene.usual_w, scene.level_w2 + scene.usual_w2, EXPECTED_SHARE * scene.load_w)
        if new is None or old is None or new[0] - old[0] < USUAL_LEAST_S / 2:
            return before
        hours = (new[0] - old[0]) / 3600.0
        gained = (new[1] - old[1]) / hours
        edges_wh2 = float(new[1][BOUNDARY] + old[1][BOUNDARY] + new[1][GAP] + old[1][GAP] + new[1][LOST] - old[1][LOST])
        power_w2 = scene.rough_w2h / hours + edges_wh2 / hours**2
        if power_w2 > DOUBTFUL * before.power_w2:  # a meter was silent at one end, or is another one now
            return replace(before, expected_w=float(gained[EXPECTED]))
        return Usual(float(gained[UNEXPLAINED]), power_w2, float(gained[EXPECTED]))


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
