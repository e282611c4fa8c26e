"""Loads ahead of the sub-meters: energy is missing, and no flat's meter is wrong.

Refuses to know how anything is detected.
"""

from __future__ import annotations

import numpy as np

from tests.system.bench.independent.homes import CAR, DAY, Home
from tests.system.bench.independent.kinds import clock, kind, sessions, weekdays
from tests.system.bench.independent.world import Building, pick


@kind("ahead")
def stairs_till_dawn(house: Building, onset: int) -> None:
    """The stairs' timer sticks: lamps on day and night."""
    house.tap(onset, np.full(house.minutes, house.rng.uniform(90, 350), np.float32))


@kind("ahead")
def cabinet_on_the_roof(house: Building, onset: int) -> None:
    """A radio cabinet, connected without a meter: constant, and cooled when it is warm."""
    cooling = np.clip(house.sky.celsius - 12, 0, 20) * house.rng.uniform(4, 14)
    house.tap(onset, (house.rng.uniform(150, 400) + cooling).astype(np.float32))


@kind("ahead", cold=True)
def pipe_heating(house: Building, onset: int) -> None:
    """Tapes on the pipes of the cellar, by a thermostat."""
    house.tap(
        onset,
        np.clip((5.0 - house.sky.celsius) / 6.0, 0, 1).astype(np.float32) * np.float32(house.rng.uniform(400, 1200)),
    )


@kind("ahead")
def pump_that_leaks(house: Building, onset: int) -> None:
    """The booster pump of the water: a leak makes it start more and more often."""
    t, power = np.arange(house.minutes), house.rng.uniform(700, 1500)
    duty = np.clip((t - onset) / (25 * DAY), 0.02, 0.4)
    house.tap(onset, (((t / 11.0) % 1.0 < duty) * power).astype(np.float32))


@kind("ahead")
def builders(house: Building, onset: int) -> None:
    """A building site next door on the riser: mixers and a saw, Monday to Friday, seven to four."""
    hours = clock(house, 7, 16, weekdays(house, {0, 1, 2, 3, 4}))
    house.tap(onset, (hours * sessions(house, 14, 25, 7, 16) * house.rng.uniform(800, 2500)).astype(np.float32))


@kind("ahead")
def strangers_car(house: Building, onset: int) -> None:
    """A car charges at the socket of the yard, two or three nights a week."""
    on = sessions(house, 0.35, 260, 18, 23)
    house.tap(onset, on.astype(np.float32) * np.float32(house.rng.choice([2300, 3600])))


@kind("ahead")
def miner_in_the_cellar(house: Building, onset: int) -> None:
    """Machines that count: constant, off for hours when they crash."""
    house.tap(onset, np.where(sessions(house, 0.25, 300, 0, 24), 0, house.rng.uniform(700, 2500)).astype(np.float32))


@kind("ahead")
def wet_cellar(house: Building, onset: int) -> None:
    """A cable whose insulation leaks to earth when it rains."""
    soaked = np.convolve(house.sky.wet, np.ones(240) / 240, "same")
    house.tap(onset, (soaked * house.rng.uniform(250, 900)).astype(np.float32))


@kind("ahead")
def hot_joint(house: Building, onset: int) -> None:
    """A bad joint on one phase: it warms by the square of what flows there, and grows."""
    grown = np.clip((np.arange(house.minutes) - onset) / (15 * DAY), 0, 1)
    house.joint_ohm = (grown * house.rng.uniform(0.08, 0.3)).astype(np.float32)
    house.nobody, house.onset = onset, onset


@kind("ahead")
def market_day(house: Building, onset: int) -> None:
    """A stall's fryers on the house's socket, Saturdays."""
    house.tap(onset, (clock(house, 6, 14, weekdays(house, {5})) * house.rng.uniform(2000, 6000)).astype(np.float32))


@kind("ahead")
def household_on_the_riser(house: Building, onset: int) -> None:
    """Somebody who has no flat here lives from the riser, as people live."""
    life = Home(house.rng, house.homes[0].warm, 1.2).load(house.calendar, house.sky).sum(0)
    house.tap(onset, life)


@kind("ahead")
def shop_without_meter(house: Building, onset: int) -> None:
    """The works forgot the meter of a new shop."""
    hours = clock(house, 8.5, 18.5, weekdays(house, {0, 1, 2, 3, 4, 5}))
    load = 60 + hours * house.rng.uniform(500, 1800) * house.rng.uniform(0.6, 1.0, house.minutes)
    house.tap(onset, load.astype(np.float32))


@kind("ahead")
def tap_as_a_flat_falls_empty(house: Building, onset: int) -> None:
    """A family moves out, and within days somebody else taps the riser."""
    flat = pick(house)
    house.circuits[flat, 1:, onset - int(house.rng.integers(0, 4)) * DAY :] = 0
    life = Home(house.rng, house.homes[0].warm, 1.2).load(house.calendar, house.sky).sum(0)
    house.tap(onset, life if house.rng.random() < 0.5 else np.full(house.minutes, house.rng.uniform(150, 500)))


@kind("ahead")
def own_car_ahead_of_the_meter(house: Building, onset: int) -> None:
    """A new car, joined ahead of its owner's meter on the day it came: his register never changes. Nobody can know."""
    home = Home(house.rng, house.homes[0].warm)
    home.car_w = float(house.rng.choice([3600, 7200]))
    house.tap(onset, home.load(house.calendar, house.sky)[CAR])
