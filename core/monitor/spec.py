"""ZoneSpec, Settings: what a zone is and what its alarm promises."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ZoneSpec:
    """What the monitor must know of a zone: its sub-meters in order, the accuracy classes, the sub-registers' steps.

    unmetered_w: load behind the main meter that is known to have no meter (stairs, lift, pumps), W in the mean.
    import_only: the main meter's export is not taken off.
    """

    id: str
    subs: tuple[str, ...]
    sub_classes: tuple[float, ...]
    main_class: float = 0.5
    sub_steps_wh: tuple[float, ...] | None = None
    unmetered_w: float = 0.0
    import_only: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What an alarm promises."""

    false_alarms_per_year: float = 0.1
    confidence: float = 0.9
    guard_days: float = 14.0
    offset_s: float = 0.0  # local time minus UTC
