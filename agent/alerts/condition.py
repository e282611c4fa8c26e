"""Condition: what is not a balance."""

from __future__ import annotations

from collections.abc import Mapping
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


Fault = tuple[Severity, str]  # how bad it is, and in words
EXPORT_UNREAD = (
    "the flats give back more than the house takes, and the export of this main meter is not read: until it is among "
    "`export` of [[zone]] {}, the hours in which the house gives back are not balanced"
)


def clock_words(late_s: float) -> str:
    """What there is to say of a clock whose registers are taken `late_s` too late (-: too early)."""
    way = "late" if late_s > 0 else "early"
    return f"its clock is off: registers are taken about {abs(late_s) / 60:.0f} minutes too {way}"


def meter_faults(
    known: Mapping[str, float], found: Mapping[str, Fault], time_s: float
) -> tuple[dict[str, float], list[Condition]]:
    """Meters at fault, since when that is known, and a condition for each that was not before, or is not any more.

    known: since when, by meter; found: each meter's fault.
    """
    since = {meter: known.get(meter, time_s) for meter in found}
    changed = []
    gone: tuple[Severity, str | None] = "warning", None
    for meter in {**known, **found}:
        if (meter in known) == (meter in found):
            continue
        severity, detail = found.get(meter, gone)
        began_s = since[meter] if meter in found else known[meter]
        changed.append(Condition("meter_fault", meter in found, time_s, began_s, severity, meter=meter, detail=detail))
    return since, changed
