"""What is normal for one zone: learned from rows that have aged, explained in the rows that are kept.

It owns the loss model, the noise of the balance, and which rows they may learn from: rows younger than the guard time
(half the zone's age at first) are judged against a model that has not seen them, so that a slow theft is not learned as
normal. Rows of a told loss are not learned, nor any behind it while it is on; a load that the utility has accepted as
normal is a further state of the filter, so that it does not stop the learning. It refuses to know suspects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from core.arrays import Bools, Floats
from core.balance.history import History
from core.balance.losses import HOURS, WEATHER, LossModel
from core.balance.rows import ZoneRows
from core.balance.stalled import SHAPE, CatchUp, catch_ups
from core.balance.tracker import CUSUM, Explained, Follower
from core.detection.bins import BLOCKS
from core.detection.initial_loss import InitialLoss, initial_loss
from core.detection.noise import Noise, learn_noise
from core.monitor.alarm import SLOT_H, Alarm
from core.monitor.spec import Settings, ZoneSpec

HISTORY_DAYS = 70
NOMINAL_W = 450.0  # per sub-meter, until one day of readings gives the load
START_DAYS = (8, 11, 14, 21, 28, 42, 56)  # when what was there from the start is judged
KNOWN_DAYS = 4  # of the building's own, from which on its noise is learned
UNMETERED_SD_W = 0.5  # per sub-meter, beside a loss from the start: what more is unmetered is the loss


class Learning:
    """One zone's normal life. `history` holds the rows, explained under the model of now."""

    def __init__(self, zone: ZoneSpec, row_h: float, settings: Settings) -> None:
        self.zone, self.row_h, self.settings = zone, row_h, settings
        self.day_rows = round(24 / row_h)
        count = len(zone.subs)
        self.history = History((HISTORY_DAYS + 2) * self.day_rows, count)
        self.model = self._fresh_model(NOMINAL_W * count)
        self.absorbed = 0  # rows of all time that the loss model has dealt with
        self.noise = learn_noise(np.zeros(1), np.zeros(1), NOMINAL_W * count, 0.0, 0.0)
        self.follower = Follower()
        self.caught: list[CatchUp] = []  # what is in the kept rows

    @property
    def load_w(self) -> float:
        """Nominal load of the zone, W."""
        return self.model.load_w

    def ready(self, rows: ZoneRows) -> Explained:
        """Rows that follow the last ones, explained under the model of now, which must not change till they are in."""
        return self.follower.ready(self.history, self.model, self._coefficients(), rows)

    def take(self, said: Explained, part: slice, missed: Bools, read: Floats, until_large: bool) -> tuple[int, bool]:
        """Append the rows `part` of those explained: how many were taken, and whether a large loss shows.

        With `until_large` the rows behind the one at which a large loss shows are left.
        """
        count, large = self.follower.append(self.history, self.model, said, part, missed, read, until_large)
        if large:
            self.follower.state[CUSUM] = 0.0
        return count, large

    def catch_up(self) -> None:
        """Spread what sub-meters that stood still until the last row caught up with in it."""
        found = catch_ups(self.history, self.history.count - 1, self.row_h)
        if not found:
            return
        state = self.follower.state.copy()
        for one in found:
            self.history.spread(one.sub, one.start, one.stop, SHAPE)
        self.caught = [one for one in self.caught if one.start > self.history.first] + found
        self.follower.explain(self.history, self.model, self._coefficients())
        self.follower.state[CUSUM] = state[CUSUM]

    def daily(self, told: Sequence[Alarm]) -> None:
        """Learn what has aged, explain the kept rows under the model of now, measure the noise."""
        history = self.history
        # The first day tells the load roughly, the days until the first judgement tell it well: then it is fixed.
        first_days = history.first == 0 and history.count == START_DAYS[0] * self.day_rows
        if (self.absorbed == 0 or first_days) and not told:
            rows = history.rows(history.first, history.count)
            load_w = float(np.mean(rows.main_wh)) / self.row_h
            if load_w > 0:
                self.model = self._fresh_model(load_w)
                self.absorbed = 0
        lag = min(round(self.settings.guard_days * self.day_rows), history.count // 2)
        self._absorb((history.count - lag) // self.day_rows * self.day_rows, told)
        self.refresh(told)

    def refresh(self, told: Sequence[Alarm]) -> None:
        """Explain all kept rows under the model of now; measure the noise of the learned days without a told loss."""
        history = self.history
        history.trim(HISTORY_DAYS * self.day_rows)
        history.forget_booked()
        self.follower.explain(history, self.model, self._coefficients())
        recent = history.rows(max(history.first, history.count - 3 * self.day_rows), history.count)
        level_w = self.model.level_sd_w(recent)
        quarter_w = max(self.model.level_sd_w(part) for part in _quarters(recent))
        known = max(self.absorbed, history.first)
        days = max(0, (self.absorbed - max(history.first, self.day_rows)) // self.day_rows)
        start = known - days * self.day_rows
        quiet = np.ones(known - start, np.bool_)
        for loss in told:
            until = known if loss.ended is None else loss.ended
            quiet[max(0, loss.lo - start) : max(0, until - start)] = False
        if not told or quiet.sum() > KNOWN_DAYS * self.day_rows:
            booked, variance = history.booked(start, known)
            quarter = self.day_rows // BLOCKS
            apart = np.concatenate([[False], ~quiet.reshape(-1, quarter).all(axis=1)])
            self.noise = learn_noise(
                booked[::quarter], np.where(apart, np.inf, variance[::quarter]), self.load_w, level_w, quarter_w
            )
        else:
            self.noise = replace(self.noise, level_w2=level_w**2, quarter_w2=quarter_w**2)

    def initial_loss(self) -> InitialLoss | None:
        """A loss that was there before the first row, if no honest building explains all rows so far."""
        rows = self.history.rows(self.history.first, self.history.count)
        return initial_loss(rows, self._fresh_model, self.noise.rough_w2h, self.settings.offset_s)

    def set_apart(self, loss: InitialLoss) -> None:
        """From now on the building is what it would be without `loss`."""
        self.model.adopt(loss.fit, loss.reference, UNMETERED_SD_W)
        self.absorbed = self.history.count
        # What was learned so far of the noise is the loss's own life: its swing tells that from now on.
        self.noise = learn_noise(np.zeros(1), np.zeros(1), self.load_w, 0.0, 0.0)

    def add_unmetered(self, slots_w: Floats) -> None:
        """Take a load of `slots_w` [SLOTS] in the slots of the UTC day for a part of the building."""
        self.model.x[1 : 1 + HOURS] += slots_w[np.arange(HOURS) // SLOT_H] / max(self.model.count, 1)

    def unmetered_is_normal(self) -> None:
        """Learn again what load nobody meters."""
        self.model.free_unmetered()

    def _absorb(self, until: int, told: Sequence[Alarm]) -> None:
        """Learn up to row `until`; not from rows of a loss that is no normal load, nor past one that is on."""
        for loss in sorted((loss for loss in told if not loss.accepted), key=lambda loss: loss.lo):
            if loss.lo >= until or (loss.ended is not None and loss.ended <= self.absorbed):
                continue
            self._learn(loss.lo // self.day_rows * self.day_rows, told)
            if loss.ended is None:
                return
            end = min(until, loss.ended)
            self.model.skip((end - self.absorbed) * self.row_h)
            self.absorbed = end
        self._learn(until, told)

    def _learn(self, until: int, told: Sequence[Alarm]) -> None:
        """Learn rows up to `until` with the accepted loads among them as states of their own."""
        start = max(self.absorbed, self.history.first)
        if until <= start:
            return
        rows = self.history.rows(start, until)
        loads = {loss.serial: loss for loss in told if loss.accepted and loss.lo < until}
        columns = {serial: loss.columns(rows, start, self.row_h) for serial, loss in loads.items()}
        self.model.carry([serial for serial, column in columns.items() for _ in range(column.shape[1])])
        serials = list(dict.fromkeys(self.model.told))
        told_wh = np.hstack([columns[serial] for serial in serials]) if serials else None
        swing_wh2 = sum((loss.swing_wh2(rows, start, self.row_h) for loss in loads.values()), np.zeros(len(rows)))
        rows = replace(rows, lost_wh2=rows.lost_wh2 + swing_wh2)
        self.model.absorb(rows, self.history.gap_before(start), told_wh=told_wh)
        self.absorbed = until

    def predictor(self, row_h: float) -> LossModel:
        """What is expected of the building in rows of another length; for reading only."""
        model = self.model.of_rows(row_h)
        model.x = self._coefficients()
        return model

    def _coefficients(self) -> Floats:
        """What is expected of the building: without the weather term, which cannot be predicted."""
        x = self.model.x.copy()
        x[1 + WEATHER] = 0.0
        return x

    def _fresh_model(self, load_w: float | None = None) -> LossModel:
        """A loss model that has learned nothing, of the load that is known or of `load_w`."""
        zone = self.zone
        load_w = self.load_w if load_w is None else load_w
        return LossModel(self.row_h, zone.main_class, zone.sub_classes, load_w, zone.unmetered_w)

    # -- state --------------------------------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """All that is not in the rows from `first` on, which `restore` must be given again."""
        history = self.history
        lost = history.rows(history.first, history.count).lost_wh2
        return {
            "first": history.first,
            "count": history.count,
            "x": self.model.x,
            "p": self.model.p,
            "told": list(self.model.told),
            "load_w": self.model.load_w,
            "absorbed": self.absorbed,
            "lost_rows": np.flatnonzero(lost),
            "lost_wh2": lost[lost > 0],
            "noise": asdict(self.noise),
            "track": self.follower.state,
            "caught": [[one.sub, one.start, one.stop] for one in self.caught],
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
        self.model.carry(values["told"])
        self.model.x[:], self.model.p[:] = values["x"], values["p"]
        self.absorbed = values["absorbed"]
        self.noise = Noise(**values["noise"])
        lost = np.zeros(count - first)
        lost[values["lost_rows"]] = values["lost_wh2"]
        self.history.fill(first, replace(rows, lost_wh2=lost), missed, read)
        self.caught = [CatchUp(*one) for one in values.get("caught", ()) if one[1] > first]
        for one in self.caught:
            self.history.spread(one.sub, one.start, one.stop, SHAPE)
        self.follower.explain(self.history, self.model, self._coefficients())
        self.follower.state[:] = values["track"]


def _quarters(rows: ZoneRows) -> list[ZoneRows]:
    """Rows by quarter of the day; quarters without a row are left out."""
    quarter = (rows.ends_s - 1.0) % 86_400 // (86_400 / BLOCKS)
    return [rows.where(quarter == k) for k in range(BLOCKS) if (quarter == k).any()]
