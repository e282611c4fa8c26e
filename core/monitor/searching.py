"""The search for an onset in one zone, beside the losses that were told already.

It owns what a search is given and whether what it finds is a loss of its own: a told loss never ends the search, its
level is a column that the search leaves free, and only what cannot be that loss's own swing is news. It refuses to
know how a loss is told and who is suspected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.arrays import Z95, Floats
from core.detection.bins import AGES_H, BLOCKS
from core.detection.errors import Errors, RowErrors, sums
from core.detection.glr import FLOOR_SHARE, Finding
from core.detection.own_tail import OwnTail
from core.detection.search import (
    SearchWindow,
    confirmed,
    exceeds_uncertainty,
    rows_of,
    search_is_due,
    search_window,
)
from core.detection.threshold import REFERENCE_RATE, students_quantile, threshold
from core.monitor.alarm import LEAST_W, SLOTS, Alarm, slot_of
from core.monitor.learning import START_DAYS, Learning
from core.monitor.wrong_clocks import WrongClocks

LEVEL_BEFORE_DAYS = 7  # rows before a told loss from which its level is estimated
SWING_DAYS = 14.0  # for so long a change within a told loss's size is taken for its own
SWING_SHARE = 1.3  # of a told loss: it may go away whole, and its size is not exact
# A household's swing has heavier tails than the threshold knows: beside one, a loss must stand out by more.
BESIDE_EXCESS, BESIDE_Z = 1.5, 3.0
BESIDE_H = 48.0  # while one is on, a loss must have lasted this long: one lively evening of a thief is none
SETTLE_DAYS = 5  # for so long after a loss was told nothing of its size is another one
DAYS_BEFORE, DAYS_LEAST = 21, 3  # of a told loss by which its own swing from day to day is known, at most and at least
LEAST_SHARE = 0.1  # of a told loss's mean: a day with less counts for so much
ONSETS_A_WEEK = 3  # independent ones that are tried
DAYS_ALIKE = 7  # a household's weeks are alike: so many days after an onset say no more than themselves
SURPLUS_H = 49.0  # a surplus is told no sooner than on its third day: a change of time begins with one
BACK_BELOW, BACK_WITHIN, BACK_DAYS = 0.5, 1.5, 3  # a return: little was lost in the days before, no more than it was


@dataclass(frozen=True, slots=True)
class NewLoss:
    """An onset that no told loss explains; rows of all time."""

    sign: float
    lo: int
    onset: int
    hi: int
    power_w: float  # while it runs
    mean_w: float  # over the day
    age_h: float


@dataclass(frozen=True, slots=True)
class Beside:
    """A told loss, and the others that are in the kept rows."""

    loss: Alarm
    others: Sequence[Alarm]


@dataclass(frozen=True, slots=True)
class Levels:
    """What told losses add, estimated together: theta [K] of their columns, and its covariance."""

    theta: Floats
    cov: Floats

    def of(self, told: Sequence[Alarm], loss: Alarm) -> Floats:
        """The part of theta that is `loss`'s."""
        size = len(self.theta) // max(len(told), 1)
        at = list(told).index(loss) * size
        return self.theta[at : at + size]


