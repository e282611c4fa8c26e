"""Who lives in the flats and what they draw: appliances used by people with habits, row by row.

Owns the true loads, with the parts that a thief may move ahead of his meter. Refuses to know meters and thefts.

Ranges: persons by household size as Eurostat's ilc_lvph03 of 2023; times of waking, leaving and sleeping as the
Harmonised European Time Use Surveys give them; energies and rates of appliances within what the Household Electricity
Survey (Zimmermann et al., 2012), REMODECE (2008) and CREST (Richardson et al., 2010) report of metered homes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.offline.world.climate import F64, Climate

PERSONS = (0.36, 0.31, 0.15, 0.12, 0.06)  # share of homes with 1, 2, ... 5
PARTS = ("boiler", "cooking", "climate", "car", "laundry")
TRIPS_PER_YEAR, TRIP_DAYS = (0.5, 4.0), (2, 17)


@dataclass(frozen=True, slots=True)
class House:
    """What the homes of one building have in common: shares of them with each large appliance."""

    electric_water: float
    electric_heat: float
    cooling: float
    cars: float
    electric_cooking: float


@dataclass(frozen=True, slots=True)
class Loads:
    """True energy [time, flat] in Wh, and the part of it by each of PARTS [time, flat]; `empty` flats."""

    total_wh: F64
    parts_wh: dict[str, F64]


def draw_house(rng: np.random.Generator) -> House:
    """A building's equipment: anything from gas and district heat to all electric."""
    return House(
        electric_water=float(rng.choice([0.0, 0.15, 0.4, 0.8])),
        electric_heat=float(rng.choice([0.0, 0.0, 0.1, 0.4])),
        cooling=float(rng.choice([0.0, 0.1, 0.5])),
        cars=float(rng.choice([0.0, 0.03, 0.12])),
        electric_cooking=float(rng.uniform(0.3, 1.0)),
    )


def draw_loads(rng: np.random.Generator, house: House, sky: Climate, flats: int) -> Loads:
    """All flats of a building, with trips, empty flats, and tenants who move."""
    rows = len(sky.hour)
    total = np.zeros((rows, flats))
    parts = {name: np.zeros((rows, flats)) for name in PARTS}
    days = int(sky.day[-1]) + 1
    slots = rows // days
    moves, empty = rng.uniform(0.05, 0.25) * days / 365, rng.uniform(0.0, 0.07)
    for flat in range(flats):
        lives = [(0, rows)]
        if rng.random() < moves:
            change = int(rng.integers(2, days - 1)) * slots
            gap = int(rng.choice([0, 0, 5, 20])) * slots  # between two tenants
            lives = [(0, change), (min(rows, change + gap), rows)]
        for start, stop in lives:
            whole, by_part = _home(rng, house, sky)
            total[start:stop, flat] = whole[start:stop]
            for name in PARTS:
                parts[name][start:stop, flat] = by_part[name][start:stop]
        if rng.random() < empty:
            start = 0 if rng.random() < 0.6 else int(rng.integers(0, rows))
            stop = rows if rng.random() < 0.6 else int(rng.integers(start, rows))
            left = rng.uniform(0.0, 60.0) * 24 / slots
            total[start:stop, flat] = left * rng.uniform(0.8, 1.2, stop - start)
            for name in PARTS:
                parts[name][start:stop, flat] = 0.0
    return Loads(total, parts)


def one_home(rng: np.random.Generator, sky: Climate) -> F64:
    """Energy [time] of one more home, such as one that nobody meters."""
    return _home(rng, draw_house(rng), sky)[0]


