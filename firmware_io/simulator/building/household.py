"""A stochastic household: who lives there, what they own, when they are at home, and the power that follows.

The power in any minute is a pure function of (seed, flat, time): weeks are drawn independently, each from a
generator seeded by its own number, and what spans weeks (tenants, absences, the habit's slow wander, weather) comes
from draws keyed by day or year. So history, live values and a restarted simulator agree, and any week can be had
without those before it.

The numbers are ours, chosen so that home means, their spread, the shape of the day, the tails within a home and the
correlation from day to day come out like those of measured European flats (docs/simulator.md has the comparison).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from firmware_io.clock import local_time
from firmware_io.simulator.building.weather import DAY_S, Weather, daily_walk

Floats = npt.NDArray[np.float64]

WEEK_S = 7 * DAY_S
MINUTES = 7 * 1440  # in a week; weeks are counted from the epoch
DAY = 1440

_TRAITS, _WEEK, _YEAR, _MOOD = range(4)  # purposes of a draw: the third part of its key


class When(IntEnum):
    """The part of the day at which an appliance is used."""

    ACTIVE = 0  # any time somebody is up and at home
    MORNING = 1
    LUNCH = 2
    DINNER = 3
    EVENING = 4
    NIGHT = 5  # a timer, in the small hours


@dataclass(frozen=True, slots=True)
class Appliance:
    """How one kind of appliance is used; rates are a day, for the median home."""

    owned: float
    rate: float
    rate_per_person: float
    minutes: float
    minutes_sigma: float
    power_w: float
    power_sigma: float
    when: When
    tail_minutes: float = 0.0  # what follows the heating part of a washing programme
    tail_w: float = 0.0
    heat: float = 0.0  # share of the use that goes with cold weather
    cool: float = 0.0


APPLIANCES: dict[str, Appliance] = {
    "kettle": Appliance(0.97, 0.5, 0.9, 3, 0.3, 2300, 0.15, When.ACTIVE),
    "toaster": Appliance(0.80, 0.1, 0.3, 4, 0.3, 950, 0.15, When.MORNING),
    "microwave": Appliance(0.85, 0.3, 0.3, 4, 0.5, 1200, 0.15, When.ACTIVE),
    "hob": Appliance(0.60, 0.22, 0.10, 30, 0.5, 700, 0.35, When.DINNER),
    "hob at noon": Appliance(0.60, 0.20, 0.10, 20, 0.5, 800, 0.35, When.LUNCH),
    "oven": Appliance(0.65, 0.07, 0.05, 45, 0.4, 800, 0.20, When.DINNER),
    "washing machine": Appliance(0.93, 0.06, 0.14, 16, 0.3, 1900, 0.10, When.ACTIVE, 60, 180),
    "tumble dryer": Appliance(0.33, 0.02, 0.08, 60, 0.3, 1300, 0.20, When.ACTIVE, heat=0.4),
    "dishwasher": Appliance(0.40, 0.10, 0.10, 22, 0.2, 1700, 0.10, When.EVENING, 60, 120),
    "vacuum cleaner": Appliance(0.90, 0.10, 0.05, 20, 0.5, 900, 0.30, When.ACTIVE),
    "iron": Appliance(0.80, 0.04, 0.06, 25, 0.5, 900, 0.20, When.ACTIVE),
    "hair dryer": Appliance(0.60, 0.05, 0.25, 5, 0.4, 1300, 0.20, When.MORNING),
    "electric shower": Appliance(0.08, 0.05, 0.55, 7, 0.3, 7500, 0.12, When.MORNING),
    "television": Appliance(0.96, 0.40, 0.12, 120, 0.5, 110, 0.45, When.EVENING),
    "television by day": Appliance(0.70, 0.60, 0.35, 120, 0.6, 110, 0.45, When.ACTIVE),
    "second screen": Appliance(0.60, 0.30, 0.40, 120, 0.6, 120, 0.50, When.ACTIVE),
    "computer": Appliance(0.85, 0.40, 0.50, 180, 0.6, 90, 0.50, When.ACTIVE),
    "water heater": Appliance(0.08, 0.35, 0.18, 90, 0.3, 2200, 0.10, When.NIGHT),
    "water heater by day": Appliance(0.07, 0.30, 0.40, 45, 0.3, 1900, 0.25, When.ACTIVE),
    "portable heater": Appliance(0.50, 2.00, 0.00, 150, 0.6, 500, 0.40, When.ACTIVE, heat=1.0),
    "air conditioner": Appliance(0.06, 1.50, 0.00, 200, 0.5, 800, 0.20, When.ACTIVE, cool=1.0),
}
_COLUMNS = tuple(APPLIANCES.values())
_WHEN = np.array([a.when for a in _COLUMNS])
_TAIL_W = np.array([a.tail_w for a in _COLUMNS])
_TAIL_MINUTES = np.array([a.tail_minutes for a in _COLUMNS])
_SIGMA = np.array([a.minutes_sigma for a in _COLUMNS])
_MINUTES = np.array([a.minutes for a in _COLUMNS])
_HEAT = np.array([a.heat for a in _COLUMNS])
_COOL = np.array([a.cool for a in _COLUMNS])


@dataclass(frozen=True, slots=True)
class Tenants:
    """The people of one flat for as long as they live there: habits and appliances."""

    people: int
    working_days: float  # share of weekdays on which the home is empty by day
    wake_h: float
    bed_h: float
    dinner_h: float
    rates: Floats  # uses a day, by appliance
    power_w: Floats  # by appliance
    standby_w: float
    fridges: tuple[tuple[float, float, float], ...]  # (running W, period in minutes, share of time running)
    lights_w: float
    heating_w: float  # electric heating of rooms; 0 for most
    weekend: float  # log ratio of the habit on Saturdays and Sundays to other days
    wander: float  # log standard deviation of the habit's slow wander

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Tenants:
        """New tenants."""
        people = int(rng.choice([1, 2, 3, 4, 5], p=[0.33, 0.34, 0.16, 0.12, 0.05]))
        level = rng.lognormal(-0.15, 0.85)
        owned = rng.random(len(_COLUMNS)) < np.array([a.owned for a in _COLUMNS])
        each = rng.lognormal(0.0, 0.5, len(_COLUMNS))  # some iron, some never do
        rates = np.array([a.rate + a.rate_per_person * people for a in _COLUMNS])
        power = np.array([rng.lognormal(math.log(a.power_w), a.power_sigma) for a in _COLUMNS])
        fridges = tuple(
            (float(rng.uniform(60, 140)), float(rng.uniform(35, 90)), float(rng.uniform(0.25, 0.5)))
            for _ in range(1 + int(rng.random() < 0.35))
        )
        return cls(
            people=people,
            working_days=float(rng.choice([0.05, 0.5, 0.9], p=[0.55, 0.20, 0.25])),
            wake_h=float(rng.normal(7.1, 0.9)),
            bed_h=float(rng.normal(22.9, 1.1)),
            dinner_h=float(rng.normal(18.6, 1.1)),
            rates=rates * owned * each * level,
            power_w=power,
            standby_w=float(rng.lognormal(math.log(70), 0.85)) * people**0.4 * level**0.7,
            fridges=fridges,
            lights_w=float(rng.lognormal(math.log(55), 0.6)) * people**0.4 * level**0.5,
            heating_w=float(rng.uniform(600, 1800)) if rng.random() < 0.08 else 0.0,
            weekend=float(rng.normal(0.06, 0.15)),
            wander=float(rng.uniform(0.12, 0.35)),
        )


@dataclass(frozen=True, slots=True)
class _Year:
    """One year of one flat: who lives there from which day on, and the days on which nobody is at home."""

    away: npt.NDArray[np.bool_]  # by day of the year
    change_day: int | None  # new tenants move in


@lru_cache(maxsize=4096)
def zone_offset_s(timezone: str, day: int) -> int:
    """The offset of local time from UTC at noon of a day."""
    offset = local_time((day + 0.5) * DAY_S, ZoneInfo(timezone)).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


class Household:
    """One flat, its tenants one after the other, and the power they draw, minute by minute."""

    def __init__(self, seed: int, flat: int, weather: Weather, timezone: str = "UTC") -> None:
        self.seed = seed
        self.flat = flat
        self.weather = weather
        self.timezone = timezone
        self._years: dict[int, _Year] = {}
        self._tenants: dict[int, Tenants] = {}

    def power_w(self, week: int) -> Floats:
        """Mean power in each of the 10080 minutes of `week` (weeks since the epoch, from a Thursday 00:00 UTC on)."""
        rng = self._rng(_WEEK, week)
        first_day = 7 * week
        days = first_day + np.arange(7)
        tenants = self._living_there(first_day)
        away = np.array([self._away(int(d)) for d in days])
        weekend = (days + 3) % 7 >= 5  # the epoch was a Thursday
        daily = daily_walk((self.seed, self.flat, _MOOD, 0), first_day, 7, 0.7)
        slow = daily_walk((self.seed, self.flat, _MOOD, 1), week, 1, 0.92)  # weeks: guests, a project, a habit
        mood = np.exp(tenants.wander * (0.8 * daily + 1.4 * slow) + rng.normal(0, 0.1, 7) + tenants.weekend * weekend)
        mean_c = self.weather.daily_c(first_day, 7)
        cold = np.clip((15.0 - mean_c) / 12.0, 0.0, 1.5)
        season = self.weather.season((days + 0.5) * DAY_S)

        wake, leave, back, bed = self._habits(rng, tenants, weekend)
        rates = tenants.rates[:, None] * (mood * ~away)[None, :] * (1 - 0.16 * season)[None, :]
        rates *= 1 - _HEAT[:, None] + _HEAT[:, None] * cold[None, :]
        rates *= 1 - _COOL[:, None] + _COOL[:, None] * np.clip((mean_c - 19.0) / 6.0, 0.0, 1.5)[None, :]
        counts = rng.poisson(rates).ravel().astype(np.intp)  # numpy repeats by that type only
        which = np.repeat(np.arange(counts.size), counts)
        kind, day = which // 7, which % 7

        start = (
            self._starts(rng, _WHEN[kind], tenants.dinner_h * 60, wake[day], leave[day], back[day], bed[day])
            + day * DAY
        )
        length = _MINUTES[kind] * rng.lognormal(0.0, _SIGMA[kind])
        power = tenants.power_w[kind]
        tails = _TAIL_W[kind] > 0
        dusk, dawn = 19.0 * 60 + season * 120, 6.5 * 60 - season * 90
        at_home = ~away
        lights = tenants.lights_w * mood * at_home
        starts = [
            start,
            (start + length)[tails],
            np.maximum(back, dusk) + np.arange(7) * DAY,
            wake + np.arange(7) * DAY,
        ]
        stops = [
            start + length,
            (start + length)[tails] + _TAIL_MINUTES[kind][tails],
            bed + np.arange(7) * DAY,
            np.minimum(leave, dawn) + np.arange(7) * DAY,
        ]
        powers = [power, _TAIL_W[kind][tails], lights, lights]
        offset = zone_offset_s(self.timezone, first_day + 3) / 60
        total = _rectangles(np.concatenate(starts) - offset, np.concatenate(stops) - offset, np.concatenate(powers))
        total += tenants.standby_w * np.repeat(np.where(away, 0.7, 1.0) * (1 - 0.1 * season) * mood**0.5, DAY)
        for running_w, period, share in tenants.fridges:
            total += running_w * _cycling(rng, period, share * (1 + 0.12 * season.mean()))
        if tenants.heating_w:
            wanted = np.repeat(np.clip(cold * np.where(away, 0.25, 0.8), 0.0, 1.0), DAY)
            total += tenants.heating_w * _cycling(rng, 24.0, wanted)
        return total

    def _habits(
        self, rng: np.random.Generator, tenants: Tenants, weekend: npt.NDArray[np.bool_]
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Minutes of each day at which they get up, leave, come back and go to bed; leave = back when they stay."""
        late = weekend.astype(np.float64)
        wake = 60.0 * (tenants.wake_h + 1.2 * late + rng.normal(0, 0.4, 7))
        bed = 60.0 * (tenants.bed_h + 0.5 * late + rng.normal(0, 0.5, 7))
        works = (rng.random(7) < tenants.working_days) & ~weekend
        outing = ~works & (rng.random(7) < 0.45)
        leave = np.where(works, wake + rng.uniform(35, 80, 7), 60 * rng.uniform(10.5, 15.0, 7))
        gone = np.where(works, 60 * rng.normal(9.3, 1.0, 7), np.where(outing, 60 * rng.uniform(1.0, 5.0, 7), 0.0))
        leave = np.maximum(leave, wake + 10)
        back: Floats = np.minimum(leave + np.maximum(gone, 0.0), bed - 60)
        leave = np.minimum(leave, back)
        return wake, leave, back, bed

    def _starts(
        self,
        rng: np.random.Generator,
        when: npt.NDArray[np.int_],
        dinner: float,
        wake: Floats,
        leave: Floats,
        back: Floats,
        bed: Floats,
    ) -> Floats:
        """The minute of the day at which each use starts."""
        n = len(when)
        share, near = rng.random(n), rng.standard_normal(n)
        morning = leave - wake
        up = share * (morning + bed - back)
        active = np.where(up < morning, wake + up, back + up - morning)
        start = np.where(when == When.MORNING, wake + 12 + 70 * share**2, active)
        start = np.where(when == When.LUNCH, 12.8 * 60 + 60 * near, start)
        start = np.where(when == When.DINNER, np.maximum(dinner + 70 * near, back + 10), start)
        evening = np.maximum(back, 17.5 * 60)
        start = np.where(when == When.EVENING, evening + share * np.maximum(bed - evening - 60, 30), start)
        return np.where(when == When.NIGHT, 30 + 270 * share, start)

    def _rng(self, purpose: int, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.flat, purpose, index))

    def _year(self, year: int) -> _Year:
        """Absences and change of tenants in a year of 365 days since the epoch."""
        if year not in self._years:
            rng = self._rng(_YEAR, year)
            away = np.zeros(365, bool)
            for _ in range(rng.poisson(3.0)):  # weekends and holidays
                day, length = int(rng.integers(0, 365)), 2 + int(rng.exponential(4.0))
                away[day : day + length] = True
            change = int(rng.integers(0, 365)) if rng.random() < 0.10 else None
            if change is not None or rng.random() < 0.04:  # empty between tenants, or for some months
                day = change if change is not None else int(rng.integers(0, 365))
                away[max(0, day - int(rng.exponential(25.0)) - 3) : day] = True
            self._years[year] = _Year(away, change)
        return self._years[year]

    def _away(self, day: int) -> bool:
        year, at = divmod(day, 365)
        return bool(self._year(year).away[at])

    def _living_there(self, day: int) -> Tenants:
        """The tenants of a day: those of the last change before it, else the first ones."""
        year, at = divmod(day, 365)
        change = self._year(year).change_day
        if change is None or change > at:
            year -= 1
            while year > 30 and self._year(year).change_day is None:  # before 2000 nothing changes
                year -= 1
        if year not in self._tenants:
            self._tenants[year] = Tenants.draw(self._rng(_TRAITS, max(year, 30)))
        return self._tenants[year]


