"""The life of a zone's alarms: told, revised, refined, gone, back again, or taken for a normal load.

It owns which losses are on, when each is told again, and when it has ended. It refuses to know how a loss is found and
who is suspected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from core.detection.bins import BLOCKS
from core.detection.search import SearchWindow
from core.monitor.alarm import SLOT_H, SLOTS, SWING_SHARE, WANDER_SHARE, WIDE, Alarm
from core.monitor.learning import HISTORY_DAYS, Learning
from core.monitor.searching import Beside, NewLoss, OnsetSearch

REVISIONS_H = (0.0, 3.0, 6.0, 12.0, 24.0, 48.0, 72.0, 120.0, 168.0, 240.0, 336.0, 480.0, 672.0)
REVISION_H = 336.0  # and then
REFINED_H = 14 * 24.0  # for this long after an alarm its onset may still be set right
CLEAR_H = 168.0  # a loss has to be gone for this long
CLEAR_SHARE = 0.2  # gone means: less than this share of what it was
KNOWN_SHARE = 0.5  # of what it was: where the week's mean is not known so well, nobody can say
PAUSED_SHARE = 0.5  # a loss that took less than this share since it was told is not where it began
RESTLESS_Z = 2.0  # and then its days scatter no more than this, in standard deviations
RETURN_DAYS = 90  # a loss of the same size within this time after one has ended is the same loss again
RETURN_RATIO, RETURN_RATIO_HOURS = 4.0, 8.0  # over days, and over some hours of an evening
SWING_PRIOR_DAYS = 0.5  # days of its own that what is taken for a loss's swing is worth
WANDER_DAYS = 3  # its mean over so many days wanders from one such time to the next
REST_DAYS = 7  # for so long after a lively time of a flat nothing more is told beside it
LOSSES_MAX = 8  # told at once, at most: bounds the state; the oldest that has ended makes room


class AlarmLife:
    """One zone's told losses, oldest first."""

    def __init__(self, learning: Learning, search: OnsetSearch) -> None:
        self._learning, self._search = learning, search
        self.told: list[Alarm] = []
        self.episodes = {1.0: 0, -1.0: 0}
        self.serial = 0  # of all that were told

    @property
    def active(self) -> list[Alarm]:
        """Those that are on and that the utility wants to hear of."""
        return [loss for loss in self.told if loss.active]

    @property
    def loss(self) -> Alarm | None:
        """The largest loss that is on."""
        return max((a for a in self.active if a.sign > 0), key=lambda a: a.loss_w, default=None)

    @property
    def seen(self) -> list[Alarm]:
        """Those that are in the kept rows."""
        first = self._learning.history.first
        return [loss for loss in self.told if loss.ended is None or loss.ended > first]

    def beside(self, loss: Alarm) -> Beside:
        """`loss`, and the others that are in the kept rows."""
        return Beside(loss, [other for other in self.seen if other is not loss])

    def open(self, found: NewLoss) -> Alarm:
        """Tell a loss; one that has ended and is back keeps its episode."""
        count = self._learning.history.count
        loss = Alarm(0, found.sign, found.lo, found.onset, found.hi, count, loss_w=found.power_w)
        for before in reversed(self.told):
            if self._is_back(before, found):
                before.resumed, loss.episode = True, before.episode
                loss.returned = [*before.returned, (before.lo, before.ended or count)]
                break
        return self._add(loss)

    def withdraw(self, loss: Alarm, others: Sequence[Alarm]) -> None:
        """Untell a loss that is one of `others` in a livelier time: they swing further than was known."""
        self.told.remove(loss)
        if not loss.returned:
            self.episodes[loss.sign] -= 1
        for other in others:
            if other.sign == loss.sign:
                other.rest_until = self._learning.history.count + REST_DAYS * self._learning.day_rows

    def rejoin(self, loss: Alarm, before: Alarm) -> None:
        """Take a loss that was just told for one that has ended, begun again: it keeps that one's episode."""
        count = self._learning.history.count
        self.episodes[loss.sign] -= 1
        before.resumed, loss.episode = True, before.episode
        loss.returned = [*before.returned, (before.lo, before.ended or count)]

    def merge(self, younger: Alarm, elder: Alarm) -> None:
        """Take two losses that are on for one: the elder's, which swings further than was known."""
        self.told.remove(younger)
        elder.rest_until = self._learning.history.count + REST_DAYS * self._learning.day_rows

    def open_from_start(self, power_w: float, question: bool, common: float) -> Alarm:
        """Tell a loss that was there before the first row."""
        history = self._learning.history
        first = history.first
        return self._add(
            Alarm(
                0, 1.0, first, first, first, history.count,
                from_start=True, loss_w=power_w, question=question, common=common,
            )
        )  # fmt: skip

    def due(self, loss: Alarm) -> bool:
        """Whether it is time to tell a loss again."""
        age_h = (self._learning.history.count - loss.raised) * self._learning.row_h
        beyond = loss.revisions - len(REVISIONS_H)
        return age_h >= (REVISIONS_H[loss.revisions] if beyond < 0 else REVISIONS_H[-1] + REVISION_H * (beyond + 1))

    def refine(self, loss: Alarm) -> None:
        """Estimate the onset again while the rows before it are fresh; it stays before the alarm."""
        since_h = (self._learning.history.count - loss.raised) * self._learning.row_h
        if loss.from_start or since_h > REFINED_H or self._pauses(loss):
            return
        rows = self._search.refine(loss, self.beside(loss).others, since_h)
        if rows is not None:
            loss.lo, loss.onset, loss.hi = (min(row, loss.raised - 1) for row in rows)
            self._fix_times(loss)

    def _pauses(self, loss: Alarm) -> bool:
        """Whether little was lost since the alarm: it is over, or stands still, and says nothing of its beginning."""
        stop = self._learning.history.count
        if stop <= loss.raised:
            return False
        power_w, _ = self._search.window((), known=self.beside(loss), first=loss.raised).power_w(loss.raised, stop)
        return loss.sign * power_w < PAUSED_SHARE * loss.loss_w

    def is_gone(self, loss: Alarm) -> bool:
        """Whether the loss has been gone for CLEAR_H: little is lost, and no day of it stands out.

        A meter that shows one value or a recording loses today and gives back tomorrow; that is not gone.
        """
        learning, stop = self._learning, self._learning.history.count
        start = stop - round(CLEAR_H / learning.row_h)
        if start < max(loss.raised, learning.history.first):
            return False
        now = self._search.window((), known=self.beside(loss), first=start)
        power_w, sd_w = now.power_w(start, stop)
        if loss.sign * power_w >= min(CLEAR_SHARE * loss.loss_w, 2.5 * sd_w) or sd_w > KNOWN_SHARE * loss.first_w:
            return False
        return self._is_quiet(now, start, stop, learning.day_rows)

    def is_returned(self, loss: Alarm) -> bool:
        """Whether all that was missing is back: a register stood still and has caught up. Then it was no loss.

        The balance since the onset is even to less than its uncertainty, and no quarter of the last day stands out.
        """
        learning, stop = self._learning, self._learning.history.count
        day, start = learning.day_rows, learning.history.settled(max(loss.lo, learning.history.first + 1))
        if loss.past_to or stop - day < loss.raised:
            return False
        booked, _ = learning.history.booked(start, stop)
        if loss.sign * (booked[-1] - booked[0]) > CLEAR_SHARE * loss.first_w * (stop - start) * learning.row_h:
            return False
        now = self._search.window((), known=self.beside(loss), first=start)
        power_w, sd_w = now.power_w(start, stop)
        if loss.sign * power_w >= 2.5 * sd_w or sd_w > CLEAR_SHARE * loss.first_w:
            return False
        return self._is_quiet(now, stop - day, stop, day // BLOCKS)

    @staticmethod
    def _is_quiet(now: SearchWindow, start: int, stop: int, length: int) -> bool:
        """Whether parts of so many rows scatter no more than the balance does."""
        parts = np.array([now.power_w(at, at + length) for at in range(start, stop, length)])
        return bool(np.mean((parts[:, 0] / parts[:, 1]) ** 2) < RESTLESS_Z**2)

    def end(self, loss: Alarm) -> None:
        """The loss is gone; when exactly within the last week is left open."""
        stop, row_h = self._learning.history.count, self._learning.row_h
        loss.ended = max(loss.raised, stop - round((1 - 1.25 * CLEAR_SHARE) * CLEAR_H / row_h))
        loss.fading = max(loss.onset, stop - round(1.25 * CLEAR_H / row_h))
        if loss.from_start:
            self._learning.unmetered_is_normal()

    def accept(self, sign: float, episode: int, reason: str) -> Alarm | None:
        """From now on a told loss is a normal load of the building; None if it is not on."""
        for loss in self.active:
            if loss.sign == sign and loss.episode == episode:
                loss.accepted = reason
                if loss.from_start:  # it is the unmetered load that the building honestly has
                    self.told.remove(loss)
                    self._learning.unmetered_is_normal()
                return loss
        return None

    def daily(self) -> None:
        """Book what was lost in rows that are about to be forgotten, learn how losses swing, forget old ones."""
        learning = self._learning
        history, day_rows = learning.history, learning.day_rows
        for loss in self.seen:
            self._learn_swing(loss)
        forgotten = max(history.first, history.count - HISTORY_DAYS * day_rows)
        for loss in self.told:
            start = max(loss.onset, loss.past_to, history.first)
            if loss.active and start < forgotten:
                booked, _ = history.booked(start, forgotten)
                added = self._search.added_wh(self.beside(loss), start, forgotten)
                loss.past_wh += float(booked[-1] - booked[0]) - float(added.sum())
                loss.past_to = forgotten
        for loss in [loss for loss in self.told if loss.accepted and loss.ended is None]:
            if loss.onset <= forgotten:  # no kept row knows the building without it
                learning.add_unmetered(self._search.levels_w(self.seen, loss))
                self.told.remove(loss)
        self.told = [
            loss for loss in self.told if loss.ended is None or history.count - loss.ended < RETURN_DAYS * day_rows
        ]

    def _add(self, loss: Alarm) -> Alarm:
        self.serial += 1
        loss.serial = self.serial
        if not loss.returned:
            self.episodes[loss.sign] += 1
            loss.episode = self.episodes[loss.sign]
        self._fix_times(loss)
        if len(self.told) >= LOSSES_MAX:
            self.told.remove(min(self.told, key=lambda told: (told.ended is None, told.raised)))
        self.told.append(loss)
        return loss

    def _is_back(self, loss: Alarm, found: NewLoss) -> bool:
        """Whether a finding is a loss that has ended, begun again."""
        if loss.sign != found.sign or loss.ended is None or loss.resumed or found.onset < (loss.fading or loss.ended):
            return False
        most = RETURN_RATIO if found.age_h >= 24.0 else RETURN_RATIO_HOURS
        return loss.level_w / RETURN_RATIO <= found.mean_w <= most * max(loss.level_w, loss.scale_w / WIDE)

    def _fix_times(self, loss: Alarm) -> None:
        """Note the times of the onset's rows, while they are kept."""
        history, row_s = self._learning.history, self._learning.row_h * 3600.0

        def begins_s(row: int) -> float:
            at = min(max(row, history.first), history.count - 1)
            return float(history.rows(at, at + 1).ends_s[0]) - row_s

        loss.onset_s, loss.lo_s, loss.hi_s = begins_s(loss.onset), begins_s(loss.lo), begins_s(loss.hi)

    def _learn_swing(self, loss: Alarm) -> None:
        """How far the loss swings in each slot of the day: by successive days, so that a slow change is none."""
        learning, history = self._learning, self._learning.history
        stop = history.count if loss.fading is None else loss.fading
        start = max(loss.hi, history.first + 1)
        whole = max(1, round(SLOT_H / learning.row_h))
        if stop - start < whole:
            return
        booked, variance = history.booked(start, stop)
        begins_s = history.rows(start, stop).ends_s - learning.row_h * 3600.0
        group = (np.rint(begins_s - begins_s[0] % (3600.0 * SLOT_H)) // (3600 * SLOT_H)).astype(np.intp)
        edges = np.flatnonzero(np.diff(group, prepend=group[0] - 1, append=group[-1] + 1))
        full = np.diff(edges) == whole
        hours = whole * learning.row_h
        power_w = (np.diff(booked[edges]) / hours)[full]
        known_w2 = ((variance[edges[:-1]] + variance[edges[1:]]) / hours**2)[full]
        slot = (begins_s[edges[:-1]] % 86_400.0 // (3600 * SLOT_H)).astype(np.intp)[full]
        prior = (SWING_SHARE * loss.level_w) ** 2
        for k in range(SLOTS):
            here = slot == k
            steps = np.diff(power_w[here]) ** 2 / 2
            spare = max(0.0, float(steps.sum()) - float(known_w2[here][1:].sum()))
            loss.swing_w2[k] = (SWING_PRIOR_DAYS * prior + spare) / (SWING_PRIOR_DAYS + len(steps))
        rows = WANDER_DAYS * learning.day_rows
        means_w = np.diff(booked[::rows]) / (24.0 * WANDER_DAYS)
        white_w2 = float(np.mean(loss.swing_w2)) * SLOT_H / (24.0 * WANDER_DAYS)
        steps = np.diff(means_w) ** 2 / 2
        spare = max(0.0, float(steps.sum()) - len(steps) * white_w2)
        prior = (WANDER_SHARE * loss.level_w) ** 2
        loss.wander_w2 = (SWING_PRIOR_DAYS * prior + spare) / (SWING_PRIOR_DAYS + len(steps))

    # -- state --------------------------------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """All that must survive a restart."""
        return {
            "alarms": [asdict(loss) for loss in self.told],
            "episodes": [self.episodes[1.0], self.episodes[-1.0]],
            "serial": self.serial,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on where `values` were packed."""
        self.told = [Alarm(**{**loss, "returned": [(a, b) for a, b in loss["returned"]]}) for loss in values["alarms"]]
        self.episodes = {1.0: values["episodes"][0], -1.0: values["episodes"][1]}
        self.serial = values["serial"]
