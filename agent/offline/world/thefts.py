"""What a dishonest flat's meter shows of what flows: one function a way, in families that are left out together.

Owns ways of stealing behind one's own meter. Refuses to know meters' registers, buildings and detectors. The ways are
those that the field describes (Smith 2004; Glauner et al. 2017; Jokar et al. 2016, attacks h1 to h6; CIRED reports on
non-technical losses) and their like with people in them: hands, timers, tides of the week.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.offline.world.climate import F64


@dataclass(frozen=True, slots=True)
class Home:
    """A flat from the onset on: true `load` [time], its `parts` [time], the time of each row; `past` before it."""

    load: F64
    parts: dict[str, F64]
    past: F64
    hour: F64
    day: np.ndarray[tuple[int], np.dtype[np.intp]]  # since the onset
    weekend: np.ndarray[tuple[int], np.dtype[np.bool_]]
    temperature_c: F64
    row_h: float

    @property
    def days(self) -> int:
        return int(self.day[-1]) + 1


Way = Callable[[np.random.Generator, Home], F64]


def _left(rng: np.random.Generator, home: Home) -> F64:
    """The share that a bypass leaves to the meter: nothing to a fifth."""
    return np.full(len(home.load), float(rng.choice([0.0, 0.0, rng.uniform(0, 0.2)])))


def _when(home: Home, on: F64 | np.ndarray[tuple[int], np.dtype[np.bool_]], share: F64) -> F64:
    return np.where(on, home.load * share, home.load)


def _hours(
    rng: np.random.Generator, home: Home, start: tuple[float, float], length: tuple[float, float]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    at = rng.uniform(*start) + (rng.normal(0, rng.choice([0.0, 0.7]), home.days))[home.day]
    return np.asarray((home.hour - at) % 24 < rng.uniform(*length))


# -- zero ---------------------------------------------------------------------------------------------------------


def bypass(rng: np.random.Generator, home: Home) -> F64:
    return home.load * _left(rng, home)


def stopped(rng: np.random.Generator, home: Home) -> F64:
    """A register that stands."""
    return np.zeros(len(home.load))


def trickle(rng: np.random.Generator, home: Home) -> F64:
    """A bypass that leaves one lamp's worth to the meter."""
    return np.minimum(home.load, rng.uniform(2, 40) * home.row_h * rng.uniform(0.5, 1.5, len(home.load)))


def one_lamp(rng: np.random.Generator, home: Home) -> F64:
    """All but the lights and the fridge goes round the meter."""
    return np.minimum(home.load, np.quantile(home.load, rng.uniform(0.1, 0.4)))


# -- share --------------------------------------------------------------------------------------------------------


def shunt(rng: np.random.Generator, home: Home) -> F64:
    return home.load * rng.uniform(0.15, 0.85)


def one_phase(rng: np.random.Generator, home: Home) -> F64:
    """One or two of three phases are not measured: a third of the load, not the same third from row to row."""
    lost = rng.choice([1, 2]) / 3
    return np.asarray(home.load * np.clip(1 - lost + rng.normal(0, 0.12, len(home.load)), 0, 1))


def slow_meter(rng: np.random.Generator, home: Home) -> F64:
    return home.load * rng.uniform(0.55, 0.93)


def half_by_half(rng: np.random.Generator, home: Home) -> F64:
    """A share that is turned up in steps."""
    steps = np.sort(rng.uniform(0, home.days * 0.7, int(rng.integers(2, 5))))
    return home.load * (1 - rng.uniform(0.5, 0.95) * np.searchsorted(steps, home.day) / len(steps))


def growing(rng: np.random.Generator, home: Home) -> F64:
    return home.load * (1 - rng.uniform(0.3, 0.95) * np.minimum(home.day / rng.uniform(6, 45), 1))


def wandering(rng: np.random.Generator, home: Home) -> F64:
    """A loose magnet or shunt: the share differs from day to day."""
    return home.load * rng.beta(1.2, 1.2, home.days)[home.day]


