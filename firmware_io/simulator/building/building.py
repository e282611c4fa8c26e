"""The physics of a building: what flows where, what it loses on the way, and what each meter's register says of it.

Everything is a pure function of the plan and the time, computed a week at a time and kept in two forms: minutes for
the last weeks that were asked for, quarter hours for all. It knows no protocol.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from firmware_io.simulator.building.household import MINUTES, WEEK_S, zone_offset_s
from firmware_io.simulator.building.loads import LoadSource
from firmware_io.simulator.building.scenario import Simulation, moment_s
from firmware_io.simulator.building.thefts import PAST_THE_PHASE, TheftKind, shown_w, tap_w
from firmware_io.simulator.building.weather import DAY_S, Weather, daily_noise

Floats = npt.NDArray[np.float64]

QUARTER = 15  # minutes
KEPT_WEEKS = 3  # in minutes: 41 meters take 3.3 MB each
NOMINAL_V = 230.0
REFERENCE_C = 23.0  # at which meters are adjusted
NOMINAL_FLAT_W = 450.0  # mean load of a flat, from which the riser's cross-section is chosen


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """A meter of the site, as far as physics go."""

    id: str
    accuracy_class: float = 1.0
    resolution_wh: float = 10.0
    phase: int = 0  # 0: chosen in turn for a sub-meter; a main meter has all three
    ct_ratio: float = 1.0  # of the transformers ahead of it, which its registers leave to the reader


@dataclass(frozen=True, slots=True)
class ZonePlan:
    """Who is behind which main meter; a sub that is another zone's main makes a tree."""

    main: str
    subs: tuple[str, ...]
    export: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """What a meter sees at one instant. Per phase, L1 L2 L3; a single-phase meter has one entry."""

    power_w: float  # import minus export, as registered
    voltages_v: tuple[float, ...]
    currents_a: tuple[float, ...]
    neutral_a: float
    power_factor: float


@dataclass(frozen=True, slots=True)
class _Theft:
    kind: TheftKind
    row: int
    onset_s: float
    until_s: float
    share: float | None
    power_w: float | None
    half_day: bool
    neutral_too: bool


@dataclass(slots=True)
class _Minutes:
    """One week, [meter, minute]: what flows (W), and register energy since the week's start (Wh), import, export."""

    through_w: Floats
    shown_w: Floats
    import_wh: Floats  # [meter, minute + 1]
    export_wh: Floats


class Registers(Protocol):
    """What a meter needs of its building."""

    def energy_wh(self, meter: str, time_s: float) -> tuple[float, float]:
        """Import and export registers before quantisation."""

    def quarters_wh(self, meter: str, first: int, last: int) -> tuple[Floats, Floats]:
        """Import and export at the quarter hours `first`..`last` (counted from the epoch), both included."""

    def live(self, meter: str, time_s: float) -> Live:
        """Instantaneous values."""


