"""Virtual buildings with the truth known: what the shipped model is trained on and `make bench-detection` measures.

It owns the physics of a metered building over months: true loads from a pool, ways of stealing, the losses on the
way, and registers as a concentrator would have read them (errors of gain, temperature, resolution, timing and
missed polls). It knows no detector. Everything is drawn from one seed per building, so any building can be made
again alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.signs import SignKind
from firmware_io.simulator.building.loads import household_energy

F64 = NDArray[np.float64]

DAY_S = 86_400
START_S = 1_704_067_200  # 2024-01-01 00:00 UTC, a Monday
TAP = "tap"  # ahead of all sub-meters: nobody's
TAMPER_SIGNS = (SignKind.COVER_OPENED, SignKind.TERMINAL_OPENED, SignKind.MAGNETIC_FIELD, SignKind.PHASE_FAILURE)
SIGN_SHARE = 0.25  # of thieves whose meter noticed; most of the meters in the field have no such switch
FALSE_SIGNS_PER_YEAR = 0.03  # and flat: an electrician, a knock


@dataclass(frozen=True, slots=True)
class Pool:
    """True loads: `energy_wh` [time, household] per interval, from midnight on."""

    energy_wh: F64
    interval_s: int

    @property
    def per_day(self) -> int:
        return DAY_S // self.interval_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What a building is to be; ranges stand for what differs from one building to the next."""

    flats: int = 40
    days: int = 150
    theft: str | None = None
    onset_day: int = 70  # 0: there from the start
    least_share: float = 0.002  # of the building's energy: a smaller theft is drawn again
    thieves: int = 1
    harsh: bool = False  # unmetered common load, coarse main register, late reads, many missed polls, new tenants


@dataclass(frozen=True, slots=True)
class Building:
    """Registers in Wh, NaN where the poll was missed, and the truth behind them.

    `main_wh` [time], `subs_wh` [time, flat] at `times_s` [time]; `signs`: (flat, time, kind) as the meters logged
    them; `stolen_wh` [time - 1] what was taken past the sub-meters in each interval.
    """

    plan: Plan
    times_s: F64
    main_wh: F64
    subs_wh: F64
    main_step_wh: float
    signs: tuple[tuple[int, float, SignKind], ...]
    thieves: tuple[int, ...]
    onset_s: float | None
    stolen_wh: F64
    load_w: float

    def stolen_w(self, until_s: float) -> float:
        """Mean power taken from the onset until then; 0 where nobody steals."""
        if self.onset_s is None:
            return 0.0
        stolen = self.stolen_wh[(self.times_s[1:] > self.onset_s) & (self.times_s[1:] <= until_s)]
        hours = float(self.times_s[1] - self.times_s[0]) / 3600
        return float(stolen.mean() / hours) if len(stolen) else 0.0


def household_pool(seed: int, households: int = 240, days: int = 364, interval_s: int = 1800) -> Pool:
    """Loads of the simulator's stochastic households."""
    per_day = DAY_S // interval_s
    return Pool(household_energy(seed, households, START_S, interval_s, days * per_day) * 1000.0, interval_s)


def measured_pool(path: Path) -> Pool:
    """A pool of the user's own: .npz with `kwh` [time, household] per interval from midnight and `interval_s`.

    Households with over 2 % missing are left out; what is missing in the others is taken from a week away.
    """
    with np.load(path, allow_pickle=False) as file:
        if "kwh" not in file or "interval_s" not in file:
            raise ValueError(f"{path}: needs the arrays kwh [time, household] and interval_s, has {list(file)}")
        energy_wh, interval_s = file["kwh"].astype(np.float64) * 1000.0, int(file["interval_s"])
    if energy_wh.ndim != 2 or DAY_S % interval_s:
        raise ValueError(f"{path}: kwh has shape {energy_wh.shape}, interval_s is {interval_s}: must divide a day")
    energy_wh = energy_wh[:, np.isnan(energy_wh).mean(axis=0) < 0.02]
    week = 7 * DAY_S // interval_s
    for shift in (week, -week, 2 * week, -2 * week):
        energy_wh = np.where(np.isnan(energy_wh), np.roll(energy_wh, shift, axis=0), energy_wh)
    return Pool(np.nan_to_num(energy_wh, nan=float(np.nanmean(energy_wh))), interval_s)


Steal = Callable[[np.random.Generator, F64, F64, F64], F64]
# (rng, load, past, hour) -> what the meter shows of `load` [time] from the onset on; `past` is the load before it


