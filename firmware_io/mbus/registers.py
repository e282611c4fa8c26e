"""Which of a meter's M-Bus records are registers that we know, by medium, and under which OBIS code. Tables, no I/O.

Records of tariffs, parts, due dates, maxima and manufacturers' own kinds are left alone. Where a meter has several
records of one quantity and nothing says which is which, none is taken: a guess would be a wrong reading.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io import obis
from firmware_io.mbus import units
from firmware_io.mbus.records import Record, Telegram
from firmware_io.obis import ObisCode
from firmware_io.reading import Unit

ELECTRICITY, GAS = 0x02, 0x03
HEAT = frozenset((0x04, 0x0C, 0x0D))
COOLING = frozenset((0x0A, 0x0B))
COLD_WATER, HOT_WATER = frozenset((0x07, 0x16, 0x17)), frozenset((0x06, 0x15))

_UNITS = {
    units.ENERGY: Unit.WATT_HOUR,
    units.POWER: Unit.WATT,
    units.VOLUME: Unit.CUBIC_METRE,
    units.VOLTAGE: Unit.VOLT,
    units.CURRENT: Unit.AMPERE,
    units.FLOW_TEMPERATURE: Unit.CELSIUS,
    units.RETURN_TEMPERATURE: Unit.CELSIUS,
}


class Known(NamedTuple):
    """One register as it came."""

    obis: ObisCode
    value: float
    unit: Unit


def known(medium: int, telegrams: list[Telegram]) -> list[Known]:
    """The registers in a meter's answer."""
    records = [record for telegram in telegrams for record in telegram.records if record.now]
    numbers = [record for record in records if isinstance(record.value, float | int)]
    if medium == ELECTRICITY:
        return _electricity(numbers)
    if medium in HEAT or medium in COOLING:
        first = 6 if medium in HEAT else 5
        wanted = {
            units.ENERGY: ObisCode(first, 0, 1, 0, 0),
            units.VOLUME: ObisCode(first, 0, 2, 0, 0),
            units.POWER: ObisCode(first, 0, 8, 0, 0),
            units.FLOW_TEMPERATURE: ObisCode(first, 0, 10, 0, 0),
            units.RETURN_TEMPERATURE: ObisCode(first, 0, 11, 0, 0),
        }
    elif medium in COLD_WATER or medium in HOT_WATER:
        wanted = {units.VOLUME: ObisCode(8 if medium in COLD_WATER else 9, 0, 1, 0, 0)}
    elif medium == GAS:
        wanted = {units.VOLUME: ObisCode(7, 0, 3, 0, 0)}
    else:
        return []
    found = []
    for quantity, name in wanted.items():
        plain = _plain(numbers, quantity)
        if plain and (len(plain) == 1 or quantity in (units.ENERGY, units.VOLUME)):
            found.append(_known(name, plain[0]))
    return found


def _electricity(numbers: list[Record]) -> list[Known]:
    found = []
    for name, vife in ((obis.ENERGY_IMPORT, units.ONLY_POSITIVE), (obis.ENERGY_EXPORT, units.ONLY_NEGATIVE)):
        signed = [r for r in numbers if r.meaning.quantity == units.ENERGY and _vifes(r) == (vife,)]
        if signed:
            found.append(_known(name, signed[0]))
    energies = _plain(numbers, units.ENERGY)
    if energies and not any(register.obis == obis.ENERGY_IMPORT for register in found):
        found.append(_known(obis.ENERGY_IMPORT, energies[0]))
    powers = _plain(numbers, units.POWER)
    if len(powers) == 1 and isinstance(powers[0].value, float | int):
        value = float(powers[0].value)
        found.append(Known(obis.POWER_IMPORT, max(value, 0.0), Unit.WATT))
        found.append(Known(obis.POWER_EXPORT, max(-value, 0.0), Unit.WATT))
    for quantity, names in ((units.VOLTAGE, obis.VOLTAGE), (units.CURRENT, obis.CURRENT)):
        phases = _plain(numbers, quantity)
        if len(phases) in (1, 3):
            found += [_known(name, record) for name, record in zip(names, phases, strict=False)]
    return found


def _vifes(record: Record) -> tuple[int, ...]:
    """The combinable VIFEs; those that belong to the quantity itself left out."""
    own = 1 if record.meaning.quantity in (units.VOLTAGE, units.CURRENT) else 0
    return tuple(vife & 0x7F for vife in record.extensions[own:])


def _plain(numbers: list[Record], quantity: str) -> list[Record]:
    """Records of a quantity with nothing that makes them special; a mere factor is nothing special."""
    return [r for r in numbers if r.meaning.quantity == quantity and all(_is_factor(v) for v in _vifes(r))]


def _is_factor(vife: int) -> bool:
    return units.factor_of(vife) != 1.0 or vife == 0x76


def _known(name: ObisCode, record: Record) -> Known:
    assert isinstance(record.value, float | int)
    return Known(name, float(record.value), _UNITS[record.meaning.quantity])
