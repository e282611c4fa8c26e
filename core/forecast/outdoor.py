"""Outdoor temperature as a regressor: what was measured, what a weather service expects, and what both say of a day.

It owns the hours of temperature and the degrees made of them. It refuses to know loads. Heating and cooling follow the
degrees below and above a base (degree days: ASHRAE Fundamentals, ch. 19), delayed by the mass of the building (the
lumped thermal capacity of ISO 13790). Nothing is taken that was not known at the midnight that is forecast from: of
the days to come only what was expected.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.forecast.calendar import Calendar
from core.forecast.window import DAYS

Floats = NDArray[np.float64]

HOURS = 24
KEPT = DAYS + 24  # local days: those that are learned from, and what may be handed in ahead
LOWEST_C, HIGHEST_C = -60.0, 60.0  # what lies beyond is no weather but a broken sensor (-127, 85, 32767)
HEATING_C, COOLING_C = 16.0, 20.0  # bases
LAGS_H = (3.0, 24.0)  # of light and of heavy buildings
PAST = 7  # days that a day is compared with
ENOUGH = 0.5  # share of a day's hours without which its temperature is not known
PERSISTENCE = 0.8  # of yesterday's departure from the last week's mean temperature, a day
DEGREES = 2 * len(LAGS_H)  # heating and cooling by each lag
REGRESSORS = 2 * DEGREES  # of the day, and of yesterday, against the last week


class OutdoorTemperature:
    """Temperature in degrees Celsius by local day and hour, NaN where not known; at most `KEPT` days are kept."""

    def __init__(self, calendar: Calendar) -> None:
        self.calendar = calendar
        self._measured: dict[int, Floats] = {}
        self._expected: dict[int, Floats] = {}

    def measure(self, times_s: Floats, outdoor_c: Floats) -> None:
        """Take temperatures [n] as measured at UTC `times_s` [n]; what cannot be a temperature is left out."""
        self._take(self._measured, times_s, outdoor_c)

    def expect(self, times_s: Floats, outdoor_c: Floats) -> None:
        """Take temperatures [n] as expected for UTC `times_s` [n], as a weather service publishes them."""
        self._take(self._expected, times_s, outdoor_c)

    def _take(self, table: dict[int, Floats], times_s: Floats, outdoor_c: Floats) -> None:
        sane = np.isfinite(outdoor_c) & (outdoor_c >= LOWEST_C) & (outdoor_c <= HIGHEST_C)
        day, hour = self.calendar.place(times_s[sane], 3600.0)
        for d, h, value in zip(day.tolist(), hour.tolist(), outdoor_c[sane].tolist(), strict=True):
            row = table.get(d)
            if row is None:
                row = table[d] = np.full(HOURS, np.nan)
                if len(table) > KEPT:
                    del table[min(table)]
            row[h] = value

    def rows(self) -> tuple[dict[int, Floats], dict[int, Floats]]:
        """What was measured and what was expected, by local day, [24] each: to be kept over a restart."""
        return self._measured, self._expected

    def _known(self, day: int) -> Floats:
        """Of a day that is over, [24]: measured, else expected, short gaps filled; NaN where too little is known."""
        nothing = np.full(HOURS, np.nan)
        measured = self._measured.get(day, nothing)
        row = np.where(np.isfinite(measured), measured, self._expected.get(day, nothing))
        return _filled(row)

    def _coming(self, day: int, last: int, before: Floats) -> Floats:
        """Of a day after `last`, [24]: expected, else as the days `before` [PAST, 24] were, nearer to the last one."""
        expected = _filled(self._expected.get(day, np.full(HOURS, np.nan)))
        if np.isfinite(expected).all():
            return expected
        mean = float(before.mean())
        return np.asarray(before.mean(axis=0) + PERSISTENCE ** (day - last) * (float(before[-1].mean()) - mean))

    def regressors(self, day: int, last: int, steps: int) -> Floats | None:
        """[steps, REGRESSORS] of local day `day` where days up to `last` are over; None where too little is known."""
        known = [self._known(last - k) for k in range(PAST)][::-1]
        whole = [k for k, row in enumerate(known) if np.isfinite(row).all()]
        coming = [self._expected.get(last + k) for k in range(1, day - last + 1)]
        told = all(row is not None and np.isfinite(_filled(row)).all() for row in coming)
        if len(whole) < 3 or (whole[-1] != PAST - 1 and not told):
            return None
        mean = np.mean([known[k] for k in whole], axis=0)
        past = np.array([row if np.isfinite(row).all() else mean for row in known])
        ahead = [self._coming(last + k, last, past) for k in range(1, day - last + 1)]
        degrees = _degrees(np.concatenate([past.ravel(), *ahead])).reshape(-1, HOURS, DEGREES)
        usual = degrees[1:PAST].mean(axis=0)  # the first day's is still led by where the delay began
        hours = np.concatenate([degrees[-1] - usual, degrees[PAST - 1] - usual], axis=1)
        return np.repeat(hours, steps // HOURS, axis=0)


def _filled(row: Floats) -> Floats:
    """A day's temperatures [24] with its gaps filled between what is known; all NaN where that is too little."""
    known = np.isfinite(row)
    if known.mean() < ENOUGH:
        return np.full(HOURS, np.nan)
    at = np.arange(HOURS)
    return np.asarray(np.interp(at, at[known], row[known]))


def _degrees(outdoor_c: Floats) -> Floats:
    """Heating and cooling degrees [hours, DEGREES], in tens, of hourly temperatures [hours] delayed by each lag."""
    out = []
    for lag_h in LAGS_H:
        keep, delayed, level = np.exp(-1.0 / lag_h), np.empty(len(outdoor_c)), float(outdoor_c[:HOURS].mean())
        for k, value in enumerate(outdoor_c.tolist()):
            level = keep * level + (1 - keep) * value
            delayed[k] = level
        out += [np.maximum(HEATING_C - delayed, 0.0) / 10, np.maximum(delayed - COOLING_C, 0.0) / 10]
    return np.stack(out, axis=1)
