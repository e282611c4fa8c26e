"""One row of the outbox, read back with suspicion: its checksum decides whether it may be sent.

It owns what a row must be to become a message again. What the checksum does not cover (turn, time, expiry) is mended
where it cannot be right; it can cost a message its place in the queue, never its delivery.
"""

from __future__ import annotations

import math
from typing import Any

from agent.store.commit import Outgoing
from agent.store.messages import Message, Priority
from agent.store.schema import checksum

COLUMNS = "id, priority, attempts, time_s, expires_s, suffix, schema, key, body, crc"
_PRIORITY_OF = {
    "event/alert": Priority.ALERT,
    "event/tamper": Priority.TAMPER,
    "cmd/res": Priority.ANSWER,
    "evidence": Priority.EVIDENCE,
}


def outgoing(row: tuple[Any, ...]) -> Outgoing | None:
    """The message of a row of `COLUMNS`; None if it is not what was queued."""
    number, priority, attempts, time_s, expires_s, suffix, schema, key, body, crc = row
    if not (isinstance(suffix, str) and isinstance(schema, str) and isinstance(key, str)):
        return None
    octets = body.encode("utf-8", "replace") if isinstance(body, str) else body
    if not isinstance(octets, bytes) or checksum(suffix, schema, key, octets) != crc:
        return None
    try:
        turn = Priority(priority)
    except ValueError:
        turn = _PRIORITY_OF.get(suffix, _PRIORITY_OF.get(suffix.partition("/")[0], Priority.BALANCE))
    if turn <= Priority.TAMPER or not _is_time(expires_s):
        expires_s = None  # alerts never expire, whatever the file says
    return Outgoing(
        number,
        Message(suffix, octets, schema, turn, key, time_s if _is_time(time_s) else 0.0, expires_s),
        attempts if isinstance(attempts, int) else 0,
    )


def _is_time(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)
