"""Condition: what is not a balance."""

from __future__ import annotations

from dataclasses import dataclass

from agent.wire.events import (
    AlertKind,
    Severity,
)


@dataclass(frozen=True, slots=True)
class Condition:
    """State of one thing that is not a balance: a silent bus, a faulty or tampered meter, a zone near its capacity.

    Exactly one of `meter`, `bus` and `zone` is set. `since_s` is when it began: UTC seconds, part of the alert's
    identity.
    """

    kind: AlertKind
    active: bool
    time_s: float
    since_s: float
    severity: Severity = "warning"
    meter: str | None = None
    bus: str | None = None
    zone: str | None = None
    detail: str | None = None
    hold_s: float | None = None  # instead of the policy's, where the condition has its own rhythm


def clock_fault(meter: str, offset_s: float | None, since_s: float, time_s: float) -> Condition:
    """Whether a meter's clock is off by `offset_s` (its registers are taken so much too late); None: it is right."""
    detail = None
    if offset_s is not None:
        way = "late" if offset_s > 0 else "early"
        detail = f"its clock is off: registers are taken about {abs(offset_s) / 60:.0f} minutes too {way}; set it right"
    return Condition("meter_fault", offset_s is not None, time_s, since_s, meter=meter, detail=detail)