def _home(rng: np.random.Generator, house: House, sky: Climate) -> tuple[F64, dict[str, F64]]:
    """One home's energy in Wh [time], and its parts."""
    days = int(sky.day[-1]) + 1
    slots = len(sky.hour) // days
    row_h = 24.0 / slots
    persons = 1 + int(rng.choice(5, p=PERSONS))
    active, present = _presence(rng, sky, persons)
    day_mood = np.exp(rng.normal(0, rng.uniform(0.08, 0.3), days))[sky.day]
    drift = np.cumsum(rng.normal(0, rng.uniform(0.01, 0.05), days))[sky.day]
    lively = active * day_mood * np.exp(np.clip(drift, -0.5, 0.5))

    cold_w = rng.uniform(12, 60) * np.clip(1 + 0.015 * (sky.temperature_c - 15), 0.7, 1.5)
    standby_w = rng.lognormal(np.log(35), 0.6)
    wh = (cold_w * rng.uniform(0.6, 1.4, len(active)) + standby_w) * row_h
    wh += rng.uniform(40, 260) * sky.dark * np.clip(lively, 0, 1.5) * row_h * rng.uniform(0.7, 1.3, len(active))
    wh += _sessions(rng, lively, rng.uniform(0.8, 4.0) * persons**0.5, (30, 220), (1, 7), row_h)
    small = rng.poisson(np.clip(lively, 0, 3) * rng.uniform(1.5, 5) * persons**0.7 / (16 / row_h))
    wh += small * rng.uniform(30, 140) * rng.uniform(0.6, 1.4, len(active))

    parts = {name: np.zeros(len(active)) for name in PARTS}
    if rng.random() < house.electric_cooking:
        hours = [rng.uniform(6.5, 8.5), rng.uniform(11.5, 13.5), rng.uniform(17.5, 20.5)]
        weight = sum(
            w * np.exp(-0.5 * ((sky.hour - h) / 0.9) ** 2) for w, h in zip((0.25, 0.5, 1.0), hours, strict=True)
        )
        rate = lively * weight * rng.uniform(0.2, 0.7)
        parts["cooking"] = _events(rng, rate * row_h, (250, 1100), (1, 3))
    weekly = rng.uniform(1, 2.5) * persons**0.8
    rate = np.clip(lively, 0, 2) * ((sky.hour > 8) & (sky.hour < 22)) * weekly / 7 / (8 / row_h)
    parts["laundry"] = _events(rng, rate, (350, 1100), (2, 5))
    if rng.random() < 0.35:
        parts["laundry"] += _events(rng, rate * rng.uniform(0.3, 0.9), (900, 2300), (2, 4))
    if rng.random() < 0.5:
        wh += _events(
            rng, lively * np.exp(-0.5 * ((sky.hour - 20.5) / 2) ** 2) * rng.uniform(0.02, 0.12), (650, 1300), (2, 4)
        )
    if rng.random() < house.electric_water:
        parts["boiler"] = _water(rng, sky, lively, persons, row_h)
    if rng.random() < house.electric_heat:
        lost_w_k = rng.uniform(25, 110)
        pump = rng.random() < 0.5
        cop = np.clip(3.2 + 0.07 * (sky.temperature_c - 7), 1.6, 5.0) if pump else 1.0
        wanted = np.maximum(rng.uniform(13, 17) - sky.temperature_c, 0) * lost_w_k / cop
        wanted *= np.where(present > 0.1, 1.0, rng.uniform(0.3, 0.9)) * rng.uniform(0.7, 1.3, len(active))
        parts["climate"] += wanted * row_h
    if rng.random() < house.cooling:
        warm = np.maximum(sky.temperature_c - rng.uniform(22, 26), 0)
        parts["climate"] += np.minimum(warm * rng.uniform(60, 200), 1400) * np.clip(active, 0, 1) * row_h
    if rng.random() < house.cars:
        parts["car"] = _car(rng, sky, present, row_h)
    away = _trips(rng, days)[sky.day]
    for name in PARTS:
        parts[name] = parts[name] * ~away
    wh = np.where(away, (cold_w + standby_w * rng.uniform(0.5, 1.0)) * row_h * rng.uniform(0.7, 1.3, len(active)), wh)
    return np.asarray(wh + sum(parts.values())), parts


def _presence(rng: np.random.Generator, sky: Climate, persons: int) -> tuple[F64, F64]:
    """How far somebody is at home and awake, and at home at all, 0..1 [time]."""
    days = int(sky.day[-1]) + 1
    idle, gone = np.ones(len(sky.hour)), np.ones(len(sky.hour))
    for _ in range(min(persons, 3)):
        works = rng.random() < 0.6
        shift = float(rng.choice([0.0, 0.0, 0.0, 0.0, 7.0, 14.0])) if works else 0.0
        base = np.array([rng.uniform(5.8, 8.5), rng.uniform(7.3, 9.2), rng.uniform(15.5, 19), rng.uniform(21.8, 24.6)])
        jitter = rng.normal(0, rng.uniform(0.2, 1.0), (days, 4)) + base
        wake, leave, back, sleep = (jitter[sky.day, k] for k in range(4))
        week_end = sky.weekend
        hour = (sky.hour - shift) % 24
        wake = wake + np.where(week_end, rng.uniform(0.3, 2.0), 0)
        off = (rng.random(days) < (0.12 if works else 0.75))[sky.day] | (week_end & (rng.random() < 0.9))
        out = ~off & (hour > leave) & (hour < back)
        errand = (rng.random(days) < 0.5)[sky.day] & off & (np.abs(hour - rng.uniform(10, 17)) < rng.uniform(0.5, 2.5))
        night_out = (rng.random(days) < 0.15)[sky.day] & (hour > 19) & (hour < 23)
        at_home = ~(out | errand | night_out)
        awake = (hour > wake) & (hour < sleep) | (hour < sleep - 24)
        idle *= 1 - 0.92 * (at_home & awake)
        gone *= 1 - 1.0 * at_home
    return 1 - idle, 1 - gone


