"""What each page shows, read from the store: rows become values that a template can print.

It asks in SQL and in the fleet's own questions; it knows nothing of HTTP or HTML. Everything that a gateway has sent is
text here: templates escape it, and nothing marks it as safe.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from agent import wire
from agent.utility.fleet import queries
from agent.utility.fleet.rollout import latest, progress
from agent.utility.sql import statements
from agent.utility.sql.keys import name_key
from agent.utility.sql.schema import DAY_S
from agent.utility.sql.store import Store
from agent.utility.sql.views import CONFIDENCE, NAMED

SILENT_HOURS = 2.0
EVERYTHING = 1_000_000


class Place(NamedTuple):
    """A gateway by its names, as they stand in an address."""

    tenant: str
    site: str
    gateway: str

    @property
    def key(self) -> int:
        """The gateway's key in the store."""
        return name_key(*self)

    @property
    def path(self) -> str:
        """Behind /building/ and /gateway/: names are letters, digits, dots, dashes and underscores."""
        return "/".join(self)


def records(store: Store, query: str, *values: object) -> list[dict[str, Any]]:
    """Rows as mappings; the query's columns are named `AS` in its first line by the caller."""
    head = query[len("SELECT ") : query.index(" FROM ")]
    names = [part.strip().rsplit(" ", 1)[-1].rsplit(".", 1)[-1] for part in head.split(", ")]
    return [dict(zip(names, row, strict=True)) for row in store.rows(query, values)]


