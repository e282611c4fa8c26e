"""What a DL/T 645 meter is asked for: data identifiers, how many octets their values have, and what these mean.

Sources: DL/T 645-2007 annex A (tables A.1, A.3, A.4, A.5), the extensions of State Grid's technical specification for
event counters and daily freezes; DL/T 645-1997 annex A for the older identifiers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from firmware_io import obis
from firmware_io._octets import bcd_scaled
from firmware_io.dlt645.frame import bcd_number
from firmware_io.obis import ObisCode
from firmware_io.reading import Unit

FREQUENCY = ObisCode(1, 0, 14, 7, 0)


_DIVISORS = {10.0**-n: 10.0**n for n in range(1, 7)}  # dividing keeps the last digit right


class Field(NamedTuple):
    """One value inside the data of an identifier."""

    obis: ObisCode
    unit: Unit
    octets: int
    factor: float  # from the number of the digits to the unit
    signed: bool = False

    def decode(self, octets: bytes) -> float | None:
        """The value in its unit, None where the meter has none."""
        return self.at(octets, 0)

    def at(self, octets: bytes, place: int) -> float | None:
        """The same, of the octets from a place on; None too where they do not reach so far."""
        divisor = 0.0 if self.factor >= 1 else _DIVISORS[self.factor]
        return bcd_scaled(octets, place, self.octets, self.signed, self.factor, divisor)


class Item(NamedTuple):
    """One data identifier and the values in its data; `single` is asked where a meter refuses the block.

    A meter may say less than all fields of a block: a single-phase meter has one voltage.
    """

    di: int
    fields: tuple[Field, ...]
    single: int | None = None
    live: bool = True  # an instantaneous value


def _energy(name: ObisCode) -> Field:
    return Field(name, Unit.WATT_HOUR, 4, 10.0)  # XXXXXX.XX kWh


def _rates(name: ObisCode) -> tuple[Field, ...]:
    """Total and four rates of a block."""
    return tuple(_energy(name._replace(e=rate)) for rate in range(5))


def _phases(
    names: tuple[ObisCode, ...], unit: Unit, octets: int, factor: float, signed: bool = False
) -> tuple[Field, ...]:
    return tuple(Field(name, unit, octets, factor, signed) for name in names)


IMPORT = Item(0x00010000, (_energy(obis.ENERGY_IMPORT),), live=False)
EXPORT = Item(0x00020000, (_energy(obis.ENERGY_EXPORT),), live=False)
IMPORT_RATES = Item(0x0001FF00, _rates(obis.ENERGY_IMPORT), 0x00010000, live=False)
EXPORT_RATES = Item(0x0002FF00, _rates(obis.ENERGY_EXPORT), 0x00020000, live=False)
POWER = Item(0x02030000, (Field(obis.POWER_IMPORT, Unit.WATT, 3, 0.1, True),))
VOLTAGES = Item(0x0201FF00, _phases(obis.VOLTAGE, Unit.VOLT, 2, 0.1), 0x02010100)
CURRENTS = Item(0x0202FF00, _phases(obis.CURRENT, Unit.AMPERE, 3, 0.001, True), 0x02020100)
FACTOR = Item(0x02060000, (Field(obis.POWER_FACTOR, Unit.COUNT, 2, 0.001, True),))
NEUTRAL = Item(0x02800001, (Field(obis.NEUTRAL_CURRENT, Unit.AMPERE, 3, 0.001, True),))
MAINS_FREQUENCY = Item(0x02800002, (Field(FREQUENCY, Unit.HERTZ, 2, 0.01),))

ITEMS_2007 = (IMPORT, EXPORT, POWER, VOLTAGES, CURRENTS, NEUTRAL, FACTOR, MAINS_FREQUENCY)
ITEMS_1997 = (
    Item(0x9010, (_energy(obis.ENERGY_IMPORT),), live=False),
    Item(0x9020, (_energy(obis.ENERGY_EXPORT),), live=False),
    Item(0xB630, (Field(obis.POWER_IMPORT, Unit.WATT, 3, 0.1),)),
    Item(0xB611, (Field(obis.VOLTAGE[0], Unit.VOLT, 2, 1.0),)),
    Item(0xB621, (Field(obis.CURRENT[0], Unit.AMPERE, 2, 0.01),)),
)

DATE, TIME = 0x04000101, 0x04000102
DATE_1997, TIME_1997 = 0xC010, 0xC011
METER_NUMBER, SOFTWARE, METER_NUMBER_1997 = 0x04000402, 0x04800001, 0xC032
FREEZE_TIME, FREEZE_IMPORT, FREEZE_EXPORT = 0x05060000, 0x05060100, 0x05060200  # + how many days back, from 1
MAX_FREEZES = 62
LOAD_RECORDS = 0x06040001  # class 4, totals of energy, from a given time on


class EventKind(NamedTuple):
    """A kind of tamper or power event: its counter, its records, and the code of its begin and end.

    Codes are those of the standard event logs (IDIS), which the rest of checkmeter knows.
    """

    counter: int
    records: int  # + how many events back, from 1; each begins with begin and end, six octets each
    log: ObisCode
    begins: int
    ends: int | None


EVENTS = (
    EventKind(0x03300D00, 0x03300D00, obis.EVENT_LOG_FRAUD, 44, 45),  # meter cover
    EventKind(0x03300E00, 0x03300E00, obis.EVENT_LOG_FRAUD, 40, 41),  # terminal cover
    EventKind(0x03350000, 0x03350000, obis.EVENT_LOG_FRAUD, 42, 43),  # steady magnetic field
    EventKind(0x03110000, 0x03110000, obis.EVENT_LOG_STANDARD, 1, 2),  # power down
)
MAX_RECORDS = 10  # of an event kind, kept by the meter


@lru_cache(maxsize=256)
def di_octets(di: int, edition: int) -> bytes:
    """The identifier as it stands in data: low octet first, four octets in 2007, two in 1997."""
    return di.to_bytes(4 if edition == 2007 else 2, "little")


def moment(octets: bytes) -> datetime | None:
    """A time of five (mm hh DD MM YY) or six octets (ss ahead of it), as the meter's local time marked UTC.

    None where it is none: never set, all zero, or FFh.
    """
    if len(octets) == 5:
        octets = b"\x00" + octets
    numbers = [bcd_number(octets[i : i + 1]) for i in range(6)]
    if len(octets) != 6 or None in numbers:
        return None
    second, minute, hour, day, month, year = (int(number or 0) for number in numbers)
    try:
        return datetime(2000 + year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


class LoadRecord(NamedTuple):
    """One load record of class 4: the meter's local time marked UTC, import and export in Wh."""

    time: datetime
    import_wh: float
    export_wh: float | None


