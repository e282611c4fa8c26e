"""What came true: each day's first forecast of each zone against its load, once the forecast is over.

It owns the comparison, zone by zone and hour ahead by hour ahead, and for sums of zones; it is made once and kept in
two small tables, so that a question about months of a fleet reads neither curves nor intervals. All in half hours from
midnight UTC.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.utility.fleet.coincident import DayErrors, day_errors, scores_of
from agent.utility.fleet.groups import FLEET, KINDS, Kind, group_key, marks, members, outer, paged
from agent.utility.fleet.queries import Answer
from agent.utility.sql import statements
from agent.utility.sql.schema import DAY_S, FORECAST_ERROR, GROUP_DAY
from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store

Floats = NDArray[np.float64]

SLOT_S, SLOTS = 1800, 48
LEAD_H = 6  # hours ahead are counted in steps of so many
OVER_DAYS = 3  # a forecast of 48 h that was issued on a day is over so many days later
CATCH_UP_DAYS = 7  # so far back days are compared that were missed
EARLY_S = 2 * 3600  # a zone counts in a sum if its first forecast of the day came this early
ZONES_AT_ONCE = 100
STUDY_DAYS = 28


class GroupErrors(msgspec.Struct, frozen=True):
    """One day of a group: what was expected, what was drawn, W in each half hour; its errors for the dependence."""

    forecast_w: list[float]
    load_w: list[float]
    scores: list[float]
    square: float
    neighbour: float
    level: float


class _Kept(NamedTuple):
    """A forecast that is over: `curve_w` [steps, (5 %, mean, 95 %)], `load_w` [steps], NaN where not measured."""

    zone_key: int
    issued_s: int
    step_s: int
    curve_w: Floats
    load_w: Floats


class _Sums:
    """A group's day, zone by zone."""

    def __init__(self) -> None:
        self.zones = 0
        self._forecast_w, self._load_w, self._scores = np.zeros(SLOTS), np.zeros(SLOTS), np.zeros(SLOTS)
        self._moments = np.zeros(3)

    def add(self, curve_w: Floats, load_w: Floats) -> None:
        one = day_errors(scores_of(load_w, *curve_w.T)[None, :])
        self.zones += 1
        self._forecast_w += curve_w[:, 1]
        self._load_w += load_w
        self._scores += one.scores
        self._moments += (one.square, one.neighbour, one.level)

    def row(self, kind: Kind, name: str, day: int) -> Row:
        square, neighbour, level = (float(v) for v in self._moments / max(1, self.zones))
        body = GroupErrors(
            [round(float(w)) for w in self._forecast_w],
            [round(float(w)) for w in self._load_w],
            [round(float(z), 4) for z in self._scores / max(1, self.zones)],
            square,
            neighbour,
            level,
        )
        heights = (float(self._forecast_w.max()), float(self._load_w.max()))
        return (group_key(kind, name), day, kind, name, self.zones, *heights, msgspec.json.encode(body).decode())


