"""The figures that a fleet is watched by, as a row; those of each meter stay on the gateway (`checkmeter status`)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from agent import wire
from agent.utility.ingest.checks import count, within
from agent.utility.sql.statements import Row


def health_row(gateway_key: int, health: wire.Health, time_s: Callable[[datetime, str], int]) -> Row:
    """The row of `gateway_health`. Raises: Unreadable: a figure that no gateway can have."""
    queue = health.queue or wire.QueueHealth(messages=0, bytes=0)
    return (
        gateway_key,
        count(round(within(health.uptime_s, 1e10, "uptime_s") or 0.0)),
        within(health.cpu_percent, 1e6, "cpu_percent"),
        within(health.memory_mb, 1e9, "memory_mb"),
        count(queue.messages),
        count(queue.bytes),
        None if queue.oldest is None else time_s(queue.oldest, "queue.oldest"),
        count(queue.evicted),
        sum(bus.state == "down" for bus in health.buses),
        len(health.meters),
        time_s(health.time, "time"),
    )
