"""What is missing or too much though no flat's meter is cheated: taps, hidden and new common loads, and artefacts.

Owns loads ahead of all sub-meters. Refuses to know flats' meters; which artefact a meter has, `buildings` applies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.offline.world.climate import F64, Climate
from agent.offline.world.households import one_home

Load = Callable[[np.random.Generator, Climate, float], F64]  # (rng, sky, mean power of a flat in W) -> W [time]


def steady(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """A freezer, a router room, a grow tent's fan."""
    return np.asarray(np.full(len(sky.hour), flat_w * rng.uniform(0.2, 2.5)) * rng.uniform(0.97, 1.03, len(sky.hour)))


def timer(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    start, length = rng.uniform(0, 24), rng.uniform(4, 16)
    on = (sky.hour - start) % 24 < length
    return flat_w * rng.uniform(0.4, 3.0) * 12 / length * on * rng.uniform(0.97, 1.03, len(on))


def two_timers(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    return (timer(rng, sky, flat_w) + timer(rng, sky, flat_w)) / 1.5


def thermostat(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """A heater or cooler that cycles, the more the colder or warmer."""
    need = np.maximum(rng.choice([-1, 1]) * (sky.temperature_c - rng.uniform(12, 22)), 0) * rng.uniform(0.05, 0.2)
    duty = np.clip(need + rng.uniform(0.05, 0.25), 0, 1)
    on = rng.random(len(duty)) < duty
    return np.asarray(flat_w * rng.uniform(1.0, 4.0) * (on * rng.uniform(0.4, 1.0, len(duty))))


def workshop(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """Machines on working days."""
    days = int(sky.day[-1]) + 1
    works = (
        (rng.random(days) < 0.9)[sky.day]
        & ~sky.weekend
        & (sky.hour > rng.uniform(7, 9))
        & (sky.hour < rng.uniform(15, 18))
    )
    return flat_w * rng.uniform(1.5, 6) * works * rng.gamma(1.5, 0.6, len(works))


def home(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """A home that nobody meters."""
    wh = one_home(rng, sky)
    return wh * (24.0 / (len(wh) / (int(sky.day[-1]) + 1))) ** -1


def socket_car(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """A car charged from an unmetered socket."""
    days = int(sky.day[-1]) + 1
    slots = len(sky.hour) // days
    out, power, at = np.zeros(len(sky.hour)), float(rng.choice([2300, 3680, 7360])), rng.uniform(16, 25)
    for day in np.flatnonzero(rng.random(days) < rng.uniform(0.2, 0.8)):
        row = int((day + (at + rng.normal(0, 0.8)) / 24) * slots)
        out[row : row + int(rng.uniform(1.5, 7) * slots / 24)] = power
    return out


def growing_tap(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    days = int(sky.day[-1]) + 1
    return steady(rng, sky, flat_w * 1.5) * np.clip((sky.day - rng.uniform(0.2, 0.6) * days) / (0.4 * days), 0.1, 1)


def visits(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """A load on some days only."""
    days = int(sky.day[-1]) + 1
    return timer(rng, sky, flat_w * 2) * (rng.random(days) < rng.uniform(0.2, 0.7))[sky.day]


def big_runs(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """Laundry machines and a sauna, at random."""
    out = np.zeros(len(sky.hour) + 12)
    for row in np.flatnonzero(rng.random(len(sky.hour)) < rng.uniform(0.02, 0.08) * (sky.hour > 7)):
        out[row : row + int(rng.integers(1, 7))] += rng.uniform(700, 3500)
    return out[: len(sky.hour)]


def cooler(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """An air conditioner or heater of a hidden room, by the weather and the hour."""
    far = np.abs(sky.temperature_c - rng.uniform(16, 22)) * rng.uniform(20, 80)
    return np.asarray(
        np.minimum(far, 2200) * (0.3 + 0.7 * ((sky.hour > 15) | (sky.hour < 1))) * rng.uniform(0.7, 1.3, len(far))
    )


def stairs(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """New light of the house that nobody meters."""
    return flat_w * rng.uniform(0.2, 1.5) * (rng.uniform(0, 0.8) + sky.dark) * rng.uniform(0.97, 1.03, len(sky.hour))


def lift(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """A new lift."""
    lively = 0.2 + 1.6 * np.exp(-0.5 * ((sky.hour - 18) / 4) ** 2) + np.exp(-0.5 * ((sky.hour - 8) / 1.2) ** 2)
    row_h = 24.0 / (len(sky.hour) / (int(sky.day[-1]) + 1))
    trips = rng.poisson(lively * rng.uniform(2, 10) * row_h)
    return np.asarray(trips * rng.uniform(20, 60) / row_h + flat_w * rng.uniform(0.1, 0.7))


def pump(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """A heating pump or ventilation that is put in."""
    cold = np.clip((20 - sky.temperature_c) / 15, 0.1, 1.5)
    return flat_w * rng.uniform(0.2, 1.5) * cold * rng.uniform(0.9, 1.1, len(cold))


def building_site(rng: np.random.Generator, sky: Climate, flat_w: float) -> F64:
    """Craftsmen for some weeks, and their lamp at night."""
    return workshop(rng, sky, flat_w) + flat_w * rng.uniform(0.1, 0.5) * sky.dark


FAMILIES: dict[str, tuple[Load, ...]] = {
    "tap": (steady, timer, two_timers, thermostat, growing_tap, visits),
    "hidden home": (home, workshop, big_runs),
    "hidden load": (socket_car, cooler),
    "common": (stairs, lift, pump, building_site),
}
LOADS: dict[str, Load] = {load.__name__: load for loads in FAMILIES.values() for load in loads}
FAMILY_OF: dict[str, str] = {load.__name__: family for family, loads in FAMILIES.items() for load in loads}

# Nobody steals and nothing more is drawn: a meter, a clock, a roof.
ARTEFACTS = (
    "hour off",
    "quarter off",
    "solar unread",
    "main drifts",
    "main lost phase",
    "sub too fast",
    "coarse start",
)
