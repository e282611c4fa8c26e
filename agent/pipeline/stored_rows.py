"""What meters stored in their load profiles while nobody read them, on its way into the pipeline.

It owns the one block of memory that a bus's stored registers fill, and how the blocks of several buses become rows of
all meters, a portion at a time. A block as large as weeks of rows goes back to the system whole when it is dropped;
an array for each meter would leave the heap in holes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PORTION_S, PORTION_ROWS = 2 * 86400.0, 1000  # of one step: what it takes in memory and in time
STAMP_S = 4.0  # a row's time is the boundary's if it is no further from it


class StoredRows:
    """Registers `wh` [T, meters] (Wh, primary, import minus export) at rising boundaries `times_s` [T].

    NaN where a meter has no row. A row between boundaries is left out: a profile may have a shorter period.
    """

    def __init__(self, meters: Sequence[str], interval_s: float) -> None:
        self.meters = tuple(meters)
        self.times_s: Floats = np.empty(0)
        self.wh: Floats = np.empty((0, len(self.meters)))
        self.without: set[str] = set()  # meters that answer and store nothing: Modbus and M-Bus have no load profile
        self._interval_s = interval_s

    def add(self, meter: str, registers: Mapping[float, float]) -> None:
        """Take registers of one meter by time."""
        column = self.meters.index(meter)
        stamped = np.fromiter(registers, np.float64, len(registers))
        times_s = np.rint(stamped / self._interval_s) * self._interval_s
        fits = np.abs(stamped - times_s) <= STAMP_S
        times_s, wh = times_s[fits], np.fromiter(registers.values(), np.float64, len(registers))[fits]
        known = len(self.times_s)
        grown = np.union1d(self.times_s, times_s)
        if len(grown) > known:  # with the first meter, and with whatever fell due while the others were read
            rows = np.full((len(grown), len(self.meters)), np.nan)
            rows[np.searchsorted(grown, self.times_s)] = self.wh
            self.times_s, self.wh = grown, rows
        self.wh[np.searchsorted(self.times_s, times_s), column] = wh

    def within(self, after_s: float, until_s: float) -> StoredRows:
        """The rows after `after_s` up to `until_s`; views, nothing is copied."""
        part = StoredRows(self.meters, self._interval_s)
        first, stop = np.searchsorted(self.times_s, (after_s, until_s), side="right")
        part.times_s, part.wh = self.times_s[first:stop], self.wh[first:stop]
        return part


def portions(
    tables: Sequence[StoredRows], meters: Sequence[str], interval_s: float, after_s: float = -np.inf
) -> Iterator[tuple[Floats, Floats]]:
    """All tables as rows whose columns are `meters`, oldest first: times [T], registers [T, meters].

    Only rows after `after_s`; NaN where a meter has none. Portions are made when they are asked for.
    """
    times_s = np.unique(np.concatenate([np.empty(0), *(table.times_s for table in tables)]))
    times_s = times_s[times_s > after_s]
    place = {meter: n for n, meter in enumerate(meters)}
    span_s = min(PORTION_S, PORTION_ROWS * interval_s)
    start = 0
    while start < len(times_s):
        end = int(np.searchsorted(times_s, times_s[start] + span_s))
        part = times_s[start:end]
        rows = np.full((len(part), len(meters)), np.nan)
        for table in tables:
            first = int(np.searchsorted(table.times_s, part[0]))
            stop = int(np.searchsorted(table.times_s, part[-1], side="right"))
            at = np.searchsorted(part, table.times_s[first:stop])
            for column, meter in enumerate(table.meters):
                if meter in place:
                    rows[at, place[meter]] = table.wh[first:stop, column]
        yield part, rows
        start = end
