"""A building to measure the accusation with, written from physics and the trade by a hand apart from the product's.

Owns one house: homes on phases and floors, copper, common loads, meters with class errors and steps, and how their
registers reach the recording. Kinds of theft, of losses ahead of the meters and of honest life change it
(`thefts`, `ahead`); `run` replays and scores it. Imports nothing of the product, whose only parts it
knows are the site file and the readings.

Where its ranges are from:
- Meter errors: IEC 62053-21 and -22, EN 50470-3: limits 1 and 2 % (classes 1 and 2), 0.5 and 0.2 % (0.5 S, 0.2 S). New
  static meters lie mostly within a third of them; 0.03 %/K is about half of the temperature coefficient allowed (0.05).
- A meter's own consumption: up to 2 W a voltage circuit (IEC 62053-21, 7.1); static ones 0.4 to 1.2 W.
- Copper: 17.2 nOhm m at 20 degC; risers of 16 to 50 mm2 (IEC 60228), 3 m a floor, neutral of the same section.
- Common loads: stairs, lift, ventilation, door entry; 1.5 to 7 W a flat (studies of lifts by SAFE, 2005: 950 kWh a
  year in a house of flats, half of it standing).
- Steps of registers 1 Wh to 1 kWh, and behind current transformers times their ratio.
- Read late: by polls in the order of the bus, or by clocks some seconds off (IEC 62054-21 allows 0.5 s a day).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from tests.system.bench.independent.homes import DAY, F32, F64, FIXED, HOT, PLUG, Calendar, Home, Weather, weather

Show = Callable[[F32, F32], F32]  # a flat's power and circuits -> what its meter counts, all in W a minute
Change = Callable[[F64, F64], None]  # registers [rows, meters] in kWh and the rows' minutes, changed in place

VOLT = 230.0
COPPER_OHM_M = 17.2e-9


@dataclass(frozen=True, slots=True)
class Reading:
    """How registers reach the recording."""

    interval_s: int
    style: str  # "profile": on the grid, clocks off by seconds; "polled": bus order; "loose": rows off the grid
    missing: float  # share of cells not read
    gaps: float  # gaps of hours, a meter and year


@dataclass(slots=True)
class Building:
    """One house, until `recording` is asked for."""

    rng: np.random.Generator
    calendar: Calendar
    sky: Weather
    homes: list[Home]
    circuits: F32  # [flats, circuits, minutes]
    phase: list[int]  # 0: on all three
    floor: list[int]
    reading: Reading
    main_class: float
    main_step_wh: float
    step_wh: float
    stairs_w: F32
    lift_w: F32
    house_metered: bool
    declared_w: float
    riser_mm2: float
    show: dict[int, Show] = field(default_factory=dict)
    solar_w: dict[int, F32] = field(default_factory=dict)
    ahead_w: list[F32] = field(default_factory=list)
    over: set[str] = field(default_factory=set)  # meters that count too much
    guilty: dict[str, int] = field(default_factory=dict)
    nobody: int | None = None  # onset of a loss that is no flat's
    onset: int | None = None
    changes: list[Change] = field(default_factory=list)
    house_show: Show | None = None
    main_factor: F32 | None = None
    joint_ohm: F32 | None = None
    exports_read: bool = True
    rephased: tuple[int, list[int]] | None = None  # from a minute on, the flats are on other phases
    unrecorded_kwh: list[tuple[int, float]] = field(default_factory=list)  # registers set back: minute, energy

    @property
    def flats(self) -> int:
        return len(self.homes)

    @property
    def minutes(self) -> int:
        return self.calendar.minutes

    def meter(self, flat: int) -> str:
        return f"f{self.floor[flat]}{flat:02d}"

    @property
    def meters(self) -> list[str]:
        return [self.meter(flat) for flat in range(self.flats)] + (["house"] if self.house_metered else [])

    def mean_w(self, flat: int) -> float:
        return float(self.circuits[flat].sum(0).mean())

    def rewire(
        self, flat: int, home: Home | None = None, since: int = 0, until: int | None = None, **things: object
    ) -> None:
        """The flat's life from a minute on is another one, or has other things."""
        home = home or self.homes[flat]
        for name, what in things.items():
            setattr(home, name, what)
        if since == 0:
            self.homes[flat] = home
        self.circuits[flat, :, since:until] = home.load(self.calendar, self.sky)[:, since:until]

    def steal(self, flat: int, onset: int, show: Show, mask: NDArray[np.bool_] | None = None) -> None:
        """From `onset` on (and where `mask` is set) the flat's meter counts what `show` makes of its power."""
        before = self.show.get(flat)

        def shown(power: F32, circuits: F32) -> F32:
            honest = power if before is None else before(power, circuits)
            false = show(power, circuits)
            on = np.arange(len(power)) >= onset
            return np.where(on if mask is None else on & mask, false, honest).astype(np.float32)

        self.show[flat] = shown
        self.guilty.setdefault(self.meter(flat), onset)
        self.onset = onset if self.onset is None else min(self.onset, onset)

    def tap(self, onset: int, load_w: F32) -> None:
        """A load ahead of the sub-meters that nobody meters, from `onset` on."""
        self.ahead_w.append(np.where(np.arange(self.minutes) >= onset, load_w, 0).astype(np.float32))
        self.nobody = onset if self.nobody is None else min(onset, self.nobody)
        self.onset = self.nobody if self.onset is None else min(self.onset, onset)

    def copper_w(self, net: list[F32], ahead: F32) -> F32:
        """I2R of the risers, each floor's piece by phase, with the neutral. Taps draw at the foot, on one phase."""
        ohm = COPPER_OHM_M * 3.0 / (self.riser_mm2 * 1e-6)
        spans = [(0, self.minutes, self.phase)]
        if self.rephased is not None:
            at, later = self.rephased
            spans = [(0, at, self.phase), (at, self.minutes, later)]
        total = np.zeros(self.minutes, np.float32)
        current = np.zeros((3, self.minutes), np.float32)
        for floor in range(max(self.floor), -1, -1):
            for flat in range(self.flats):
                if self.floor[flat] == floor:
                    amps = net[flat] / (VOLT * 0.96)
                    for first, last, phases in spans:
                        if phases[flat]:
                            current[phases[flat] - 1, first:last] += amps[first:last]
                        else:
                            current[:, first:last] += amps[first:last] / 3
            if floor == 0:
                current[0] += ahead / (VOLT * 0.96)
            a, b, c = current
            neutral = np.maximum(a * a + b * b + c * c - a * b - b * c - a * c, 0)
            total += (a * a + b * b + c * c + neutral) * ohm * (4 if floor == 0 else 1)
        if self.joint_ohm is not None:
            total += current[1] ** 2 * self.joint_ohm
        return total

    def recording(self) -> Recording:
        """Draw what is left to draw, and read the meters."""
        rng, minutes = self.rng, self.minutes
        power = [self.circuits[flat].sum(0) for flat in range(self.flats)]
        seen = [self.show[f](p, self.circuits[f]) if f in self.show else p for f, p in enumerate(power)]
        net = [p - self.solar_w[f] if f in self.solar_w else p for f, p in enumerate(power)]
        loss = np.zeros(minutes, np.float32)
        for f in self.show:
            loss += power[f] - seen[f]
        common = self.stairs_w + self.lift_w
        ahead = sum(self.ahead_w, np.zeros(minutes, np.float32))
        copper = self.copper_w(net, ahead)
        loss = loss + ahead
        if self.joint_ohm is not None:
            joint, self.joint_ohm = self.joint_ohm, None
            loss += copper - self.copper_w(net, ahead)
            self.joint_ohm = joint
        counted = [s - self.solar_w[f] if f in self.solar_w else s for f, s in enumerate(seen)]
        if self.house_metered:
            false = common if self.house_show is None else self.house_show(common, common[None])
            loss += common - false
            counted.append(false)
        burden = rng.uniform(0.4, 1.2) * self.flats
        whole = (sum(net, np.zeros(minutes, np.float32)) + common + ahead + copper + burden).astype(np.float32)
        indoor = 0.35 * (self.sky.celsius - 10.0)

        def gain(limit: float) -> F32:
            error = np.clip(rng.normal(0, limit / 3), -0.9 * limit, 0.9 * limit)
            return (1 + error / 100 + rng.normal(0, 0.00015) * indoor).astype(np.float32)

        main_gain = gain(self.main_class) * (1.0 if self.main_factor is None else self.main_factor)
        columns, names = [np.maximum(whole, 0) * main_gain], ["main"]
        back: list[tuple[str, F32]] = []
        if (whole < 0).any():
            back.append(("main:export", np.maximum(-whole, 0) * main_gain))
        for flat, name in enumerate(self.meters):
            of = gain(1.0)
            columns.append(np.maximum(counted[flat], 0) * of)
            names.append(name)
            if flat in self.solar_w:
                back.append((f"{name}:export", np.maximum(-counted[flat], 0) * of))
        if not self.exports_read:
            back = []
        export = [name.partition(":")[0] for name, _ in back]
        names += [name for name, _ in back]
        columns += [column for _, column in back]
        times, registers = self.read(np.array(columns))
        return Recording(self, names, times, registers, loss, export, float(whole.mean()))

    def read(self, power: F32) -> tuple[F64, F64]:
        """Times of the rows (s from the first midnight) and registers in kWh, NaN where not read."""
        rng, how, count = self.rng, self.reading, len(power)
        energy = np.concatenate([np.zeros((count, 1)), np.cumsum(power, axis=1, dtype=np.float64) / 60_000], axis=1)
        grid = np.arange(how.interval_s, self.minutes * 60 - 600, how.interval_s, dtype=float)
        rows = len(grid)
        if how.style == "profile":
            times = grid
            clock = rng.normal(0, 4, count) + np.outer(np.arange(rows) / rows, rng.normal(0, 4, count))
            late = clock
        else:
            times = grid if how.style == "polled" else grid + np.round(rng.uniform(-240, 240, rows))
            order = np.arange(count) * rng.uniform(0.3, 1.5)
            late = order + np.abs(rng.normal(0, 1.5, (rows, count)))
        minute = np.arange(self.minutes + 1) * 60.0
        registers = np.stack([np.interp(times + late[:, j], minute, energy[j]) for j in range(count)], axis=1)
        registers += rng.uniform(500, 9000, count)
        for change in self.changes:
            change(registers, times / 60)
        step = np.array([self.main_step_wh] + [self.step_wh] * (count - 1)) / 1000
        registers = np.floor(registers / step + 1e-9) * step
        registers[rng.random(registers.shape) < how.missing] = np.nan
        for _ in range(rng.poisson(how.gaps * count * self.calendar.days / 365)):
            first, meter = int(rng.integers(rows)), int(rng.integers(1, count))
            registers[first : first + int(rng.gamma(2.0, 4000) / how.interval_s) + 1, meter] = np.nan
        return times, registers


