"""Profile generic objects: load profile and event logs, their captured columns, and selective access to their rows.

A row source knows the time of each row and makes rows on demand; the profile picks, compresses and encodes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import ActionResult, DataAccessResult, Selection
from firmware_io.dlms.cosem.profile import Column
from firmware_io.obis import ObisCode
from firmware_io.simulator.meter.cosem import CosemObject, constant, plain

BY_RANGE, BY_ENTRY = 1, 2
_FIFO, _LIFO = 1, 2


MakeRows = Callable[[int, int], list[list[Data]]]


class Rows(Protocol):
    """Where the rows of a profile come from; the first column is the meter's time."""

    def snapshot(self) -> tuple[Sequence[float], MakeRows]:
        """The rows at this moment, oldest first: the meter's time of each, and what makes rows `first`..`last` - 1.

        Times are UTC seconds, not always ascending: clocks are set.
        """


def profile_generic(
    name: ObisCode,
    columns: Sequence[Column],
    source: Rows,
    *,
    period_s: Callable[[], int],
    capacity: int,
    read_time: Callable[[bytes], float | None],
    compress: bool,
    reset: Callable[[], None],
    set_period: Callable[[int], bool] | None = None,
    newest_first: Callable[[], bool] = lambda: False,
) -> CosemObject:
    """An object of class 7. With `compress`, a time stamp that is one period after the last is sent as null."""

    def write_period(value: Data) -> DataAccessResult:
        accepted = value.tag == Tag.UINT32 and set_period is not None and set_period(value.value)
        return DataAccessResult.SUCCESS if accepted else DataAccessResult.TYPE_UNMATCHED

    def buffer(selection: Selection | None) -> Data | DataAccessResult:
        stamps, make_rows = source.snapshot()
        chosen: range | list[int] = range(len(columns))
        first, last = 0, len(stamps)
        turned = newest_first()
        if selection is not None:
            picked = _select(selection, stamps, columns, read_time)
            if picked is None:
                return DataAccessResult.SCOPE_OF_ACCESS_VIOLATED
            first, last, chosen = picked
            if turned and selection.selector == BY_ENTRY:
                first, last = len(stamps) - last, len(stamps) - first
        rows, encoded = make_rows(first, last), []
        if turned:
            return axdr.array(axdr.structure(*(row[column] for column in chosen)) for row in reversed(rows))
        for place, row in enumerate(rows):
            at = first + place
            if compress and place and stamps[at] - stamps[at - 1] == period_s():
                row[0] = axdr.NULL
            encoded.append(axdr.structure(*(row[column] for column in chosen)))
        return axdr.array(encoded)

    def reset_method(_: Data | None) -> tuple[ActionResult, Data | None]:
        reset()
        return ActionResult.SUCCESS, None

    clock = columns[0]
    return CosemObject(
        7,
        name,
        {
            2: buffer,
            3: constant(axdr.array(column.encode() for column in columns)),
            4: plain(lambda: axdr.uint32(period_s())),
            5: plain(lambda: axdr.enumeration(_LIFO if newest_first() else _FIFO)),
            6: constant(clock.encode()),
            7: plain(lambda: axdr.uint32(len(source.snapshot()[0]))),
            8: constant(axdr.uint32(capacity)),
        },
        version=1,
        writable={4: write_period} if set_period is not None else {},
        methods={1: reset_method},
    )


def _select(
    selection: Selection, stamps: Sequence[float], columns: Sequence[Column], read_time: Callable[[bytes], float | None]
) -> tuple[int, int, range | list[int]] | None:
    """First row, row behind the last, columns; None where the client asks for what cannot be."""
    items = selection.parameters.value
    if selection.parameters.tag != Tag.STRUCTURE or len(items) != 4:
        return None
    if selection.selector == BY_ENTRY:
        if any(not isinstance(item.value, int) for item in items):
            return None
        first, last, from_column, to_column = (int(item.value) for item in items)
        last = min(last or len(stamps), len(stamps))
        to_column = min(to_column or len(columns), len(columns))
        if first < 1 or from_column < 1 or from_column > to_column:
            return None
        return first - 1, max(last, first - 1), range(from_column - 1, to_column)
    if selection.selector != BY_RANGE:
        return None
    begin, end = (_moment(item, read_time) for item in items[1:3])
    if begin is None or end is None:
        return None
    wanted = items[3].value or ()
    chosen: range | list[int] = range(len(columns))
    if wanted:
        known = [column.encode().value[:3] for column in columns]
        chosen = [known.index(item.value[:3]) for item in wanted if item.value and item.value[:3] in known]
        if len(chosen) != len(wanted):
            return None
    # A clock that was set back makes stamps that are not ascending: rows between the outermost hits are sent.
    if all(a <= b for a, b in pairwise(stamps)):
        return bisect_left(stamps, begin), bisect_right(stamps, end), chosen
    hits = [place for place, stamp in enumerate(stamps) if begin <= stamp <= end]
    return (hits[0], hits[-1] + 1, chosen) if hits else (0, 0, chosen)


def _moment(item: Data, read_time: Callable[[bytes], float | None]) -> float | None:
    return read_time(item.value) if item.tag in (Tag.OCTET_STRING, Tag.DATE_TIME) else None
