"""What a meter said: one value of one register, with its unit, its times and its quality."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from firmware_io.obis import ObisCode


class Unit(enum.IntEnum):
    """Physical units by their COSEM enumeration (IEC 62056-62, scaler_unit)."""

    SECOND = 7
    CELSIUS = 9
    CUBIC_METRE = 13
    WATT = 27
    VOLT_AMPERE = 28
    VAR = 29
    WATT_HOUR = 30
    VOLT_AMPERE_HOUR = 31
    VAR_HOUR = 32
    AMPERE = 33
    VOLT = 35
    HERTZ = 44
    PERCENT = 56
    COUNT = 255

    @property
    def symbol(self) -> str:
        """How it is written; empty for a plain number."""
        return _SYMBOLS[self]


_SYMBOLS = {
    Unit.SECOND: "s",
    Unit.CELSIUS: "°C",
    Unit.CUBIC_METRE: "m³",
    Unit.WATT: "W",
    Unit.VOLT_AMPERE: "VA",
    Unit.VAR: "var",
    Unit.WATT_HOUR: "Wh",
    Unit.VOLT_AMPERE_HOUR: "VAh",
    Unit.VAR_HOUR: "varh",
    Unit.AMPERE: "A",
    Unit.VOLT: "V",
    Unit.HERTZ: "Hz",
    Unit.PERCENT: "%",
    Unit.COUNT: "",
}


class Quality(enum.Flag):
    """Why a value deserves less trust; GOOD is the empty flag."""

    GOOD = 0
    CLOCK_INVALID = enum.auto()  # the meter marks its own time as invalid or doubtful
    CLOCK_OFF = enum.auto()  # the meter's time differs from ours by more than the allowed skew
    LATE = enum.auto()  # the reply took so long that the time of sampling is uncertain
    FROM_PROFILE = enum.auto()  # read from the stored load profile, not sampled live
    INCOMPLETE = enum.auto()  # the meter's status word says that the interval is incomplete
    SUSPECT = enum.auto()  # frozen, decreased or otherwise implausible


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one register.

    `value` is scaled into `unit` (Wh, W, V, A: the scaler is applied, never guessed). `sampled_s` is our best
    estimate of when the meter sampled it, and `uncertainty_s` half the width of that estimate: both UTC seconds.
    `meter_time_s` is the meter's own clock, None where it was not asked.
    """

    meter: str
    obis: ObisCode
    value: float
    unit: Unit
    sampled_s: float
    uncertainty_s: float = 0.0
    meter_time_s: float | None = None
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """One entry of a meter's event log: `code` in the numbering of the log, `log` says which one."""

    meter: str
    log: ObisCode
    code: int
    meter_time_s: float
    received_s: float
