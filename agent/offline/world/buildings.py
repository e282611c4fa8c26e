"""Draws a whole building: its life, its wires, its meters, and what goes wrong in it.

Owns the plan of a building, the order of drawing, and the truth. Refuses to know detectors. All is drawn from one seed
per building, so that any building can be made again alone. A theft that would be smaller than the plan's least share
of the load is drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent.offline.world import bystanders, thefts
from agent.offline.world.climate import F64, draw_climate
from agent.offline.world.households import Loads, draw_house, draw_loads
from agent.offline.world.meters import BURDEN_W, Meter, Reading, draw_meter, draw_reading, register_wh, shifted
from agent.offline.world.network import copper_wh, draw_common, draw_riser
from core.signs import SignKind

START_S = 1_736_121_600  # 2025-01-06 00:00 UTC, a Monday
SLOTS = 48
ROW_H = 24.0 / SLOTS
SEVERAL = ("two", "three", "turns")
FROM_START = ("bypass", "stopped", "shunt", "slow_meter", "steady", "home", "stairs")
HONEST = "honest"
ARTEFACT_FAMILY = {
    "hour off": "clock", "quarter off": "clock", "solar unread": "solar", "main drifts": "main",
    "main lost phase": "main", "sub too fast": "fast", "coarse start": "coarse",
}  # fmt: skip
KINDS = (
    *thefts.WAYS, *SEVERAL, *bystanders.LOADS, *(f"{kind}, from the start" for kind in FROM_START),
    *bystanders.ARTEFACTS, HONEST,
)  # fmt: skip
SIGNS = (SignKind.COVER_OPENED, SignKind.TERMINAL_OPENED, SignKind.MAGNETIC_FIELD, SignKind.PHASE_FAILURE)
NEEDS = {"boiler": "electric_water", "heating": "electric_heat", "car": "cars", "kitchen": "electric_cooking"}


def family_of(kind: str) -> str:
    """The family that is left out of training together with `kind`."""
    plain = kind.removesuffix(", from the start")
    if plain != kind:
        return "from the start"
    if plain in SEVERAL:
        return "several"
    return thefts.FAMILY_OF.get(plain) or bystanders.FAMILY_OF.get(plain) or ARTEFACT_FAMILY.get(plain) or HONEST


@dataclass(frozen=True, slots=True)
class Plan:
    """What a building is to be."""

    kind: str
    flats: int
    days: int
    onset_day: int  # 0: there from the start
    least_share: float = 0.004  # of the building's load


@dataclass(frozen=True, slots=True)
class Building:
    """Registers in Wh [time], NaN where missed, and the truth behind them.

    guilty: flats whose meter is at fault. accepted: other flats that it is no error to name (behind whose service line
    the load hides). artefact: nothing is missing behind any meter, and nobody draws it. onset_s is None where honest.
    """

    plan: Plan
    times_s: F64
    main_wh: F64
    subs_wh: F64
    main_step_wh: float
    sub_step_wh: float
    main_class: float
    sub_class: float
    signs: tuple[tuple[int, float, SignKind], ...]
    guilty: tuple[int, ...]
    accepted: tuple[int, ...]
    artefact: bool
    onset_s: float | None
    stolen_wh: F64
    load_w: float
    unmetered_w: float  # of the house's own loads, from the start


def draw_plan(rng: np.random.Generator, kind: str) -> Plan:
    """A building of 8 to 48 flats with some weeks before the onset and a month after it."""
    flats = int(np.exp(rng.uniform(np.log(8), np.log(48))))
    if kind.endswith("from the start"):
        return Plan(kind, flats, int(rng.integers(24, 50)), 0, float(rng.uniform(0.008, 0.03)))
    onset = int(rng.integers(20, 50))
    return Plan(kind, flats, onset + int(rng.integers(24, 34)), onset, float(rng.choice([0.002, 0.005, 0.01, 0.02])))


def make(seed: tuple[int, ...], plan: Plan, loads_wh: F64 | None = None) -> Building:
    """The building of `plan` that `seed` draws; with `loads_wh` [time, flat] its flats live so instead.

    Raises ValueError where no theft of the plan's least share can be drawn.
    """
    return _Maker(np.random.default_rng(seed), plan, loads_wh).make()


class _Maker:
    """Draws one building, part by part, in a fixed order from one generator."""

    def __init__(self, rng: np.random.Generator, plan: Plan, loads_wh: F64 | None) -> None:
        self.rng, self.plan = rng, plan
        self.kind = plan.kind.removesuffix(", from the start")
        self.rows = plan.days * SLOTS
        self.sky = draw_climate(rng, plan.days, SLOTS)
        shift = float(rng.choice([0.0, 0.0, rng.uniform(0, 1)])) if plan.onset_day else 0.0
        self.onset = int((plan.onset_day + shift) * SLOTS)
        self.loads = self._loads(loads_wh)
        self.true = self.loads.total_wh
        self.guilty: tuple[int, ...] = ()
        self.accepted: tuple[int, ...] = ()

    def make(self) -> Building:
        rng, plan = self.rng, self.plan
        self._lives()
        reading = draw_reading(rng)
        if self.kind == "coarse start":
            reading = replace(reading, step_wh=1000.0, main_step_wh=float(rng.choice([100.0, 1000.0])))
        shown, tap, behind = self._wrong()
        common = draw_common(rng, self.sky, plan.flats, self.true.sum(1))
        way = rng.choice(["metered", "partly", "unmetered", "little"], p=[0.35, 0.15, 0.1, 0.4])
        unmetered = {
            "metered": 0.0,
            "partly": rng.uniform(0.1, 0.5),
            "unmetered": 1.0,
            "little": rng.uniform(0.02, 0.3),
        }[str(way)]
        if self.kind == "stairs" and plan.onset_day == 0:
            unmetered = max(unmetered, 1.0)
        house_wh = common.total_wh * unmetered
        flow = self.true.copy()
        solar = self._solar()
        shown, flow = np.maximum(shown - solar, 0.0), flow - solar
        meters_wh = rng.uniform(*BURDEN_W) * plan.flats * ROW_H
        room_c = 20 + rng.uniform(0.1, 1.0) * (self.sky.temperature_c - 15)
        head = flow.sum(1) + tap + behind.sum(1) + house_wh + meters_wh
        head = head + copper_wh(draw_riser(rng, plan.flats), np.maximum(flow + behind, 0), tap, room_c)
        main, meters = self._meters(reading)
        head = self._main_fault(np.maximum(head, 0.0))
        main_wh = register_wh(rng, main, head, room_c, ROW_H)
        columns = [register_wh(rng, m, shown[:, j], room_c, ROW_H) for j, m in enumerate(meters)]
        stolen = (self.true - solar - shown).clip(0).sum(1) * (len(self.guilty) > 0) + tap + behind.sum(1)
        honest = self.kind == HONEST
        return Building(
            plan, START_S + 3600.0 * ROW_H * np.arange(self.rows + 1.0), main_wh, np.column_stack(columns),
            reading.main_step_wh, reading.step_wh, reading.main_class, reading.sub_class, self._signs(), self.guilty,
            self.accepted, self.kind in bystanders.ARTEFACTS and not self.guilty,
            None if honest else START_S + self.onset * ROW_H * 3600.0, stolen,
            float(self.true.sum(1).mean() / ROW_H), float(house_wh.mean() / ROW_H),
        )  # fmt: skip

    # -- life ---------------------------------------------------------------------------------------------------------

    def _loads(self, loads_wh: F64 | None) -> Loads:
        house = draw_house(self.rng)
        if self.kind in NEEDS:
            house = replace(house, **{NEEDS[self.kind]: max(0.5, getattr(house, NEEDS[self.kind]))})
        drawn = draw_loads(self.rng, house, self.sky, self.plan.flats)
        if loads_wh is None:
            return drawn
        # Measured flats have no parts: what a thief moves is added to them.
        parts = drawn.parts_wh
        return Loads(loads_wh + sum(parts[name] for name in self._moved()), parts)

    def _moved(self) -> tuple[str, ...]:
        named = {"boiler": "boiler", "heating": "climate", "car": "car", "kitchen": "cooking"}
        return (named[self.kind],) if self.kind in named else ()

    def _lives(self) -> None:
        """About the onset others change, too: somebody moves out, or begins to use more."""
        rng = self.rng
        for flat in rng.permutation(self.plan.flats)[: rng.poisson(0.35)]:
            start = max(0, self.onset + int(rng.normal(0, 2 * SLOTS)))
            stop = min(self.rows, start + int(rng.uniform(6, 40)) * SLOTS)
            factor = float(rng.choice([rng.uniform(0, 0.25), rng.uniform(1.4, 3)]))
            self.true[start:stop, flat] *= factor
            for part in self.loads.parts_wh.values():
                part[start:stop, flat] *= factor

    def _solar(self) -> F64:
        """Generation behind the meters [time, flat] whose export nobody reads; new ones from the onset."""
        rng, solar = self.rng, np.zeros_like(self.true)
        if rng.random() < 0.08:  # balcony modules of at most 800 W (VDE-AR-N 4105)
            for flat in np.flatnonzero(rng.random(self.plan.flats) < 0.1):
                solar[:, flat] = rng.uniform(200, 700) * self.sky.sun * ROW_H
        if self.kind == "solar unread":
            for flat in rng.permutation(self.plan.flats)[: int(rng.integers(1, 2 + self.plan.flats // 8))]:
                solar[self.onset :, flat] += rng.uniform(800, 4000) * self.sky.sun[self.onset :] * ROW_H
        return solar

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def _wrong(self) -> tuple[F64, F64, F64]:
        """(what the sub-meters get to see, what a tap draws, what is drawn on service lines ahead of the meters)."""
        rng, plan, kind = self.rng, self.plan, self.kind
        shown, tap, behind = self.true.copy(), np.zeros(self.rows), np.zeros_like(self.true)
        month = slice(self.onset, min(self.rows, self.onset + 21 * SLOTS))
        least = plan.least_share * float(self.true[month].sum())
        for _ in range(60):
            if kind in thefts.WAYS or kind in SEVERAL:
                flats = self._steal(shown)
                parts = (self.true[month] - shown[month])[:, flats].sum(0)
                if parts.min() >= least / len(flats):
                    self.guilty = tuple(sorted(int(f) for f in flats))
                    return shown, tap, behind
                shown[:, flats] = self.true[:, flats]
            elif kind in bystanders.LOADS:
                flat_w = float(self.true.mean()) / ROW_H
                load = bystanders.LOADS[kind](rng, self.sky, flat_w) * ROW_H
                load[: self.onset] = 0.0
                if load[month].sum() < least:
                    continue
                if bystanders.FAMILY_OF[kind] == "hidden load" and rng.random() < 0.5:
                    flat = int(rng.integers(plan.flats))
                    behind[:, flat], self.accepted = load, (flat,)
                    return shown, tap, behind
                return shown, load, behind
            elif kind == "sub too fast":
                flat = int(rng.integers(plan.flats))
                shown[self.onset :, flat] *= rng.uniform(1.05, 2.0)
                if (shown - self.true)[month, flat].sum() >= least:
                    self.guilty = (flat,)
                    return shown, tap, behind
                shown[:, flat] = self.true[:, flat]
            else:
                return shown, tap, behind
        raise ValueError(f"no {plan.kind!r} of {plan.least_share:.1%} of the load in this building")

    def _steal(self, shown: F64) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Put a theft into `shown`; who steals."""
        rng, plan, kind = self.rng, self.plan, self.kind
        count = {"two": 2, "three": 3, "turns": int(rng.integers(2, 4))}.get(kind, 1)
        flats = rng.choice(plan.flats, count, replace=False)
        turn = None
        if kind == "turns":
            lengths = np.cumsum(np.full(plan.days + 1, int(rng.choice([1, 2, 7]))))
            turn = np.searchsorted(lengths, np.arange(plan.days), side="right") % count
        for number, flat in enumerate(flats):
            name = kind if kind in thefts.WAYS else str(rng.choice(["bypass", "shunt", "trickle", "night", "ceiling"]))
            late = 0 if number == 0 or kind == "turns" else int(rng.choice([0, rng.integers(0, 4 * SLOTS)]))
            start = min(self.onset + late, self.rows - SLOTS)
            here = slice(start, self.rows)
            day = self.sky.day[here] - self.sky.day[start]
            own = thefts.Home(
                self.true[here, flat], {k: v[here, flat] for k, v in self.loads.parts_wh.items()},
                self.true[: self.onset, flat], self.sky.hour[here], day, self.sky.weekend[here],
                self.sky.temperature_c[here], ROW_H,
            )  # fmt: skip
            steals = thefts.WAYS["bypass" if kind == "turns" else name](rng, own)
            if turn is not None:
                steals = np.where(turn[day] == number, steals, own.load)
            shown[here, flat] = steals
        return np.asarray(flats)

    def _meters(self, reading: Reading) -> tuple[Meter, list[Meter]]:
        rng, plan = self.rng, self.plan
        main = draw_meter(rng, reading, self.rows, ROW_H, None)
        meters = [draw_meter(rng, reading, self.rows, ROW_H, j) for j in range(plan.flats)]
        if self.kind == "hour off":
            by_s = float(rng.choice([-3600.0, 3600.0]))
            share = rng.uniform(0.05, 0.6)
            meters = [shifted(m, self.onset, by_s) if rng.random() < share else m for m in meters]
        elif self.kind == "quarter off":
            for j in rng.permutation(plan.flats)[: int(rng.integers(1, 3))]:
                meters[j] = shifted(meters[j], self.onset, float(rng.choice([-1, 1]) * rng.uniform(240, 2400)))
        return main, meters

    def _main_fault(self, head_wh: F64) -> F64:
        if self.kind == "main drifts":
            head_wh[self.onset :] *= 1 + self.rng.choice([-1, 1]) * self.rng.uniform(0.008, 0.05)
        elif self.kind == "main lost phase":
            head_wh[self.onset :] *= 1 - self.rng.uniform(0.2, 0.45)
        return head_wh

    def _signs(self) -> tuple[tuple[int, float, SignKind], ...]:
        """What the meters' own logs say, by rising time: few meters notice, and some notice what is nothing."""
        rng, plan = self.rng, self.plan
        count = rng.poisson(rng.uniform(0, 0.08) * plan.flats * plan.days / 365)
        found = [(int(rng.integers(plan.flats)), float(rng.uniform(0, plan.days))) for _ in range(count)]
        for flat in self.guilty:
            if plan.onset_day and self.kind in thefts.WAYS and rng.random() < 0.15:
                found += [(flat, self.onset / SLOTS + float(rng.uniform(-0.5, 0.5))) for _ in range(rng.integers(1, 3))]
        signs = [(flat, START_S + day * 86_400, SIGNS[rng.integers(len(SIGNS))]) for flat, day in found]
        return tuple(sorted((s for s in signs if s[1] > START_S), key=lambda sign: sign[1]))