def _rectangles(start: Floats, stop: Floats, power_w: Floats) -> Floats:
    """The sum of rectangular loads; what runs past the week's end comes round to its beginning.

    Coming round keeps weeks independent of each other and loses no energy.
    """
    first = np.floor(start).astype(np.intp)
    last = np.maximum(np.floor(stop).astype(np.intp), first + 1)
    keep = (stop > start) & (power_w > 0)
    first, last, power_w = first[keep], last[keep], power_w[keep]
    last = np.minimum(last, first + MINUTES - 1)
    rounds = last // MINUTES - first // MINUTES
    steps = np.bincount(first % MINUTES, power_w, MINUTES) - np.bincount(last % MINUTES, power_w, MINUTES)
    total: Floats = np.maximum(np.cumsum(steps) + float(power_w @ rounds), 0.0)
    return total


def _cycling(rng: np.random.Generator, period: float, share: float | Floats) -> Floats:
    """A thermostat: on for `share` of each period, the period wandering a little."""
    phase = rng.random() + np.arange(MINUTES) / (period * rng.uniform(0.93, 1.07))
    phase += 0.15 * np.sin(np.arange(MINUTES) * (2 * math.pi / DAY) + rng.uniform(0, 6.3))
    return ((phase % 1.0) < share).astype(np.float64)
