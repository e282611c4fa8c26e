"""What inspections found, and the training table that is made of it. It knows SQL rows and wire structs, no files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import msgspec

from agent import wire
from agent.utility.fleet.four_eyes import same_person
from agent.utility.sql.cases import OUTCOME
from agent.utility.sql.server import StoreMisfit
from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store, timestamp
from agent.utility.sql.table import Table
from core.scoring.features import FEATURES

IDENTIFIERS = ("building", "meter", "day")
TARGET = "is_theft"
NAMED_METERS = 12  # of those that a refusal names
LEAST_PREFIX = 6  # characters of an id that name an alert


class Found(NamedTuple):
    """What was found at one alert's place, and who says so. `meter`: the thief's, None where it is not known."""

    outcome: str
    meter: str | None
    inspected_s: int
    note: str | None
    inspector: str | None = None


class Recorded(NamedTuple):
    """Where an outcome was recorded: the gateway's name, and the meter (perhaps that of the outcome before it)."""

    gateway: str
    meter: str | None


Also = Sequence[tuple[Table, Row]]  # rows of other tables, written in the same transaction


def record(store: Store, alert_id: str, gateway: str | None, found: Found, now_s: float, also: Also = ()) -> Recorded:
    """Write down an outcome; a later one of the same alert replaces it, but a theft's meter stays if it names none.

    Raises:
        StoreMisfit: no such alert, several of them, or the meter is none of the alert's zone.
    """
    key, name = find(store, alert_id, gateway)
    meter = found.meter
    if meter is not None:
        _must_be_of_the_zone(store, key, meter)
    with store.server.transaction():
        before = _standing(store, key)
        if meter is None and found.outcome == "theft" and before is not None and before.outcome == "theft":
            meter = before.meter
        row = (key, found.outcome, meter, found.inspected_s, found.note, found.inspector, None)
        _write(store, row, before, now_s, also)
    return Recorded(name, meter)


class Standing(NamedTuple):
    """An outcome as it stands in the store; `recorded_ms` names this state of it."""

    outcome: str
    meter: str | None
    inspected_s: int
    note: str | None
    inspector: str | None
    confirmed_by: str | None
    recorded_ms: int


def standing(store: Store, alert_id: str, gateway: str | None) -> Standing | None:
    """The outcome of an alert as it stands now; None if nobody has been there.

    Raises:
        StoreMisfit: no such alert, or several of them.
    """
    return _standing(store, find(store, alert_id, gateway)[0], lock=False)


def confirm(
    store: Store,
    alert_id: str,
    gateway: str | None,
    who: str,
    now_s: float,
    also: Also = (),
    seen_ms: int | None = None,
) -> Standing:
    """A second pair of eyes on an outcome; returns what was confirmed.

    With `seen_ms`, only the state of that `recorded_ms`: nobody confirms what has changed under their eyes.

    Raises:
        StoreMisfit: no outcome yet, another one than was seen, confirmed already, or it is `who`'s own.
    """
    key, _ = find(store, alert_id, gateway)
    with store.server.transaction():
        before = _standing(store, key)
        if before is None:
            raise StoreMisfit(f"alert {alert_id} has no outcome yet: there is nothing to confirm")
        if same_person(before.inspector, who):
            raise StoreMisfit(f"{before.inspector} recorded this outcome: somebody else has to confirm it")
        if seen_ms is not None and seen_ms != before.recorded_ms:
            raise StoreMisfit("this outcome has changed in the meantime: look at it again")
        if before.confirmed_by is not None:
            raise StoreMisfit(f"{before.confirmed_by} has confirmed this outcome already")
        _write(store, (key, *before[:5], who), before, now_s, also)
    return before


def _standing(store: Store, key: int, *, lock: bool = True) -> Standing | None:
    """With `lock`, nobody else changes it before this transaction ends; in SQLite that holds for the whole store."""
    query = f"SELECT {', '.join(Standing._fields)} FROM outcome WHERE alert_key = ?"
    if lock and store.server.dialect == "mysql":
        query += " FOR UPDATE"
    rows = store.rows(query, (key,))
    return msgspec.convert(rows[0], Standing) if rows else None


def _must_be_of_the_zone(store: Store, alert_key: int, meter: str) -> None:
    """Refuse a meter that the alert's zone does not have, by the gateway's `info`, or else by the alert's features."""
    ((body, zone),) = store.rows(
        "SELECT i.body, z.zone FROM alert a LEFT JOIN gateway_info i ON i.gateway_key = a.gateway_key "
        "LEFT JOIN zone z ON z.zone_key = a.zone_key WHERE a.alert_key = ?",
        (alert_key,),
    )
    where = "this gateway" if zone is None else f"zone {zone}"
    known: set[str] = set()
    if body is not None:
        info = wire.decode(wire.Info, str(body).encode())
        if zone is not None:
            known = _meters_of(info, str(zone))
        if not known:  # an alert from before the zones were changed: the gateway's meters will have to do
            where, known = "this gateway", {one.id for one in info.meters}
    if not known and (event := _with_features(store, alert_key)) is not None:
        known = {*(event.data.features or {}), *(suspect.meter for suspect in event.data.suspects or [])}
    if not known or meter in known:
        return
    near = get_close_matches(meter, sorted(known), n=3, cutoff=0.5)
    more = f" and {len(known) - NAMED_METERS} more" if len(known) > NAMED_METERS else ""
    listed = ", ".join(sorted(known)[:NAMED_METERS])
    guess = f"did you mean {', '.join(near)}? " if near else ""
    raise StoreMisfit(f"{where} has no meter {meter[:64]!r}; {guess}it has {listed}{more}")