@dataclass(frozen=True, slots=True)
class Recording:
    """What is replayed, and the truth that only the score may know."""

    house: Building
    columns: list[str]
    times_s: F64
    registers_kwh: F64
    loss_w: F32
    export: list[str]
    mean_w: float

    def csv(self) -> str:
        lines = ["time," + ",".join(self.columns)]
        first = self.house.calendar.first
        for at, row in zip(self.times_s, self.registers_kwh, strict=True):
            cells = ",".join("" if value != value else f"{value:.3f}" for value in row.tolist())
            lines.append(f"{(first + timedelta(seconds=at)).strftime('%Y-%m-%dT%H:%M:%SZ')},{cells}")
        return "\n".join(lines) + "\n"

    def site(self, phases_known: bool) -> str:
        house = self.house
        out = ['[site]\ntenant = "independent"\nsite = "house"\ngateway = "gw-1"']
        out.append(f'timezone = "{house.calendar.zone}"\n\n[mqtt]\nurl = "mqtt://127.0.0.1:1883"\n')
        out.append(f"[detection]\ninterval_s = {house.reading.interval_s}\n")
        out.append(
            f'[[meter]]\nid = "main"\naccuracy_class = {house.main_class}\nresolution_wh = {house.main_step_wh}\n'
        )
        for flat, name in enumerate(house.meters):
            out.append(f'[[meter]]\nid = "{name}"\naccuracy_class = 1.0\nresolution_wh = {house.step_wh}')
            if phases_known and flat < house.flats and house.phase[flat]:
                out.append(f"phase = {house.phase[flat]}")
            out.append("")
        subs = ", ".join(f'"{name}"' for name in house.meters)
        out.append(f'[[zone]]\nid = "building"\nmain = "main"\nsubs = [{subs}]')
        if self.export:
            out.append("export = [" + ", ".join(f'"{name}"' for name in self.export) + "]")
        if house.declared_w:
            out.append(f"unmetered_w = {house.declared_w:.0f}")
        return "\n".join(out) + "\n"


