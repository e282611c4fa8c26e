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


def clock_faults(
    known: Mapping[str, float], found: Mapping[str, float], time_s: float
) -> tuple[dict[str, float], list[Condition]]:
    """Meters whose clock is off, since when that is known, and a condition for each that was not off before, or is not.

    known: since when, by meter; found: by how many seconds each meter's registers are taken too late (-: too early).
    """
    since = {meter: known.get(meter, time_s) for meter in found}
    changed = []
    for meter in {**known, **found}:
        if (meter in known) == (meter in found):
            continue
        detail = None
        if meter in found:
            way = "late" if found[meter] > 0 else "early"
            detail = f"its clock is off: registers are taken about {abs(found[meter]) / 60:.0f} minutes too {way}"
        began_s = since[meter] if meter in found else known[meter]
        changed.append(Condition("meter_fault", meter in found, time_s, began_s, meter=meter, detail=detail))
    return since, changed
