"""From one MQTT message to the rows that it becomes, or to a dead letter that says why it is none.

It checks form (the wire structs), sender (the topic against the body and the list of tenants), time and range. It
knows nothing of MQTT sessions, batches or SQL. A message of which one thing is wrong is put aside whole: half a
message in the store is a lie, and the whole one in the dead letters can be mended and sent again.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from agent import wire
from agent.utility.ingest import alert_rows, forecast_rows, register_rows
from agent.utility.ingest.checks import (
    NAME,
    Unreadable,
    alert_id_of,
    body_of,
    clean,
    count,
    group_of,
    joules,
    name_of,
    on_grid,
    sha256_of,
    text_of,
)
from agent.utility.ingest.health_row import health_row
from agent.utility.mqtt.packets import MqttError, Publish, user_property
from agent.utility.sql.batch import Letter
from agent.utility.sql.cases import ALERT_EVENT, EVIDENCE
from agent.utility.sql.keys import event_key, letter_id, name_key
from agent.utility.sql.schema import (
    BALANCE,
    COMMAND_RESULT,
    CONFIG_REPORTED,
    DAY_S,
    DEAD_LETTER,
    GATEWAY,
    GATEWAY_HEALTH,
    GATEWAY_INFO,
    GATEWAY_STATUS,
    MODEL_REPORTED,
    ZONE,
)
from agent.utility.sql.statements import Row
from agent.utility.sql.store import KEEP_DAYS, timestamp
from agent.utility.sql.table import Table
from agent.wire.values import UUID

log = logging.getLogger(__name__)

# What may be true of a building. A gateway's clock may be ahead by the day that a wrong time zone makes.
FIRST_POSSIBLE_S = 1_577_836_800  # 2020-01-01: before any gateway of ours
AHEAD_S = DAY_S
LONGEST_INTERVAL_S = DAY_S
ALERTS_KEEP_S = 20 * 366 * DAY_S  # an onset may lie far back, but not before meters were read over a bus

_UUID = re.compile(UUID)
_KIND = re.compile(r"([a-z]{1,16}): ")
MAX_ROUTES = 200_000  # topics remembered; bounds what a sender of made-up topics can make us keep
MAX_LETTER_OCTETS = 64 * 1024  # of a dead letter's payload that are kept; its full length stands beside it
MAX_HOURLY_OCTETS = 1 << 30  # of all payloads kept in an hour; bounds what one gateway gone mad can make us store
_SCHEMA = b"\x26\x00\x06schema"  # a user property's name; its value follows with its length

Rows = tuple[tuple[Table, Row], ...]


class _Route(NamedTuple):
    """What a topic says, worked out once."""

    address: wire.Address
    gateway_key: int
    suffix: str
    struct: type[msgspec.Struct]
    read: Callable[[_Route, Any], Rows]
    schema: str
    schema_property: bytes  # as a sender's MQTT properties hold it, so that the usual case is one search
    zone: str = ""
    zone_key: int = 0


NAMED = ("balance", "forecast", "register")  # topics that end with a zone's or a meter's name


class Reader:
    """Turns messages into letters. One thread; `now` gives UTC seconds."""

    def __init__(self, now: Callable[[], float], tenants: Collection[str] = (), keep_days: int = KEEP_DAYS) -> None:
        self._now = now
        self._tenants = frozenset(tenants)
        self._keep_days = keep_days
        self._routes: dict[bytes, _Route] = {}
        self._kinds: dict[str, tuple[type[msgspec.Struct], Callable[[_Route, Any], Rows]]] = {
            "balance": (wire.Balance, self._balance),
            "forecast": (wire.Forecast, self._forecast),
            "register": (wire.Register, self._register),
            "event/alert": (wire.AlertEvent, self._alert_event),
            "event/tamper": (wire.TamperEvent, self._tamper),
            "evidence": (wire.EvidenceChunk, self._evidence),
            "active": (wire.ActiveSnapshot, self._active),
            "status": (wire.Status, self._status),
            "info": (wire.Info, self._info),
            "model/reported": (wire.Reported, self._model_reported),
            "config/reported": (wire.Reported, self._config_reported),
            "health": (wire.Health, self._health),
            "cmd/res": (wire.CommandResult, self._command_result),
        }
        self._hour, self._hour_octets = 0, 0  # of dead letters' payloads
        self._received_us = 0  # of the last status: no two are the same
        self._named: set[int] = set()  # keys whose names are in the store, or in a letter before this one
        self.refused: Counter[str] = Counter()  # dead letters by kind of reason, for the metrics

    def read(self, message: Publish) -> Letter:
        """The rows of a message; a dead letter if it cannot be read. Never raises."""
        try:
            route = self._routes.get(message.topic) or self._route(message.topic)
            if route.schema_property not in message.properties:
                self._check_schema(route, message.properties)
            if not message.payload and route.struct is wire.Forecast:
                return Letter(message.packet_id, message.topic, b"", ())  # withdrawn: what is stored tells its age
            rows = route.read(route, wire.decode(route.struct, message.payload))
        except (Unreadable, wire.WireError, MqttError) as error:
            return self.dead(message.packet_id, message.topic, message.payload, str(error))
        except Exception as error:  # a bug of ours that this message has found, and would find again at each restart
            log.warning("%r cannot be read", message.topic[:512], exc_info=True)
            reason = f"bug: {type(error).__name__}: {error}"
            return self.dead(message.packet_id, message.topic, message.payload, reason)
        if len(rows) > 1:
            self._remember(rows)
        return Letter(message.packet_id, message.topic, message.payload, rows)

    def dead(self, packet_id: int, topic: bytes, payload: bytes, reason: str) -> Letter:
        """The dead letter of a message that cannot be read, or that the store refuses."""
        kind = _KIND.match(reason)  # a metric's label: a word of ours, never what a sender wrote
        self.refused[kind[1] if kind else "form"] += 1
        kept = payload[:MAX_LETTER_OCTETS]
        if (hour := int(self._now() // 3600)) != self._hour:
            self._hour, self._hour_octets = hour, 0
        self._hour_octets += len(kept)
        if self._hour_octets > MAX_HOURLY_OCTETS:
            kept = b""
        row = (
            letter_id(topic, payload),
            topic[:512],
            clean(reason.encode(errors="replace")[:255].decode(errors="ignore")),
            len(payload),
            kept,
            timestamp(self._now()),
        )
        return Letter(packet_id, topic, payload, ((DEAD_LETTER, row),))

    def forget_names(self) -> None:
        """Send every name again: a letter that held some of them was not written."""
        self._named.clear()

    # -- topics ------------------------------------------------------------------------------------------------

    def _route(self, topic: bytes) -> _Route:
        try:
            address, suffix = wire.split_topic(topic.decode())
        except UnicodeDecodeError:
            raise Unreadable("topic: not UTF-8") from None
        except wire.WireError as error:  # it begins with what the sender wrote
            raise Unreadable(f"topic: {error}") from None
        for name in address:
            if not NAME.fullmatch(name):
                raise Unreadable(f"topic: {name!r} is no name of 1 to 64 letters, digits, dot, dash, underscore")
        if self._tenants and address.tenant not in self._tenants:
            raise Unreadable(f"tenant: {address.tenant} is none of ours ({', '.join(sorted(self._tenants))})")
        gateway_key = name_key(*address)
        kind, _, rest = suffix.partition("/")
        zone, zone_key = "", 0
        if kind in NAMED and NAME.fullmatch(rest):
            zone, zone_key = rest, name_key(*address, rest)
        known = self._kinds.get(suffix if kind in {"event", "model", "config", "cmd"} else kind)
        if known is None or (rest and kind in {"status", "info", "active", "health"}) or (kind in NAMED and not zone):
            raise Unreadable(f"topic: nothing is known of .../{suffix[:80]}")
        struct, read = known
        schema = wire.SCHEMA_OF[struct]
        route = _Route(
            address,
            gateway_key,
            suffix,
            struct,
            read,
            schema,
            _SCHEMA + len(schema).to_bytes(2, "big") + schema.encode(),
            zone,
            zone_key,
        )
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        self._routes[topic] = route
        return route

    def _names(self, route: _Route, zone: str | None) -> Rows:
        """The rows that name the gateway and the zone, unless they are known."""
        rows: Rows = ()
        if route.gateway_key not in self._named:
            rows += ((GATEWAY, (route.gateway_key, *route.address)),)
        if zone is not None:
            key = name_key(*route.address, zone)
            if key not in self._named:
                rows += ((ZONE, (key, route.gateway_key, name_of("zone", zone))),)
        return rows

    def _remember(self, rows: Rows) -> None:
        """The names in a letter that will be written; those of a dead one have to come again."""
        named = [row[0] for table, row in rows if table is GATEWAY or table is ZONE]
        if len(self._named) + len(named) > MAX_ROUTES:
            self._named.clear()
        self._named.update(named)  # type: ignore[arg-type]  # the first column is the key

    # -- messages ----------------------------------------------------------------------------------------------

    @staticmethod
    def _check_schema(route: _Route, properties: bytes) -> None:
        """A sender that names no schema (MQTT 3.1.1 has no properties) means the topic's."""
        schema = user_property(properties, "schema")
        if schema is not None and schema != route.schema:
            raise Unreadable(f"schema: {schema[:80]} is not {route.schema}, the one known for this topic")

    def _balance(self, route: _Route, balance: wire.Balance) -> Rows:
        if balance.zone != route.zone:
            raise Unreadable(f"zone: the topic says {route.zone}, the body {balance.zone[:64]!r}")
        exact_s, end_s = balance.start.timestamp(), balance.end.timestamp()
        start_s, seconds = round(exact_s), round(end_s) - round(exact_s)
        now_s = self._now()
        # One day less than is kept: what maintenance drops at this moment must not come in again and count twice.
        if not (now_s // DAY_S - self._keep_days + 1) * DAY_S <= start_s <= now_s + AHEAD_S:
            raise Unreadable(
                f"time: start = {balance.start.isoformat()} is not within the last {self._keep_days - 1} days"
            )
        if not 0 < seconds <= LONGEST_INTERVAL_S:
            raise Unreadable(f"time: an interval of {seconds} s; it must end after it starts, within a day")
        on_grid(exact_s, end_s - exact_s)
        row = (
            route.zone_key,
            start_s,
            seconds,
            joules(balance.main_kwh, "main_kwh"),
            joules(balance.sum_kwh, "sum_kwh"),
            joules(balance.technical_loss_kwh, "technical_loss_kwh"),
            joules(balance.residual_kwh, "residual_kwh"),
            joules(balance.uncertainty_kwh, "uncertainty_kwh"),
            round(balance.coverage * 1_000_000),
        )
        if route.zone_key in self._named:
            return ((BALANCE, row),)
        return (*self._names(route, route.zone), (BALANCE, row))

    def _forecast(self, route: _Route, forecast: wire.Forecast) -> Rows:
        if forecast.zone != route.zone:
            raise Unreadable(f"zone: the topic says {route.zone}, the body {forecast.zone[:64]!r}")
        issued_s = self._time(forecast.issued, "issued")
        if (wrong := forecast_rows.fault(forecast)) is not None:
            raise Unreadable(wrong)
        return (*self._names(route, route.zone), *forecast_rows.rows(route.zone_key, issued_s, forecast))

    def _register(self, route: _Route, register: wire.Register) -> Rows:
        if (wrong := register_rows.fault(register, route.zone)) is not None:
            raise Unreadable(wrong)
        row = register_rows.row(route.zone_key, route.gateway_key, self._time(register.time, "time"), register)
        return (*self._names(route, None), row)

    def _alert_event(self, route: _Route, event: wire.AlertEvent) -> Rows:
        event_id, time_s = self._envelope(route, event)
        alert_key, rows = self._alert(route, event.data, time_s)
        body = body_of(event)
        received = timestamp(self._now())
        kept = (event_id, alert_key, event.data.revision, event.data.state, time_s, received, body)
        return (*rows, (ALERT_EVENT, kept))

    def _active(self, route: _Route, active: wire.ActiveSnapshot) -> Rows:
        """Heals what was lost on the way: each alert in its last revision."""
        time_s = self._time(active.time, "time")
        rows: Rows = ()
        for alert in active.alerts:
            rows += self._alert(route, alert, time_s)[1]
        return rows

    def _alert(self, route: _Route, alert: wire.AlertData, time_s: int) -> tuple[int, Rows]:
        if (wrong := alert_rows.fault(alert)) is not None:
            raise Unreadable(wrong)
        onset_s = self._time(alert.onset, "onset", since_s=int(self._now()) - ALERTS_KEEP_S)
        alert_key = name_key(*route.address, alert_id_of(alert.alert_id))
        zone_key = None if alert.zone is None else name_key(*route.address, alert.zone)
        rows = alert_rows.rows(alert_key, route.gateway_key, zone_key, onset_s, time_s, alert)
        return alert_key, (*self._names(route, alert.zone), *rows)

    def _tamper(self, route: _Route, event: wire.TamperEvent) -> Rows:
        event_id, time_s = self._envelope(route, event)
        row = alert_rows.tamper_row(event_id, route.gateway_key, time_s, timestamp(self._now()), event.data)
        return (*self._names(route, event.data.zone), row)

    def _evidence(self, route: _Route, chunk: wire.EvidenceChunk) -> Rows:
        if route.suffix != wire.evidence_suffix(chunk.alert_id, chunk.n, chunk.of) or chunk.n > chunk.of:
            raise Unreadable(f"evidence: the topic says {route.suffix}, the body {chunk.alert_id}/{chunk.n}-{chunk.of}")
        start_s = self._time(chunk.start, "start", since_s=int(self._now()) - ALERTS_KEEP_S)
        rows = max((len(series.kwh) for series in chunk.series), default=0)
        if not 0 < chunk.interval_s <= LONGEST_INTERVAL_S:
            raise Unreadable(f"time: an interval of {chunk.interval_s:g} s; it is longer than nothing, a day at most")
        end_s = start_s + round(rows * chunk.interval_s)
        row = (name_key(*route.address, alert_id_of(chunk.alert_id)), start_s, body_of(chunk), end_s)
        return (*self._names(route, chunk.zone), (EVIDENCE, row))

    def _status(self, route: _Route, status: wire.Status) -> Rows:
        since_s = None if status.since is None else self._time(status.since, "since")
        self._received_us = max(self._received_us + 1, int(self._now() * 1_000_000))
        reason = text_of(status.reason)
        software = clean((status.versions.get("checkmeter") or "")[:64]) or None
        row = (route.gateway_key, status.state, since_s, reason, len(status.meters), software, self._received_us)
        return (*self._names(route, None), (GATEWAY_STATUS, row))

    def _info(self, route: _Route, info: wire.Info) -> Rows:
        row = (
            route.gateway_key,
            None if info.model_sha256 is None else sha256_of(info.model_sha256),
            None if info.model_version is None else count(info.model_version),
            None if info.config_sha256 is None else sha256_of(info.config_sha256),
            body_of(info),
            group_of(info.feeder),
            group_of(info.district),
            self._time(info.time, "time"),
        )
        rows = self._names(route, None)
        for zone in info.zones:
            rows += self._names(route, zone.id)
        return (*rows, (GATEWAY_INFO, row))

    def _model_reported(self, route: _Route, reported: wire.Reported) -> Rows:
        return (*self._names(route, None), (MODEL_REPORTED, self._reported(route, reported)))

    def _config_reported(self, route: _Route, reported: wire.Reported) -> Rows:
        return (*self._names(route, None), (CONFIG_REPORTED, self._reported(route, reported)))

    def _reported(self, route: _Route, reported: wire.Reported) -> Row:
        return (
            route.gateway_key,
            reported.state,
            None if reported.version is None else count(reported.version),
            None if reported.sha256 is None else sha256_of(reported.sha256),
            None if reported.desired is None else count(reported.desired),
            text_of(reported.reason),
            self._time(reported.time, "time"),
        )

    def _health(self, route: _Route, health: wire.Health) -> Rows:
        row = health_row(route.gateway_key, health, self._time)
        return (*self._names(route, None), (GATEWAY_HEALTH, row))

    def _command_result(self, route: _Route, result: wire.CommandResult) -> Rows:
        body = body_of(result)
        row = (
            letter_id(route.address.target.encode(), body.encode()),
            route.gateway_key,
            None if result.id is None else clean(result.id[:64]),
            None if result.name is None else clean(result.name[:32]),
            result.status,
            text_of(result.reason),
            self._time(result.time, "time"),
            body,
        )
        return (*self._names(route, None), (COMMAND_RESULT, row))

    # -- checks ------------------------------------------------------------------------------------------------

    def _envelope(self, route: _Route, event: wire.CloudEvent) -> tuple[bytes, int]:
        """The event's key, and its time."""
        if event.source != route.address.source:
            raise Unreadable(f"source: the topic says {route.address.source}, the event {event.source[:200]!r}")
        if not _UUID.fullmatch(event.id):
            raise Unreadable(f"id: {event.id[:64]!r} is no UUID of 36 characters")
        event_id = event_key(route.gateway_key, uuid.UUID(event.id).bytes)  # one id, in capitals or not
        return event_id, self._time(event.time, "time", since_s=int(self._now()) - ALERTS_KEEP_S)

    def _time(self, moment: datetime, field: str, since_s: int = FIRST_POSSIBLE_S) -> int:
        """UTC seconds, if they are possible."""
        seconds = round(moment.timestamp())
        if not since_s <= seconds <= self._now() + AHEAD_S:
            raise Unreadable(
                f"time: {field} = {moment.isoformat()} is not between {timestamp(since_s)} and a day from now"
            )
        return seconds
