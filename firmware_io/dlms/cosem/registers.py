"""Which registers are asked for, how their values become numbers with a unit, and whether these are plausible.

It exchanges nothing with a meter: it says what to ask and judges what came.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Self

from firmware_io import obis
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute
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
# No meter of a building passes more than a megawatt; what goes beyond is no energy but a wrong octet.
MAX_POWER_W = 1_000_000.0
# A step that is a few counts of a coarse register needs no explanation.
SLACK_WH = 2_000.0


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
            RemoteProtocolError: not a number.
        """
        if data.tag not in _NUMBERS:
            raise RemoteProtocolError(f"{self.name}: expected a number, got {data}")
        return self.scale.apply(data.value)


def scaler_of(name: ObisCode, class_id: int) -> Attribute:
    """The attribute that holds scaler and unit."""
    return Attribute(class_id, name, _SCALER_OF[class_id])


class Doubt(enum.Enum):
    """What is odd about a value."""

    TYPE = "it came with another type"
    DECREASED = "it has decreased"
    JUMPED = "it has risen by more than any building takes"


class Plausibility:
    """Remembers the last believed value of each cumulative register of one meter."""

    def __init__(self) -> None:
        self._last: dict[ObisCode, tuple[int, float, float]] = {}

    def doubt(self, register: Register, data: Data, value: float, time_s: float) -> Doubt | None:
        """What is odd about this value, read at `time_s` of a clock that does not go back."""
        last = self._last.get(register.name)
        if last is None or not register.cumulative:
            return None
        tag, before, before_s = last
        if value < before:
            return Doubt.DECREASED
        if value - before > MAX_POWER_W * (time_s - before_s) / 3600 + SLACK_WH:
            return Doubt.JUMPED
        return Doubt.TYPE if data.tag != tag else None

    def believe(self, register: Register, data: Data, value: float, time_s: float) -> None:
        """Take the value as the one that the next is judged by."""
        self._last[register.name] = (data.tag, value, time_s)

    def forget(self) -> None:
        """Another meter, or another scaler."""
        self._last.clear()
