"""What an alert book must keep over a restart."""

from __future__ import annotations

import msgspec

from agent.wire.events import (
    AlertData,
    TamperKind,
)


class OpenAlert(msgspec.Struct):
    """One open alert. `quiet_s`: since when its condition is gone; `sent_s`: of its last transition."""

    subject: str
    data: AlertData
    sent_s: float
    hold_s: float
    quiet_s: float | None = None


class TamperLog(msgspec.Struct):
    """What the event log of one meter said: signs that have not ended, and entries that were read already."""

    signs: list[TamperKind] = msgspec.field(default_factory=list)
    seen: list[str] = msgspec.field(default_factory=list)


class Accepted(msgspec.Struct, frozen=True):
    """A told loss (sign 1) or surplus (-1) that somebody takes for a normal load of the building, and why."""

    zone: str
    sign: float
    episode: int
    reason: str


class BookState(msgspec.Struct):
    """All that must survive a restart."""

    open: dict[str, OpenAlert] = msgspec.field(default_factory=dict)
    ended: dict[str, list[float]] = msgspec.field(default_factory=dict)  # family -> ends within the last day
    tampered: dict[str, TamperLog] = msgspec.field(default_factory=dict)  # by meter
    maintenance_s: float = 0.0
    accepted: list[Accepted] = msgspec.field(default_factory=list)
    version: int = 1
