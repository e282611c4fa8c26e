"""Homes of a measuring world that was written apart from the product: who is in, and what they switch on.

Owns weather, the local clock and the load of one household by circuit, minute by minute. Refuses to know meters,
wires and theft (`world`), and everything of the product.

Where its ranges are from:
- Appliances, their power and their use: Household Electricity Survey (250 English homes, 2010/11; Zimmermann et al.
  2012, Palmer et al. 2013: cold 566, audio-visual 537, lighting 483, electric showers 112 kWh a year in the mean
  home), and the table of Richardson, Thomson, Infield, Clifford, "Domestic electricity use: a high-resolution
  energy demand model", Energy and Buildings 42 (2010) (kettle 2 kW / 3 min, shower 9 kW / 5 min, washing 400 W mean
  over 138 min, dryer 2.5 kW / 60 min, dish washer 1.1 kW / 60 min).
- Persons a household: UK census 2021, flats (about one half of one person). When they are in: UK Time Use Survey.
- Cars: 3.6 and 7.2 kW of IEC 61851 mode 3; 6 to 12 kWh a charge (My Electric Avenue, 2015).

Held against 90 homes of Low Carbon London (UK Power Networks, CC BY 4.0, half hours of 2013); figures below are
theirs, `python -m tests.system.bench.independent.run --validate` prints ours beside them. `LCL` is what they show.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
DAY = 1440  # minutes
CIRCUITS = ("fixed", "plug", "cook", "hot", "heat", "car")
FIXED, PLUG, COOK, HOT, HEAT, CAR = range(6)
LIVES = ("office", "home", "shift", "retired", "student")

# 90 homes with less than 2 % of rows missing, all of 2013.
LCL = {
    "annual energy, kWh, 5/25/50/75/95 %": (1050, 2010, 3380, 4860, 8520),
    "daily shape over its mean, 02/04/08/12/16/18/20/22 h": (0.70, 0.60, 0.95, 1.03, 1.11, 1.39, 1.39, 1.17),
    "load factor of half hours, 5/50/95 %": (0.036, 0.091, 0.174),
    "spread of half hours over their mean, 5/50/95 %": (0.57, 0.98, 2.02),
    "spread of days over their mean, 60 days, 5/50/95 %": (0.12, 0.25, 0.62),
    "half hour to the next, correlation, median": (0.57,),
    "after-diversity maximum of a home, W, 5/10/20 homes": (2010, 1700, 1330),
    "January/April/July/October over the mean": (1.30, 1.01, 0.80, 0.91),
}


@dataclass(frozen=True, slots=True)
class Calendar:
    """Minutes from a UTC midnight on, and what the clock on the wall says."""

    first: datetime
    days: int
    zone: str

    @property
    def minutes(self) -> int:
        return self.days * DAY

    def offset(self, day: int) -> int:
        """Minutes that local time is ahead of UTC at noon of a day."""
        noon = (self.first + timedelta(days=day, hours=12)).astimezone(ZoneInfo(self.zone))
        delta = noon.utcoffset()
        return 0 if delta is None else int(delta.total_seconds() // 60)

    def weekday(self, day: int) -> int:
        return (self.first + timedelta(days=day)).weekday()

    def year_phase(self, day: float) -> float:
        """0 to 2 pi from the middle of January on."""
        return float(2 * np.pi * (((self.first - datetime(2020, 1, 15, tzinfo=UTC)).days + day) % 365.25) / 365.25)


@dataclass(frozen=True, slots=True)
class Weather:
    """Outdoor temperature, whether it is dark, clear-sky share of sun, and wet hours; one value a minute."""

    celsius: F32
    dark: NDArray[np.bool_]
    sun: F32
    wet: NDArray[np.bool_]


def weather(calendar: Calendar, rng: np.random.Generator, warm: bool, cold_snap: int | None = None) -> Weather:
    """A temperate (London normals: mean 11, swing 6.5 degC) or warm climate (Rome: mean 16, swing 8.5)."""
    days = np.arange(calendar.days + 1)
    phase = np.array([calendar.year_phase(float(day)) for day in days])
    mean, swing = (16.0, 8.5) if warm else (11.0, 6.5)
    walk = np.zeros(len(days))
    for day in range(1, len(days)):
        walk[day] = 0.75 * walk[day - 1] + rng.normal(0, 1.9)
    daily = mean - swing * np.cos(phase) + walk
    if cold_snap is not None:
        daily[cold_snap:] -= np.minimum(9.0, np.arange(len(daily) - cold_snap) * 3.0)
    t = np.arange(calendar.minutes)
    hour = (t % DAY) / 60.0
    celsius = np.interp(t / DAY, days, daily) + (3.0 + 1.5 * warm) * np.sin(2 * np.pi * (hour - 9.0) / 24.0)
    half_day_h = 12.0 - (2.6 if warm else 4.3) * np.cos(phase)
    half = np.repeat(half_day_h[:-1] / 2, DAY)
    elevation = np.cos(np.pi * (hour - 12.2) / (2 * half))
    light = np.where(np.abs(hour - 12.2) < half, np.clip(elevation, 0, 1), 0.0)
    cloud = np.repeat(np.clip(rng.beta(1.2, 1.2, calendar.days * 24), 0.08, 1), 60)
    wet = np.repeat(np.repeat(rng.random(calendar.days) < 0.3, 4) & (rng.random(calendar.days * 4) < 0.6), DAY // 4)
    return Weather(celsius.astype(np.float32), light < 0.12, (light * cloud).astype(np.float32), wet)


class Home:
    """One household: its people, its things, and what becomes of them in `load`."""

    def __init__(self, rng: np.random.Generator, warm: bool, busy: float = 1.0) -> None:
        self.rng, self.warm = rng, warm
        self.persons = int(rng.choice([1, 2, 3, 4, 5], p=[0.42, 0.33, 0.13, 0.09, 0.03]))
        self.life = str(rng.choice(LIVES, p=[0.42, 0.20, 0.10, 0.20, 0.08]))
        self.wake, self.sleep = rng.normal(410, 45), rng.normal(1385, 60)
        self.out, self.back = rng.normal(495, 45), rng.normal(1075, 70)
        if self.life == "student":
            self.wake, self.sleep = self.wake + 110, self.sleep + 60
        self.someone_stays = rng.random() < {"office": 0.38, "shift": 0.4}.get(self.life, 0.7)
        self.use = float(np.exp(rng.normal(0, 0.6))) * busy
        self.base_w = float(np.clip(np.exp(rng.normal(np.log(58), 0.85)), 6, 420))
        if rng.random() < 0.12:  # a server, an aquarium, a pond
            self.base_w += float(rng.uniform(50, 260))
        own = rng.random(12)
        self.freezers = 1 + int(own[0] < 0.45)
        self.electric_cooking = own[1] < 0.55
        self.dryer, self.dishes = own[2] < 0.38, own[3] < 0.35
        self.shower_w = float(rng.uniform(7000, 10000)) if own[4] < 0.32 else 0.0
        self.boiler = str(rng.choice(["none", "night", "timer", "thermostat"], p=[0.80, 0.07, 0.06, 0.07]))
        self.heating = str(rng.choice(["none", "panels", "storage"], p=[0.86, 0.09, 0.05]))
        self.portable_w = float(rng.uniform(800, 2000)) if own[5] < 0.25 else 0.0
        self.cooling_w = float(rng.uniform(600, 1600)) if own[6] < (0.6 if warm else 0.04) else 0.0
        self.watt_per_k = float(rng.uniform(35, 90))
        self.light_w = float(np.clip(np.exp(rng.normal(np.log(85), 0.6)), 15, 420))
        self.media_w = float(rng.uniform(50, 230))
        self.awake_w = float(np.clip(np.exp(rng.normal(np.log(80), 0.9)), 8, 700))
        self.desk_w = float(rng.uniform(40, 250)) if own[7] < 0.4 else 0.0
        self.car_w = 0.0
        self.away: list[tuple[int, int]] = []  # days, the first in, the last out
        self.dinner, self.wash_day = rng.normal(1120, 50), int(rng.integers(0, 7))

    def presence(self, calendar: Calendar) -> tuple[F32, F32]:
        """Awake and in, in local minutes: shares of the persons, [days, DAY]; and in at all (awake or not)."""
        rng, days = self.rng, calendar.days
        awake = np.zeros((days, DAY), np.float32)
        at_home = np.ones((days, DAY), np.float32)
        minute = np.arange(DAY)
        away = np.zeros(days, bool)
        for first, last in self.away:
            away[max(first, 0) : max(last, 0)] = True
        for day in range(days):
            weekday = calendar.weekday(day)
            if weekday == 5 and rng.random() < 0.05:
                away[day : day + 2] = True
            if rng.random() < 3.5 / 365:
                away[day : day + int(rng.integers(4, 15))] = True
        for day in range(days):
            late = 65 if calendar.weekday(day) >= 5 else 0
            wake = self.wake + late + rng.normal(0, 25)
            sleep = self.sleep + late / 2 + rng.normal(0, 30)
            row = ((minute >= wake) & (minute < sleep)).astype(np.float32)
            if sleep > DAY and day + 1 < days:
                awake[day + 1, : int(sleep - DAY)] = 0.8
            stays = np.ones(DAY, np.float32)
            works = self.life == "office" and not late and rng.random() < 0.9
            if self.life == "shift" and rng.random() < 0.7:
                start = (6, 14, 22)[(day // 7) % 3] * 60 - 40
                inside = ((minute - start) % DAY) < 560
                stays = np.where(inside, 0.0, 1.0).astype(np.float32)
                if start > 1200:  # after a night shift they sleep by day
                    row = ((minute > 840) | (minute < 30)).astype(np.float32)
            elif works:
                out, back = self.out + rng.normal(0, 20), self.back + rng.normal(0, 45)
                stays = ((minute < out) | (minute > back)).astype(np.float32)
            elif rng.random() < 0.65:
                out = rng.uniform(560, 1080)
                stays = ((minute < out) | (minute > out + rng.gamma(2.0, 80))).astype(np.float32)
            if self.someone_stays and self.persons > 1:
                stays = np.maximum(stays, 1.0 / self.persons)
            awake[day] = np.maximum(awake[day], row) * stays
            at_home[day] = stays
        awake[away], at_home[away] = 0, 0
        return awake, at_home

    def load(self, calendar: Calendar, sky: Weather) -> F32:
        """Power of each circuit, W, float32 [len(CIRCUITS), minutes of the calendar (UTC)]."""
        rng, days = self.rng, calendar.days
        awake, at_home = self.presence(calendar)
        shift = [calendar.offset(day) for day in range(days)]
        out = np.zeros((len(CIRCUITS), calendar.minutes), np.float32)
        minute = np.arange(DAY)
        week = np.exp(np.cumsum(rng.normal(0, 0.07, days // 7 + 2)) + rng.normal(0, 0.12, days // 7 + 2))
        dark = sky.dark.reshape(days, DAY)
        evening = np.exp(-0.5 * ((minute - 1215) / 130.0) ** 2)
        night_owl = awake > 0

        def add(circuit: int, day: int, start: float, length: float, power_w: float) -> None:
            first = int(day * DAY + start - shift[day])
            last = first + max(1, round(length))
            out[circuit, max(first, 0) : max(last, 0)] += power_w

        def starts(day: int, rate: float, wish: NDArray[np.floating]) -> NDArray[np.floating]:
            cumulative = np.cumsum(wish * awake[day])
            if cumulative[-1] <= 0.5:
                return np.zeros(0)
            found = np.searchsorted(cumulative, rng.random(rng.poisson(rate)) * cumulative[-1])
            return np.asarray(found, float)

        for _ in range(self.freezers):
            period, power = rng.uniform(35, 80), rng.uniform(65, 150)
            duty = rng.uniform(0.28, 0.5) * (1 + 0.012 * (np.mean(sky.celsius) - 10))
            wobble = np.cumsum(rng.normal(0, 0.0015, calendar.minutes))
            cycle = (np.arange(calendar.minutes) / period + rng.random() + wobble) % 1.0
            out[FIXED] += (cycle < duty) * power
        out[FIXED] += self.base_w * np.repeat(np.exp(rng.normal(0, 0.04, days)), DAY)

        people = self.persons**0.65
        lights = np.where(dark, 1.0, 0.14) * awake**0.5 * np.exp(rng.normal(0, 0.25, (days, 1)))
        out[PLUG] += self.roll((lights * self.light_w).astype(np.float32), shift)
        small = awake**0.7 * self.awake_w * np.exp(rng.normal(0, 0.2, (days, 1))) * week[np.arange(days) // 7][:, None]
        out[PLUG] += self.roll(small.astype(np.float32), shift)
        flat = np.ones(DAY)
        for day in range(days):
            today = float(self.use * week[day // 7] * np.exp(rng.normal(0, 0.16)))
            weekend = calendar.weekday(day) >= 5
            if not night_owl[day].any():
                continue
            for start in starts(day, 2.2 + 0.4 * weekend, 0.6 + 1.7 * evening):
                add(PLUG, day, start, rng.uniform(60, 260), self.media_w * rng.uniform(0.7, 1.2))
            if self.desk_w:
                for start in starts(day, 1.2, flat):
                    add(PLUG, day, start, rng.uniform(60, 300), self.desk_w)
            for start in starts(day, (0.7 + 0.9 * people) * min(today, 2.0), 1.0 + 1.5 * (minute < 560)):
                add(PLUG, day, start, rng.uniform(2, 4), rng.uniform(2000, 3000))
            for start in starts(day, 0.8 * today, flat):
                add(PLUG, day, start, rng.uniform(3, 9), rng.uniform(900, 1400))
            for start in starts(day, 0.22 * today, flat):
                add(PLUG, day, start, rng.uniform(10, 40), rng.uniform(700, 1700))
            if rng.random() < (0.16 + 0.12 * people) * today * (1.6 if calendar.weekday(day) == self.wash_day else 0.9):
                for start in starts(day, 1.1, 0.4 + 1.0 * (minute > 520) * (minute < 1260))[:2]:
                    add(PLUG, day, start + 6, rng.uniform(14, 26), rng.uniform(1800, 2200))
                    add(PLUG, day, start, rng.uniform(60, 110), rng.uniform(120, 260))
                    if self.dryer and rng.random() < 0.6:
                        add(PLUG, day, start + 110, rng.uniform(35, 75), rng.uniform(1900, 2500))
            if self.dishes and rng.random() < 0.55 * min(today, 1.5):
                for start in starts(day, 1.0, 0.2 + 2.0 * (minute > 1130))[:1]:
                    for heat in (8, 50):
                        add(PLUG, day, start + heat, rng.uniform(10, 16), rng.uniform(1800, 2100))
            if self.electric_cooking:
                self.cook(add, day, awake[day], today, weekend)
            if self.shower_w:
                wish = 0.3 + 4.0 * np.exp(-0.5 * ((minute - self.wake - 30) / 35) ** 2) + 0.8 * (minute > 1230)
                for start in starts(day, 0.55 * self.persons * min(today, 1.4), wish):
                    add(HOT, day, start, rng.uniform(4, 9), self.shower_w)
            if self.portable_w and sky.celsius[day * DAY + 720] < 9:
                for start in starts(day, 0.7, 0.5 + evening):
                    add(HEAT, day, start, rng.uniform(40, 200), self.portable_w * rng.choice([0.5, 1.0]))
            if self.car_w and rng.random() < 0.4:
                full = rng.gamma(4.0, 2.3) * 60_000 / self.car_w
                add(CAR, day, float(np.clip(rng.normal(self.back + 40, 80), 300, 1425)), full, self.car_w)
        self.tanks(out, add, days, at_home, calendar, sky, shift)
        return out

    def cook(self, add, day: int, awake: F32, today: float, weekend: bool) -> None:  # type: ignore[no-untyped-def]
        """Meals on rings and in the oven; a thermostat makes them half of their plate's power."""
        rng = self.rng
        for at, chance in ((self.wake + 25, 0.2), (770, 0.3 if weekend else 0.15), (self.dinner, 0.72)):
            start = rng.normal(at, 40)
            if 0 <= start < DAY and awake[int(start)] > 0 and rng.random() < chance * min(1.3, 0.6 + 0.4 * today):
                length = rng.gamma(4.0, 10.0)
                add(COOK, day, start, min(length, 9), rng.uniform(1500, 2400))
                add(COOK, day, start + 9, max(length - 9, 1), rng.uniform(500, 1300))

    def tanks(self, out: F32, add, days: int, at_home: F32, calendar: Calendar, sky: Weather, shift: list[int]) -> None:  # type: ignore[no-untyped-def]
        """What thermostats and clocks switch: hot water, heating, cooling."""
        rng, minute = self.rng, np.arange(DAY)
        t_local = self.roll(at_home, shift)
        for day in range(days):
            used_kwh = rng.gamma(5.0, 0.32) * self.persons**0.7 * (1.0 if at_home[day].any() else 0.12)
            length = used_kwh * 60 / 2.9
            if self.boiler == "night":
                add(HOT, day, 35 + rng.uniform(0, 4), length, 2900)
            elif self.boiler == "timer":
                add(HOT, day, 330, min(length * 0.6, 90), 2900)
                add(HOT, day, 1020, min(length * 0.4, 90), 2900)
            elif self.boiler == "thermostat":
                left = length
                while left > 0:
                    part = rng.uniform(8, 30)
                    add(HOT, day, rng.choice([rng.normal(460, 70), rng.normal(1240, 110)]), min(part, left), 2900)
                    left -= part
            if self.heating == "storage":
                need_kwh = max(0.0, 15.5 - float(sky.celsius[day * DAY : (day + 1) * DAY].mean())) * self.watt_per_k
                need_kwh *= 24 / 1000
                add(HEAT, day, 30, min(420, need_kwh * 60 / 6.0), 6000)
        if self.heating == "panels":
            in_bed = self.roll(np.tile(((minute < 380) | (minute > 1360)).astype(np.float32), (days, 1)), shift)
            wanted = 16.0 + 3.5 * (t_local > 0) * (in_bed == 0) - 3.0 * (t_local == 0)
            need_w = np.clip(wanted - 3.0 - sky.celsius, 0, None) * self.watt_per_k
            size = 1500.0 * max(1, round(self.watt_per_k / 35))
            cycle = (np.arange(calendar.minutes) / rng.uniform(14, 28)) % 1.0
            out[HEAT] += (cycle < np.clip(need_w / size, 0, 1)) * size
        if self.cooling_w:
            need = np.clip((sky.celsius - 24.0) / 7.0, 0, 1) * (t_local > 0)
            cycle = (np.arange(calendar.minutes) / 17.0 + rng.random()) % 1.0
            out[HEAT] += (cycle < need) * self.cooling_w

    @staticmethod
    def roll(local: F32, shift: list[int]) -> F32:
        """[days, DAY] of the wall's clock to minutes of UTC; the hour that a change of time skips is given twice."""
        days = len(shift)
        flat = local.reshape(-1)
        index = np.arange(days * DAY) + np.repeat(np.asarray(shift), DAY)
        return flat[np.clip(index, 0, len(flat) - 1)]
