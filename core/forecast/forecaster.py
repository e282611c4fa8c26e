"""The forecaster of one zone: energies in, forecast out.

It owns the order of things: energies into local days, a closed day into what is learned, and what is learned into the
next 48 h from any instant. It depends on what it was fed and on nothing else, so that the same readings cut short give
the same earlier forecasts to the last bit. It refuses to know clocks, files and the wire.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.forecast.calendar import Calendar
from core.forecast.load import SHARES, LoadModel
from core.forecast.outdoor import OutdoorTemperature
from core.forecast.peaks import ExtremeHead
from core.forecast.values import Extreme, Forecast, OverCapacity
from core.forecast.window import DAYS, LoadWindow, Scale

Floats = NDArray[np.float64]

HORIZON_S = 48 * 3600
LEAST_DAYS = 7  # measured, before anything is said
WARM_DAYS = 28
FINEST_S, COARSEST_S = 900.0, 3600.0  # of a forecast's step
DRIFT = 3.0  # the mean load may change by this factor before the scale is learned again
NEARBY_S = 3600.0  # a peak's time is right within this
STALE_DAYS = 3  # whole local days without a reading: from then on nothing is said
BEYOND_SEEN = 3.0  # a figure may pass the highest and the lowest load that is kept by so many of the larger of them
CUMULATIVE = np.array([0.0, *SHARES.tolist(), 1.0])
RECENT_S = 3600.0  # an error older than this says nothing of now


def step_of(interval_s: float) -> float | None:
    """The forecast's step for readings of `interval_s`: as long, but 15 min at least; None where none fits an hour."""
    for count in range(1, 61):
        step_s = count * interval_s
        if FINEST_S <= step_s <= COARSEST_S and 3600 % step_s == 0:
            return step_s
    return None


