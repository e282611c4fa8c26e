"""Which registers are asked for, how their values become numbers with a unit, and whether these are plausible.

It exchanges nothing with a meter: it says what to ask and judges what came.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import NamedTuple, Self

from firmware_io import obis
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult
from firmware_io.errors import RemoteProtocolError
from firmware_io.obis import ObisCode
from firmware_io.reading import Unit

DATA, REGISTER, EXTENDED_REGISTER, DEMAND_REGISTER = 1, 3, 4, 5
VALUE = 2
_SCALER_OF = {REGISTER: 3, EXTENDED_REGISTER: 3, DEMAND_REGISTER: 4}
REGISTER_CLASSES = tuple(_SCALER_OF)

CATALOGUE: tuple[ObisCode, ...] = (
    obis.ENERGY_IMPORT,
    obis.ENERGY_EXPORT,
    obis.POWER_IMPORT,
    obis.POWER_EXPORT,
    *obis.VOLTAGE,
    *obis.CURRENT,
    obis.NEUTRAL_CURRENT,
    obis.POWER_FACTOR,
)

_INTEGERS = (Tag.INT8, Tag.INT16, Tag.INT32, Tag.INT64, Tag.UINT8, Tag.UINT16, Tag.UINT32, Tag.UINT64)
_NUMBERS = frozenset((*_INTEGERS, Tag.ENUM, Tag.FLOAT32, Tag.FLOAT64))
_MAX_SCALER = 12
MISSING = (
    DataAccessResult.OBJECT_UNDEFINED,
    DataAccessResult.OBJECT_UNAVAILABLE,
    DataAccessResult.OBJECT_CLASS_INCONSISTENT,
    DataAccessResult.READ_WRITE_DENIED,
    DataAccessResult.SCOPE_OF_ACCESS_VIOLATED,
)
MAX_CURRENT_A = 125.0  # where direct connection ends (IEC 62053-21), of a meter that does not tell its rating
MAX_VOLTAGE_V = 1.1 * 230.0  # EN 50160: a tenth above the nominal one
OVERLOAD = 1.2  # IEC 62053-21: a meter bears a fifth more than its maximum current
POWER_SEEN = 2.0  # a meter that shows more (its registers are primary) may pass so many times the most it has shown
SLACK_COUNTS = 2  # of a register's last digit: a step needs no explanation


class Scale(NamedTuple):
    """Scaler (a power of ten) and unit of a register."""

    scaler: int
    unit: Unit

    @classmethod
    def decode(cls, scaler_unit: Data) -> Self:
        """Raises: RemoteProtocolError: not a scaler and a unit, or a unit that we have no use for."""
        match scaler_unit.plain():
            case [int(scaler), int(unit)] if abs(scaler) <= _MAX_SCALER and unit in _UNITS:
                return cls(scaler, Unit(unit))
        raise RemoteProtocolError(f"{scaler_unit} is no scaler and unit of a register that we read")

    def apply(self, number: float) -> float:
        """The number in the unit. Dividing by a power of ten is right to the last digit, multiplying is not."""
        return float(number * 10**self.scaler if self.scaler >= 0 else number / 10**-self.scaler)


_UNITS = frozenset(Unit)


class Register(NamedTuple):
    """A register that a meter has."""

    name: ObisCode
    class_id: int
    scale: Scale

    @property
    def value(self) -> Attribute:
        """The attribute to read."""
        return Attribute(self.class_id, self.name, VALUE)

    @property
    def cumulative(self) -> bool:
        """Whether it counts energy."""
        return self.scale.unit is Unit.WATT_HOUR and self.name.d == 8

    def scaled(self, data: Data) -> float:
        """The value in its unit.

        Raises:
            RemoteProtocolError: not a number, or none that is finite.
        """
        if data.tag not in _NUMBERS:
            raise RemoteProtocolError(f"{self.name}: expected a number, got {data}")
        value = self.scale.apply(data.value)
        if not math.isfinite(value):
            raise RemoteProtocolError(f"{self.name}: expected a finite number, got {data}")
        return value

    def understands(self, data: Data) -> bool:
        """Whether that can be a value of it."""
        try:
            self.scaled(data)
        except RemoteProtocolError:
            return False
        return True


def scaler_of(name: ObisCode, class_id: int) -> Attribute:
    """The attribute that holds scaler and unit."""
    return Attribute(class_id, name, _SCALER_OF[class_id])


class Doubt(enum.Enum):
    """What is odd about a value."""

    TYPE = "it came with another type"
    DECREASED = "it has decreased"
    JUMPED = "it has risen by more than such a meter passes"


class Plausibility:
    """Remembers the last believed value of each cumulative register of one meter, and how much power it may pass.

    A meter that stores its energy in steps catches up in one reading: what counts is the time since it last moved.
    """

    def __init__(self) -> None:
        self._last: dict[ObisCode, tuple[int, float, float]] = {}  # tag, value, when it last changed
        self._most_w = 0.0
        self._rated_w = 3 * OVERLOAD * MAX_VOLTAGE_V * MAX_CURRENT_A

    @staticmethod
    def slack_wh(register: Register) -> float:
        """A step that needs no explanation: some counts of the register."""
        return SLACK_COUNTS * max(register.scale.apply(1), 1.0)

    def learn_power(self, powers_w: Sequence[float]) -> None:
        """Take the powers that the meter shows now."""
        self._most_w = max(self._most_w, *(abs(power) for power in powers_w), 0.0)

    def learn_rating(self, phases: int, current_a: float | None) -> None:
        """Take how many phases the meter shows, and the maximum current of a phase where it tells it."""
        current_a = MAX_CURRENT_A if current_a is None or current_a <= 0 else current_a
        self._rated_w = (phases or 3) * OVERLOAD * MAX_VOLTAGE_V * current_a

    @property
    def limit_w(self) -> float:
        """More than this no meter like this one passes."""
        return max(self._rated_w, POWER_SEEN * self._most_w)

    def doubt(self, register: Register, data: Data, value: float, time_s: float) -> Doubt | None:
        """What is odd about this value, read at `time_s` of a clock that does not go back."""
        last = self._last.get(register.name)
        if last is None or not register.cumulative:
            return None
        tag, before, before_s = last
        if value < before:
            return Doubt.DECREASED
        if value - before > self.limit_w * (time_s - before_s) / 3600 + self.slack_wh(register):
            return Doubt.JUMPED
        return Doubt.TYPE if data.tag != tag else None

    def believe(self, register: Register, data: Data, value: float, time_s: float) -> None:
        """Take the value as the one that the next is judged by."""
        _, before, before_s = self._last.get(register.name, (data.tag, value, time_s))
        self._last[register.name] = (data.tag, value, before_s if value == before else time_s)

    def forget(self) -> None:
        """Another meter, or another scaler."""
        self._last.clear()
        self._most_w = 0.0
