"""One zone watched: the order of learning, searching, alarms and suspects.

It owns nothing but that order: rows are explained as they come (learning), every hour or so their onset is searched
(searching), what is found is told and followed to its end (alarm_life), and it is asked who it is (suspects). Once a
day the kept rows are judged again under the model of that day. A told loss never stops the search.

It refuses to know registers, clocks, files and the wire; a state packed and restored goes on bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from core.arrays import Z95, Bools, Floats, Ints
from core.attribution.attribute import Attribution, attribute
from core.balance.history import APPEND_MAX, History
from core.balance.losses import LossModel
from core.balance.rows import ZoneRows
from core.balance.stalled import MOST_H, moved, moves_again, without_stalled
from core.detection.search import BETTER, SearchWindow
from core.evidence import Evidence
from core.fast.large_loss import LargeLoss, large_loss_evidence, onset_rows
from core.fast.ramps import Scene
from core.fast.usual import usual_power
from core.monitor.alarm import Alarm
from core.monitor.alarm_life import AlarmLife
from core.monitor.learning import START_DAYS, Learning
from core.monitor.searching import NewLoss, OnsetSearch
from core.monitor.spec import Settings, ZoneSpec
from core.monitor.suspects import SuspectList
from core.scoring.zone_scores import Scorer
from core.signs import MeterSign

MARK_H = 1  # hours between two looks at the last day
SEARCH_H = 3  # hours between two searches in all that is kept, and two looks at the sub-meters' features
SUSPICION_KEPT = 0.5 ** (SEARCH_H / (90 * 24))  # from look to look while no loss is on: half-life 90 days
DETECTABLE_DAYS = 7.0  # within which the smallest loss that is stated would be found
UNREAD_LEAST = 2  # rows of a week in which the house gave back: one may be a reading that came late
STEP_WH = 10.0  # of a sub-meter's register, where nobody says
START_ROWS = 4  # the first rows of all start the count: their boundaries are not known


class ZoneMonitor:
    """Watches one zone. `step` takes rows in order; `pack` and `restore` keep its state."""

    def __init__(
        self,
        zone: ZoneSpec,
        row_h: float,
        settings: Settings | None = None,
        judge: Callable[..., Attribution] = attribute,
        scorer: Scorer | None = None,
        states: Scorer | None = None,
    ) -> None:
        settings = settings or Settings()
        self.zone, self.row_h = zone, row_h
        self.learning = Learning(zone, row_h, settings)
        self.search = OnsetSearch(self.learning)
        self.life = AlarmLife(self.learning, self.search)
        self.suspects = SuspectList(zone, row_h, settings, judge, scorer, states)

    @property
    def history(self) -> History:
        """The kept rows."""
        return self.learning.history

    def step(self, rows: ZoneRows, missed: Bools, read: Floats) -> list[Evidence]:
        """Judge rows that follow the last ones; evidence in order of time."""
        evidence: list[Evidence] = []
        rows, missed, again = self._without_stalled(rows, missed, self.learning.load_w)
        start = until = 0
        while start < len(rows):
            if start >= until:  # the model is another one tomorrow
                first, until = start, self._after(rows.ends_s, start, 24, len(rows))
                said = self.learning.ready(rows[first:until])
            stop = self._after(rows.ends_s, start, MARK_H, until)
            moves = again[np.searchsorted(again, start) :][:1]  # a meter that catches up sets right what came before
            stop = min([stop, *(moves + 1).tolist()])
            part = slice(start - first, stop - first)
            taken, large = self.learning.take(said, part, missed[start:stop], read[start:stop], self.life.loss is None)
            start += taken
            if len(moves) and start == moves[0] + 1:
                self.learning.catch_up()
            at_s = float(rows.ends_s[start - 1])
            mark = at_s % (SEARCH_H * 3600) == 0 or self.row_h > SEARCH_H
            due = mark or large or (at_s % (MARK_H * 3600) == 0 and not self.life.seen and self.search.is_due())
            if due and not self.search.too_early:
                evidence += self._look(at_s, mark)
            if mark:
                evidence += self._revise(at_s)
            if at_s % 86_400 == 0:
                evidence += self._daily(at_s)
            if mark or large:
                self.suspects.follow(self.history, self.life.loss, SUSPICION_KEPT)
        return evidence

    def sign(self, sign: MeterSign) -> None:
        """Keep a tamper sign of one of the zone's meters; others are ignored."""
        self.suspects.sign(sign)

    def accept(self, sign: float, episode: int, reason: str, at_s: float) -> list[Evidence]:
        """Take a told loss (`sign` 1) or surplus (-1) for a normal load of the building; its end as an alarm."""
        loss = self.life.accept(sign, episode, reason)
        return [] if loss is None else [self._evidence(loss, at_s, self.history.count)]

    def large(self, found: LargeLoss) -> list[Evidence]:
        """Tell a large loss that short rows show before a row is over; who it is, the next mark tells."""
        history = self.history
        if not self.watches_minutes:
            return []
        last_s = float(history.rows(history.count - 1, history.count).ends_s[0])
        lo, onset, hi = onset_rows(found, last_s, self.row_h * 3600.0, history.count, history.first)
        hours = (found.at_s - found.onset_s) / 3600.0
        loss = self.life.open(NewLoss(1.0, lo, onset, hi, found.power_w, found.power_w, hours))
        loss.onset_s, loss.lo_s, loss.hi_s = found.onset_s, found.lo_s, found.hi_s
        return [large_loss_evidence(self.zone.id, loss.episode, found, hours)]

    def scene(self, row_h: float) -> tuple[LossModel, Scene] | None:
        """What the watch of short rows must know: the loss model for rows of `row_h`, and the noise around it.

        None while it is too early for them.
        """
        if self.search.too_early:
            return None
        history, learning = self.history, self.learning
        model, noise = learning.predictor(row_h), learning.noise
        start = max(history.first, history.count - learning.day_rows)
        usual_w, usual_w2 = usual_power(history, start, self.row_h)
        return model, Scene(
            load_w=learning.load_w,
            rough_w2h=noise.rough_w2h,
            slow_w2=noise.weather_w2 + noise.quarter_w2,
            level_w2=noise.level_w2,
            per_own=model.own_sd,
            per_wh=model.gain_sd,
            usual_w=usual_w,
            usual_w2=usual_w2,
            rate=learning.settings.false_alarms_per_year,
        )

    @property
    def watches_minutes(self) -> bool:
        """Whether a large loss would be told now: the zone is known, and none is on."""
        return self.life.loss is None and not self.search.too_early

    def detectable_w(self, days: float = DETECTABLE_DAYS) -> float:
        """The smallest steady loss that would be found within `days` in this house today, W; NaN in the first days."""
        return self.search.detectable_w(self.life.seen, days)

    def clocks(self) -> dict[str, float]:
        """By sub-meter whose clock is off: by how many seconds its registers are taken too late (-: too early)."""
        return {self.zone.subs[flat]: 3600.0 * hours for flat, hours in self.search.clocks.late_h().items()}

    @property
    def export_unread(self) -> bool:
        """Whether the flats gave back more than the house took, and the main meter's export is not taken off."""
        return self.zone.import_only and self.learning.unread_rows >= UNREAD_LEAST

    def standing(self) -> tuple[Floats, Floats]:
        """Features of all sub-meters [N, len(FEATURES)], and how likely each steals [N]."""
        return self.suspects.standing(self.life.loss)

    def _without_stalled(self, rows: ZoneRows, missed: Bools, load_w: float) -> tuple[ZoneRows, Bools, Ints]:
        """Rows that follow the last ones, without what stood still unread; those in which a meter moves again."""
        history, steps = self.history, self.zone.sub_steps_wh
        start = max(history.first, history.count - 2 * round(MOST_H / self.row_h))
        before, unread = history.rows(start, history.count), history.missed(start, history.count)
        moves = moved(np.concatenate([before.subs_wh, rows.subs_wh]), np.concatenate([unread, missed]))
        again = moves_again(moves, len(before), self.row_h)
        steps_wh = STEP_WH * len(self.zone.subs) if steps is None else sum(steps)
        rows, missed = without_stalled(rows, missed, before, moves, steps_wh, load_w, self.row_h)
        return rows, missed, np.flatnonzero(again)

    @staticmethod
    def _after(ends_s: Floats, start: int, hours: int, most: int) -> int:
        """The row behind the next of the day's marks that are `hours` apart, from row `start` on; at most `most`."""
        span_s = hours * 3600.0
        next_s = math.floor(ends_s[start] / span_s - 1e-9) * span_s + span_s
        most = min(most, start + APPEND_MAX)
        behind = start + int(ends_s[start:most].searchsorted(next_s, side="right"))
        return min(most, max(start + 1, behind))

    def _look(self, at_s: float, mark: bool) -> list[Evidence]:
        others = self.life.active
        found = self.search.look(self.life.seen, mark)
        if found is None:
            return []
        loss = self.life.open(found)
        since = self._since(loss)
        power_w, sd_w = since.power_w(since.first, since.settled(self.history.count))
        if loss.sign * power_w <= Z95 * sd_w:  # as it would be told, it may as well be nothing
            self.life.withdraw(loss, ())
            return []
        evidence = self._evidence(loss, at_s)
        if any(loss.sign == other.sign and self.suspects.same_flat(other, loss) for other in others):
            if not loss.returned:
                self.suspects.forget(loss)
            self.life.withdraw(loss, others)  # the flat that is told already takes more than it did
            return []
        ended = [told for told in self.life.told if told.ended is not None and told.sign == loss.sign]
        before = next((told for told in ended if not told.resumed and self.suspects.same_flat(told, loss)), None)
        if before is not None and not loss.returned:
            self.suspects.forget(loss)
            self.life.rejoin(loss, before)
            evidence = self._evidence(loss, at_s)
        return [evidence]

    def _revise(self, at_s: float) -> list[Evidence]:
        evidence = []
        for loss in self.life.active:
            turned = self.life.turned(loss)
            if turned is None and self.life.is_returned(loss):
                self.suspects.absolve(loss)
                evidence.append(replace(self._evidence(loss, at_s, self.history.count), returned=True))
                self.life.told.remove(loss)
            elif turned is not None or self.life.is_gone(loss):
                self.life.end(loss, turned)
                evidence.append(self._evidence(loss, at_s, loss.ended))
            elif self.life.due(loss):
                self.life.refine(loss)
                now = self._evidence(loss, at_s)
                if now.loss_w_interval[1] < 0.0:
                    continue  # it seems to have become its opposite: the next days tell
                evidence.append(now)
                elder = self._elder(loss)
                if elder is not None:  # one flat behind both: it is one loss that has changed
                    evidence[-1] = self._evidence(loss, at_s, self.history.count, merged_into=elder.episode)
                    self.suspects.forget(loss)
                    self.life.merge(loss, elder)
                    evidence.append(self._evidence(elder, at_s))
        return evidence

    def _elder(self, loss: Alarm) -> Alarm | None:
        """The loss that was told before `loss`, is on, and has the same flat behind it."""
        elders = [told for told in self.life.active if told.sign == loss.sign and told.serial < loss.serial]
        return next((told for told in elders if self.suspects.same_flat(told, loss)), None)

    def _daily(self, at_s: float) -> list[Evidence]:
        self.life.daily()
        self.learning.daily(self.life.seen)
        history = self.history
        if history.first > 0 or history.count // self.learning.day_rows not in START_DAYS:
            return []
        from_start = [loss for loss in self.life.active if loss.from_start]
        if self.life.told and not from_start:
            return []
        found = self.learning.initial_loss()
        if found is None:
            return []
        self.learning.set_apart(found)
        if from_start:
            self.learning.refresh(self.life.seen)
            return []
        loss = self.life.open_from_start(found.power_w, found.question, found.common)
        self.learning.refresh(self.life.seen)
        return [self._evidence(loss, at_s)]

    def _evidence(self, loss: Alarm, at_s: float, stop: int | None = None, merged_into: int | None = None) -> Evidence:
        """A revision of the alarm, as it is told; what has ended ran until row `stop`."""
        beside = self.life.beside(loss)
        evidence = self.suspects.evidence(
            loss,
            at_s,
            self.history,
            self._since(loss),
            lambda a, b: self.search.added_wh(beside, a, b, alike=True),
            stop,
        )
        return evidence if merged_into is None else replace(evidence, merged_into=merged_into)

    def _since(self, loss: Alarm) -> SearchWindow:
        """The balance since the onset; since the gap in which it lies began, where that is known better by far."""
        history, beside = self.history, self.life.beside(loss)
        start = min(history.count - 1, max(loss.onset, history.first + START_ROWS))
        since = self.search.window((), known=beside, first=start)
        settled = history.settled(start)
        if settled < start:
            before = self.search.window((), known=beside, first=settled)
            if BETTER * before.power_w(settled, history.count)[1] < since.power_w(start, history.count)[1]:
                return before
        return since

    # -- state --------------------------------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """All that is not in the rows from `first` on, which `restore` must be given again."""
        return {**self.learning.pack(), **self.search.pack(), **self.life.pack(), **self.suspects.pack()}

    def restore(self, values: Mapping[str, Any], rows: ZoneRows, missed: Bools, read: Floats) -> None:
        """Go on where `values` were packed; `rows` are those from `first` to `count`, their losses apart.

        Raises:
            ValueError: rows are missing.
        """
        self.learning.restore(values, *self._without_stalled(rows, missed, values["load_w"])[:2], read)
        self.search.restore(values)
        self.life.restore(values)
        self.suspects.restore(values, self.history, self.life.loss)
