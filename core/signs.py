"""What a meter says about itself that bears on theft: the one form in which tamper signs enter the core.

The agent translates event logs, status words and instantaneous registers into these; nothing here knows a code
of a particular meter.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class SignKind(enum.StrEnum):
    """Kinds of signs; the values appear in events files and alerts."""

    COVER_OPENED = "cover_opened"
    TERMINAL_OPENED = "terminal_opened"
    MAGNETIC_FIELD = "magnetic_field"
    REVERSE_ENERGY = "reverse_energy"
    POWER_FAILURE = "power_failure"
    PHASE_FAILURE = "phase_failure"
    NEUTRAL_CURRENT = "neutral_current"  # phase and neutral current differ; `value` is the difference in A
    VOLTAGE_DROP = "voltage_drop"  # a drop that its own current does not explain; `value` is the hidden load in W
    METER_REPLACED = "meter_replaced"
    CLOCK_CHANGED = "clock_changed"


@dataclass(frozen=True, slots=True)
class MeterSign:
    """One sign of one meter at `time_s` (UTC seconds); `value` has the unit that the kind says, else 0."""

    meter: str
    time_s: float
    kind: SignKind
    value: float = 0.0