def load_records(octets: bytes) -> list[LoadRecord]:
    """The records in the data of `LOAD_RECORDS` (2007, annex B): whole ones; what is broken is skipped.

    A record is A0h A0h, a length, its time, six classes each ended by AAh (which no BCD has), a sum, E5h. Asked for
    one class, some meters send that alone.
    """
    records: list[LoadRecord] = []
    at = octets.find(b"\xa0\xa0")
    while at >= 0 and at + 3 <= len(octets):
        size = octets[at + 2]
        body = octets[at + 3 : at + 3 + size]
        behind = at + 3 + size
        whole = len(body) == size >= 5 and octets[behind + 1 : behind + 2] == b"\xe5"
        if whole and sum(octets[at:behind]) & 0xFF == octets[behind]:
            record = _load_record(body)
            if record is not None:
                records.append(record)
            at = octets.find(b"\xa0\xa0", behind + 2)
        else:
            at = octets.find(b"\xa0\xa0", at + 1)
    return records


def _load_record(body: bytes) -> LoadRecord | None:
    time = moment(body[:5])
    classes = body[5:].split(b"\xaa")
    totals = classes[3] if len(classes) >= 6 else next((c for c in classes if len(c) in (8, 16)), b"")
    imported = bcd_number(totals[:4]) if len(totals) >= 8 else None
    if time is None or imported is None:
        return None
    exported = bcd_number(totals[4:8])
    return LoadRecord(time, imported * 10.0, None if exported is None else exported * 10.0)