def fading(rng: np.random.Generator, home: Home) -> F64:
    """A current transformer that heals."""
    return np.asarray(home.load * np.minimum(rng.uniform(0.1, 0.5) + home.day / rng.uniform(30, 90), 1))


# -- days ---------------------------------------------------------------------------------------------------------


def weekends(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, home.weekend, _left(rng, home))


def working_days(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, ~home.weekend, _left(rng, home))


def some_days(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, (rng.random(home.days) < rng.uniform(0.2, 0.8))[home.day], _left(rng, home))


def spells(rng: np.random.Generator, home: Home) -> F64:
    """On for some days, off for some days."""
    turns = np.cumsum(rng.integers(2, 11, home.days + 2))
    return _when(home, np.searchsorted(turns, home.day, side="right") % 2 == 0, _left(rng, home))


def cold_days(rng: np.random.Generator, home: Home) -> F64:
    """Whenever it is colder than usual."""
    mean = np.bincount(home.day, home.temperature_c) / np.bincount(home.day)
    return _when(home, (mean < np.median(mean))[home.day], _left(rng, home))


def repaired(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, home.day < rng.uniform(3, 18), _left(rng, home))


def holiday(rng: np.random.Generator, home: Home) -> F64:
    """The thief goes away for a week or two: nothing is used, nothing is stolen."""
    start, length = rng.integers(3, 12), rng.integers(5, 14)
    away = (home.day >= start) & (home.day < start + length)
    home.load[away] = np.minimum(home.load[away], np.quantile(home.load, 0.1))
    return np.where(away, home.load, home.load * _left(rng, home))


def one_weekday(rng: np.random.Generator, home: Home) -> F64:
    days = rng.choice(7, int(rng.integers(1, 4)), replace=False)
    return _when(home, np.isin(home.day % 7, days), _left(rng, home))


# -- hours --------------------------------------------------------------------------------------------------------


def night(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, _hours(rng, home, (21, 25), (6, 10)), _left(rng, home))


def evening(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, _hours(rng, home, (16, 19), (3, 6)), _left(rng, home))


def evening_magnet(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, _hours(rng, home, (16, 19), (3, 6)), np.full(len(home.load), rng.uniform(0.2, 0.7)))


def working_evenings(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, _hours(rng, home, (16, 20), (3, 6)) & ~home.weekend, _left(rng, home))


def by_day(rng: np.random.Generator, home: Home) -> F64:
    return _when(home, _hours(rng, home, (7, 11), (6, 10)), _left(rng, home))


def by_hand(rng: np.random.Generator, home: Home) -> F64:
    """Now and then for some hours."""
    on = np.zeros(len(home.load) + 40, np.bool_)
    for row in np.flatnonzero(rng.random(len(home.load)) < rng.uniform(0.5, 3) * home.row_h / 24):
        on[row : row + int(rng.integers(3, 24))] = True
    return _when(home, on[: len(home.load)], _left(rng, home))


# -- artificial rows ----------------------------------------------------------------------------------------------


