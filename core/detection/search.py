"""The search for an onset in the rows that are kept, and where among them it lies.

It owns what a search is given and what a finding must bear: that no one or two readings make it. Statistics and
thresholds are detect.py's; alarms are the monitor's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np

from core.arrays import Z95, Floats, Ints
from core.balance.history import History, last_settled
from core.balance.losses import LossModel
from core.balance.tracker import Follower
from core.detection.bins import AGES_H, BLOCK_H
from core.detection.errors import Coefficients, Errors, OwnCopper, sums
from core.detection.glr import Finding, OnsetScores, floor_share, weigh_all_day, weigh_block
from core.detection.noise import Noise

SESSION_H = 3.0  # a car, an oven or a boiler runs so long
LEAST_H = 12.0  # before it nothing is searched
STIR_Z = 3.0  # standard deviations; no threshold for onsets within a day is below 5
CONFIRM_H = 24.0  # a finding that rests on less than this ...
CONFIRM_ROWS = 6  # ... has to bear the loss of any two of the readings that moved the balance most
BETTER = 2.0  # times as well known is a mean that does not end, or begin, in a gap
LEFT_OVER = 0.5  # of the threshold has to stand then


@dataclass(slots=True)
class SearchWindow:
    """What the searches of one moment share: boundaries [T + 1] and rows [T] from row `first` on, as detect.py has."""

    first: int
    booked_wh: Floats
    variance_wh2: Floats
    lost_wh2: Floats
    errors: tuple[Errors, ...]
    row_h: float
    noise: Noise
    rate: float
    block: bool
    weighed: tuple[OnsetScores, ...] | None = None  # once they are asked for: both signs need the same

    def search(self, sign: float, least_h: float = 0.0, least_excess: float = -math.inf) -> Finding | None:
        """The most significant onset at least `least_h` ago: all day, or in the quarter of the day that ends now.

        None where none is beyond `least_excess` of its threshold.
        """
        found = [x for part in self._scores() if (x := part.finding(sign, least_h, least_excess)) is not None]
        return max(found, key=lambda finding: finding.excess, default=None)

    def reached(self, load_w: float) -> float:
        """How far the best onset of either sign comes towards its threshold, of those that would be told."""
        return max((part.reached(floor_share(part.share) * load_w) for part in self._scores()), default=0.0)

    def detectable_w(self, within_h: float, least_h: float = 0.0, excess: float = 1.0) -> float:
        """The smallest steady loss of the last `within_h` hours that a search would find now; NaN before the first."""
        scores = self._scores()
        return scores[0].detectable_w(within_h, least_h, excess) if scores else math.nan

    def _scores(self) -> tuple[OnsetScores, ...]:
        if self.weighed is None:
            self.weighed = self._weigh()
        return self.weighed

    def _weigh(self) -> tuple[OnsetScores, ...]:
        if (len(self.booked_wh) - 1) * self.row_h < LEAST_H:
            return ()
        given = self.booked_wh, self.variance_wh2, self.lost_wh2, self.errors, self.row_h, self.noise, self.rate
        parts = weigh_all_day(*given), weigh_block(*given) if self.block else None
        return tuple(part for part in parts if part is not None)

    def exactly(self, history: History, model: LossModel) -> SearchWindow:
        """The same with the errors of the loss model row by row instead of the level's and the quarter's scatter."""
        errors = Coefficients(model, history.rows(self.first, history.count))
        noise = replace(self.noise, level_w2=0.0, quarter_w2=0.0)
        return replace(self, errors=(*self.errors, errors), noise=noise, weighed=None)

    def settled(self, stop: int) -> int:
        """The boundary up to which energy since the first row is known best: `stop`, but for a gap that is open there.

        In a gap what was used is a guess. The mean up to the last boundary before it says more.
        """
        last = self.first + 1 + last_settled(self.variance_wh2[1 : stop - self.first + 1])
        if last == stop or self.power_w(self.first, stop)[1] < BETTER * self.power_w(self.first, last)[1]:
            return stop
        return last

    def power_w(self, start: int, stop: int) -> tuple[float, float]:
        """Mean unexplained power of rows start .. stop - 1 of all time, and its standard deviation."""
        a, b = start - self.first, stop - self.first
        hours = (b - a) * self.row_h
        own, rest = (part[0] for part in sums(self.errors, np.array([a]), np.array([b])))
        around = self.noise.power_sd_w(hours, float(self.variance_wh2[a] + self.variance_wh2[b]))
        lost = float(self.lost_wh2[b] - self.lost_wh2[a] + rest + own @ own) / hours**2
        return float(self.booked_wh[b] - self.booked_wh[a]) / hours, math.sqrt(around**2 + lost)


def search_window(
    history: History, model: LossModel, noise: Noise, rate: float, first: int, mark: bool = False
) -> SearchWindow:
    """The rows from `first` on as the searches want them. `mark`: quarters of the day may end there."""
    stop = history.count
    booked, variance = history.booked(first, stop)
    rows = history.rows(first, stop)
    lost = np.concatenate([[0.0], np.cumsum(rows.lost_wh2)])
    block = mark and float(rows.ends_s[-1]) % (BLOCK_H * 3600) == 0
    copper = OwnCopper(model, rows, SESSION_H)
    return SearchWindow(first, booked, variance, lost, (copper,), model.hours, noise, rate, block)


@cache
def _recent_rows(row_h: float) -> Ints:
    """The onset ages within a day, in rows."""
    return np.array([round(age / row_h) for age in AGES_H if age <= CONFIRM_H and age % row_h == 0], np.intp)


def search_is_due(history: History, noise: Noise, row_h: float, first: int) -> bool:
    """Whether the last hours look so unlike the days before that a search between two marks is worth its cost."""
    rows = _recent_rows(row_h)
    rows = rows[rows <= history.count - first]
    if not len(rows):
        return False
    booked, variance = history.booked(history.count - rows[-1], history.count)
    hours = rows * row_h
    power = (booked[-1] - booked[-1 - rows]) / hours
    around = noise.weather_w2 + noise.level_w2 + noise.quarter_w2 + noise.rough_w2h / hours
    return bool((power**2 > STIR_Z**2 * (around + (variance[-1] + variance[-1 - rows]) / hours**2)).any())


def confirmed(
    sign: float, now: SearchWindow, history: History, model: LossModel, by: Follower, reach: float = 1.0
) -> bool:
    """Whether a finding stands under the exact errors of the loss model, and half of it without any two readings.

    `reach`: the share of the threshold from which a finding is one.

    Coefficients that are little known err by what the flats just do: when one moves out, the balance steps. And a late
    read of the main meter, or a flat's oven while it did not answer, looks like a loss of hours; each is one reading
    that is wrong.
    """
    now = now.exactly(history, model)
    again = now.search(sign, least_excess=reach)
    if again is None:
        return False
    if again.age_h > CONFIRM_H:
        return True
    moved = np.abs(np.diff(now.booked_wh[-1 - round(2 * CONFIRM_H / now.row_h) :]))
    first = history.count - len(moved)
    rows = {history.count - 1, *(first + np.argsort(-moved)[:CONFIRM_ROWS]).tolist()}
    for pair in combinations(sorted(rows), 2):
        booked, variance = now.booked_wh.copy(), now.variance_wh2.copy()
        behind = slice(pair[0] - now.first + 1, None)
        booked[behind], variance[behind] = by.without(history, model, *pair)
        left = replace(now, booked_wh=booked, variance_wh2=variance, weighed=None)
        if left.search(sign, least_excess=LEFT_OVER * reach) is None:
            return False
    return True


def exceeds_uncertainty(onset: int, sign: float, now: SearchWindow, stop: int) -> bool:
    """Whether what was lost since the onset is more than its own uncertainty, as the alarm will tell it."""
    power_w, sd_w = now.power_w(onset, stop)
    return sign * power_w > Z95 * sd_w


def rows_of(found: Finding, sign: float, now: SearchWindow, stop: int) -> tuple[int, int, int]:
    """First credible, likeliest and last credible row of the onset; `stop`: rows of all time.

    All day it lies where a loss of that power would have begun to lose what was lost in the bins beside the edge; in a
    quarter of the day, at that quarter's beginning.
    """

    def row(age_h: float) -> int:
        return min(stop - 1, max(now.first, stop - round(age_h / now.row_h)))

    if found.share < 1.0:
        onset = row(found.onset_h - 24 + BLOCK_H)
        return min(row(found.old_h), onset), onset, max(row(max(found.young_h - 24, 0) + BLOCK_H), onset)
    near, far = row(found.near_h), row(found.far_h)
    booked = now.booked_wh[far - now.first :]
    after = stop - near
    slope = sign * (booked[-1] - booked[near - far]) / after if after > 1 else found.power_w * now.row_h
    onset = row(found.onset_h)
    if slope > 0:
        began = near - sign * (booked[near - far] - booked[0]) / slope
        onset = int(min(max(round(began), far), near))
    return min(row(found.old_h), onset), onset, max(row(found.young_h), onset)
