"""What we know of one meter and how we read it: its registers, scalers, clock and identity; values as `Reading`s.

It decides what to ask the meter and whether to believe the answer. When to ask, and what a failure costs the other
meters of the bus, is the bus's business.

A cumulative value that has decreased, jumped or changed its type is not taken at once: identity and scalers are
read again, then the value. What comes twice is real and flagged; what does not was a wrong octet.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from firmware_io import obis
from firmware_io.clock import Clock
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import Convention, MeterTime
from firmware_io.dlms.cosem.registers import (
    CATALOGUE,
    DATA,
    REGISTER_CLASSES,
    SLACK_WH,
    VALUE,
    Plausibility,
    Register,
    Scale,
    scaler_of,
)
from firmware_io.dlms.session.association import DataAccessError
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Identity
from firmware_io.errors import AccessDenied, RegisterUnavailable, RemoteProtocolError
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Quality, Reading, Unit

CLOCK_SKEW_S = 60.0  # a meter's clock further off than this is flagged
CHECK_EVERY_S = 3600.0  # identity, scalers and clock are looked at again
LATE_S = 1.0  # half the time an exchange took: the sample may be that far off
ROWS_AT_ONCE = 200  # of a profile: bounds one reply, and how long the others wait
EVENT_LOGS = tuple(obis.EVENT_LOG_STANDARD._replace(e=e) for e in range(8))
_EVENT_CODE = (0, 96, 11)  # value groups A, C and D of an event code column
_STATUS = (0, 96, 10)  # of a profile status column
_STATUS_CLOCK_INVALID = 0x02
_STATUS_INCOMPLETE = 0xA5  # critical error, data not valid, clock adjusted, power down

_SERIAL = Attribute(DATA, obis.SERIAL_NUMBER, VALUE)
_FIRMWARE = Attribute(DATA, obis.FIRMWARE_VERSION, VALUE)
_ERRORS = Attribute(DATA, obis.ERROR_REGISTER, VALUE)
CLOCK = Attribute(profile.CLOCK_CLASS, obis.CLOCK, 2)
_MISSING = (
    DataAccessResult.OBJECT_UNDEFINED,
    DataAccessResult.OBJECT_UNAVAILABLE,
    DataAccessResult.OBJECT_CLASS_INCONSISTENT,
    DataAccessResult.READ_WRITE_DENIED,
    DataAccessResult.SCOPE_OF_ACCESS_VIOLATED,
)


class _Profile(NamedTuple):
    columns: tuple[profile.Column, ...]
    period_s: float


class _Sample(NamedTuple):
    """One value as it was read."""

    register: Register
    data: Data
    value: float
    sampled_s: float
    half_s: float

    def agrees(self, before: _Sample) -> bool:
        """Whether an odd value was seen twice, and not once."""
        same_register = self.register == before.register and self.data.tag == before.data.tag
        return same_register and 0 <= self.value - before.value <= SLACK_WH


class MeterReader:
    """One meter over its session; keeps what it has learned over re-associations."""

    def __init__(self, spec: DlmsSpec, session: Session, clock: Clock) -> None:
        self.spec = spec
        self.session = session
        self._clock = clock
        self._registers: tuple[Register, ...] = ()
        self._scales: dict[tuple[int, ObisCode], Scale] = {}
        self._has_errors = True
        self._profiles: dict[ObisCode, _Profile] = {}
        self._absent_logs: set[ObisCode] = set()
        self._plausibility = Plausibility()
        self._convention = Convention()
        self._checked_s = 0.0
        self.identity: Identity | None = None

    def poll(self) -> list[Reading]:
        """All registers of the meter, in one request where it takes lists.

        Raises:
            MeterError: it does not answer, or not as it should.
        """
        if self.identity is None or self._clock.monotonic() - self._checked_s >= CHECK_EVERY_S:
            self.identify()
        readings, doubted = self._sample(self._registers, errors=self._has_errors)
        if doubted:
            self.identify()
            asked = tuple(register for register in self._registers if register.name in doubted)
            again, still = self._sample(asked, errors=False)  # by the scaler that it has now
            readings += again
            readings += [self._confirmed(sample) for name, sample in still.items() if sample.agrees(doubted[name])]
        return readings

    def identify(self) -> Identity:
        """Serial number, firmware, scalers and clock, read from the meter; scalers and registers hold from now on."""
        self._discover()
        serial, firmware, time = self._several((_SERIAL, _FIRMWARE, CLOCK))
        now_s = self._clock.now()
        offset_s, doubtful = None, False
        if isinstance(time, Data) and isinstance(time.value, bytes):
            try:
                meter_time = MeterTime.decode(time.value)
            except RemoteProtocolError:  # a clock that was never set; its registers are as good as any
                meter_time, doubtful = None, True
            if meter_time is not None:
                self._convention = Convention.learn(meter_time, now_s)
                offset_s = self._convention.utc_s(meter_time) - now_s
                doubtful = meter_time.doubtful
        names = tuple(register.name for register in self._registers)
        identity = Identity(text_of(serial), text_of(firmware), names, offset_s, doubtful)
        if self.identity is not None and self.identity.serial != identity.serial:
            self._plausibility.forget()  # another meter hangs here now
            self._profiles.clear()
            self._absent_logs.clear()
        self.identity = identity
        self._checked_s = self._clock.monotonic()
        return identity

    def read_profile(self, first_s: float, last_s: float, name: ObisCode = obis.LOAD_PROFILE) -> list[Reading]:
        """What the load profile holds of the registers between two UTC times, oldest first.

        Raises:
            RegisterUnavailable: the meter has no such profile, or one without times.
        """
        if self.identity is None:
            self.identify()
        layout = self._layout(name)
        scales = {i: scale for i, column in enumerate(layout.columns) if (scale := self._scale_of(column)) is not None}
        readings: list[Reading] = []
        for row, time_s, quality in self._rows(name, layout, first_s, last_s):
            for i, scale in scales.items():
                register = Register(layout.columns[i].attribute.name, layout.columns[i].attribute.class_id, scale)
                with suppress(RemoteProtocolError):  # a cell without a number is a gap
                    value = register.scaled(row.values[i])
                    meter_time_s = row.time.local_s if row.time else None
                    readings.append(
                        Reading(self.spec.id, register.name, value, scale.unit, time_s, 0.0, meter_time_s, quality)
                    )
        return readings

    def read_events(self, since_s: float) -> list[MeterEvent]:
        """Entries of all event logs that are newer than `since_s` (UTC), oldest first."""
        if self.identity is None:
            self.identify()
        received_s = self._clock.now()
        events: list[MeterEvent] = []
        for log in EVENT_LOGS:
            if log in self._absent_logs:
                continue
            try:
                layout = self._layout(log)
                code = next((i for i, c in enumerate(layout.columns) if _groups(c) == _EVENT_CODE), None)
                rows = [] if code is None else self._rows(log, layout, since_s, received_s + CHECK_EVERY_S)
            except (RegisterUnavailable, AccessDenied):
                self._absent_logs.add(log)
                continue
            for row, time_s, _ in rows:
                number = row.values[code].value if code is not None else None
                if time_s > since_s and isinstance(number, int):
                    events.append(MeterEvent(self.spec.id, log, number, time_s, received_s))
        return sorted(events, key=lambda event: event.meter_time_s)

    # Registers

    def _several(self, attributes: Iterable[Attribute]) -> list[Data | DataAccessResult]:
        return self.session.get_list(list(attributes))

    def _discover(self) -> None:
        """Which registers the meter has, under which class, with which scaler; the whole catalogue each time."""
        known = {register.name: register for register in self._registers}
        found: dict[ObisCode, Register] = {}
        names = list(CATALOGUE)
        for class_id in REGISTER_CLASSES:
            asked = [n for n in names if n not in known or known[n].class_id == class_id]
            results = self._several(scaler_of(name, class_id) for name in asked)
            for name, result in zip(asked, results, strict=True):
                if isinstance(result, Data):
                    with suppress(RemoteProtocolError):  # a unit that we do not read
                        found[name] = Register(name, class_id, Scale.decode(result))
                elif name in known and result not in _MISSING:
                    found[name] = known[name]  # for the moment only
                if result is not DataAccessResult.OBJECT_CLASS_INCONSISTENT and name not in known:
                    names.remove(name)
            names = [name for name in names if name not in found]
        if any(found.get(name, register) != register for name, register in known.items()):
            self._plausibility.forget()  # another scaler: the old values are no measure of the new ones
        self._registers = tuple(found[name] for name in CATALOGUE if name in found)
        self._scales = {(r.class_id, r.name): r.scale for r in self._registers}

    def _sample(self, asked: tuple[Register, ...], *, errors: bool) -> tuple[list[Reading], dict[ObisCode, _Sample]]:
        """Read registers now: the readings, and the samples whose value is odd."""
        attributes = [register.value for register in asked]
        if errors:
            attributes.append(_ERRORS)
        before_s = self._clock.now()
        results = self._several(attributes)
        half_s = max(0.0, (self._clock.now() - before_s) / 2)
        sampled_s, now = before_s + half_s, self._clock.monotonic()
        readings: list[Reading] = []
        doubted: dict[ObisCode, _Sample] = {}
        for register, result in zip(asked, results, strict=False):
            if not isinstance(result, Data) or result.tag == Tag.NULL:
                continue
            sample = _Sample(register, result, register.scaled(result), sampled_s, half_s)
            if self._plausibility.doubt(register, result, sample.value, now) is not None:
                doubted[register.name] = sample
                continue
            self._plausibility.believe(register, result, sample.value, now)
            readings.append(self._reading(sample))
        if errors:
            readings += self._error_reading(results[-1], sampled_s, half_s)
        return readings, doubted

    def _confirmed(self, sample: _Sample) -> Reading:
        """A value as odd as the one before it: that is what the meter shows."""
        self._plausibility.believe(sample.register, sample.data, sample.value, self._clock.monotonic())
        return self._reading(sample, Quality.SUSPECT)

    def _reading(self, sample: _Sample, quality: Quality = Quality.GOOD) -> Reading:
        late = Quality.LATE if sample.half_s > LATE_S else Quality.GOOD
        name, unit = sample.register.name, sample.register.scale.unit
        return Reading(self.spec.id, name, sample.value, unit, sample.sampled_s, sample.half_s, None, quality | late)

    def _error_reading(self, result: Data | DataAccessResult, sampled_s: float, half_s: float) -> list[Reading]:
        """The error register as a number: meters have it as one, as octets or as bits."""
        if not isinstance(result, Data):
            self._has_errors = result not in _MISSING
            return []
        value = result.value
        if isinstance(value, bytes):
            value = int.from_bytes(value[:6], "big")
        elif isinstance(value, str):
            value = int(value, 2) if result.tag == Tag.BIT_STRING and value and len(value) <= 48 else None
        if not isinstance(value, int | float):
            return []
        return [Reading(self.spec.id, obis.ERROR_REGISTER, float(value), Unit.COUNT, sampled_s, half_s)]

    # Profiles

    def _layout(self, name: ObisCode) -> _Profile:
        if name not in self._profiles:
            self._profiles[name] = _Profile(*self.session.capture_objects(name))
        return self._profiles[name]

    def _scale_of(self, column: profile.Column) -> Scale | None:
        """The scale of a register's column; None for other columns."""
        attribute = column.attribute
        if attribute.class_id not in REGISTER_CLASSES or attribute.number != VALUE or column.element:
            return None
        key = (attribute.class_id, attribute.name)
        if key not in self._scales:
            try:
                self._scales[key] = Scale.decode(self.session.get(scaler_of(attribute.name, attribute.class_id)))
            except (RegisterUnavailable, AccessDenied):
                return None
        return self._scales[key]

    def _rows(
        self, name: ObisCode, layout: _Profile, first_s: float, last_s: float
    ) -> list[tuple[profile.Row, float, Quality]]:
        """Rows between two UTC times with their UTC time and quality, oldest first."""
        try:
            rows = self._rows_by_range(name, layout, first_s, last_s)
        except DataAccessError as error:
            if error.result in _MISSING:
                raise
            rows = self._rows_by_entry(name, layout, first_s)
        return self._timed(rows, layout, first_s, last_s)

    def _rows_by_range(self, name: ObisCode, layout: _Profile, first_s: float, last_s: float) -> list[profile.Row]:
        step_s = layout.period_s * ROWS_AT_ONCE if layout.period_s > 0 else last_s - first_s
        rows: list[profile.Row] = []
        start_s = first_s
        while True:
            end_s = min(start_s + step_s, last_s)
            bounds = (self._convention.meter_time(t) for t in (start_s, end_s))
            rows += self.session.read_profile(name, layout.columns, layout.period_s, *bounds)
            if end_s >= last_s:
                break
            start_s = end_s  # a row at the seam comes twice, and is taken once
        return rows

    def _rows_by_entry(self, name: ObisCode, layout: _Profile, first_s: float) -> list[profile.Row]:
        """For a meter that selects by entry only: enough of the newest rows, or all where they have no period."""
        in_use = self.session.get(Attribute(profile.CLASS, name, profile.ENTRIES_IN_USE)).value
        if not isinstance(in_use, int) or in_use < 1:
            return []
        wanted = in_use
        if layout.period_s > 0:
            wanted = min(in_use, int((self._clock.now() - first_s) / layout.period_s) + 2)
        rows: list[profile.Row] = []
        for start in range(in_use - wanted + 1, in_use + 1, ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE - 1, in_use)
            rows += self.session.read_entries(name, layout.columns, layout.period_s, start, end)
        return rows

    def _timed(
        self, rows: list[profile.Row], layout: _Profile, first_s: float, last_s: float
    ) -> list[tuple[profile.Row, float, Quality]]:
        status = next((i for i, column in enumerate(layout.columns) if _groups(column) == _STATUS), None)
        offset_s = self.identity.clock_offset_s if self.identity else None
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
            time_s = self._convention.utc_s(row.time)
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


def text_of(result: Data | DataAccessResult) -> str | None:
    """A serial number or version as text, however the meter stores it."""
    if not isinstance(result, Data) or result.value is None:
        return None
    if isinstance(result.value, bytes):
        octets = result.value.rstrip(b"\x00 ")
        return octets.decode("ascii") if octets.isascii() and octets.decode("ascii").isprintable() else octets.hex()
    return str(result.value).strip()