class OnsetSearch:
    """One zone's search; it remembers how far honest weeks came towards the threshold, and whose clocks are off."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self.tail = OwnTail()
        self.clocks = WrongClocks(learning)

    @property
    def reach(self) -> float:
        """Share of the theory's threshold from which a finding is an alarm in this house."""
        return self.tail.reach(self._learning.settings.false_alarms_per_year)

    @property
    def too_early(self) -> bool:
        """What was there from the start is judged first."""
        learning = self._learning
        return learning.history.count <= (START_DAYS[0] + 1) * learning.day_rows

    def is_due(self) -> bool:
        """Whether the last hours are worth a search between two marks."""
        learning = self._learning
        return search_is_due(learning.history, learning.noise, learning.row_h, learning.history.first)

    def window(
        self, free: Sequence[Alarm], *, known: Beside | None = None, mark: bool = False, first: int | None = None
    ) -> SearchWindow:
        """The kept rows from `first` on: the levels of `free` losses are left open, those `known` are taken off."""
        learning, history = self._learning, self._learning.history
        if first is None:
            first = max(history.first, history.count - round(AGES_H[-1] / learning.row_h))
        now = search_window(history, learning.model, learning.noise, REFERENCE_RATE, first, mark)
        others = () if known is None else known.others
        if not free and not others:
            return now
        slot = slot_of(history.rows(first, history.count).ends_s, learning.row_h)
        errors: list[Errors] = [*now.errors]
        errors += [loss.errors(slot, first, learning.row_h) for loss in free]
        errors += [loss.errors(slot, first, learning.row_h, free=False) for loss in others]
        if free:
            wander_w2 = sum(loss.wander_w2 for loss in free)
            now = replace(now, noise=replace(learning.noise, weather_w2=learning.noise.weather_w2 + wander_w2))
        if known is not None and others:
            levels, columns = self._others(known), self._columns(others, first, history.count)
            values, vectors = np.linalg.eigh(levels.cov)
            errors.append(RowErrors(columns @ (vectors * np.sqrt(np.maximum(values, 0.0)))))
            added = np.concatenate([[0.0], np.cumsum(columns @ levels.theta)])
            now = replace(now, booked_wh=now.booked_wh - added)
        return replace(now, errors=tuple(errors))

    def look(self, told: Sequence[Alarm], mark: bool) -> NewLoss | None:
        """Search both signs; None where nothing is found that is a loss (or surplus) of its own."""
        learning = self._learning
        history, load_w = learning.history, learning.load_w
        seen = self.window(told, mark=mark)
        now = self.clocks.taken_off(seen)
        reach = 1.0 if told else self.reach
        if mark and not told:
            self.tail.note(history.count // (7 * learning.day_rows), now.reached(load_w))
        for sign in (1.0, -1.0):
            least_h = BESIDE_H if any(loss.ended is None for loss in told) else SURPLUS_H if sign < 0 else 0.0
            found = now.search(sign, least_h, reach)
            if found is None or found.power_w * found.share < found.floor_share * load_w:
                continue
            lo, onset, hi = rows_of(found, sign, self._before(now, told, found), history.count)
            if told:
                on = any(loss.ended is None for loss in told)
                if self._is_swing(told, found, sign, onset) or not self._stands_beside(told, found, sign, onset, on):
                    continue
            elif not exceeds_uncertainty(onset, sign, now, history.count):
                continue
            if confirmed(sign, now, history, learning.model, learning.follower, reach):
                if self.clocks.explain(seen, sign, onset, reach):
                    return None
                self.tail.drop()
                return NewLoss(sign, lo, onset, hi, found.power_w, found.power_w * found.share, found.age_h)
        return None

    def detectable_w(self, told: Sequence[Alarm], days: float) -> float:
        """The smallest steady loss that would be found within `days` in this house today; NaN in its first days."""
        learning = self._learning
        if self.too_early:
            return math.nan
        now = self.window(told).exactly(learning.history, learning.model)
        beside = any(loss.ended is None for loss in told)
        beyond = (BESIDE_H, BESIDE_EXCESS) if beside else (0.0, 1.0 if told else self.reach)
        found_w = now.detectable_w(days * 24.0, *beyond)
        return max(found_w, FLOOR_SHARE * learning.load_w)

    def refine(self, loss: Alarm, others: Sequence[Alarm], since_h: float) -> tuple[int, int, int] | None:
        """The onset of a told loss again, at least `since_h` ago: first credible, likeliest, last credible row."""
        now = self.window(others)
        found = now.search(loss.sign, since_h, 1.0 if others else self.reach)
        if found is None:
            return None
        return rows_of(found, loss.sign, self._before(now, others, found), self._learning.history.count)

    def added_wh(self, known: Beside, start: int, stop: int, alike: bool = False) -> Floats:
        """What the others add to rows start .. stop - 1, as far as is known [T].

        `alike`: only those of the same sign, and normal loads. A meter that shows a recording or one value loses today
        and gives back tomorrow: whose it is shows in both.
        """
        if not known.others:
            return np.zeros(stop - start)
        levels, added = self._others(known), np.zeros(stop - start)
        for loss in known.others:
            if not alike or loss.sign == known.loss.sign or loss.accepted:
                added += self._columns((loss,), start, stop) @ levels.of(known.others, loss)
        return added

    def levels(self, told: Sequence[Alarm], until: int | None = None) -> Levels:
        """Least squares over slots of days up to row `until`, each loss's levels with their own wide prior."""
        learning, history = self._learning, self._learning.history
        stop = history.count if until is None else until
        block = max(1, learning.day_rows // SLOTS)
        hours = block * learning.row_h
        start = max(history.first + 1, min(loss.lo for loss in told) - LEVEL_BEFORE_DAYS * learning.day_rows)
        size = max(0, stop - start) // block
        start = stop - size * block
        if not size:
            width = self._columns(told, history.count, history.count).shape[1]
            return Levels(np.zeros(width), np.eye(width))
        booked, variance = history.booked(start, stop)
        slot = slot_of(history.rows(start, stop).ends_s, learning.row_h)
        at = block * np.arange(size)
        columns, swing = sums(tuple(loss.errors(slot, start, learning.row_h) for loss in told), at, at + block)
        noise = learning.noise
        scatter = noise.rough_w2h * hours + noise.weather_w2 * hours**2 + swing
        weight = 1.0 / (scatter + variance[:-1:block] + variance[block::block])
        energy = np.diff(booked[::block])
        cov = np.linalg.inv((columns * weight[:, None]).T @ columns + np.eye(columns.shape[1]))
        return Levels(cov @ (columns.T @ (weight * energy)), cov)

    def mean_w(self, told: Sequence[Alarm], loss: Alarm, quarter: int | None = None) -> float:
        """Power of a told loss while it is on, over the day or in one quarter of it."""
        levels_w = self.levels_w(told, loss)
        return float(levels_w.mean() if quarter is None else levels_w.reshape(BLOCKS, -1)[quarter].mean())

    def levels_w(self, told: Sequence[Alarm], loss: Alarm) -> Floats:
        """Power of a told loss in each slot of the UTC day [SLOTS]."""
        return np.asarray(self.levels(told).of(told, loss)[:SLOTS] * loss.scale_w)

    def _others(self, known: Beside) -> Levels:
        """The others' levels, estimated together with that of the loss beside which they are."""
        together = self.levels((*known.others, known.loss))
        size = len(together.theta) * len(known.others) // (1 + len(known.others))
        return Levels(together.theta[:size], together.cov[:size, :size])

    def _columns(self, told: Sequence[Alarm], start: int, stop: int) -> Floats:
        row_h = self._learning.row_h
        slot, at = slot_of(self._learning.history.rows(start, stop).ends_s, row_h), np.arange(stop - start)
        return np.hstack([loss.errors(slot, start, row_h).over(at, at + 1)[0] for loss in told])

    def _before(self, now: SearchWindow, told: Sequence[Alarm], found: Finding) -> SearchWindow:
        """`now` without what told losses added as they were before the onset that was found."""
        if not told:
            return now
        history = self._learning.history
        until = max(history.first + 1, history.count - round(found.far_h / now.row_h))
        columns = self._columns(told, now.first, history.count)
        added = np.concatenate([[0.0], np.cumsum(columns @ self.levels(told, until).theta)])
        return replace(now, booked_wh=now.booked_wh - added)

    def _stands_beside(self, told: Sequence[Alarm], found: Finding, sign: float, onset: int, on: bool) -> bool:
        """Whether what was lost since `onset` is beyond doubt when the told losses are estimated with it.

        Beside losses that have all ended (not `on`) it is enough that something is missing.
        """
        count = self._learning.history.count
        start = max(onset, self._learning.history.first + 1)
        if not all(self._beats_change(loss, sign, onset) for loss in told if loss.ended is None):
            return False
        if sign > 0 and all(loss.sign < 0 for loss in told if loss.ended is None) and self._loses(start):
            return True  # a surplus that swings never takes anything away
        new = Alarm(0, sign, onset, onset, onset, count, loss_w=found.power_w)
        power_w, sd_w = self.window((), known=Beside(new, told), first=start).power_w(start, count)
        return sign * power_w > (BESIDE_Z if on else Z95) * sd_w and (not on or found.excess > BESIDE_EXCESS)

    def _beats_change(self, loss: Alarm, sign: float, onset: int) -> bool:
        """Whether the days since `onset` are what a told loss that only swings from day to day is not.

        Welch's t of the days since against the days before it on which the told loss was on, at Student's quantile of
        the promised rate with no more degrees of freedom than there were days before: whose days are few, or scatter,
        may have changed itself. A loss beside a surplus may show in one quarter of the day, as a theft does at night
        beside a roof.
        """
        learning, history = self._learning, self._learning.history
        day = learning.day_rows
        after = (history.count - onset) // day
        until = history.count - -(-(history.count - onset) // day) * day  # at the same time of day as now
        before = min(DAYS_BEFORE, (until - max(loss.hi, history.first + 1)) // day)
        if after < 2 or before < DAYS_LEAST:
            return False
        quarter = day // BLOCKS

        def days_w(start: int, days: int) -> Floats:
            booked, _ = history.booked(start, start + days * day)
            by_quarter = np.diff(booked[::quarter]).reshape(days, BLOCKS) / (quarter * learning.row_h)
            whole = by_quarter.mean(axis=1, keepdims=True)
            return np.hstack([whole, by_quarter]) if sign > 0 > loss.sign else whole

        was, now = days_w(until - before * day, before), days_w(history.count - after * day, after)
        rate = learning.settings.false_alarms_per_year

        def beats(was: Floats, now: Floats, limit: float, spread: float, level_var: float) -> bool:
            gained = sign * (now.mean(axis=0) - was.mean(axis=0))
            return bool((gained > limit * np.sqrt(was.var(axis=0, ddof=1) * spread + level_var)).any())

        limit, level_var = threshold(24.0 * after, 1.0, rate, before), learning.noise.level_w2
        if not beats(was, now, limit, 1 / before + 1 / min(after, DAYS_ALIKE), level_var):
            return False
        if loss.sign != sign:
            return True
        # A household swings by factors, and its weeks swing as its days do: a week is one look, two days are one.
        least_w = max(LEAST_W, LEAST_SHARE * abs(float(was.mean())))
        was, now = (sign * np.log(np.maximum(sign * part, least_w)) for part in (was, now))
        spread = 1 / before + 1 / max(1.0, after / 7)
        return beats(was, now, students_quantile(rate * 7 / 365.25 / ONSETS_A_WEEK, before / 2), spread, 0.0)

    def _is_swing(self, told: Sequence[Alarm], found: Finding, sign: float, onset: int) -> bool:
        """Whether a told loss that goes, shrinks or comes back would look like this finding."""
        history, row_h, day_rows = self._learning.history, self._learning.row_h, self._learning.day_rows
        booked, _ = history.booked(history.first, history.count)

        def gross_w(start: int, stop: int) -> float:
            hours = max(1, stop - start) * row_h
            return float(booked[stop - history.first] - booked[start - history.first]) / hours

        after_w = gross_w(max(onset, history.first), history.count)
        if sign < 0 and after_w >= 0:
            return True  # a surplus is more on the sub-meters than on the main meter, not a loss that has shrunk
        ends_s = float(history.rows(history.count - 1, history.count).ends_s[0])
        quarter = None if found.share == 1.0 else int((ends_s - 1.0) % 86_400 // (86_400 / BLOCKS))
        for loss in told:
            if loss.ended is not None:
                continue
            level_w = loss.sign * self.mean_w(told, loss, quarter)
            if sign == loss.sign and history.count < loss.rest_until:
                return True
            if sign != loss.sign:
                less = found.power_w <= SWING_SHARE * level_w and found.age_h < SWING_DAYS * 24
                if less and not (sign > 0 and self._loses(max(onset, history.first + 1))):
                    return True
                continue
            if onset < loss.raised:
                return True  # it began before this one was told: that one's onset is set right instead
            new = history.count - loss.raised < SETTLE_DAYS * day_rows
            if new and found.power_w <= BACK_WITHIN * max(level_w, loss.level_w):
                return True
            before_w = gross_w(max(loss.onset, history.first, onset - BACK_DAYS * day_rows), onset)
            if sign * before_w < BACK_BELOW * level_w and sign * after_w <= BACK_WITHIN * level_w:
                return True
        return False

    def _loses(self, start: int) -> bool:
        """Whether energy is missing in some quarter of the day since row `start`, whatever a surplus adds."""
        learning, history = self._learning, self._learning.history
        day, noise = learning.day_rows, learning.noise
        days = (history.count - start) // day
        if days < 2:
            return False
        booked, _ = history.booked(history.count - days * day, history.count)
        power_w = np.diff(booked[:: day // BLOCKS]).reshape(days, BLOCKS) / (24.0 / BLOCKS)
        sd_w2 = power_w.var(axis=0, ddof=1) / days + noise.level_w2 + noise.quarter_w2 + noise.weather_w2
        return bool((power_w.mean(axis=0) > BESIDE_Z * np.sqrt(sd_w2)).any())

    # -- state --------------------------------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """All that must survive a restart."""
        return {
            "honest_weeks": [self.tail.weeks, self.tail.open_week, self.tail.largest],
            "clocks": self.clocks.pack(),
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on where `values` were packed."""
        weeks, open_week, largest = values["honest_weeks"]
        self.tail = OwnTail(list(weeks), open_week, largest)
        self.clocks.restore(values["clocks"])
