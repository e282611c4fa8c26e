"""The last weeks of one zone's rows, in arrays that slide: appended at the end, forgotten at the front.

It owns where row k of all time lies in memory; it knows nothing of what is done with the rows.
"""

from __future__ import annotations

import numpy as np

from core.arrays import UNKNOWN_WH2, Bools, Floats
from core.balance.rows import ZoneRows

APPEND_MAX = 64  # rows at once: bounds the spare room
SETTLE_ROWS = 400  # so far back the beginning of a gap is looked for
OPEN_GAP = 25.0  # times the least variance of a boundary: a meter has not answered


class History:
    """Rows `first` .. `count` - 1 of all time. `booked_wh`, `booked_wh2` [rows + 1] belong to boundaries."""

    def __init__(self, capacity: int, subs: int) -> None:
        self.capacity = capacity
        self.first = 0  # row of all time that is kept longest
        self.count = 0  # rows of all time
        self._at = 0  # place of `first` in memory
        size = self._size = capacity + capacity // 4 + APPEND_MAX
        self._column = {
            name: np.zeros(size) for name in ("ends_s", "main", "residual", "boundary", "lost", "gap", "read")
        }
        self._subs = np.zeros((size, subs))
        self._missed = np.zeros((size, subs), np.bool_)
        self._expected = np.zeros(size)
        self._booked = np.zeros(size + 1)  # cumulative unexplained energy at the row's end, its variance
        self._booked_var = np.zeros(size + 1)

    def append(self, rows: ZoneRows, missed: Bools, read: Floats) -> None:
        """Take rows that follow the last ones; at most APPEND_MAX at a time."""
        n = len(rows)
        if self._at + (self.count - self.first) + n > self._size:
            self._shift()
        at = self._at + self.count - self.first
        place = slice(at, at + n)
        for name, values in (
            ("ends_s", rows.ends_s),
            ("main", rows.main_wh),
            ("residual", rows.residual_wh),
            ("boundary", rows.boundary_wh2),
            ("lost", rows.lost_wh2),
            ("gap", rows.gap_wh2),
            ("read", read),
        ):
            self._column[name][place] = values
        self._subs[place] = rows.subs_wh
        self._missed[place] = missed
        self.count += n
        drop = self.count - self.first - self.capacity
        if drop > 0:
            self.first += drop
            self._at += drop

    def fill(self, first: int, rows: ZoneRows, missed: Bools, read: Floats) -> None:
        """Start again with `rows`, the first of which is number `first` of all time."""
        self.first = self.count = first
        self._at = 0
        self.forget_booked()
        for start in range(0, len(rows), APPEND_MAX):
            part = slice(start, start + APPEND_MAX)
            self.append(rows[part], missed[part], read[part])

    def spread(self, sub: int, start: int, stop: int, shape: float) -> None:
        """Spread what a sub-meter counted in row `stop` over the rows from `start` on, in which it stood still.

        How it flowed is not known: a gap is open there, of `shape` times that energy.
        """
        s = self._slice(start, stop + 1)
        energy = float(self._subs[s.stop - 1, sub])
        share = energy / (s.stop - s.start)
        self._column["residual"][s] += self._subs[s, sub] - share
        self._subs[s, sub] = share
        self._missed[s, sub] = True
        self._column["gap"][s.start : s.stop - 1] += (shape * energy) ** 2

    def trim(self, rows: int) -> None:
        """Forget all but the last `rows`."""
        drop = max(0, self.count - self.first - rows)
        self.first += drop
        self._at += drop

    def _shift(self) -> None:
        """Move what is kept to the front, so that appending never allocates."""
        kept = slice(self._at, self._at + self.count - self.first)
        length = self.count - self.first
        for array in (*self._column.values(), self._subs, self._missed, self._expected):
            array[:length] = array[kept].copy()
        for array in (self._booked, self._booked_var):
            array[: length + 1] = array[kept.start : kept.stop + 1].copy()
        self._at = 0

    def _slice(self, start: int, stop: int) -> slice:
        if not self.first <= start <= stop <= self.count:
            raise IndexError(f"rows {start}..{stop} are not in {self.first}..{self.count}")
        return slice(start - self.first + self._at, stop - self.first + self._at)

    def rows(self, start: int, stop: int) -> ZoneRows:
        """Read-only views of rows start .. stop - 1 of all time."""
        s = self._slice(start, stop)
        c, view = self._column, _read_only
        return ZoneRows(
            view(c["ends_s"], s),
            view(c["main"], s),
            view(self._subs, s),
            view(c["residual"], s),
            view(c["boundary"], s),
            view(c["lost"], s),
            view(c["gap"], s),
        )

    def read(self, start: int, stop: int) -> Floats:
        """Share of meters that answered, per row."""
        return _read_only(self._column["read"], self._slice(start, stop))

    def missed(self, start: int, stop: int) -> Bools:
        """Which sub-meters did not answer, [rows, subs]."""
        missed: Bools = self._missed[self._slice(start, stop)].view()
        missed.flags.writeable = False
        return missed

    def expected(self, start: int, stop: int) -> Floats:
        """Expected technical loss per row, Wh."""
        return _read_only(self._expected, self._slice(start, stop))

    def booked(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """Unexplained energy and its variance at the boundaries of rows start .. stop - 1, [rows + 1]."""
        s = self._slice(start, stop)
        edges = slice(s.start, s.stop + 1)
        return _read_only(self._booked, edges), _read_only(self._booked_var, edges)

    def settled(self, row: int) -> int:
        """The last row up to `row` that begins with no gap open: what flowed before it is known."""
        start = max(self.first, row - SETTLE_ROWS)
        _, variance = self.booked(start, row)
        known = np.flatnonzero(variance <= OPEN_GAP * variance.min())
        return start + int(known[-1])

    def write_expected(self, start: int, values_wh: Floats) -> None:
        """Set the expected technical loss of the rows from `start` on."""
        self._expected[self._slice(start, start + len(values_wh))] = values_wh

    def write_booked(self, start: int, booked_wh: Floats, variance_wh2: Floats) -> None:
        """Set the unexplained energy and its variance at the ends of the rows from `start` on."""
        s = self._slice(start, start + len(booked_wh))
        edges = slice(s.start + 1, s.stop + 1)
        self._booked[edges], self._booked_var[edges] = booked_wh, variance_wh2

    def forget_booked(self) -> None:
        """Count the unexplained energy from the first kept row on: nothing is known of the balance before it."""
        self._booked[self._at], self._booked_var[self._at] = 0.0, UNKNOWN_WH2

    def gap_before(self, row: int) -> float:
        """Variance of long gaps at the start of `row`; 0 where nothing is before it."""
        before = row - 1
        return float(self._column["gap"][before - self.first + self._at]) if before >= self.first else 0.0

    def main_before(self, row: int) -> float:
        """Main energy of the row before `row`; that of `row` itself where nothing is before it."""
        before = max(row - 1, self.first)
        return float(self._column["main"][before - self.first + self._at])


def _read_only(array: Floats, rows: slice) -> Floats:
    """A view that cannot be written to: whoever reads history must not change it."""
    view: Floats = array[rows].view()
    view.flags.writeable = False
    return view
