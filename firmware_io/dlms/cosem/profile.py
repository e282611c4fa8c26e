"""Profile generic (class 7): selective access by range and by entry, and the rows of its buffer.

Meters leave out (null-data) what has not changed, and times that follow from the capture period; here the rows are
whole again. It asks nobody: a session hands the octets in.
"""

from __future__ import annotations

import enum
import itertools
from typing import NamedTuple, Self

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute, Selection
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.errors import RemoteProtocolError
from firmware_io.obis import ObisCode

CLASS = 7
BUFFER, CAPTURE_OBJECTS, CAPTURE_PERIOD, SORT_METHOD, ENTRIES_IN_USE = 2, 3, 4, 5, 7
CLOCK_CLASS = 8


class SortMethod(enum.IntEnum):
    """In which order a buffer stands."""

    FIFO = 1
    LIFO = 2
    LARGEST = 3
    SMALLEST = 4
    NEAREST_TO_ZERO = 5
    FARTHEST_FROM_ZERO = 6


class Column(NamedTuple):
    """One captured attribute."""

    attribute: Attribute
    element: int = 0  # data index: 0 is the whole attribute

    @property
    def is_time(self) -> bool:
        """Whether this column is the time of the row."""
        return self.attribute.class_id == CLOCK_CLASS and self.attribute.number == 2

    def encode(self) -> Data:
        """As a capture object."""
        attribute = self.attribute
        return axdr.structure(
            axdr.uint16(attribute.class_id),
            axdr.octet_string(bytes(attribute.name)),
            axdr.int8(attribute.number),
            axdr.uint16(self.element),
        )

    @classmethod
    def decode(cls, item: Data) -> Self:
        """Raises: RemoteProtocolError: not a capture object definition."""
        match item.plain():
            case [int(class_id), bytes(name), int(number), int(element)] if len(name) == 6:
                return cls(Attribute(class_id, ObisCode.from_bytes(name), number), element)
        raise RemoteProtocolError(f"{item} is no capture object")


class Row(NamedTuple):
    """One row: its time, None where it has none that exists, and its values in the order of the columns."""

    time: MeterTime | None
    values: tuple[Data, ...]


def columns(captured: Data) -> tuple[Column, ...]:
    """The capture objects of a profile.

    Raises:
        RemoteProtocolError: not a list of capture objects.
    """
    if captured.tag != Tag.ARRAY:
        raise RemoteProtocolError(f"capture objects: expected an array, got {captured}")
    return tuple(Column.decode(item) for item in captured.value)


def by_range(first: MeterTime, last: MeterTime, clock: Column) -> Selection:
    """Rows captured from `first` to `last`, both included."""
    times = (axdr.octet_string(first.encode()), axdr.octet_string(last.encode()))
    return Selection(1, axdr.structure(clock.encode(), *times, axdr.array(())))


def by_entry(first: int, last: int) -> Selection:
    """Rows from number `first`, counted from 1, to `last` (0: to the end), with all columns."""
    entries = (axdr.uint32(first), axdr.uint32(last))
    return Selection(2, axdr.structure(*entries, axdr.uint16(1), axdr.uint16(0)))


def rows(buffer: Data, captured: tuple[Column, ...], period_s: float) -> list[Row]:
    """The rows of a buffer, with what the meter left out filled in again.

    A null time is one capture period after the row before. A null value is that of the row before where the meter
    leaves repetitions out; where it writes them, null is a value that it does not have, and stays null.

    Raises:
        RemoteProtocolError: not rows, or not of these columns, or the first row leaves something out.
    """
    if buffer.tag != Tag.ARRAY:
        raise RemoteProtocolError(f"profile buffer: expected an array, got type {buffer.tag}")
    time_column = next((i for i, column in enumerate(captured) if column.is_time), None)
    compressed = not _repeats(buffer, time_column)
    result: list[Row] = []
    for number, item in enumerate(buffer.value, 1):
        if item.tag != Tag.STRUCTURE or len(item.value) != len(captured):
            raise RemoteProtocolError(f"profile row {number}: expected {len(captured)} columns, got {item}")
        before = result[-1] if result else None
        values = list(item.value)
        for i, value in enumerate(values):
            if compressed and value.tag == Tag.NULL and i != time_column and before is not None:
                values[i] = before.values[i]
        time = None
        if time_column is not None:
            time = _row_time(values[time_column], before, period_s)
        result.append(Row(time, tuple(values)))
    return result


def _repeats(buffer: Data, time_column: int | None) -> bool:
    """Whether a value is written again that did not change: then the meter leaves nothing out."""
    for before, item in itertools.pairwise(buffer.value):
        if item.tag == before.tag == Tag.STRUCTURE:
            for i, (old, new) in enumerate(zip(before.value, item.value, strict=False)):
                if i != time_column and new.tag != Tag.NULL and new == old:
                    return True
    return False


def _row_time(value: Data, before: Row | None, period_s: float) -> MeterTime | None:
    if value.tag == Tag.NULL:
        if before is None or before.time is None or period_s <= 0:
            return None  # nothing to count it from
        return before.time._replace(local_s=before.time.local_s + period_s)
    if value.tag not in (Tag.OCTET_STRING, Tag.DATE_TIME):
        raise RemoteProtocolError(f"the time of a profile row: expected a date-time, got {value}")
    try:
        return MeterTime.decode(value.value)
    except RemoteProtocolError:  # a row from before the clock was set: the others are good
        return None
