"""One zone's watch: rows in, evidence out. It ties losses, detection and attribution together and latches alarms.

It owns the order of learning and judging. Rows younger than the guard time (half the zone's age at first) are judged
against a loss model that has not seen them, and are absorbed as normal only when they have aged without an alarm, so
that a slow theft is not learned. While an alarm is latched nothing is absorbed; rows of a theft are never absorbed.
Once a day the kept rows are judged anew under the model of that day.

It refuses to know registers, clocks, files and the wire; a state packed and restored goes on bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from core.arrays import Bools, Floats
from core.attribution.attribute import Attribution, attribute
from core.balance.history import History
from core.balance.losses import WEATHER, LossModel
from core.balance.rows import ZoneRows
from core.balance.tracker import CUSUM, Follower
from core.detection.bins import AGES_H, BLOCKS
from core.detection.initial_loss import honest_building
from core.detection.noise import Noise, learn_noise
from core.detection.search import SearchWindow, balance, confirmed, exceeds_uncertainty, rows_of, search_is_due
from core.evidence import Evidence
from core.monitor.alarm import Alarm
from core.monitor.spec import Settings, ZoneSpec
from core.monitor.suspects import SuspectList
from core.scoring.zone_scores import Scorer
from core.signs import MeterSign

HISTORY_DAYS = 70
MARK_H = 1  # hours between two looks at the last day
SEARCH_H = 3  # hours between two searches in all that is kept, and two looks at the sub-meters' features
NOMINAL_W = 450.0  # per sub-meter, until a day has told the load
SEGMENT = 64  # rows judged at once at most
REVISIONS_H = (0.0, 3.0, 6.0, 12.0, 24.0, 48.0, 72.0, 120.0, 168.0, 240.0, 336.0, 480.0, 672.0)
REVISION_H = 336.0  # and then
REFINED_H = 14 * 24.0  # so long after an alarm its onset may still be set right
CLEAR_H = 168.0  # a loss has to be gone for so long
RESTLESS_Z = 2.0  # and then its days scatter no more than this, in standard deviations
CLEAR_SHARE = 0.2  # gone means: less than this share of what it was
SUSPICION_KEPT = 0.5 ** (SEARCH_H / (90 * 24))  # from look to look while nothing is latched: half-life 90 days
START_DAYS = (8, 11, 14, 21, 28, 42, 56)  # when what was there from the start is judged
START_ROWS = 4


class ZoneMonitor:
    """Watches one zone. `step` takes rows in order; `pack` and `restore` keep its state."""

    def __init__(
        self,
        zone: ZoneSpec,
        row_h: float,
        settings: Settings | None = None,
        judge: Callable[..., Attribution] = attribute,
        scorer: Scorer | None = None,
    ) -> None:
        self.zone, self.row_h = zone, row_h
        self.settings = settings or Settings()
        count = len(zone.subs)
        self.day_rows = round(24 / row_h)
        self.history = History((HISTORY_DAYS + 2) * self.day_rows, count)
        self.model = LossModel(row_h, zone.main_class, zone.sub_classes, NOMINAL_W * count)
        self.absorbed = 0  # rows of all time that the loss model has dealt with
        self.quiet_from = 0  # rows before it belong to a past alarm
        self.blind_until = (START_DAYS[0] + 1) * self.day_rows  # no search before the model knows enough
        self.noise = learn_noise(np.zeros(1), np.zeros(1), NOMINAL_W * count, 0.0, 0.0)
        self.alarms: dict[float, Alarm] = {}
        self.episodes = {1.0: 0, -1.0: 0}
        self.suspects = SuspectList(zone, row_h, self.settings, judge, scorer)
        self._reference: Floats | None = None  # coefficients of the honest building while an alarm from the start is on
        self._follower = Follower()

    # -- rows in ------------------------------------------------------------------------------------------------------

    def step(self, rows: ZoneRows, missed: Bools, read: Floats) -> list[Evidence]:
        """Judge rows that follow the last ones; evidence in order of time."""
        evidence: list[Evidence] = []
        start = 0
        while start < len(rows):
            stop = self._mark(rows.ends_s, start)
            first = self.history.count
            before = self._follower.state.copy()
            self.history.append(rows[start:stop], missed[start:stop], read[start:stop])
            self._predict(first)
            fast = None if 1.0 in self.alarms else self._follower.first_large(self.history, self.model, stop - start)
            if fast is not None:
                if fast < self.history.count:  # judge that row knowing nothing of later ones
                    self.history.truncate(fast)
                    self._follower.state[:] = before
                    self._predict(first)
                    stop = start + fast - first
                self._follower.state[CUSUM] = 0.0
            at_s = float(rows.ends_s[stop - 1])
            mark = at_s % (SEARCH_H * 3600) == 0 or self.row_h > SEARCH_H
            if mark or fast is not None or (at_s % (MARK_H * 3600) == 0 and self._search_is_due()):
                evidence += self._look(at_s, mark)
            if at_s % 86_400 == 0:
                evidence += self._daily(at_s)
            if mark or fast is not None:
                self.suspects.follow(self.history, self.alarms.get(1.0), SUSPICION_KEPT)
            start = stop
        return evidence

    def sign(self, sign: MeterSign) -> None:
        """Keep a tamper sign of one of the zone's meters; others are ignored."""
        self.suspects.sign(sign)

    def _mark(self, ends_s: Floats, start: int) -> int:
        """The row after the next mark."""
        next_s = math.floor(ends_s[start] / (MARK_H * 3600) - 1e-9) * (MARK_H * 3600) + MARK_H * 3600
        return min(len(ends_s), start + SEGMENT, max(start + 1, int(np.searchsorted(ends_s, next_s, side="right"))))

    def _predict(self, first: int) -> None:
        """Explain rows from `first` on under the model of now, and follow what it leaves unexplained."""
        self._follower.advance(self.history, self.model, self._coefficients(), first)

    def _coefficients(self) -> Floats:
        """What is expected of the building: weather apart, which nobody can foretell."""
        x = (self.model.x if self._reference is None else self._reference).copy()
        x[1 + WEATHER] = 0.0
        return x

    def _fresh_model(self, load_w: float | None = None) -> LossModel:
        """A loss model that has learned nothing, of the load that is known or of `load_w`."""
        load_w = self._load_w() if load_w is None else load_w
        return LossModel(self.row_h, self.zone.main_class, self.zone.sub_classes, load_w)

    def _load_w(self) -> float:
        return self.model.load_w

    # -- once a day ---------------------------------------------------------------------------------------------------

    def _daily(self, at_s: float) -> list[Evidence]:
        """Absorb what has aged in peace, judge the kept rows anew, learn the noise, look at what was always there."""
        history = self.history
        # The first day tells the load roughly, the days until the first judgement tell it well: then it is fixed.
        first_days = history.first == 0 and history.count == START_DAYS[0] * self.day_rows
        if (self.absorbed == 0 or first_days) and not self.alarms:
            rows = history.rows(history.first, history.count)
            load_w = float(np.mean(rows.main_wh)) / self.row_h
            if load_w > 0:
                self.model = self._fresh_model(load_w)
                self.absorbed = 0
        if not self.alarms:
            lag = min(round(self.settings.guard_days * self.day_rows), (history.count - self.quiet_from) // 2)
            until = (history.count - lag) // self.day_rows * self.day_rows
            if until > self.absorbed:
                start = max(self.absorbed, history.first)
                self.model.absorb(history.rows(start, until), history.gap_before(start))
                self.absorbed = until
        self._refresh()
        young = history.first == 0 and self.quiet_from == 0 and history.count // self.day_rows in START_DAYS
        latched = self.alarms.get(1.0)
        if young and ((not self.alarms and self.episodes[1.0] == 0) or (latched is not None and latched.from_start)):
            return self._judge_start(at_s)
        return []

    def _refresh(self) -> None:
        """Explain all kept rows under the model of now; measure the noise of the absorbed days."""
        history = self.history
        history.trim(HISTORY_DAYS * self.day_rows)
        history.forget_booked()
        self._follower.forget()
        self._predict(history.first)
        if self.alarms:
            return
        start = max(history.first, self.quiet_from, self.day_rows)
        days = max(0, (self.absorbed - start) // self.day_rows)
        recent = history.rows(max(history.first, history.count - 3 * self.day_rows), history.count)
        level_sd_w = self.model.level_sd_w(recent)
        quarter_sd_w = max(self.model.level_sd_w(part) for part in _quarters(recent))
        if days > 4 or self.quiet_from == 0:
            known = max(self.absorbed, history.first)
            booked, variance = history.booked(known - days * self.day_rows, known)
            quarters = slice(None, None, self.day_rows // BLOCKS)
            self.noise = learn_noise(booked[quarters], variance[quarters], self._load_w(), level_sd_w, quarter_sd_w)
        else:
            self.noise = replace(self.noise, level_w2=level_sd_w**2, quarter_w2=quarter_sd_w**2)

    # -- looking ------------------------------------------------------------------------------------------------------

    def _balance(self, mark: bool = False, first: int | None = None) -> SearchWindow:
        if first is None:
            first = max(self.history.first, self.quiet_from, self.history.count - round(AGES_H[-1] / self.row_h))
        return balance(self.history, self.model, self.noise, self.settings.false_alarms_per_year, first, mark)

    def _search_is_due(self) -> bool:
        first = max(self.history.first, self.quiet_from)
        return not self.alarms and search_is_due(self.history, self.noise, self.row_h, first)

    def _look(self, at_s: float, mark: bool) -> list[Evidence]:
        """Search both signs; raise, revise or clear."""
        if self.alarms:
            return self._revise(at_s) if mark else []
        if self.history.count <= self.blind_until:  # what was there from the start is judged first
            return []
        now = self._balance(mark)
        for sign in (1.0, -1.0):
            found = now.search(sign)
            if found is None or found.excess < 1.0 or found.power_w * found.share < found.floor_share * self._load_w():
                continue
            lo, onset, hi = rows_of(found, sign, now, self.history.count)
            if exceeds_uncertainty(onset, sign, now, self.history.count) and confirmed(
                sign, now, self.history, self.model, self._follower
            ):
                self.episodes[sign] += 1
                alarm = Alarm(self.episodes[sign], sign, lo, onset, hi, self.history.count, from_start=False)
                self.alarms[sign] = alarm
                return [self._evidence(alarm, at_s)]
        return []

    def _judge_start(self, at_s: float) -> list[Evidence]:
        """Look for a loss that was there before us; while it is on, look again what the building would be without."""
        history = self.history
        rows = history.rows(history.first, history.count)
        reference = honest_building(rows, self._fresh_model, self.noise.rough_w2h, self.settings.offset_s)
        if reference is None:
            return []
        if self.alarms:
            self._reference = reference
            self._refresh()
            return []
        return self._raise_start(reference, at_s)

    def _raise_start(self, reference: Floats, at_s: float) -> list[Evidence]:
        """Latch a loss that was there before us, against the building as `reference` says it honestly is."""
        history = self.history
        self._reference = reference
        self.episodes[1.0] += 1
        alarm = Alarm(self.episodes[1.0], 1.0, history.first, history.first, history.first, history.count, True)
        self.alarms[1.0] = alarm
        self._refresh()
        return [self._evidence(alarm, at_s)]

    # -- while an alarm is on -----------------------------------------------------------------------------------------

    def _revise(self, at_s: float) -> list[Evidence]:
        evidence = []
        for alarm in list(self.alarms.values()):
            age_h = (self.history.count - alarm.raised) * self.row_h
            if self._gone(alarm):
                evidence.append(self._evidence(alarm, at_s, active=False))
                self._release(alarm)
                continue
            due = (
                REVISIONS_H[alarm.revisions]
                if alarm.revisions < len(REVISIONS_H)
                else REVISIONS_H[-1] + REVISION_H * (alarm.revisions - len(REVISIONS_H) + 1)
            )
            if age_h >= due:
                self._refine(alarm)
                evidence.append(self._evidence(alarm, at_s))
        return evidence

    def _refine(self, alarm: Alarm) -> None:
        """Estimate the onset again while the rows before it are still fresh.

        It lies before the alarm: a loss that swings, as behind a meter that shows one value, is no new one each time.
        """
        since_h = (self.history.count - alarm.raised) * self.row_h
        if alarm.from_start or since_h > REFINED_H:
            return
        now = self._balance()
        found = now.search(alarm.sign, since_h)
        if found is None or found.excess < 1.0:
            return
        rows = rows_of(found, alarm.sign, now, self.history.count)
        alarm.lo, alarm.onset, alarm.hi = (min(row, alarm.raised - 1) for row in rows)

    def _gone(self, alarm: Alarm) -> bool:
        """Whether the loss has been gone for CLEAR_H: little is lost, and no day of it stands out.

        A meter that shows one value or a recording loses today and gives back tomorrow; that is not gone.
        """
        stop = self.history.count
        start = stop - round(CLEAR_H / self.row_h)
        if start < max(alarm.raised, self.history.first):
            return False
        now = self._balance(first=start)
        power_w, sd_w = now.power_w(start, stop)
        if alarm.sign * power_w >= min(CLEAR_SHARE * alarm.loss_w, 2.5 * sd_w):
            return False
        days = np.array([now.power_w(day, day + self.day_rows) for day in range(start, stop, self.day_rows)])
        return bool(np.mean((days[:, 0] / days[:, 1]) ** 2) < RESTLESS_Z**2)

    def _release(self, alarm: Alarm) -> None:
        """Forget the rows of the theft: they are neither learned nor searched."""
        del self.alarms[alarm.sign]
        self._reference = None
        history = self.history
        if alarm.from_start:  # what was learned of the theft is forgotten with it
            self.model = self._fresh_model()
            self.blind_until = history.count + (START_DAYS[0] + 1) * self.day_rows
        until = alarm.lo // self.day_rows * self.day_rows
        if until > max(self.absorbed, history.first):
            start = max(self.absorbed, history.first)
            self.model.absorb(history.rows(start, until), history.gap_before(start))
            self.absorbed = until
        self.model.skip((history.count - self.absorbed) * self.row_h)
        # The loss may have lasted into the first fifth of what was judged: see CLEAR_SHARE.
        self.quiet_from = max(alarm.raised, history.count - round((1 - 1.25 * CLEAR_SHARE) * CLEAR_H / self.row_h))
        self.absorbed = max(self.absorbed, self.quiet_from)
        self._refresh()

    def _evidence(self, alarm: Alarm, at_s: float, active: bool = True) -> Evidence:
        """A revision of the alarm, as it is told."""
        # The first row of all starts the count: its boundary is not known.
        start = min(self.history.count - 1, max(alarm.onset, self.history.first + START_ROWS))
        return self.suspects.evidence(alarm, at_s, self.history, self._balance(first=start), active)

    def standing(self) -> tuple[Floats, Floats]:
        """Features of all sub-meters [N, len(FEATURES)], and how likely each steals [N]."""
        return self.suspects.standing(self.alarms.get(1.0))

    # -- state --------------------------------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """All that is not in the rows from `first` on, which `restore` must be given again."""
        lost = self.history.rows(self.history.first, self.history.count).lost_wh2
        return {
            "first": self.history.first,
            "x": self.model.x,
            "p": self.model.p,
            "load_w": self.model.load_w,
            "absorbed": self.absorbed,
            "quiet_from": self.quiet_from,
            "blind_until": self.blind_until,
            "count": self.history.count,
            "lost_rows": np.flatnonzero(lost),
            "lost_wh2": lost[lost > 0],
            "noise": asdict(self.noise),
            "alarms": [asdict(a) for a in self.alarms.values()],
            "episodes": [self.episodes[1.0], self.episodes[-1.0]],
            "track": self._follower.state,
            "reference": None if self._reference is None else self._reference.tolist(),
            **self.suspects.pack(),
        }

    def restore(self, values: Mapping[str, Any], rows: ZoneRows, missed: Bools, read: Floats) -> None:
        """Go on where `values` were packed; `rows` are those from `first` to `count`, their losses apart.

        Raises:
            ValueError: rows are missing.
        """
        first, count = values["first"], values["count"]
        if len(rows) != count - first:
            raise ValueError(f"zone {self.zone.id}: {len(rows)} stored rows, expected {count - first}")
        self.model = self._fresh_model(values["load_w"])
        self.model.x[:], self.model.p[:] = values["x"], values["p"]
        self.absorbed, self.quiet_from = values["absorbed"], values["quiet_from"]
        self.blind_until = values["blind_until"]
        self.noise = Noise(**values["noise"])
        self.alarms = {alarm["sign"]: Alarm(**alarm) for alarm in values["alarms"]}
        self.episodes = {1.0: values["episodes"][0], -1.0: values["episodes"][1]}
        self._reference = None if values["reference"] is None else np.array(values["reference"])
        lost = np.zeros(count - first)
        lost[values["lost_rows"]] = values["lost_wh2"]
        rows = replace(rows, lost_wh2=lost)
        self.history.begin(first)
        for start in range(0, len(rows), SEGMENT):
            part = slice(start, start + SEGMENT)
            self.history.append(rows[part], missed[part], read[part])
        self._follower.forget()
        self._predict(self.history.first)
        self._follower.state[:] = values["track"]
        self.suspects.restore(values, self.history, self.alarms.get(1.0))


def _quarters(rows: ZoneRows) -> list[ZoneRows]:
    """Rows by quarter of the day; quarters without a row are left out."""
    quarter = (rows.ends_s - 1.0) % 86_400 // (86_400 / BLOCKS)
    return [rows.where(quarter == k) for k in range(BLOCKS) if (quarter == k).any()]