def _events(rng: np.random.Generator, rate: F64, energy_wh: tuple[float, float], rows: tuple[int, int]) -> F64:
    """Runs of a machine that start at `rate` a row: energy within the range, spread over some rows."""
    out = np.zeros(len(rate) + rows[1] + 1)
    low, high = sorted(rng.uniform(*energy_wh, 2))
    for start in np.flatnonzero(rng.random(len(rate)) < np.clip(rate, 0, 0.9)):
        length = int(rng.integers(rows[0], rows[1] + 1))
        out[start : start + length] += rng.uniform(low, high) / length
    return out[: len(rate)]


def _sessions(
    rng: np.random.Generator,
    lively: F64,
    a_day: float,
    power_w: tuple[float, float],
    rows: tuple[int, int],
    row_h: float,
) -> F64:
    """Screens and computers: some hours at a time."""
    out = np.zeros(len(lively) + rows[1] + 1)
    power = rng.uniform(*power_w)
    starts = rng.random(len(lively)) < np.clip(lively * a_day / (12 / row_h), 0, 0.9)
    for start in np.flatnonzero(starts):
        out[start : start + int(rng.integers(rows[0], rows[1] + 1))] += power * rng.uniform(0.5, 1.2) * row_h
    return out[: len(lively)]


def _water(rng: np.random.Generator, sky: Climate, lively: F64, persons: int, row_h: float) -> F64:
    """Hot water by electricity: a tank that heats after use, a tank at night, or a flow heater."""
    need_wh = rng.uniform(1100, 2600) * persons**0.75  # a day
    way = int(rng.integers(3))
    washing = np.exp(-0.5 * ((sky.hour - rng.uniform(6.5, 8)) / 1) ** 2) + rng.uniform(0.2, 1.5) * np.exp(
        -0.5 * ((sky.hour - rng.uniform(19, 22)) / 1.5) ** 2
    )
    if way == 2:
        rate = np.clip(lively, 0, 1.5) * washing
        rate *= need_wh / 900 / max(float(rate.sum()), 1e-9) * (len(rate) * row_h / 24)
        return _events(rng, rate, (400, 1400), (1, 1))
    days = int(sky.day[-1]) + 1
    a_day = need_wh * rng.lognormal(0, 0.3, days) + rng.uniform(600, 1800)
    most = rng.uniform(1200, 3000) * row_h
    start = rng.uniform(21.5, 25) if way == 1 else None
    out = np.zeros(len(sky.hour))
    slots = len(sky.hour) // days
    if start is not None:
        first = int(start * slots / 24)
        for day in range(days):
            left, row = a_day[day], day * slots + first + int(rng.integers(0, 2))
            while left > 0 and row < len(out):
                out[row] = min(left, most)
                left, row = left - out[row], row + 1
        return out
    draws = np.clip(lively, 0, 1.5) * washing * rng.gamma(0.6, 1.6, len(out))
    by_day = np.bincount(sky.day, draws, days)
    left = 0.0
    demand = draws * (a_day / np.maximum(by_day, 1e-9))[sky.day]
    demand = np.where(np.isfinite(demand), np.minimum(demand, 6000), 0.0)
    for row in range(len(out)):
        left = min(left + demand[row], 9000.0)
        if left > 300:  # the thermostat's hysteresis
            out[row] = min(left, most)
            left -= out[row]
    return out


def _car(rng: np.random.Generator, sky: Climate, present: F64, row_h: float) -> F64:
    """A car charged at home: 5 to 40 kWh some evenings a week (IEC 61851 mode 2 or 3)."""
    days = int(sky.day[-1]) + 1
    slots = len(sky.hour) // days
    power = float(rng.choice([2300, 3680, 7360, 11040])) * row_h
    weekly, at = rng.uniform(1, 5), rng.uniform(17, 24)
    out = np.zeros(len(sky.hour))
    for day in np.flatnonzero(rng.random(days) < weekly / 7):
        left, row = rng.uniform(4000, 24_000), int((day + (at + rng.normal(0, 1)) / 24) * slots)
        while left > 0 and 0 <= row < len(out):
            out[row] = min(left, power)
            left, row = left - out[row], row + 1
    return out


def _trips(rng: np.random.Generator, days: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Days [days] on which nobody is at home."""
    away = np.zeros(days, np.bool_)
    for _ in range(rng.poisson(rng.uniform(*TRIPS_PER_YEAR) * days / 365)):
        start = int(rng.integers(-5, days))
        away[max(start, 0) : max(start, 0) + int(rng.integers(*TRIP_DAYS))] = True
    return away
