"""What the gateways' forecasts say of the fleet: peaks zone by zone, the coincident peak, and what came true.

It owns the questions; how quantiles add up is `agent.utility.fleet.coincident`'s.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent import wire
from agent.utility.fleet.coincident import Dependence, FleetForecast, combine, learn
from agent.utility.fleet.queries import HOUR_S, Answer
from agent.utility.sql.schema import DAY_S
from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store, timestamp

Floats = NDArray[np.float64]

FRESH_S = 3 * HOUR_S  # an older forecast is that of a gateway that has gone silent
STUDIED = 200  # zones whose past errors are read: bounds what a question about a whole fleet reads
STUDY_DAYS = 28
SPREADS = 2 * 1.645  # between the 5 % and the 95 % quantile of a normal error


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


def coincident(store: Store, now_s: float) -> tuple[float, float, int, Dependence, FleetForecast]:
    """The sum over the next 24 h of all zones that lie in no other one.

    Start and step in s, how many zones, how their errors hang together, the sum. Forecasts of different steps are
    brought to the coarsest one.

    Raises:
        NothingKnown: there is no fresh forecast.
    """
    found = store.rows(
        "SELECT f.body, z.zone, z.gateway_key, i.body FROM forecast f JOIN zone z ON z.zone_key = f.zone_key "
        "LEFT JOIN gateway_info i ON i.gateway_key = z.gateway_key WHERE f.issued_s >= ? ORDER BY f.zone_key",
        (int(now_s) - FRESH_S,),
    )
    inner = {gateway: _inner(info) for _, _, gateway, info in found}
    bodies = [
        wire.decode(wire.Forecast, str(body).encode()) for body, zone, gateway, _ in found if zone not in inner[gateway]
    ]
    if not bodies:
        raise NothingKnown(why_none(store, now_s))
    step_s = max(body.interval_s for body in bodies)
    start_s = math.ceil(max(body.issued.timestamp() for body in bodies) / step_s) * step_s
    count = DAY_S // step_s
    levels = [float(level) for level in sorted(bodies[0].quantiles_w, key=float)]
    grids = [grid for body in bodies if (grid := _grid(body, levels, start_s, step_s, count)) is not None]
    if not grids:
        raise NothingKnown("no forecast reaches over the next 24 h")
    dependence = learn(_errors(store, now_s, step_s))
    return start_s, step_s, len(grids), dependence, combine(levels, np.array(grids), dependence)


def _inner(info: object) -> set[str]:
    """The zones of a gateway whose load another zone of it contains: they must not be counted twice."""
    if info is None:
        return set()
    zones = wire.decode(wire.Info, str(info).encode()).zones
    behind = {sub for zone in zones for sub in zone.subs}
    return {zone.id for zone in zones if zone.main in behind}


def _grid(body: wire.Forecast, levels: list[float], start_s: float, step_s: int, count: int) -> Floats | None:
    """A forecast's quantiles [levels, count] on the common grid; None where it does not cover it."""
    quantiles = {float(level): row for level, row in body.quantiles_w.items()}
    if step_s % body.interval_s or any(level not in quantiles for level in levels):
        return None
    per, first = step_s // body.interval_s, round((start_s - body.issued.timestamp()) / body.interval_s)
    rows = np.array([quantiles[level][first : first + per * count] for level in levels])
    return rows.reshape(len(levels), count, per).mean(axis=2) if rows.shape[1] == per * count else None


def _errors(store: Store, now_s: float, step_s: int) -> Floats:
    """Past day-ahead errors in spreads, [days, steps, zones], NaN where a step was not measured."""
    today = int(now_s // DAY_S)
    days, steps = range(today - STUDY_DAYS, today), DAY_S // step_s
    rows = _looked_back(store, today - STUDY_DAYS, today)
    zones = sorted({zone for zone, _, _, _, _ in rows})
    out = np.full((len(days), steps, len(zones)), np.nan)
    for zone, day, _, curve, load_w in rows:
        ahead = min(steps, len(curve))
        if len(load_w) >= ahead and ahead == steps:
            spread = np.maximum(curve[:steps, 2] - curve[:steps, 0], 1.0) / SPREADS
            out[day - days[0], :, zones.index(zone)] = (load_w[:steps] - curve[:steps, 1]) / spread
    enough = np.isfinite(out).all(axis=1).mean(axis=0) > 0.5
    return out[:, :, enough]


def _looked_back(store: Store, first_day: int, last_day: int) -> list[tuple[int, int, int, Floats, Floats]]:
    """(zone, day, step in s, curve [steps, (5 %, mean, 95 %)], load in W [steps]) of the days that are over."""
    zones = [
        int(str(key))
        for (key,) in store.rows(
            "SELECT DISTINCT zone_key FROM forecast_day WHERE day >= ? AND day < ? ORDER BY zone_key LIMIT ?",
            (first_day, last_day, STUDIED),
        )
    ]
    out = []
    for zone in zones:
        measured = {
            int(str(start)): (int(str(seconds)), main)
            for start, seconds, main in store.rows(
                "SELECT start_s, seconds, main_j FROM balance WHERE zone_key = ? AND start_s >= ? AND start_s < ?",
                (zone, first_day * DAY_S, (last_day + 2) * DAY_S),
            )
        }
        kept = store.rows(
            "SELECT day, issued_s, step_s, curve FROM forecast_day WHERE zone_key = ? AND day >= ? AND day < ?",
            (zone, first_day, last_day),
        )
        for day, issued_s, step_s, text in kept:
            curve = np.array(msgspec.json.decode(str(text)), np.float64)
            start_s, step = int(str(issued_s)), int(str(step_s))
            load = [_mean_w(measured, start_s + k * step, step) for k in range(len(curve))]
            out.append((zone, int(str(day)), step, curve, np.array(load)))
    return out


def _mean_w(measured: dict[int, tuple[int, object]], start_s: int, step_s: int) -> float:
    """The mean load over a step, NaN unless all of it was measured."""
    joules, at_s = 0.0, start_s
    while at_s < start_s + step_s:
        seconds, main_j = measured.get(at_s, (0, None))
        if not seconds or main_j is None:
            return math.nan
        joules += float(str(main_j))
        at_s += seconds
    return joules / (at_s - start_s)


def skill(store: Store, now_s: float, days: int) -> Answer:
    """Realised against forecast, by horizon, over the last whole days and up to 200 zones."""
    today = int(now_s // DAY_S)
    groups: dict[str, list[tuple[Floats, Floats]]] = {"0 to 24 h": [], "24 to 48 h": []}
    for _, _, step_s, curve, load_w in _looked_back(store, today - days, today):
        steps = DAY_S // step_s
        for name, part in (("0 to 24 h", slice(0, steps)), ("24 to 48 h", slice(steps, 2 * steps))):
            if len(load_w[part]) == steps and np.isfinite(load_w[part]).all():
                groups[name].append((curve[part], load_w[part]))
    rows: list[Row] = []
    for name, pairs in groups.items():
        if not pairs:
            continue
        error = float(sum(np.abs(load - curve[:, 1]).sum() for curve, load in pairs))
        energy = float(sum(np.abs(load).sum() for _, load in pairs))
        inside = float(np.mean([((c[:, 0] <= load) & (load <= c[:, 2])).mean() for c, load in pairs]))
        peak = float(np.mean([abs(c[:, 1].max() - load.max()) / max(load.max(), 1.0) for c, load in pairs]))
        rows.append((name, len(pairs), error / max(energy, 1.0), inside, peak))
    return Answer(("horizon", "zone_days", "nmae", "coverage_of_90", "peak_of_curve_mape"), rows)
