"""What the gateways' forecasts say of the fleet: peaks zone by zone, and the coincident peaks of its groups.

It owns the questions; how quantiles add up is `agent.utility.fleet.coincident`'s, what came true `.realised`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent import wire
from agent.utility.fleet.coincident import LEVELS, Courses, Dependence, FleetForecast, SumOfBuildings, learn
from agent.utility.fleet.groups import FLEET, Kind, capacities, marks, members, outer, paged
from agent.utility.fleet.queries import HOUR_S, Answer
from agent.utility.fleet.realised import SLOT_S, SLOTS, studied
from agent.utility.sql.schema import DAY_S
from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store, timestamp

Floats = NDArray[np.float64]

FRESH_S = 3 * HOUR_S  # an older forecast is that of a gateway that has gone silent
MEDIAN = len(LEVELS) // 2


class NothingKnown(Exception):
    """No forecast that is fresh enough; the text says what to do."""


def peaks(store: Store, now_s: float, top: int) -> Answer:
    """Zones by how probably they pass their capacity, then by peak; forecasts of the last three hours."""
    found = store.rows(
        "SELECT tenant, site, gateway, zone, peak_w / 1000.0, peak_low_w / 1000.0, peak_high_w / 1000.0, peak_s, "
        "trough_w / 1000.0, trough_s, capacity_w / 1000.0, over_probability FROM zone_peak WHERE issued_s >= ? "
        "ORDER BY COALESCE(over_probability, 0) DESC, peak_w DESC, tenant, site, gateway, zone LIMIT ?",
        (int(now_s) - FRESH_S, top),
    )
    rows: list[Row] = [
        (*row[:7], timestamp(int(str(row[7]))), row[8], timestamp(int(str(row[9]))), *row[10:]) for row in found
    ]
    columns = (
        "tenant", "site", "gateway", "zone", "peak_kw", "at_least_kw", "at_most_kw", "peak_about", "trough_kw",
        "trough_about", "capacity_kw", "over_probability",
    )  # fmt: skip
    return Answer(columns, rows)


def why_none(store: Store, now_s: float) -> str:
    """Why there is no fresh forecast, and what to do."""
    newest = store.rows("SELECT MAX(issued_s) FROM forecast")[0][0]
    if newest is None:
        return "no forecast has come yet: a gateway sends one each hour, from 7 days of readings on"
    hours = (now_s - int(str(newest))) / HOUR_S
    return (
        f"no forecast of the last three hours, the newest is {hours:.0f} h old: are the gateways connected, "
        "and does the ingest run?"
    )


class Sum(NamedTuple):
    """The next 24 h of one group from `start_s` on, in half hours, and what it can carry if somebody has said so."""

    name: str
    start_s: float
    dependence: Dependence
    capacity_w: float | None
    forecast: FleetForecast

    @property
    def over_probability(self) -> float | None:
        """How probably the peak passes the capacity."""
        return None if self.capacity_w is None else self.forecast.over(self.capacity_w)


def coincident(store: Store, now_s: float, kind: Kind = "fleet", only: str | None = None) -> list[Sum]:
    """The sum over the next 24 h of the zones of each group that lie in no other zone, the largest peak first.

    `only`: that group alone. What is held in memory is one group's courses and a hundred forecasts at a time.

    Raises:
        NothingKnown: there is no fresh forecast, or no site says what its `kind` is.
    """
    found = store.rows(
        "SELECT f.zone_key, z.gateway_key, z.zone, f.issued_s FROM forecast f JOIN zone z ON z.zone_key = f.zone_key "
        "WHERE f.issued_s >= ?",
        (int(now_s) - FRESH_S,),
    )
    if not found:
        raise NothingKnown(why_none(store, now_s))
    zones = {int(str(key)): (int(str(gateway)), str(zone)) for key, gateway, zone, _ in found}
    start_s = math.ceil(max(int(str(issued)) for *_, issued in found) / SLOT_S) * SLOT_S
    groups = members(store, kind, outer(store, zones))
    if only is not None:
        groups = {name: keys for name, keys in groups.items() if name == only}
    dependence = learn(day for day, _ in studied(store, now_s, "fleet", FLEET))
    courses, limits = Courses(dependence, SLOTS), capacities(store, kind)
    turn = start_s % DAY_S // SLOT_S
    out = []
    for name, keys in sorted(groups.items()):
        added = SumOfBuildings(SLOTS)
        for key, levels, quantiles_w, mean_w in _grids(store, keys, start_s):
            added.add(courses.of(key, levels, quantiles_w), mean_w)
        if added.zones:
            past = [np.roll(errors, -turn) for _, errors in studied(store, now_s, kind, name)]
            said = added.forecast(np.array(past) if past else None)
            out.append(Sum(name, start_s, dependence, limits.get(name), said))
    if not out:
        raise NothingKnown(_why_no_group(kind, only, bool(groups)))
    return sorted(out, key=lambda one: (-float(one.forecast.peak_w[MEDIAN]), one.name))


def _why_no_group(kind: Kind, only: str | None, known: bool) -> str:
    if known:
        return "no forecast reaches over the next 24 h"
    if only is not None:
        return f"no site with a fresh forecast says {kind} = {only!r}"
    return f'no site with a fresh forecast says its {kind}: set {kind} = "..." under [site] in the site files'


def _grids(store: Store, keys: list[int], start_s: float) -> Iterator[tuple[int, list[float], Floats, Floats]]:
    """Zone, levels, quantiles [levels, 48] and mean [48] of each forecast that covers the 24 h from `start_s` on."""
    for page in paged(keys):
        for key, body in store.rows(f"SELECT zone_key, body FROM forecast WHERE zone_key IN ({marks(page)})", page):
            forecast = wire.decode(wire.Forecast, str(body).encode())
            levels = sorted(forecast.quantiles_w, key=float)
            curves = np.array([forecast.mean_w, *(forecast.quantiles_w[level] for level in levels)]).T
            part = math.gcd(forecast.interval_s, SLOT_S)
            first, per = (start_s - forecast.issued.timestamp()) / part, SLOT_S // part
            fine = np.repeat(curves, forecast.interval_s // part, axis=0)[round(first) :][: per * SLOTS]
            if first >= 0 and len(fine) == per * SLOTS:
                slots = fine.reshape(SLOTS, per, -1).mean(axis=1).T
                yield int(str(key)), [float(level) for level in levels], slots[1:], slots[0]


def group_peaks(store: Store, now_s: float, kind: Kind) -> Answer:
    """The coincident peak of each group over the next 24 h: those nearest to their capacity first, then the largest."""
    rows: list[Row] = [
        (
            one.name,
            one.forecast.zones,
            *(float(one.forecast.peak_w[at]) / 1000 for at in (MEDIAN, 0, -1)),
            timestamp(one.start_s + float(one.forecast.peak_time.argmax()) * SLOT_S),
            one.forecast.sum_of_peaks_w / 1000,
            None if one.capacity_w is None else one.capacity_w / 1000,
            one.over_probability,
        )
        for one in sorted(coincident(store, now_s, kind), key=lambda one: -(one.over_probability or 0.0))
    ]
    columns = (
        kind, "zones", "peak_kw", "at_least_kw", "at_most_kw", "peak_about", "sum_of_peaks_kw", "capacity_kw",
        "over_probability",
    )  # fmt: skip
    return Answer(columns, rows)
