"""From which of a meter's objects each quantity comes: its usual one, another one, or a sum over rates.

Companion profiles are presets of this, as data. It asks nobody: it says what to ask, and adds up what came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from firmware_io import obis
from firmware_io.obis import ObisCode
from firmware_io.reading import Quality, Reading

Companion = Literal["dsmr5", "idis", "is15959"]
RATES = 4  # summed where a meter has no total
EVENT_LOGS = tuple(obis.EVENT_LOG_STANDARD._replace(e=e) for e in range(8))


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects of one meter. `registers` holds what differs from the usual code: quantity -> objects to add up."""

    registers: Mapping[ObisCode, tuple[ObisCode, ...]] = field(default_factory=dict)
    load_profile: ObisCode = obis.LOAD_PROFILE
    event_logs: tuple[ObisCode, ...] = EVENT_LOGS
    counter: ObisCode = obis.INVOCATION_COUNTER
    push_setup: ObisCode = obis.PUSH_SETUP
    push_objects: tuple[ObisCode, ...] | None = None  # what a push holds, in order, where the meter does not tell
    compact: ObisCode | None = None  # compact data (class 62): a poll is one read of them

    def of(self, quantity: ObisCode) -> tuple[ObisCode, ...]:
        """The objects that a quantity is read from."""
        return self.registers.get(quantity, (quantity,))


USUAL = Sources()


def rates(total: ObisCode, count: int = RATES) -> tuple[ObisCode, ...]:
    """The rate registers of a total."""
    return tuple(total._replace(e=rate) for rate in range(1, count + 1))


def combined(readings: Iterable[Reading], registers: Mapping[ObisCode, tuple[ObisCode, ...]]) -> list[Reading]:
    """Readings of objects as readings of quantities. A sum is there only if all its parts are, in one unit."""
    by_code = {reading.obis: reading for reading in readings}
    used = {code for codes in registers.values() for code in codes}
    result = [reading for code, reading in by_code.items() if code not in used and code not in registers]
    for quantity, codes in registers.items():
        parts = [by_code[code] for code in codes if code in by_code]
        if len(parts) < len(codes) or len({part.unit for part in parts}) != 1:
            continue
        quality = Quality.GOOD
        for part in parts:
            quality |= part.quality
        result.append(replace(parts[0], obis=quantity, value=sum(part.value for part in parts), quality=quality))
    return result


# DSMR 5 P3 and IS 15959 (Part 2, for the utility setting client) as far as a reader of energy meets them; IDIS
# packages 2 and 3 have the usual codes.
COMPANIONS: dict[Companion, Sources] = {
    "dsmr5": Sources(
        {obis.ENERGY_IMPORT: rates(obis.ENERGY_IMPORT, 2), obis.ENERGY_EXPORT: rates(obis.ENERGY_EXPORT, 2)},
        event_logs=tuple(ObisCode(0, 0, 99, 98, e) for e in (0, 1, 3, 4)),
    ),
    "idis": USUAL,
    "is15959": Sources(event_logs=tuple(ObisCode(0, 0, 99, 98, e) for e in range(7)), counter=ObisCode(0, 0, 43, 1, 3)),
}
