"""What a building would be watched with otherwise: the two usual rules, as the floor that checkmeter is measured on.

`percent_rule` raises an alarm where a week's loss exceeds 5 % of the main meter. `daily_cusum` fits the technical
loss on the first 60 days, runs a CUSUM (Page, 1954) over the days after, and looks for the flat by least squares of
the residual on the sub-meters (Yip et al., 2017) and by each flat's drop against its own past. They see the same
registers as checkmeter; gaps are interpolated, as is usual there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.offline.evaluation.virtual_buildings import DAY_S, Building
from agent.offline.metrics import F64

PERCENT = 0.05
LEARNING_DAYS = 60
CUSUM_SLACK, CUSUM_LIMIT = 0.5, 8.0  # in standard deviations of the learning days
WEEK, WINDOW_DAYS, PAST_DAYS = 7, 14, 56


@dataclass(frozen=True, slots=True)
class BaselineAlarm:
    """One alarm: when, how much, and a share of suspicion for every flat (sums to 1)."""

    time_s: float
    loss_w: float
    suspicion: F64


@dataclass(frozen=True, slots=True)
class _Days:
    main_wh: F64  # [time]
    subs_wh: F64  # [time, flat]
    residual_wh: F64  # [time], technical loss taken off
    per_day: int
    days: int
    times_s: F64

    def daily(self, series: F64) -> F64:
        """Sums over whole days."""
        return np.asarray(series[: self.days * self.per_day].reshape(self.days, self.per_day).sum(axis=1))


def _prepare(building: Building) -> _Days:
    times = building.times_s
    subs = building.subs_wh.copy()
    for register in subs.T:
        known = np.isfinite(register)
        register[~known] = np.interp(times[~known], times[known], register[known])
    main_wh = np.diff(building.main_wh)
    subs_wh = np.maximum(np.diff(subs, axis=0), 0.0)  # a register that falls is a replaced meter
    per_day = round(DAY_S / (times[1] - times[0]))
    total = subs_wh.sum(axis=1)
    design = np.column_stack([np.ones_like(total), total, total**2])
    learning = slice(0, LEARNING_DAYS * per_day)
    residual = main_wh - total
    technical = design @ np.linalg.lstsq(design[learning], residual[learning], rcond=None)[0]
    return _Days(main_wh, subs_wh, residual - technical, per_day, len(main_wh) // per_day, times)


def percent_rule(building: Building) -> list[BaselineAlarm]:
    """Seven days' mean loss above 5 % of the main meter; suspicion by correlation with the residual."""
    rows = _prepare(building)
    loss = rows.daily(rows.main_wh - rows.subs_wh.sum(axis=1)) / np.maximum(rows.daily(rows.main_wh), 1.0)
    week = np.convolve(loss, np.ones(WEEK) / WEEK)[: rows.days]
    above = week > PERCENT
    crossings = [day for day in range(WEEK, rows.days) if above[day] and not above[day - 1]]
    return [_alarm(rows, day, _correlations(rows, day)) for day in crossings]


def daily_cusum(building: Building) -> list[BaselineAlarm]:
    """CUSUM of the daily residual against its first 60 days; suspicion by least squares and by the drop in use."""
    rows = _prepare(building)
    daily = rows.daily(rows.residual_wh)
    learned = daily[:LEARNING_DAYS]
    score = (daily - learned.mean()) / max(float(learned.std(ddof=1)), 1e-9)
    alarms, level = [], 0.0
    for day in range(LEARNING_DAYS, rows.days):
        level = max(0.0, level + score[day] - CUSUM_SLACK)
        if level > CUSUM_LIMIT:
            alarms.append(_alarm(rows, day, np.maximum(_least_squares(rows, day) / 4, _drops(rows, day))))
            level = 0.0
    return alarms


def _window(rows: _Days, day: int) -> slice:
    return slice(max(0, day + 1 - WINDOW_DAYS) * rows.per_day, (day + 1) * rows.per_day)


def _alarm(rows: _Days, day: int, rank: F64) -> BaselineAlarm:
    window = _window(rows, day)
    interval_h = 24 / rows.per_day
    weight = np.exp(rank - rank.max())
    end_s = float(rows.times_s[min((day + 1) * rows.per_day, len(rows.times_s) - 1)])
    return BaselineAlarm(end_s, float(rows.residual_wh[window].mean() / interval_h), weight / weight.sum())


def _correlations(rows: _Days, day: int) -> F64:
    window = _window(rows, day)
    x, y = rows.subs_wh[window], rows.residual_wh[window]
    x, y = x - x.mean(axis=0), y - y.mean()
    return np.asarray(x.T @ y / np.maximum(np.sqrt((x**2).sum(axis=0) * (y**2).sum()), 1e-9))


def _least_squares(rows: _Days, day: int) -> F64:
    """t values of the regression of the residual on all sub-meters."""
    window = _window(rows, day)
    x, y = rows.subs_wh[window], rows.residual_wh[window]
    inverse = np.linalg.inv(x.T @ x + 1e-6 * np.eye(x.shape[1]) * np.trace(x.T @ x))
    gain = inverse @ (x.T @ y)
    left = float(np.var(y - x @ gain))
    return np.asarray(gain / np.sqrt(np.maximum(left * np.diag(inverse), 1e-12)))


def _drops(rows: _Days, day: int) -> F64:
    """Each flat's fall against its own past, in standard deviations of that past."""
    past = slice(max(0, day - WINDOW_DAYS - PAST_DAYS) * rows.per_day, max(1, day - WINDOW_DAYS) * rows.per_day)
    before, now = rows.subs_wh[past], rows.subs_wh[_window(rows, day)]
    return np.asarray((before.mean(axis=0) - now.mean(axis=0)) / (before.std(axis=0) + 1e-3))