def losses(store: Store, now_s: float, days: int, top: int) -> list[dict[str, Any]]:
    """The zones that lose most over whole days, the largest first."""
    answer = queries.losses(store, now_s, days, top)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def trend(store: Store, now_s: float, days: int) -> list[dict[str, Any]]:
    """The fleet day by day, and today as far as it has come."""
    today = int(now_s // DAY_S)
    return records(
        store,
        "SELECT day, COUNT(*) AS zones, SUM(main_j) / 3600000.0 AS main_kwh, "
        "SUM(technical_j) / 3600000.0 AS technical_kwh, SUM(residual_j) / 3600000.0 AS unexplained_kwh "
        "FROM balance_day WHERE day >= ? AND day <= ? GROUP BY day ORDER BY day",
        today - days,
        today,
    )


def gateways(store: Store, now_s: float) -> list[dict[str, Any]]:
    """Gateways that are offline, degraded or silent."""
    answer = queries.gateways(store, now_s, SILENT_HOURS, EVERYTHING)
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    for row in rows:
        for name in ("status", "balance"):
            days = row.pop(f"{name}_days_ago")
            row[f"{name}_age_s"] = None if days is None else float(str(days)) * DAY_S
    return rows


def cases(store: Store, *, everything: bool = False) -> list[dict[str, Any]]:
    """Open cases; with `everything` those that are over, too."""
    where = "" if everything else " WHERE a.state <> 'cleared'"
    found = records(
        store,
        "SELECT a.alert_id, g.tenant, g.site, g.gateway, z.zone, a.kind, a.severity, a.state, a.onset_s, a.updated_s, "
        f"a.loss_w, a.loss_kwh, {NAMED} AS suspect, a.meter, {CONFIDENCE} AS confidence, "
        "a.unexplained_probability, o.outcome, o.confirmed_by "
        "FROM alert a JOIN gateway g ON g.gateway_key = a.gateway_key LEFT JOIN zone z ON z.zone_key = a.zone_key "
        f"LEFT JOIN outcome o ON o.alert_key = a.alert_key{where}",
    )
    for case in found:
        other = case["unexplained_probability"] or 0.0
        case["none_of_these"] = other if other > (case["confidence"] or 0.0) else None
        case["where"] = case["suspect"] or case["meter"]
    return found


def found_kwh(store: Store) -> float:
    """The energy of the cases in which theft was found; an estimate below 0 takes nothing from the others."""
    query = (
        "SELECT COALESCE(SUM(CASE WHEN a.loss_kwh > 0 THEN a.loss_kwh ELSE 0 END), 0) "
        "FROM valid_outcome o JOIN alert a ON a.alert_key = o.alert_key "
        "WHERE o.outcome = 'theft'"
    )
    return float(str(store.rows(query)[0][0]))


def _probability(suspect: wire.SuspectData) -> float:
    return suspect.probability


class Case(NamedTuple):
    """One alert: its latest revision as it was sent, the revisions, and what was found.

    Without `revisions` only its state is known, from what the gateway retains (`active`).
    """

    alert: wire.AlertData
    revisions: list[dict[str, Any]]
    outcome: dict[str, Any] | None
    chunks: int


def case(store: Store, place: Place, alert_id: str) -> Case | None:
    """The case of an alert; None if there is none."""
    key = name_key(*place, alert_id)
    bodies = store.rows("SELECT body FROM alert_event WHERE alert_key = ? ORDER BY revision DESC LIMIT 200", (key,))
    stated = None if bodies else _stated(store, key)
    if not bodies and stated is None:
        return None
    events = [wire.decode(wire.AlertEvent, str(body).encode()) for (body,) in bodies]
    revisions = [
        {
            "revision": event.data.revision,
            "state": event.data.state,
            "kind": event.data.kind,
            "time_s": event.time.timestamp(),
            "loss_w": event.data.loss_w,
            "suspect": sorted(event.data.suspects or [], key=_probability)[-1:],
        }
        for event in events
    ]
    columns = "outcome, meter, inspected_s, note, inspector, confirmed_by, recorded_ms"
    outcome = records(store, f"SELECT {columns} FROM outcome WHERE alert_key = ?", key)
    chunks = int(str(store.rows("SELECT COUNT(*) FROM evidence_chunk WHERE alert_key = ?", (key,))[0][0]))
    return Case(stated or events[0].data, revisions, outcome[0] if outcome else None, chunks)


def _stated(store: Store, key: int) -> wire.AlertData | None:
    """The state of an alert of which no revision has come, as far as the store knows it."""
    found = records(
        store,
        "SELECT a.alert_id, a.revision, a.state, a.kind, a.severity, a.onset_s, z.zone, a.meter, a.loss_w, a.loss_kwh, "
        "a.upstream_probability, a.unexplained_probability "
        "FROM alert a LEFT JOIN zone z ON z.zone_key = a.zone_key WHERE a.alert_key = ?",
        key,
    )
    if not found:
        return None
    values = found[0]
    query = "SELECT meter, probability, mechanism FROM suspect WHERE alert_key = ? AND revision = ?"
    suspects = [
        wire.SuspectData(meter=one["meter"], probability=one["probability"], mechanism=one["mechanism"])
        for one in records(store, query, key, values["revision"])
    ]
    return wire.AlertData(onset=wire.utc(values.pop("onset_s")), suspects=suspects, **values)


def told(store: Store, place: Place) -> wire.Info | None:
    """What the gateway tells of its building: names and addresses for people, beside the ids."""
    infos = store.rows("SELECT body FROM gateway_info WHERE gateway_key = ?", (place.key,))
    return wire.decode(wire.Info, str(infos[0][0]).encode()) if infos else None


def names(info: wire.Info | None) -> dict[str, str]:
    """What people call the meters, by id."""
    return {} if info is None else {meter.id: meter.name for meter in info.meters if meter.name}


class Building(NamedTuple):
    """A gateway's zones with their days and latest intervals, and the meters that signs speak against."""

    zones: list[dict[str, Any]]
    suspects: list[dict[str, Any]]


def building(store: Store, place: Place, now_s: float, days: int) -> Building | None:
    """A building; None if nobody knows it."""
    if not store.rows("SELECT 1 FROM gateway WHERE gateway_key = ?", (place.key,)):
        return None
    today = int(now_s // DAY_S)
    zones = records(store, "SELECT zone_key, zone FROM zone WHERE gateway_key = ? ORDER BY zone", place.key)
    for zone in zones:
        # A list of days, not a range: in SQLite the rows lie by day, and a range would read every zone's.
        listed = ", ".join(map(str, range(today - days + 1, today + 1)))
        zone["days"] = records(
            store,
            "SELECT day, intervals, main_j, sum_j, technical_j, residual_j, known_s FROM balance_day "
            f"WHERE zone_key = ? AND day IN ({listed}) ORDER BY day",
            zone["zone_key"],
        )
        since_s, until_s = int(now_s) - 2 * DAY_S, int(now_s) + DAY_S
        rows = store.rows(statements.history(store.server.dialect), (since_s, until_s, zone["zone_key"]))
        bodies = store.rows("SELECT body FROM forecast WHERE zone_key = ?", (zone["zone_key"],))
        zone["forecast"] = wire.decode(wire.Forecast, str(bodies[0][0]).encode()) if bodies else None
        zone["intervals"] = [dict(zip(statements.HISTORY, row, strict=True)) for row in rows]
    suspects = records(
        store,
        "SELECT meter, sign, MAX(seen_s) AS seen_s, MAX(weight) AS weight FROM meter_sign WHERE gateway_key = ? "
        "AND seen_s >= ? GROUP BY meter, sign ORDER BY MAX(weight) DESC, meter",
        place.key,
        int(now_s) - 90 * DAY_S,
    )
    return Building(zones, suspects)


class Gateway(NamedTuple):
    """What a gateway says of itself."""

    state: dict[str, Any]
    health: dict[str, Any] | None
    info: wire.Info | None
    model: dict[str, Any] | None
    config: dict[str, Any] | None
    answers: list[dict[str, Any]]


def gateway(store: Store, place: Place) -> Gateway | None:
    """A gateway; None if nobody knows it."""
    state = records(
        store,
        "SELECT s.state, s.since_s, s.reason, s.meters, s.software, s.received_us / 1000000.0 AS status_s "
        "FROM gateway g LEFT JOIN gateway_status s ON s.gateway_key = g.gateway_key WHERE g.gateway_key = ?",
        place.key,
    )
    if not state:
        return None
    health = records(
        store,
        "SELECT uptime_s, cpu_percent, memory_mb, queue_messages, queue_octets, queue_oldest_s, evicted, buses_down, "
        "meters, health_s FROM gateway_health WHERE gateway_key = ?",
        place.key,
    )
    reported = [
        records(
            store, f"SELECT state, version, desired, reason, reported_s FROM {table} WHERE gateway_key = ?", place.key
        )
        for table in ("model_reported", "config_reported")
    ]
    answers = records(
        store,
        "SELECT command_id, name, status, reason, time_s FROM command_result WHERE gateway_key = ? "
        "ORDER BY time_s DESC LIMIT 20",
        place.key,
    )
    return Gateway(
        state[0],
        health[0] if health else None,
        told(store, place),
        reported[0][0] if reported[0] else None,
        reported[1][0] if reported[1] else None,
        answers,
    )


def rollout(store: Store) -> dict[str, Any] | None:
    """The newest rollout and what has become of it."""
    last = latest(store)
    return None if last is None else {**last._asdict(), **progress(store, last.version)._asdict()}


def search(store: Store, words: str, top: int) -> dict[str, list[dict[str, Any]]]:
    """Gateways, cases and meters that have these letters in their names."""
    like = "%" + words.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
    return {
        "gateways": records(
            store,
            "SELECT tenant, site, gateway FROM gateway WHERE tenant LIKE ? ESCAPE '!' OR site LIKE ? ESCAPE '!' "
            "OR gateway LIKE ? ESCAPE '!' ORDER BY tenant, site, gateway LIMIT ?",
            like, like, like, top,
        ),
        "cases": records(
            store,
            "SELECT a.alert_id, g.tenant, g.site, g.gateway, a.kind, a.suspect FROM alert a "
            "JOIN gateway g ON g.gateway_key = a.gateway_key WHERE a.alert_id LIKE ? ESCAPE '!' "
            "OR a.suspect LIKE ? ESCAPE '!' OR a.meter LIKE ? ESCAPE '!' ORDER BY a.updated_s DESC LIMIT ?",
            like, like, like, top,
        ),
    }  # fmt: skip


def audit(store: Store, top: int) -> list[dict[str, Any]]:
    """What people did here, newest first."""
    return records(
        store, "SELECT at_s, who, role, action, subject, detail FROM audit ORDER BY at_s DESC, audit_id LIMIT ?", top
    )
