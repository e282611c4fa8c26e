"""What waits in the outbox: one message for the broker, with what decides its turn and its end.

It owns priorities, expiries and the cut of evidence into chunks; it knows neither the database nor MQTT.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.wire.codec import SCHEMA_OF, encode
from agent.wire.downlink import CommandResult
from agent.wire.events import AlertEvent, TamperEvent
from agent.wire.state import Balance, EvidenceChunk, Series
from agent.wire.topics import balance_suffix, evidence_suffix
from agent.wire.values import derived_uuid, number, utc

BALANCE_EXPIRY_S = 7 * 86400
CHUNK_BYTES = 128 * 1024  # of one evidence message: brokers' and backends' usual limit is 256 KiB and more


class Priority(enum.IntEnum):
    """Who goes first after an outage, and (from the other end) who is evicted when the outbox is full."""

    ALERT = 0
    TAMPER = 1
    ANSWER = 2
    BALANCE = 3
    EVIDENCE = 4  # can be asked for again while the history lasts


@dataclass(frozen=True, slots=True)
class Message:
    """One QoS 1 message. `key` is its identity (a CloudEvent's `id`): the same key is queued and logged once.

    `time_s` is the measurement's; `expires_s` is when it stops being worth sending: UTC seconds.
    """

    suffix: str
    body: bytes
    schema: str
    priority: Priority
    key: str
    time_s: float
    expires_s: float | None = None


def _message(suffix: str, body: msgspec.Struct, priority: Priority, key: str, time_s: float) -> Message:
    expires_s = time_s + BALANCE_EXPIRY_S if priority is Priority.BALANCE else None
    return Message(suffix, encode(body), SCHEMA_OF[type(body)], priority, key, time_s, expires_s)


def alert_message(event: AlertEvent) -> Message:
    """`event/alert`."""
    return _message("event/alert", event, Priority.ALERT, event.id, event.time.timestamp())


def tamper_message(event: TamperEvent) -> Message:
    """`event/tamper`."""
    return _message("event/tamper", event, Priority.TAMPER, event.id, event.time.timestamp())


def balance_message(balance: Balance) -> Message:
    """`balance/{zone}`."""
    key = derived_uuid("balance", balance.zone, balance.start.isoformat())
    return _message(balance_suffix(balance.zone), balance, Priority.BALANCE, key, balance.end.timestamp())


def result_message(result: CommandResult) -> Message:
    """`cmd/res`. Each answer is a message of its own, also that to a repeated command."""
    key = derived_uuid("result", encode(result).decode())
    return _message("cmd/res", result, Priority.ANSWER, key, result.time.timestamp())


def evidence_messages(
    alert_id: str,
    zone: str,
    interval_s: float,
    meters: Sequence[str],
    boundaries_s: NDArray[np.float64],
    wh: NDArray[np.float64],
) -> Iterator[Message]:
    """`evidence/{alert_id}/{n}-{of}` from registers `wh` [T, meters] at `boundaries_s` [T], oldest chunk first.

    Energies are differences of neighbouring rows; across a missing boundary they are `null`, not spread.
    """
    if len(boundaries_s) < 2:
        return
    kwh = np.diff(wh, axis=0) / 1000.0
    slots = np.rint((boundaries_s - boundaries_s[0]) / interval_s).astype(np.intp)
    grid = np.full((int(slots[-1]), len(meters)), np.nan)
    whole = np.diff(slots) == 1
    grid[slots[1:][whole] - 1] = kwh[whole]
    rows = max(1, CHUNK_BYTES // (12 * max(1, len(meters))))  # a figure takes up to 12 octets: 12345.678 and a comma
    of = -(-len(grid) // rows)
    for n in range(1, of + 1):
        part = grid[(n - 1) * rows : n * rows]
        start_s = float(boundaries_s[0]) + (n - 1) * rows * interval_s
        chunk = EvidenceChunk(
            alert_id=alert_id,
            n=n,
            of=of,
            zone=zone,
            start=utc(start_s),
            interval_s=interval_s,
            series=[Series(meter=m, kwh=[number(v) for v in part[:, i].tolist()]) for i, m in enumerate(meters)],
        )
        key = derived_uuid("evidence", encode(chunk).decode())
        yield _message(evidence_suffix(alert_id, n, of), chunk, Priority.EVIDENCE, key, start_s)
