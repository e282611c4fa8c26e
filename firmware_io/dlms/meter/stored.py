"""What a meter stored: its load profile and event logs, by range, by entry or whole, as readings and events.

Which rows a meter gives out, and how, differs most of all that meters do: a refused range, a buffer that stands on its
head, rows without times, an hour that comes twice. Here they become readings with their UTC time and quality.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.apdu.refusals import DataAccessError, ServiceRefused
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.registers import DATA, MISSING, REGISTER_CLASSES, VALUE, Register, Scale, scaler_of
from firmware_io.dlms.meter.known import Known
from firmware_io.dlms.sources import combined
from firmware_io.errors import AccessDenied, RegisterUnavailable, RemoteProtocolError
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Quality, Reading

CLOCK_SKEW_S = 60.0  # a meter's clock further off than this is flagged
FUTURE_S = 3600.0  # an event of a clock that is fast by less is read all the same
ROWS_AT_ONCE = 200  # of a profile: bounds one reply, and how long the others wait
MAX_WHOLE = 10_000  # rows of a buffer that is read whole, because the meter selects nothing
_EVENT_CODE = (0, 96, 11)  # value groups A, C and D of an event code column
_STATUS = (0, 96, 10)  # of a profile status column
_STATUS_CLOCK_INVALID = 0x02
_STATUS_INCOMPLETE = 0xA5  # critical error, data not valid, clock adjusted, power down


class _Layout(NamedTuple):
    columns: tuple[profile.Column, ...]
    period_s: float


class StoredReader:
    """The profiles of one meter; keeps their layouts."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._layouts: dict[ObisCode, _Layout] = {}
        self._absent_logs: set[ObisCode] = set()
        self._by_entry: set[ObisCode] = set()  # profiles that refuse a range

    def forget(self) -> None:
        """Another meter."""
        self._layouts.clear()
        self._absent_logs.clear()
        self._by_entry.clear()

    def read_profile(self, first_s: float, last_s: float, name: ObisCode) -> list[Reading]:
        """What a load profile holds of registers between two UTC times, oldest first.

        Raises:
            RegisterUnavailable: the meter has no such profile, or one without times.
        """
        layout = self._layout(name)
        scales = {i: scale for i, column in enumerate(layout.columns) if (scale := self._scale_of(column)) is not None}
        readings: list[Reading] = []
        for row, time_s, quality in self._rows(name, layout, first_s, last_s):
            values: list[Reading] = []
            for i, scale in scales.items():
                register = Register(layout.columns[i].attribute.name, layout.columns[i].attribute.class_id, scale)
                with suppress(RemoteProtocolError):  # a cell without a number is a gap
                    value = register.scaled(row.values[i])
                    meter_time_s = row.time.local_s if row.time else None
                    values.append(
                        Reading(
                            self._known.spec.id, register.name, value, scale.unit, time_s, 0.0, meter_time_s, quality
                        )
                    )
            readings += combined(values, self._known.sums)
        return readings

    def read_events(self, since_s: float) -> list[MeterEvent]:
        """Entries of all event logs that are newer than `since_s` (UTC), oldest first."""
        received_s = self._known.clock.now()
        events: list[MeterEvent] = []
        for log in self._known.spec.sources.event_logs:
            if log in self._absent_logs:
                continue
            try:
                layout = self._layout(log)
                code = next((i for i, c in enumerate(layout.columns) if _groups(c) == _EVENT_CODE), None)
                rows = [] if code is None else self._rows(log, layout, since_s, received_s + FUTURE_S)
            except (RegisterUnavailable, AccessDenied):
                self._absent_logs.add(log)
                continue
            for row, time_s, _ in rows:
                number = row.values[code].value if code is not None else None
                if time_s > since_s and isinstance(number, int):
                    events.append(MeterEvent(self._known.spec.id, log, number, time_s, received_s))
        return sorted(events, key=lambda event: event.meter_time_s)

    def _layout(self, name: ObisCode) -> _Layout:
        if name not in self._layouts:
            self._layouts[name] = _Layout(*self._known.session.capture_objects(name))
        return self._layouts[name]

    def _scale_of(self, column: profile.Column) -> Scale | None:
        """The scale of a register's column; None for other columns."""
        attribute, scales = column.attribute, self._known.scales
        if attribute.class_id not in REGISTER_CLASSES or attribute.number != VALUE or column.element:
            return None
        key = (attribute.class_id, attribute.name)
        if key not in scales:
            try:
                found = self._known.session.get(scaler_of(attribute.name, attribute.class_id))
                scales[key] = Scale.decode(found)
            except (RegisterUnavailable, AccessDenied):
                return None
        return scales[key]

    def _rows(
        self, name: ObisCode, layout: _Layout, first_s: float, last_s: float
    ) -> list[tuple[profile.Row, float, Quality]]:
        """Rows between two UTC times with their UTC time and quality, oldest first."""
        if name not in self._by_entry and self._known.session.selects:
            try:
                return self._timed(self._rows_by_range(name, layout, first_s, last_s), layout, first_s, last_s)
            except DataAccessError as error:
                if error.result in MISSING:
                    raise
            except (AccessDenied, ServiceRefused):  # a scope that is refused is a selection that is
                pass
            self._by_entry.add(name)
        try:
            rows = self._rows_by_entry(name, layout, first_s)
        except (AccessDenied, DataAccessError, ServiceRefused):
            rows = self._rows_whole(name, layout)
        return self._timed(rows, layout, first_s, last_s)

    def _rows_by_range(self, name: ObisCode, layout: _Layout, first_s: float, last_s: float) -> list[profile.Row]:
        step_s = layout.period_s * ROWS_AT_ONCE if layout.period_s > 0 else last_s - first_s
        rows: list[profile.Row] = []
        start_s = first_s
        while True:
            end_s = min(start_s + step_s, last_s)
            bounds = (self._known.convention.meter_time(t) for t in (start_s, end_s))
            rows += self._known.session.read_profile(name, layout.columns, layout.period_s, *bounds)
            if end_s >= last_s:
                break
            start_s = end_s  # a row at the seam comes twice, and is taken once
        return rows

    def _rows_by_entry(self, name: ObisCode, layout: _Layout, first_s: float) -> list[profile.Row]:
        """For a meter that selects by entry only: enough of the newest rows, or all where nothing says which they are.

        A buffer may have its newest row first (LIFO), or be sorted by a value.
        """
        session = self._known.session
        in_use = session.get(Attribute(profile.CLASS, name, profile.ENTRIES_IN_USE)).value
        if not isinstance(in_use, int) or in_use < 1:
            return []
        order = profile.SortMethod.FIFO
        with suppress(RegisterUnavailable, ValueError):
            order = profile.SortMethod(session.get(Attribute(profile.CLASS, name, profile.SORT_METHOD)).value)
        wanted = in_use
        if layout.period_s > 0 and order in (profile.SortMethod.FIFO, profile.SortMethod.LIFO):
            wanted = min(in_use, int((self._known.clock.now() - first_s) / layout.period_s) + 2)
        begin = 1 if order is profile.SortMethod.LIFO else in_use - wanted + 1
        rows: list[profile.Row] = []
        for start in range(begin, begin + wanted, ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, begin + wanted) - 1
            rows += session.read_entries(name, layout.columns, layout.period_s, start, end)
        return rows

    def _rows_whole(self, name: ObisCode, layout: _Layout) -> list[profile.Row]:
        """For a meter that selects nothing at all.

        Raises:
            RegisterUnavailable: its buffer is too long for that.
        """
        session = self._known.session
        in_use = session.get(Attribute(profile.CLASS, name, profile.ENTRIES_IN_USE)).value
        if isinstance(in_use, int) and in_use > MAX_WHOLE:
            raise RegisterUnavailable(
                f"it selects no rows, and {in_use} are too many to read whole",
                meter=self._known.spec.id,
                obis=str(name),
            )
        return session.read_whole(name, layout.columns, layout.period_s)

    def _timed(
        self, rows: list[profile.Row], layout: _Layout, first_s: float, last_s: float
    ) -> list[tuple[profile.Row, float, Quality]]:
        status = next((i for i, column in enumerate(layout.columns) if _groups(column) == _STATUS), None)
        offset_s = self._known.clock_offset_s
        off = Quality.CLOCK_OFF if offset_s is not None and abs(offset_s) > CLOCK_SKEW_S else Quality.GOOD
        timed: dict[tuple[float, tuple[Data, ...]], tuple[profile.Row, float, Quality]] = {}
        stamps: set[float] = set()
        repeated: set[float] = set()
        for row in rows:
            if row.time is None:
                continue
            quality = Quality.FROM_PROFILE | off
            word = row.values[status].value if status is not None else 0
            if row.time.doubtful or (isinstance(word, int) and word & _STATUS_CLOCK_INVALID):
                quality |= Quality.CLOCK_INVALID
            if isinstance(word, int) and word & _STATUS_INCOMPLETE:
                quality |= Quality.INCOMPLETE
            time_s = self._known.convention.utc_s(row.time)
            values = tuple(v for v, column in zip(row.values, layout.columns, strict=True) if not column.is_time)
            if not first_s <= time_s <= last_s or (time_s, values) in timed:
                continue
            if time_s in stamps:  # an hour that came twice, and nothing tells the first from the second
                repeated.add(time_s)
            stamps.add(time_s)
            timed[time_s, values] = (row, time_s, quality)
        marked = [
            (row, time_s, quality | Quality.CLOCK_INVALID if time_s in repeated else quality)
            for row, time_s, quality in timed.values()
        ]
        return sorted(marked, key=lambda entry: entry[1])


def _groups(column: profile.Column) -> tuple[int, int, int]:
    """Value groups A, C and D of a column of class data, which say what it is."""
    attribute = column.attribute
    name = attribute.name
    return (name.a, name.c, name.d) if attribute.class_id == DATA and attribute.number == VALUE else (-1, -1, -1)