def building(
    rng: np.random.Generator,
    days: int = 70,
    first: datetime | None = None,
    cold_snap: int | None = None,
    warm: bool | None = None,
    house: str | None = None,
    loads_w: F32 | None = None,
) -> Building:
    """A house of 10 to 20 flats, everything drawn; `house` sets "metered", "declared" or "silent" common loads.

    `loads_w` are measured half hours [rows of a whole year from 1 January on, homes]; the homes then live as these did.
    """
    start = first or datetime(2023, 1, 2, tzinfo=UTC) + timedelta(days=int(rng.integers(0, 700)))
    south = bool(rng.random() < 0.25) if warm is None else warm
    calendar = Calendar(start, days, "Europe/Rome" if south else "Europe/London")
    sky = weather(calendar, rng, south, cold_snap)
    flats = int(rng.integers(10, 21))
    homes = [Home(rng, south) for _ in range(flats)]
    for home in homes:
        if rng.random() < 0.04:  # nobody lives there
            home.away = [(0, days)]
    circuits = np.array([home.load(calendar, sky) for home in homes])
    if loads_w is not None:
        circuits = measured(rng, calendar, loads_w, flats, circuits.shape[1])
    a_floor = int(rng.integers(2, 5))
    three = rng.random() < 0.2
    common = str(rng.choice(["metered", "declared", "silent"], p=[0.5, 0.3, 0.2])) if house is None else house
    share = float(rng.uniform(1.5, 7)) if common != "silent" else float(rng.uniform(0.3, 2.0))
    stairs, lift = common_load(rng, calendar, sky, flats, share)
    declared = float((stairs + lift).mean()) * rng.uniform(0.85, 1.15) if common == "declared" else 0.0
    coarse = float(rng.choice([1, 10, 100], p=[0.3, 0.5, 0.2]))
    return Building(
        rng=rng,
        calendar=calendar,
        sky=sky,
        homes=homes,
        circuits=circuits,
        phase=[0 if three or rng.random() < 0.05 else int(rng.integers(1, 4)) for _ in range(flats)],
        floor=[flat // a_floor for flat in range(flats)],
        reading=Reading(
            interval_s=int(rng.choice([900, 1800])),
            style=str(rng.choice(["profile", "polled", "loose"], p=[0.55, 0.25, 0.2])),
            missing=float(rng.choice([0.0, 0.002, 0.01])),
            gaps=float(rng.choice([0.0, 1.0, 4.0])),
        ),
        main_class=float(rng.choice([0.2, 0.5, 1.0], p=[0.2, 0.6, 0.2])),
        main_step_wh=float(rng.choice([1, 10, 100, 400], p=[0.1, 0.3, 0.4, 0.2])),
        step_wh=coarse,
        stairs_w=stairs,
        lift_w=lift,
        house_metered=common == "metered",
        declared_w=round(declared),
        riser_mm2=float(rng.choice([16, 25, 35, 50])),
    )


def measured(rng: np.random.Generator, calendar: Calendar, loads_w: F32, flats: int, circuits: int) -> F32:
    """Measured homes, of the same season; what is always on, what is large, and the rest as three circuits."""
    day = min(calendar.first.timetuple().tm_yday - 1, len(loads_w) // 48 - calendar.days)
    part = loads_w[day * 48 : (day + calendar.days) * 48][:, rng.choice(loads_w.shape[1], flats, replace=False)].T
    out = np.zeros((flats, circuits, calendar.minutes), np.float32)
    base = np.minimum(part, np.percentile(part, 10, axis=1, keepdims=True))
    large = np.where(part > 1500, part - 800, 0)
    for circuit, load in ((FIXED, base), (HOT, large), (PLUG, part - base - large)):
        out[:, circuit] = np.repeat(load, 30, axis=1)
    return out


def common_load(
    rng: np.random.Generator, calendar: Calendar, sky: Weather, flats: int, share_w: float
) -> tuple[F32, F32]:
    """Stairs (lamps by dusk and by people, a fan, the door) and lift (standing and trips): `share_w` a flat."""
    minutes = calendar.minutes
    hour = (np.arange(minutes) % DAY) / 60
    busy = np.clip(np.exp(-0.5 * ((hour - 8.3) / 1.6) ** 2) + 1.3 * np.exp(-0.5 * ((hour - 18) / 2.6) ** 2), 0.05, 2)
    stairs = 0.35 + sky.dark * 0.65 + 0.5 * (rng.random(minutes) < 0.12 * busy)
    trips = rng.poisson(flats * 0.010 * busy)
    lift = 0.5 + trips * 2.2
    part = rng.uniform(0.3, 0.8)
    stairs *= share_w * flats * part / stairs.mean()
    lift *= share_w * flats * (1 - part) / lift.mean()
    return stairs.astype(np.float32), lift.astype(np.float32)


def pick(house: Building, needs: int | None = None, least_w: float = 120.0) -> int:
    """A flat worth stealing in: lived in, not the smallest, with some load on the circuit that the trick needs."""
    order = house.rng.permutation(house.flats)
    fit = [f for f in order if house.mean_w(f) >= least_w and house.meter(f) not in house.guilty]
    if needs is not None:
        with_it = [f for f in fit if house.circuits[f, needs].mean() > 25]
        if not with_it and fit:
            house.rewire(int(fit[0]), **({"boiler": "thermostat"} if needs == HOT else {"electric_cooking": True}))
        fit = with_it or fit
    return int(fit[0]) if fit else int(max(range(house.flats), key=house.mean_w))