def _meters_of(info: wire.Info, zone: str) -> set[str]:
    """The meters of a zone, and of the zones within it."""
    zones, inside = {one.id: one for one in info.zones}, set[str]()
    waiting = [zone] if zone in zones else []
    while waiting:
        one = zones.pop(waiting.pop(), None)
        if one is not None:
            inside |= {one.main, *one.subs}
            waiting += [other.id for other in zones.values() if other.main in one.subs]
    return inside


def _write(store: Store, row: Row, before: Standing | None, now_s: float, also: Also) -> None:
    """Inside a transaction. Later than what stood before, whatever the clocks of two machines say."""
    recorded_ms = max(int(now_s * 1000), 0 if before is None else before.recorded_ms + 1)
    store.server.insert(OUTCOME, [(*row, recorded_ms)])
    for table, other in also:
        store.server.insert(table, [other])


def find(store: Store, alert_id: str, gateway: str | None) -> tuple[int, str]:
    """The key of one alert and its gateway's name. The beginning of an id will do where no other begins so.

    Raises:
        StoreMisfit: no such alert, or several gateways have one of this id.
    """
    query = (
        "SELECT a.alert_key, g.tenant, g.site, g.gateway FROM alert a "
        "JOIN gateway g ON g.gateway_key = a.gateway_key WHERE a.alert_id {} LIMIT 20"
    )
    found = store.rows(query.format("= ?"), (alert_id,))
    if not found and len(alert_id) >= LEAST_PREFIX:
        like = alert_id.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
        found = store.rows(query.format("LIKE ? ESCAPE '!'"), (like,))
    rows = [(int(str(row[0])), "/".join(map(str, row[1:]))) for row in found]
    if gateway is not None:
        rows = [row for row in rows if row[1] == gateway]
    if len(rows) != 1:
        names = ", ".join(sorted(name for _, name in rows))
        raise StoreMisfit(
            f"{len(rows)} gateways have an alert {alert_id} ({names}): say which with --gateway"
            if rows
            else f"no alert {alert_id}{f' of {gateway}' if gateway else ''}: see checkmeter utility cases"
        )
    return rows[0]


class Exported(NamedTuple):
    """What an export gave and left out."""

    rows: list[tuple[object, ...]]
    cases: int
    unlabelled: int  # theft of which nobody said by whom
    incomplete: int  # meters without all of the features


def training_rows(store: Store) -> Exported:
    """One row for each meter of each inspected case: identifiers, is_theft, and the features of core.scoring.features.

    The features are those of the last transition that carried any. Where theft was found, its meter is 1 and the
    others are 0; after `fault` or `nothing`, and after a tap ahead of all meters, all are 0.
    """
    rows: list[tuple[object, ...]] = []
    cases = unlabelled = incomplete = 0
    for outcome, guilty, building, event in _inspected(store):
        cases += 1
        if outcome == "theft" and guilty is None and event.data.kind != "upstream_tap":
            unlabelled += 1
            continue
        day = timestamp(event.time.timestamp())[:10]
        for meter, values in sorted((event.data.features or {}).items()):
            numbers = [values.get(name) for name in FEATURES]
            if any(number is None or not math.isfinite(number) for number in numbers):
                incomplete += 1
                continue
            rows.append((building, meter, day, int(outcome == "theft" and meter == guilty), *numbers))
    return Exported(rows, cases, unlabelled, incomplete)


def _inspected(store: Store) -> Iterator[tuple[str, str | None, str, wire.AlertEvent]]:
    query = (
        "SELECT o.alert_key, o.outcome, o.meter, g.tenant, g.site, g.gateway, COALESCE(z.zone, '') "
        "FROM valid_outcome o JOIN alert a ON a.alert_key = o.alert_key "
        "JOIN gateway g ON g.gateway_key = a.gateway_key LEFT JOIN zone z ON z.zone_key = a.zone_key "
        "ORDER BY g.tenant, g.site, g.gateway, a.alert_id"
    )
    for key, outcome, meter, *names in store.rows(query):
        if (event := _with_features(store, int(str(key)))) is not None:
            yield str(outcome), None if meter is None else str(meter), "/".join(map(str, names)), event


def _with_features(store: Store, alert_key: int) -> wire.AlertEvent | None:
    """The last transition of an alert that carried its meters' features; None if none did."""
    query = "SELECT body FROM alert_event WHERE alert_key = ? ORDER BY revision DESC"
    for (body,) in store.rows(query, (alert_key,)):
        event = wire.decode(wire.AlertEvent, str(body).encode())
        if event.data.features:
            return event
    return None