def settle(store: Store, now_s: float) -> int:
    """Compare what is over and was not compared yet; returns how many zones' days that were. May be run at any time."""
    newest = int(now_s // DAY_S) - OVER_DAYS
    days = range(newest - CATCH_UP_DAYS + 1, newest + 1)
    done = {
        int(str(day))
        for (day,) in store.rows(
            "SELECT day FROM group_day WHERE group_key = ? AND day >= ?", (group_key("fleet", FLEET), days[0])
        )
    }
    return sum(_settle_day(store, day) for day in days if day not in done)


def _settle_day(store: Store, day: int) -> int:
    """The fleet's row is written last: it says that the day is done, also where no zone's day was whole."""
    zones = {
        int(str(key)): (int(str(gateway)), str(zone))
        for key, gateway, zone in store.rows("SELECT zone_key, gateway_key, zone FROM zone")
    }
    groups: dict[tuple[Kind, str], _Sums] = {}
    of_zone: dict[int, list[tuple[Kind, str]]] = {}
    counted = outer(store, zones)
    for kind in KINDS:
        for name, keys in members(store, kind, counted).items():
            for key in keys:
                of_zone.setdefault(key, []).append((kind, name))
    count = 0
    for page in paged(sorted(zones), ZONES_AT_ONCE):
        rows: list[Row] = []
        for kept in _looked_back(store, day, page):
            rows += _error_rows(kept, day)
            count += 1
            if (whole := _whole_day(kept, day)) is not None:
                for group in of_zone.get(kept.zone_key, ()):
                    groups.setdefault(group, _Sums()).add(*whole)
        if rows:
            store.write(FORECAST_ERROR, rows)
    if count:
        groups.setdefault(("fleet", FLEET), _Sums())
    sums = [group.row(kind, name, day) for (kind, name), group in groups.items()]
    sums.sort(key=lambda row: row[2] == "fleet")
    for at in range(0, len(sums), ZONES_AT_ONCE):
        store.write(GROUP_DAY, sums[at : at + ZONES_AT_ONCE])
    return count


def _looked_back(store: Store, day: int, keys: list[int]) -> Iterator[_Kept]:
    """The first forecasts of a day, with the loads that came."""
    found = store.rows(
        f"SELECT zone_key, issued_s, step_s, curve FROM forecast_day WHERE day = ? AND zone_key IN ({marks(keys)})",
        (day, *keys),
    )
    if not found:
        return
    query = statements.loads(store.server.dialect, len(found))
    stretch = (day * DAY_S, (day + OVER_DAYS) * DAY_S - 1)
    place = {key: n for n, (key, *_) in enumerate(found)}
    intervals = [
        (place[key], start, seconds, joules)
        for key, start, seconds, joules in store.rows(query, (*stretch, *place))
        if joules is not None
    ]
    measured = np.array(intervals, np.float64).reshape(-1, len(statements.LOADS))
    measured = measured[np.argsort(measured[:, 0], kind="stable")]
    for key, issued, step, text in found:
        first, last = np.searchsorted(measured[:, 0], [place[key], place[key] + 1])
        curve_w = np.array(msgspec.json.decode(str(text)), np.float64)
        issued_s, step_s = int(str(issued)), int(str(step))
        load_w = _mean_w(measured[first:last, 1:], issued_s, step_s, len(curve_w))
        yield _Kept(int(str(key)), issued_s, step_s, curve_w, load_w)


def _mean_w(intervals: Floats, start_s: int, step_s: int, count: int) -> Floats:
    """Mean load over `count` steps of intervals [n, (start, seconds, joules)]; NaN where a step has a gap."""
    starts, seconds, joules = intervals.T
    place = ((starts - start_s) // step_s).astype(np.intp)
    inside = (place >= 0) & (place < count) & (starts + seconds <= start_s + (place + 1) * step_s)
    known_s = np.bincount(place[inside], seconds[inside], count)
    energy_j = np.bincount(place[inside], joules[inside], count)
    return np.where(known_s == step_s, energy_j / step_s, np.nan)


def _error_rows(kept: _Kept, day: int) -> Iterator[Row]:
    """One row for each six hours ahead of which something was measured."""
    kwh = kept.step_s / 3.6e6
    lead = np.arange(len(kept.load_w)) * kept.step_s // (3600 * LEAD_H) * LEAD_H
    known = np.isfinite(kept.load_w)
    low, mean, high = kept.curve_w.T
    for lead_h in np.unique(lead[known]):
        at = known & (lead == lead_h)
        load_w, error_w = kept.load_w[at], mean[at] - kept.load_w[at]
        inside = int(((low[at] <= load_w) & (load_w <= high[at])).sum())
        sums = (float(values.sum()) * kwh for values in (np.abs(load_w), np.abs(error_w), error_w))
        yield (kept.zone_key, day, int(lead_h), int(at.sum()), *sums, inside)


def _whole_day(kept: _Kept, day: int) -> tuple[Floats, Floats] | None:
    """Curve [48, 3] and load [48] of the 24 h from the issue on, by time of day; None unless all of it is known."""
    if kept.issued_s - day * DAY_S > EARLY_S:
        return None
    steps = DAY_S // kept.step_s
    curve_w, load_w = to_slots(kept.curve_w[:steps], kept.step_s), to_slots(kept.load_w[:steps], kept.step_s)
    if len(load_w) < SLOTS or not np.isfinite(load_w).all():
        return None
    turn = (kept.issued_s - day * DAY_S) // SLOT_S
    return np.roll(curve_w, turn, axis=0), np.roll(load_w, turn)


def to_slots(values: Floats, step_s: int) -> Floats:
    """Means over half hours of values [steps, ...]; a step that is longer holds for each of its half hours."""
    if step_s == SLOT_S:
        return values
    part = math.gcd(step_s, SLOT_S)
    fine = np.repeat(values, step_s // part, axis=0)
    per = SLOT_S // part
    return np.asarray(fine[: len(fine) // per * per].reshape(-1, per, *values.shape[1:]).mean(axis=1))


def studied(store: Store, now_s: float, kind: Kind, name: str) -> list[tuple[DayErrors, Floats]]:
    """The last days of a group, oldest first: errors for the dependence, and the sum's own ones [48].

    The latter by time of day from midnight UTC, load minus forecast by the forecast's mean load.
    """
    rows = store.rows(
        "SELECT zones, body FROM group_day WHERE group_key = ? AND day >= ? AND zones > 0 ORDER BY day",
        (group_key(kind, name), int(now_s // DAY_S) - STUDY_DAYS - OVER_DAYS + 1),
    )
    out = []
    for zones, text in rows:
        body = msgspec.json.decode(str(text).encode(), type=GroupErrors)
        forecast_w, load_w = np.array(body.forecast_w), np.array(body.load_w)
        day = DayErrors(int(str(zones)), np.array(body.scores), body.square, body.neighbour, body.level)
        out.append((day, (load_w - forecast_w) / max(float(np.abs(forecast_w).mean()), 1.0)))
    return out


def skill(store: Store, now_s: float, days: int) -> Answer:
    """Realised against forecast by hours ahead, over the last days that are over."""
    last = int(now_s // DAY_S) - OVER_DAYS
    rows: list[Row] = [
        (f"{lead_h} to {int(str(lead_h)) + LEAD_H} h", zones, *(float(str(v)) for v in figures))
        for lead_h, zones, *figures in store.rows(
            "SELECT lead_h, COUNT(*), SUM(error_kwh) / SUM(load_kwh), SUM(bias_kwh) / SUM(load_kwh), "
            "SUM(inside) * 1.0 / SUM(steps) FROM forecast_error WHERE day > ? AND day <= ? "
            "GROUP BY lead_h HAVING SUM(load_kwh) > 0 ORDER BY lead_h",
            (last - days, last),
        )
    ]
    return Answer(("horizon", "zone_days", "nmae", "bias", "coverage_of_90"), rows)


def peak_days(store: Store, now_s: float, kind: Kind, name: str, days: int) -> Answer:
    """A group's highest half hour on the last days that are over, beside the highest that was expected of the sum."""
    last = int(now_s // DAY_S) - OVER_DAYS
    rows = store.rows(
        "SELECT day * 86400, zones, forecast_peak_w / 1000.0, peak_w / 1000.0 FROM group_day "
        "WHERE group_key = ? AND day > ? AND day <= ? AND zones > 0 ORDER BY day",
        (group_key(kind, name), last - days, last),
    )
    return Answer(("day_start_s", "zones", "forecast_peak_kw", "peak_kw"), rows)