def _scaled(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """A shunt across the current sensor, a magnet: all is measured too small."""
    return np.asarray(load * rng.uniform(0.1, 0.8))


def _bypassed(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """A wire round the meter: a watt or two still goes through."""
    return np.asarray(rng.uniform(0, 3.0) * (hour[1] - hour[0]) * rng.random(len(load)))


def _circuit(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """One heavy circuit (oven, heater) is taken ahead of the meter; the rest of the home is measured."""
    base = np.quantile(past, rng.uniform(0.4, 0.7))
    return np.asarray(np.minimum(load, base) + rng.uniform(0.0, 0.3) * np.maximum(load - base, 0.0))


def _evening(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """A heater beside the meter in the evening hours."""
    power_w = rng.uniform(400, 1500)
    when = (hour >= rng.uniform(16, 18)) & (hour < rng.uniform(21, 24))
    return np.where(when, np.maximum(load - power_w * (hour[1] - hour[0]), 0.0), load)


def _clipped(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """The meter shows no more than a ceiling."""
    return np.minimum(load, np.quantile(past, rng.uniform(0.35, 0.75)))


def _averaged(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """A manipulated meter that counts a steady low power."""
    return np.full(len(load), past.mean() * rng.uniform(0.3, 0.9))


def _replayed(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """A frugal week from the past is shown again and again."""
    per_week = 7 * round(24 / (hour[1] - hour[0]))
    weeks = past[len(past) % per_week :].reshape(-1, per_week)
    chosen = weeks[np.argsort(weeks.sum(axis=1))[rng.integers(0, 1 + len(weeks) // 5)]]
    return np.resize(chosen, len(load))


def _night(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """Nothing is counted in the small hours."""
    return np.where(hour < rng.uniform(5, 7), 0.0, load)


def _growing(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """A share that grows over weeks, so that no single day stands out."""
    days = np.arange(len(load)) * (hour[1] - hour[0]) / 24
    return np.asarray(load * (1 - rng.uniform(0.3, 0.8) * np.minimum(days / rng.uniform(10, 40), 1.0)))


def _at_times(rng: np.random.Generator, load: F64, past: F64, hour: F64) -> F64:
    """Bypassed on some days only."""
    per_day = round(24 / (hour[1] - hour[0]))
    days = rng.random(-(-len(load) // per_day)) < rng.uniform(0.3, 0.7)
    return np.asarray(load * np.where(np.repeat(days, per_day)[: len(load)], rng.uniform(0.0, 0.2), 1.0))


THEFTS: dict[str, Steal] = {
    "scaled": _scaled,
    "bypassed": _bypassed,
    "circuit": _circuit,
    "evening": _evening,
    "clipped": _clipped,
    "averaged": _averaged,
    "replayed": _replayed,
    "night": _night,
    "growing": _growing,
    "at times": _at_times,
}
KINDS = (*THEFTS, TAP)


def _tapped_w(rng: np.random.Generator, hour: F64) -> F64:
    """Power of an upstream tap [time]: steady, by a timer, or a cycling heater or cooler."""
    power_w, shape = rng.uniform(80, 1000), rng.integers(0, 3)
    if shape == 0:
        return np.full(len(hour), power_w)
    if shape == 1:
        start, length = rng.uniform(0, 24), rng.uniform(6, 14)
        return np.where((hour - start) % 24 < length, power_w * 24 / length, 0.0)
    on = np.cumsum(rng.random(len(hour)) < rng.uniform(0.05, 0.3)) % 2
    return power_w * 2 * on


class _Maker:
    """Draws one building, part by part, in a fixed order from one generator."""

    def __init__(self, rng: np.random.Generator, pool: Pool, plan: Plan) -> None:
        self.rng, self.pool, self.plan = rng, pool, plan
        self.per_day = pool.per_day
        self.total = plan.days * self.per_day
        self.hours = pool.interval_s / 3600
        self.hour = (np.arange(self.total) % self.per_day) * self.hours
        self.onset = None if plan.theft is None else plan.onset_day * self.per_day

    def make(self) -> Building:
        true_wh = self._loads()
        shown_wh, tap_wh, thieves = self._thefts(true_wh)
        weather_c = self._weather()
        through_wh = true_wh.sum(axis=1) + tap_wh + self._common(true_wh)
        head_wh = through_wh + self._loss(through_wh, true_wh, weather_c)
        step_wh = 100.0 if self.plan.harsh else float(self.rng.choice([1.0, 10.0]))
        main_wh = self._register(head_wh, self._gain(0.002, 5e-5, weather_c), step_wh, 0.0)
        subs_wh = np.column_stack([self._sub_register(shown_wh[:, j], weather_c) for j in range(self.plan.flats)])
        stolen_wh = (true_wh - shown_wh).sum(axis=1) + tap_wh
        onset = self.onset
        return Building(
            self.plan,
            START_S + self.pool.interval_s * np.arange(self.total + 1.0),
            main_wh,
            subs_wh,
            step_wh,
            self._signs(thieves),
            thieves,
            None if onset is None else START_S + onset * float(self.pool.interval_s),
            stolen_wh,
            float(true_wh.sum(axis=1).mean() / self.hours),
        )

    def _loads(self) -> F64:
        """Flats from the pool, with absences and new tenants."""
        rng, flats, days = self.rng, self.plan.flats, self.plan.days
        rows, households = self.pool.energy_wh.shape
        weeks = (rows - self.total) // (7 * self.per_day) + 1
        if weeks < 1:
            raise ValueError(f"the pool has {rows // self.per_day} days of loads, the building needs {days}")
        first = int(rng.integers(0, weeks)) * 7 * self.per_day
        chosen = rng.permutation(np.resize(rng.permutation(households), flats))
        load = self.pool.energy_wh[first : first + self.total, chosen].copy()
        _, where = np.unique(chosen, return_index=True)
        for j in np.setdiff1d(np.arange(flats), where):  # a household that is there twice lives another week
            load[:, j] = np.roll(load[:, j], 7 * self.per_day * int(rng.integers(1, 8)))
        for j in np.flatnonzero(rng.random(flats) < 0.2 * days / 365):
            start, length = rng.integers(0, days), rng.integers(7, 100)
            away = slice(start * self.per_day, (start + length) * self.per_day)
            load[away, j] *= rng.uniform(0.02, 0.15)
        moves = 0.25 if self.plan.harsh else 0.1
        for j in np.flatnonzero(rng.random(flats) < moves * days / 365):
            start = int(rng.integers(5, days - 5)) * self.per_day
            other = self.pool.energy_wh[first : first + self.total, rng.integers(households)]
            load[start:, j] = other[start:]
        return load

    def _thefts(self, true_wh: F64) -> tuple[F64, F64, tuple[int, ...]]:
        """(what the sub-meters see, what a tap takes, who steals)."""
        shown_wh, tap_wh, onset = true_wh.copy(), np.zeros(self.total), self.onset
        if onset is None:
            return shown_wh, tap_wh, ()
        month = slice(onset, onset + 30 * self.per_day)
        least_wh = self.plan.least_share * true_wh[month].sum()
        for _ in range(400):
            if self.plan.theft == TAP:
                tap_wh[onset:] = _tapped_w(self.rng, self.hour)[onset:] * self.hours
                if tap_wh[month].sum() >= least_wh:
                    return shown_wh, tap_wh, ()
                continue
            thieves = self.rng.choice(self.plan.flats, self.plan.thieves, replace=False)
            for thief in thieves:
                # Before a theft that was always there lies a past that nobody measured.
                past = true_wh[:onset, thief] if onset else np.roll(true_wh[:, thief], self.total // 2)
                steal = THEFTS[str(self.plan.theft)]
                shown_wh[onset:, thief] = steal(self.rng, true_wh[onset:, thief], past, self.hour[onset:])
            stolen_wh = (true_wh[month] - shown_wh[month])[:, thieves].sum(axis=0)
            if stolen_wh.min() >= least_wh:
                return shown_wh, tap_wh, tuple(sorted(int(t) for t in thieves))
            shown_wh[:, thieves] = true_wh[:, thieves]
        raise ValueError(
            f"no theft of kind {self.plan.theft!r} of {self.plan.least_share:.1%} of the load in this pool"
        )

    def _signs(self, thieves: tuple[int, ...]) -> tuple[tuple[int, float, SignKind], ...]:
        """What the meters' own logs say, by rising time."""
        rng, plan = self.rng, self.plan
        count = rng.poisson(FALSE_SIGNS_PER_YEAR * plan.flats * plan.days / 365)
        found = [(int(rng.integers(plan.flats)), float(rng.uniform(0, plan.days))) for _ in range(count)]
        for thief in thieves:
            if plan.onset_day and rng.random() < SIGN_SHARE:
                found += [(thief, plan.onset_day + float(rng.uniform(-1, 1))) for _ in range(rng.integers(1, 4))]
        signs = [(flat, START_S + day * DAY_S, TAMPER_SIGNS[rng.integers(len(TAMPER_SIGNS))]) for flat, day in found]
        return tuple(sorted(signs, key=lambda sign: sign[1]))

    def _weather(self) -> F64:
        """Temperature at the meters minus its mean, in K [time]: season, day, weather."""
        at = np.arange(self.total) / self.per_day
        weather = np.empty(self.plan.days + 1)
        weather[0] = 0.0
        for day in range(self.plan.days):
            weather[day + 1] = 0.75 * weather[day] + self.rng.normal(0, 1.8)
        phase = self.rng.uniform(0, 365)
        slow = 7 * np.cos(2 * np.pi * (at - phase) / 365) + np.interp(at, np.arange(self.plan.days + 1), weather)
        return np.asarray(slow + 3 * np.cos(2 * np.pi * (at - 0.62)))

    def _common(self, true_wh: F64) -> F64:
        """Stair light and lift that no sub-meter sees."""
        if not self.plan.harsh:
            return np.zeros(self.total)
        dark = (self.hour < 6) | (self.hour >= 19)
        light_w = self.rng.uniform(3, 7) * self.plan.flats * np.where(dark, 1.5, 0.5)
        trips = self.rng.poisson(0.3 * self.plan.flats / self.per_day * np.where(dark, 0.5, 1.5), self.total)
        return np.asarray(light_w * self.hours + trips * 20.0)

    def _loss(self, through_wh: F64, true_wh: F64, weather_c: F64) -> F64:
        """The meters' own use and the copper between main meter and sub-meters.

        In half of the houses flats have one phase each: along a riser that tapers, what a flat loses by the square of
        its own power grows with its place (the k-th of n: 9 k / n^2 times the share of an even load).
        """
        own_w = self.rng.uniform(0.3, 1.2) * self.plan.flats
        mean_wh = true_wh.sum(axis=1).mean()
        copper = self.rng.uniform(0.007, 0.02) / mean_wh * through_wh**2
        if self.rng.random() < 0.5:
            place = self.rng.permutation(np.linspace(0, 2, self.plan.flats))
            copper += self.rng.uniform(0.001, 0.005) * 4.5 / mean_wh * (true_wh**2 @ place)
        return np.asarray(own_w * self.hours + copper * (1 + 0.0039 * weather_c))

    def _gain(self, sd: float, per_k_sd: float, weather_c: F64) -> F64:
        """A meter's gain [time]: a draw within its class, and its drift with temperature."""
        error = float(np.clip(self.rng.normal(0, sd), -2.5 * sd, 2.5 * sd))
        return np.asarray(1 + error + self.rng.normal(0, per_k_sd) * weather_c)

    def _register(self, energy_wh: F64, gain: F64, step_wh: float, late_s: float) -> F64:
        """A cumulative register as read: late by `late_s` and some jitter, in whole steps."""
        rng, count = self.rng, len(energy_wh) + 1
        jitter_s = rng.normal(0, 1.5, count) + np.where(rng.random(count) < 0.01, rng.uniform(0, 90, count), 0.0)
        shape = rng.lognormal(-0.15, 0.55, count)  # the power at the instant of the read is not the interval's mean
        power = np.append(energy_wh, energy_wh[-1]) / self.pool.interval_s
        true = np.concatenate([[0.0], np.cumsum(energy_wh * gain)])
        read = np.maximum.accumulate(true + np.maximum(late_s + jitter_s, 0.0) * power * shape)
        read += rng.uniform(0, 5e6)
        return np.asarray(np.floor(read / step_wh) * step_wh)

    def _sub_register(self, shown_wh: F64, weather_c: F64) -> F64:
        rng, plan = self.rng, self.plan
        late_s = rng.uniform(0, 60 if plan.harsh else 20)
        register = self._register(shown_wh, self._gain(0.004, 1.2e-4, weather_c), 10.0, late_s)
        if rng.random() < 0.06 * plan.days / 365:
            swap = int(rng.integers(self.per_day, self.total))
            new = self._register(shown_wh, self._gain(0.004, 1.2e-4, weather_c), 10.0, late_s)
            register[swap:] = new[swap:] - new[swap] + 10.0 * rng.integers(0, 50)
        missed = rng.random(self.total + 1) < (0.05 if plan.harsh else 0.01)
        for _ in range(rng.poisson(plan.days / 60)):  # a loose plug: hours in a row
            start = int(rng.integers(1, self.total))
            missed[start : start + int(rng.integers(2, max(3, round(12 / self.hours))))] = True
        missed[[0, -1]] = False
        return np.where(missed, np.nan, register)


def make_building(seed: tuple[int, ...], pool: Pool, plan: Plan) -> Building:
    """The building of `plan` that `seed` draws. Raises ValueError where the pool cannot give it."""
    return _Maker(np.random.default_rng(seed), pool, plan).make()


def plans(base: Plan, per_kind: int, from_start: int, clean: int) -> list[Plan]:
    """The cases of a measure: every theft `per_kind` times, some there from the start, and quiet buildings."""
    first = int(base.days * 0.45)
    cases = [
        replace(base, theft=kind, onset_day=first + (7 * number + place) % 15)
        for place, kind in enumerate(KINDS)
        for number in range(per_kind)
    ]
    cases += [replace(base, theft=kind, onset_day=0) for kind in ("scaled", "bypassed", TAP) for _ in range(from_start)]
    return cases + [replace(base, theft=None) for _ in range(clean)]