class Building:
    """All meters of a site, in `meters` order; every one has a register from `installed_s` on.

    Raises ValueError where the plan makes no building: a main meter behind itself, a meter behind two mains.
    """

    def __init__(
        self,
        simulation: Simulation,
        meters: Sequence[MeterPlan],
        zones: Sequence[ZonePlan],
        loads: LoadSource,
        *,
        start_s: float,
        weather: Weather | None = None,
        timezone: str = "UTC",
    ) -> None:
        self.meters = tuple(meters)
        self.row = {meter.id: row for row, meter in enumerate(self.meters)}
        self.zones = _inside_out(zones)
        mains = {zone.main for zone in zones}
        self.flats = [meter.id for meter in self.meters if meter.id not in mains]
        self.start_s = start_s
        self.installed_s = installed_s(simulation, start_s)
        self._first_week = int(self.installed_s // WEEK_S)
        self._simulation = simulation
        self._loads = loads
        self._weather = weather or Weather(simulation.seed)
        self._timezone = timezone
        self._thefts = [
            _Theft(
                theft.kind,
                self.row[theft.meter or zones[0].main],
                moment_s(theft.onset, start_s),
                math.inf if theft.until is None else moment_s(theft.until, start_s),
                theft.share,
                theft.power_w,
                theft.half_day,
                theft.neutral_too,
            )
            for theft in simulation.theft
        ]
        self._minutes: OrderedDict[int, _Minutes] = OrderedDict()
        self._quarters: list[tuple[Floats, Floats]] = []  # by week from the first: [meter, 673] registers, Wh
        self._draw_meters()

    def _draw_meters(self) -> None:
        """Gains within class (its standard deviation 0.4 of it), temperature coefficients, registers at the start."""
        rng = np.random.default_rng((self._simulation.seed, 0x6D657465))
        n = len(self.meters)
        limit = np.array([meter.accuracy_class for meter in self.meters]) / 100
        self.ratio = np.array([meter.ct_ratio for meter in self.meters])
        self.gain = np.clip(rng.normal(0.0, 0.4, n), -1.0, 1.0) * limit
        self.drift_per_k = rng.normal(0.0, 1.5e-4, n) * np.minimum(limit / 0.01, 1.0)
        self.initial_wh = np.floor(rng.uniform(50_000, 8_000_000, n))
        self.initial_wh[[self.row[zone.main] for zone in self.zones]] *= 12
        self.power_factor = rng.uniform(0.93, 0.99, n)
        turn, self.phase = 0, np.zeros(n, int)
        for flat in self.flats:
            given = self.meters[self.row[flat]].phase
            self.phase[self.row[flat]] = given - 1 if given else turn % 3
            turn += not given

    def energy_wh(self, meter: str, time_s: float) -> tuple[float, float]:
        """Import and export registers at a time, Wh, before quantisation."""
        week, at = self._split(time_s)
        minutes = self._week(week)
        first_import, first_export = self._quarter_week(week)
        row, minute, part = self.row[meter], int(at // 60), (at % 60) / 60
        imported = minutes.import_wh[row, minute] * (1 - part) + minutes.import_wh[row, minute + 1] * part
        exported = minutes.export_wh[row, minute] * (1 - part) + minutes.export_wh[row, minute + 1] * part
        return float(first_import[row, 0] + imported), float(first_export[row, 0] + exported)

    def quarters_wh(self, meter: str, first: int, last: int) -> tuple[Floats, Floats]:
        """See `Registers`; quarters before the installation have the first register."""
        row = self.row[meter]
        per_week = MINUTES // QUARTER
        weeks = range(max(first // per_week, self._first_week), max(last // per_week, self._first_week) + 1)
        parts = [self._quarter_week(week) for week in weeks]
        index = np.clip(np.arange(first, last + 1) - weeks.start * per_week, 0, None)
        imported = np.concatenate([part[0][row, :per_week] for part in parts])
        exported = np.concatenate([part[1][row, :per_week] for part in parts])
        return imported[index], exported[index]

    def live(self, meter: str, time_s: float) -> Live:
        """Instantaneous values: the minute's power, currents from it, voltage after the riser's drop."""
        week, at = self._split(time_s)
        minutes, minute, row = self._week(week), int(at // 60), self.row[meter]
        through = minutes.through_w[:, minute]
        gain = (1.0 + float(self.gain[row])) / float(self.ratio[row])
        shown = float(minutes.shown_w[row, minute]) * gain
        supply = [
            NOMINAL_V + 2.5 * math.sin(time_s / 5_000 + 2 * p) + 1.2 * math.sin(time_s / 611 + p) for p in range(3)
        ]
        zone = next((z for z in self.zones if z.main == meter), None)
        factor = float(self.power_factor[row])
        if zone is not None:
            flats = [r for r in range(len(self.meters)) if self.meters[r].id in self._behind(zone)]
            split = [sum(float(through[r]) for r in flats if self.phase[r] == p) for p in range(3)]
            rest = (float(through[row]) - sum(split)) / 3
            currents = tuple((power + rest) * gain / (volt * factor) for power, volt in zip(split, supply, strict=True))
            a, b, c = currents
            neutral = math.sqrt(max(a * a + b * b + c * c - a * b - b * c - c * a, 0.0))
            return Live(shown, tuple(supply), currents, neutral, factor)
        phase = int(self.phase[row])
        # No load takes more than half of the supply's voltage from a riser: that is where most power passes it.
        volt = max(supply[phase] - self._drop_v(row, through), supply[phase] / 2)
        current = abs(shown) / (volt * factor)
        passed_by = any(
            t.row == row and t.kind in PAST_THE_PHASE and not t.neutral_too and t.onset_s <= time_s < t.until_s
            for t in self._thefts
        )
        neutral = abs(float(through[row])) / (volt * factor * float(self.ratio[row])) if passed_by else current
        return Live(shown, (volt,), (current,), neutral, factor)

    def _split(self, time_s: float) -> tuple[int, float]:
        time_s = max(time_s, self._first_week * WEEK_S)
        week = int(time_s // WEEK_S)
        return week, time_s - week * WEEK_S

    def _quarter_week(self, week: int) -> tuple[Floats, Floats]:
        """Registers at the quarter hours of a week; all weeks before it are computed first, once."""
        at = week - self._first_week
        while len(self._quarters) <= at:
            done = len(self._quarters)
            minutes = self._week(self._first_week + done)
            start = (
                (self.initial_wh, np.zeros(len(self.meters)))
                if not done
                else (self._quarters[-1][0][:, -1], self._quarters[-1][1][:, -1])
            )
            self._quarters.append(
                (
                    start[0][:, None] + minutes.import_wh[:, ::QUARTER],
                    start[1][:, None] + minutes.export_wh[:, ::QUARTER],
                )
            )
        return self._quarters[at]

    def _week(self, week: int) -> _Minutes:
        if week in self._minutes:
            self._minutes.move_to_end(week)
            return self._minutes[week]
        minutes = self._compute(week)
        self._minutes[week] = minutes
        while len(self._minutes) > KEPT_WEEKS:
            self._minutes.popitem(last=False)
        return minutes

    def _compute(self, week: int) -> _Minutes:
        """Flats first, then the zones from the inside out."""
        times = week * WEEK_S + 60.0 * np.arange(MINUTES)
        hour = (times + zone_offset_s(self._timezone, 7 * week + 3)) % DAY_S / 3600
        through = np.zeros((len(self.meters), MINUTES))
        shown = np.zeros_like(through)
        export = {meter for zone in self.zones for meter in zone.export}
        for flat, name in enumerate(self.flats):
            row = self.row[name]
            through[row] = self._loads.power_w(flat, week)
            if name in export:
                through[row] -= self._solar_w(week, hour)
            shown[row] = through[row]
            for theft in self._thefts:
                if theft.row == row and theft.kind != "tap":
                    on = (times >= theft.onset_s) & (times < theft.until_s)
                    if on.any():
                        before = self._loads.power_w(flat, int(theft.onset_s // WEEK_S) - 1)
                        seen = shown_w(theft.kind, shown[row], hour, before, theft.share, theft.power_w)
                        shown[row] = np.where(on, seen, shown[row])
        for zone in self.zones:
            row = self.row[zone.main]
            through[row] = self._zone_w(zone, through, times, hour)
            shown[row] = through[row]
        indoor_c = 0.5 * self._weather.temperature_c(times) + 10.0  # meter cupboards follow the weather half way
        gain = 1.0 + self.gain[:, None] + self.drift_per_k[:, None] * (indoor_c - REFERENCE_C)[None, :]
        registered = shown * gain / self.ratio[:, None] / 60
        registered[:, times + 60 <= self.installed_s] = 0.0
        return _Minutes(through, shown, _running(np.maximum(registered, 0.0)), _running(np.maximum(-registered, 0.0)))

    def _zone_w(self, zone: ZonePlan, through: Floats, times: Floats, hour: Floats) -> Floats:
        """Power through a main meter: its subs, their burden, common load, taps, and the copper loss of it all."""
        s = self._simulation
        rows = [self.row[sub] for sub in zone.subs]
        power: Floats = through[rows].sum(axis=0) + s.burden_w * len(rows)
        night = (hour < 6) | (hour >= 20)
        power += s.common_w * np.where(night, 1.6, 0.6)  # about one over a day with 10 h of night
        for theft in self._thefts:
            if theft.kind == "tap" and theft.row == self.row[zone.main]:
                on = (times >= theft.onset_s) & (times < theft.until_s)
                power += np.where(on, tap_w(hour, theft.power_w, theft.half_day), 0.0)
        power += self._copper_w(rows, through)
        return power

    def _copper_w(self, rows: list[int], through: Floats) -> Floats:
        """Copper loss of the riser: each segment carries what is behind it, phase by phase."""
        resistance = self._segment_ohm(len(rows))
        loss = np.zeros(through.shape[1])
        for phase in range(3):
            amperes = np.zeros(through.shape[1])
            for row in reversed(rows):
                if self.phase[row] == phase:
                    amperes += through[row] / NOMINAL_V
                loss += resistance * amperes * amperes
        return loss

    def _segment_ohm(self, flats: int) -> float:
        """Resistance of the riser from one flat to the next that loses the share `copper` at an even mean load."""
        even = sum((k / 3) ** 2 * 3 for k in range(1, flats + 1)) * (NOMINAL_FLAT_W / NOMINAL_V) ** 2
        return self._simulation.copper * NOMINAL_FLAT_W * flats / even if flats else 0.0

    def _drop_v(self, row: int, through: Floats) -> float:
        """Voltage lost along the riser up to a flat, on its phase."""
        zone = next((z for z in self.zones if self.meters[row].id in z.subs), None)
        if zone is None:
            return 0.0
        rows = [self.row[sub] for sub in zone.subs]
        resistance, drop = self._segment_ohm(len(rows)), 0.0
        for place in range(rows.index(row) + 1):
            behind = sum(float(through[r]) for r in rows[place:] if self.phase[r] == self.phase[row])
            drop += resistance * behind / NOMINAL_V
        return drop

    def _behind(self, zone: ZonePlan) -> set[str]:
        """All flats behind a main meter, through inner zones too."""
        found: set[str] = set()
        inner = {z.main: z for z in self.zones}
        for sub in zone.subs:
            found |= self._behind(inner[sub]) if sub in inner else {sub}
        return found

    def _solar_w(self, week: int, hour: Floats) -> Floats:
        """Panels: a half sine from 6 to 18 h local time, seasons and clouds by the day."""
        clouds = daily_noise((self._simulation.seed, 0x736F6C), 7 * week, 7)
        season = self._weather.season((7 * week + np.arange(7) + 0.5) * DAY_S)
        day = np.repeat(np.clip(0.6 + 0.25 * clouds, 0.08, 1.0) * (0.65 + 0.35 * season), MINUTES // 7)
        sun: Floats = self._simulation.solar_w * day * np.maximum(np.sin((hour - 6) / 12 * math.pi), 0.0)
        return sun


def installed_s(simulation: Simulation, start_s: float) -> float:
    """When registers began to count: as set, else the last quarter of a year with all the history behind it.

    The round time makes a simulator that is started again go on with the same registers.
    """
    if simulation.installed is not None:
        return moment_s(simulation.installed, start_s)
    quarter_s = 13 * WEEK_S
    return (start_s - simulation.history_days * DAY_S) // quarter_s * quarter_s


def _running(energy_wh: Floats) -> Floats:
    """Cumulative energy at the minutes' boundaries, the first one 0."""
    total = np.zeros((energy_wh.shape[0], energy_wh.shape[1] + 1))
    np.cumsum(energy_wh, axis=1, out=total[:, 1:])
    return total


def _inside_out(zones: Sequence[ZonePlan]) -> tuple[ZonePlan, ...]:
    """Zones ordered so that inner ones come before those around them."""
    by_main = {zone.main: zone for zone in zones}
    behind = [sub for zone in zones for sub in zone.subs]
    twice = {sub for sub in behind if behind.count(sub) > 1}
    if len(by_main) != len(zones) or twice:
        raise ValueError(f"a meter is in two zones: {', '.join(sorted(twice)) or 'two zones have the same main'}")
    ordered: list[ZonePlan] = []

    def visit(zone: ZonePlan, above: tuple[str, ...]) -> None:
        if zone.main in above:
            raise ValueError(f"main meter {zone.main} is behind itself")
        for sub in zone.subs:
            if sub in by_main:
                visit(by_main[sub], (*above, zone.main))
        if zone not in ordered:
            ordered.append(zone)

    for zone in zones:
        visit(zone, ())
    return tuple(ordered)