def week_again(rng: np.random.Generator, home: Home) -> F64:
    week = round(7 * 24 / home.row_h)
    if len(home.past) < week:
        return np.resize(home.load[: min(week, len(home.load))], len(home.load)) * 0.4
    weeks = home.past[len(home.past) % week :].reshape(-1, week)
    chosen = weeks[np.argsort(weeks.sum(1))[int(rng.integers(0, 1 + len(weeks) // 3))]]
    return np.resize(chosen, len(home.load))


def day_again(rng: np.random.Generator, home: Home) -> F64:
    day = round(24 / home.row_h)
    source = home.past if len(home.past) >= 7 * day else home.load
    days = source[: len(source) // day * day].reshape(-1, day)
    chosen = days[np.argsort(days.sum(1))[int(rng.integers(0, 1 + len(days) // 4))]]
    return np.resize(chosen, len(home.load))


def one_value(rng: np.random.Generator, home: Home) -> F64:
    return np.full(len(home.load), home.load.mean() * rng.uniform(0.15, 0.85))


def ceiling(rng: np.random.Generator, home: Home) -> F64:
    return np.minimum(home.load, np.quantile(home.load, rng.uniform(0.3, 0.8)))


def own_mean(rng: np.random.Generator, home: Home) -> F64:
    """A forged meter counts the day's profile of the past, scaled down."""
    source = home.past if len(home.past) else home.load
    day = round(24 / home.row_h)
    profile = source[: len(source) // day * day].reshape(-1, day).mean(0)
    return np.resize(profile, len(home.load)) * rng.uniform(0.2, 0.8) * rng.uniform(0.8, 1.2, len(home.load))


def invented(rng: np.random.Generator, home: Home) -> F64:
    """Rows at random about a low mean."""
    return np.asarray(home.load.mean() * rng.uniform(0.2, 0.7) * rng.gamma(rng.uniform(0.7, 4), 1, len(home.load)) / 2)


def row_by_row(rng: np.random.Generator, home: Home) -> F64:
    """Each row is scaled by a random share (attack h2 of Jokar et al.)."""
    return home.load * rng.uniform(0, 1, len(home.load))


# -- circuits -----------------------------------------------------------------------------------------------------


def _without(home: Home, *names: str) -> F64:
    return np.maximum(home.load - sum(home.parts[name] for name in names), 0.0)


def boiler(rng: np.random.Generator, home: Home) -> F64:
    return _without(home, "boiler")


def kitchen(rng: np.random.Generator, home: Home) -> F64:
    return _without(home, "cooking")


def heating(rng: np.random.Generator, home: Home) -> F64:
    return _without(home, "climate")


def car(rng: np.random.Generator, home: Home) -> F64:
    return _without(home, "car")


def wash_house(rng: np.random.Generator, home: Home) -> F64:
    return _without(home, "laundry", "cooking")


def steady_part(rng: np.random.Generator, home: Home) -> F64:
    """A circuit of constant power (a freezer, a server) is moved ahead of the meter."""
    return np.maximum(home.load - np.quantile(home.load, rng.uniform(0.1, 0.4)), 0.0)


def fixed_power(rng: np.random.Generator, home: Home) -> F64:
    """So much is taken off each row (attack h4)."""
    return np.asarray(np.maximum(home.load - home.load.mean() * rng.uniform(0.3, 1.2), 0.0))


def heavy_only(rng: np.random.Generator, home: Home) -> F64:
    """A relay passes the meter by while much is drawn."""
    return np.where(
        home.load > np.quantile(home.load, rng.uniform(0.7, 0.92)), home.load * rng.uniform(0, 0.3), home.load
    )


def half_of_peaks(rng: np.random.Generator, home: Home) -> F64:
    """A ring circuit with two feeds: the meter sees part of what exceeds the base."""
    base = np.quantile(home.load, rng.uniform(0.3, 0.6))
    return np.asarray(np.minimum(home.load, base) + rng.uniform(0.0, 0.6) * np.maximum(home.load - base, 0))


FAMILIES: dict[str, tuple[Way, ...]] = {
    "zero": (bypass, stopped, trickle, one_lamp),
    "share": (shunt, one_phase, slow_meter, half_by_half, growing, wandering, fading),
    "days": (weekends, working_days, some_days, spells, cold_days, repaired, holiday, one_weekday),
    "hours": (night, evening, evening_magnet, working_evenings, by_day, by_hand),
    "artificial": (week_again, day_again, one_value, ceiling, own_mean, invented, row_by_row),
    "circuits": (boiler, kitchen, heating, car, wash_house, steady_part, fixed_power, heavy_only, half_of_peaks),
}
WAYS: dict[str, Way] = {way.__name__: way for ways in FAMILIES.values() for way in ways}
FAMILY_OF: dict[str, str] = {way.__name__: family for family, ways in FAMILIES.items() for way in ways}