class Forecaster:
    """One zone's forecast. `capacity_w`: of fuse, transformer share or contract. `signed`: energy may flow back.

    `outdoor`: temperatures, taken up when a local day closes; without any the forecast is what it is without them.

    Raises:
        ValueError: `interval_s` does not divide an hour; such a site has no forecast.
    """

    def __init__(
        self,
        zone: str,
        interval_s: float,
        calendar: Calendar,
        *,
        capacity_w: float | None = None,
        signed: bool = False,
        outdoor: OutdoorTemperature | None = None,
    ) -> None:
        step_s = step_of(interval_s)
        if step_s is None:
            raise ValueError(f"zone {zone}: a forecast needs intervals that divide an hour, got {interval_s:g} s")
        self.zone, self.interval_s, self.step_s = zone, interval_s, step_s
        self.calendar, self.capacity_w, self._signed, self._outdoor = calendar, capacity_w, signed, outdoor
        self.window = LoadWindow(step_s, calendar)
        self._until_s = -np.inf  # end of the last interval
        self._begun = False
        self._scale: Scale | None = None
        self._model = LoadModel(step_s, calendar, 0, outdoor)
        self._heads = self._fresh_heads()
        self._said: tuple[tuple[float, Floats], ...] = ()  # height and band of each head for the open day
        self._at_midnight: tuple[float, ...] = ()  # mean extreme of the possible courses of the open day

    def _fresh_heads(self) -> tuple[ExtremeHead, ExtremeHead]:
        return ExtremeHead(1, self.step_s, self.calendar), ExtremeHead(-1, self.step_s, self.calendar)

    @property
    def until_s(self) -> float | None:
        """End of the last interval that was fed; None before the first."""
        return self._until_s if self._begun else None

    # -- in -----------------------------------------------------------------------------------------------------------

    def add(self, ends_s: Floats, energy_wh: Floats) -> None:
        """Take intervals [T] that end at rising `ends_s`; NaN where the meter was not read. Older ones are ignored."""
        fresh = ends_s > self._until_s + 0.5 * self.interval_s
        ends_s, energy_wh = ends_s[fresh], energy_wh[fresh]
        if not len(ends_s):
            return
        day, step = self.calendar.place(ends_s - 0.5 * self.interval_s, self.step_s)
        for k in range(len(ends_s)):
            self._reach(int(day[k]))
            self.window.book(int(step[k]), float(energy_wh[k]), self.interval_s)
        self._until_s = float(ends_s[-1])

    def _reach(self, day: int) -> None:
        """Close the days before `day`; after so long a gap that nothing is known any more, begin again."""
        window = self.window
        ahead = day - window.last - 1
        if not self._begun or ahead > DAYS or (window.count == DAYS and not np.isfinite(window.power_w).any()):
            window.begin(day)
            self._begun, self._scale = True, None
            return
        for _ in range(ahead):
            self._close()

    def _close(self) -> None:
        window = self.window
        today = window.close()
        if self._scale is None or self._outgrown():
            self._learn_again()
        else:
            self._learn(self._scale.of(today))

    def _measured_days(self) -> int:
        return int((np.isfinite(self.window.power_w).mean(axis=1) >= 0.5).sum())

    def _outgrown(self) -> bool:
        """Whether the scale no longer fits: another load altogether, or energy that flows back for the first time."""
        assert self._scale is not None
        last = self.window.power_w[-LEAST_DAYS:]
        measured = np.isfinite(last)
        if measured.mean() < 0.5:
            return False
        unit = self._scale.unit_w
        mean = max(float(np.abs(last[measured]).mean()), 1.0)
        back = float(last[measured].min()) < -0.02 * unit and not self._scale.signed
        return back or mean > DRIFT * unit or unit > DRIFT * mean

    def _learn_again(self) -> None:
        """Learn from all days of the window as if they came now, with a scale of what they are."""
        window = self.window
        known = window.power_w[DAYS - window.count :]
        if self._measured_days() < LEAST_DAYS:
            return
        recent = known[-LEAST_DAYS:] if np.isfinite(known[-LEAST_DAYS:]).mean() >= 0.5 else known
        unit = float(np.nanmean(np.abs(recent)))
        signed = self._signed or bool(np.nanmin(known) < -0.02 * unit)
        self._scale = Scale(unit, signed=signed)
        self._model = LoadModel(self.step_s, self.calendar, window.last - len(known) + 1, self._outdoor)
        self._heads = self._fresh_heads()
        for power_w in known:
            self._learn(self._scale.of(power_w))

    def _learn(self, numbers: Floats) -> None:
        assert self._scale is not None
        model = self._model
        for head in self._heads:
            if model.known >= 3:
                head.learn(model.day, numbers, model.mean[0])
        model.learn(numbers)
        self._said = tuple(head.predict(model.mean[0], ratio=not self._scale.signed) for head in self._heads)
        whole = model.mean[0] + model.spread[0] * model.paths
        self._at_midnight = tuple(
            float(model.weights @ head.best(whole)) if len(whole) else 0.0 for head in self._heads
        )

    def restate(self, since_s: float, until_s: float, extra_w: float) -> None:
        """Count `extra_w` that the meter did not show from `since_s` to `until_s`: energy found stolen is still drawn.

        What was learned is learned again from the days that are kept.
        """
        starts = np.arange(since_s, until_s, self.step_s)
        self.window.restate(*self.calendar.place(starts, self.step_s), extra_w)
        self._scale = None
        self._learn_again()

    # -- out ----------------------------------------------------------------------------------------------------------

    def forecast(self, issued_s: float) -> Forecast | None:
        """The next 48 h from `issued_s`, of what was fed.

        None as long as fewer than 7 days were measured, and after `STALE_DAYS` without any reading: what follows from
        its own expectations alone is no forecast. All figures are bounded by what was measured.
        """
        day, _ = self.calendar.place(np.array([issued_s + 0.5 * self.step_s]), self.step_s)
        if self._begun:
            self._reach(int(day[0]))
        if self._scale is None or self.window.last + 1 != day[0] or self._model.silent >= STALE_DAYS:
            return None
        count = round(HORIZON_S / self.step_s)
        starts = issued_s + self.step_s * np.arange(count)
        days, steps = self.calendar.place(starts + 0.5 * self.step_s, self.step_s)
        leads = np.minimum(days - day[0], 2)
        mean, spread = self._model.mean[leads, steps], self._model.spread[leads, steps]
        now, told = self._now(int(steps[0]), count)
        mean = mean + spread * told * now
        narrow = np.sqrt(1 - told**2)
        levels = np.stack([self._model.quantiles(lead) for lead in range(3)])
        quantiles = self._scale.power_w(mean[:, None] + (spread * narrow)[:, None] * levels[leads]).T
        first = self.window.steps
        paths = self._paths(steps[:first], told[:first], mean[:first], spread[:first])
        curve = mean[:first], (spread * narrow)[:first]
        peak, trough = (self._extreme(k, issued_s, steps[:first], curve, paths, int(days[0])) for k in (0, 1))
        return Forecast(
            self.zone,
            issued_s,
            self.step_s,
            np.clip(self._scale.power_w(mean), *self._bounds_w()),
            np.clip(np.sort(quantiles, axis=0), *self._bounds_w()),
            peak[0],
            trough[0],
            self._over(peak[1], paths),
            self._measured_days(),
            self._flags(),
        )

    def _bounds_w(self) -> tuple[float, float]:
        """Between what powers every figure lies."""
        low, high = float(np.nanmin(self.window.power_w)), float(np.nanmax(self.window.power_w))
        margin = BEYOND_SEEN * max(abs(low), abs(high))
        return low - margin, high + margin

    def _now(self, step: int, count: int) -> tuple[float, Floats]:
        """The last error of the open day in spreads, and how far it tells those of the coming steps, [count]."""
        told = np.zeros(count)
        if step == 0:  # the day is closed: its end is among the features
            return 0.0, told
        today = self.window.today_w[:step]
        recent = np.flatnonzero(np.isfinite(today[-max(1, round(RECENT_S / self.step_s)) :]))
        if not len(recent):
            return 0.0, told
        assert self._scale is not None
        at = step - min(step, max(1, round(RECENT_S / self.step_s))) + int(recent[-1])
        error = (float(self._scale.of(today[at : at + 1])[0]) - self._model.mean[0, at]) / self._model.spread[0, at]
        correlation = self._model.correlation()
        ahead = np.arange(step - at, step - at + count)
        told[:] = np.where(ahead < len(correlation), correlation[np.minimum(ahead, len(correlation) - 1)], 0.0)
        return float(np.clip(error, -4, 4)), told

    def _paths(self, steps: NDArray[np.intp], told: Floats, mean: Floats, spread: Floats) -> Floats:
        """Possible courses of the next 24 h, [n, steps]: the curve with the errors of each day that is kept."""
        errors = self._model.paths[:, steps]
        begun = errors[:, :1] if told.any() else 0.0
        return np.asarray(mean + spread * (errors - told * begun))

    def _extreme(
        self,
        which: int,
        issued_s: float,
        steps: NDArray[np.intp],
        curve: tuple[Floats, Floats],
        paths: Floats,
        day: int,
    ) -> tuple[Extreme, float]:
        """Peak (0) or trough (1) of a `curve` of mean and spread, and its height as a number."""
        assert self._scale is not None
        head, (centre, band) = self._heads[which], self._said[which]
        weights = self._model.weights
        band = centre + (band - centre) * self._model.widening
        if steps[0] and len(paths):  # from midnight's day to the 24 h from now: by what the paths make of it
            moved = float(weights @ head.best(paths)) - self._at_midnight[which]
            centre, band = centre + moved, band + moved
        habit = head.times(self.calendar.kind(day), day)[steps]
        probability = head.probability(*curve, self._model.points, CUMULATIVE, habit / habit.sum())
        near = round(NEARBY_S / self.step_s)
        total = np.concatenate([[0.0], np.cumsum(probability)])
        at = np.arange(len(steps))
        around = total[np.minimum(at + near + 1, len(steps))] - total[np.maximum(at - near, 0)]
        start_s = issued_s + float(np.argmax(around)) * self.step_s
        low, height, high = np.clip(self._scale.power_w(np.array([band[0], centre, band[1]])), *self._bounds_w())
        low, high = min(low, height), max(high, height)
        return Extreme(float(height), (float(low), float(high)), start_s, probability), centre

    def _over(self, centre: float, paths: Floats) -> OverCapacity | None:
        if self.capacity_w is None:
            return None
        assert self._scale is not None
        limit = float(self._scale.of(np.array([self.capacity_w]))[0])
        head = self._heads[0]
        possible = self.capacity_w <= self._bounds_w()[1]
        probability = head.beyond(limit, centre, self._model.widening) if possible else 0.0
        steps_over = 1.0
        if len(paths):
            weights = self._model.weights
            shifted = paths + (centre - float(weights @ head.best(paths)))
            over = (shifted > limit).sum(axis=1)
            passed = weights[over > 0]
            if len(passed):
                steps_over = float(passed @ over[over > 0] / passed.sum())
        return OverCapacity(self.capacity_w, min(1.0, max(0.0, probability)), steps_over * self.step_s)

    def _flags(self) -> tuple[str, ...]:
        share = np.isfinite(self.window.power_w[-LEAST_DAYS:]).mean(axis=1)
        flags = (
            ("warming_up", self._measured_days() < WARM_DAYS),
            ("gaps", float(share.mean()) < 0.95),
            ("stale", float(share[-1]) == 0.0),
            ("temperature_stale", self._model.blind),
        )
        return tuple(name for name, is_so in flags if is_so)
