"""One DL/T 645 meter behind the driver seam: which identifiers it has, its registers, clock, freezes and events.

It knows nothing of the line's other meters. What a meter refuses is not asked again until it is identified anew.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from firmware_io import obis
from firmware_io.asking.exchange import Answer, Asker, Question, Timing
from firmware_io.asking.sampling import Doubts, Sampler, Value
from firmware_io.clock import Clock, local_time
from firmware_io.dlt645 import frame as wire
from firmware_io.dlt645 import registers as table
from firmware_io.dlt645.frame import Frame
from firmware_io.dlt645.registers import EventKind, Field, Item
from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import AccessDenied, RegisterUnavailable, RemoteProtocolError
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Quality, Reading, Unit

MAX_FOLLOW_ON = 64  # frames of one answer: bounds a meter that never comes to an end
MAX_ROWS = 8_192  # of a profile: three months of quarter hours
RECORDS_AT_ONCE = 6  # of load records: 200 octets hold so many
CHECK_EVERY_S = 21_600.0  # who the meter is, asked again
BROADCAST_REACH_S = 300.0  # further than that no meter lets itself be set by a broadcast (2007 clause 7.2)


@dataclass(frozen=True, slots=True)
class Dlt645Spec:
    """One meter. `address` is up to twelve digits, as printed on it; `timezone` is what its clock shows.

    `password` is four octets as they are sent: the level PA and P0, P1, P2; only setting the clock needs it.
    """

    id: str
    address: str
    edition: Literal[2007, 1997] = 2007
    live: bool = True  # power, voltages, currents with each poll; energy alone is half the time of the line
    rates: bool = False  # the energy of the four rates too
    timezone: str = "UTC"
    password: bytes | None = field(default=None, repr=False)
    operator: bytes = bytes(4)
    wake_up: int = 4
    min_gap_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises: ValueError: no address, or a password or operator that is not four octets."""
        if wire.ANYBODY[:1] in wire.address_of(self.address):
            raise ValueError(f"meter {self.id}: the address of a meter has no wildcards, got {self.address!r}")
        for name, octets in (("password", self.password), ("operator", self.operator)):
            if octets is not None and len(octets) != 4:
                raise ValueError(f"meter {self.id}: {name} has 4 octets (level and three more), got {len(octets)}")


class Dlt645Driver:
    """See `driver.MeterDriver` and `driver.HasClock`."""

    def __init__(self, spec: Dlt645Spec, timing: Timing, clock: Clock) -> None:
        self.spec = spec
        self._address = wire.address_of(spec.address)
        self._clock = clock
        self._zone = ZoneInfo(spec.timezone)
        self._asker = Asker(spec.id, timing, clock.now, gap_s=spec.min_gap_s)
        self._sampler = Sampler(spec.id, clock)
        self._items: tuple[Item, ...] = ()
        self._counts: dict[int, int] = {}  # events by counter, when they were last read
        self._identity: Identity | None = None
        self._checked_s = 0.0

    @property
    def identity(self) -> Identity | None:
        return self._identity

    @property
    def traffic(self) -> Traffic:
        return self._asker.traffic

    @property
    def doubts(self) -> Doubts:
        """Values that were not taken as they came."""
        return self._sampler.doubts

    def poll(self, line: Line) -> list[Reading]:
        if self._identity is None or self._clock.monotonic() - self._checked_s >= CHECK_EVERY_S:
            self.identify(line)
        return self._sampler.readings(lambda: self._values(line), lambda: self.identify(line))

    def identify(self, line: Line) -> Identity:
        found = [item for wanted in self._wanted() if (item := self._discover(line, wanted)) is not None]
        if not found:
            raise RemoteProtocolError(
                "answers, but has no register of its edition that we know; try the other edition", meter=self.spec.id
            )
        number = table.METER_NUMBER if self.spec.edition == 2007 else table.METER_NUMBER_1997
        serial = self._optional(line, number)
        firmware = self._optional(line, table.SOFTWARE) if self.spec.edition == 2007 else None
        offset_s, doubtful = None, False
        with suppress(RegisterUnavailable):
            try:
                offset_s = self.read_clock(line) - self._clock.now()
            except RemoteProtocolError:  # a clock that was never set; its registers are as good as any
                doubtful = True
        identity = Identity(
            _number_text(serial) or wire.digits_of(self._address),
            _ascii_text(firmware),
            tuple(value.obis for item in found for value in item.fields),
            offset_s,
            doubtful,
        )
        if self._identity is not None and self._identity.serial != identity.serial:
            self._sampler.forget()
            self._counts.clear()
        self._items, self._identity = tuple(found), identity
        self._checked_s = self._clock.monotonic()
        return identity

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        """Load records where the meter has them, daily freezes else."""
        if self.spec.edition != 2007:
            return []
        try:
            return self._load_profile(line, first_s, last_s)
        except RegisterUnavailable:
            return self._freezes(line, first_s, last_s)

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        """Records of covers, magnetic fields and power cuts; only kinds whose counter has moved are read."""
        events: list[MeterEvent] = []
        for kind in table.EVENTS if self.spec.edition == 2007 else ():
            octets = self._optional(line, kind.counter)
            count = None if octets is None else wire.bcd_number(octets[:3])
            if count is None:
                continue
            before = self._counts.get(kind.counter, 0)
            fresh = count - before if count >= before else count  # the counter was cleared
            events += self._records(line, kind, min(fresh, table.MAX_RECORDS), since_s)
            self._counts[kind.counter] = count
        return sorted(events, key=lambda event: event.meter_time_s)

    def keep_alive(self, line: Line) -> None:
        """Nothing is open over this protocol."""

    def read_clock(self, line: Line) -> float:
        modern = self.spec.edition == 2007
        date_id, time_id = (table.DATE, table.TIME) if modern else (table.DATE_1997, table.TIME_1997)
        date = self._read(line, date_id).frame.data
        time = self._read(line, time_id).frame.data
        if len(time) == 3 and time[2] == 0x00 and time[1] == 0x00:
            date = self._read(line, date_id).frame.data  # midnight may have passed between the two
        # The date has the day of the week first.
        local = table.moment(time + date[1:4]) if (len(date), len(time)) == (4, 3) else None
        if local is None:
            raise RemoteProtocolError(f"its clock shows {time.hex()} {date.hex()}: set it", meter=self.spec.id)
        return self._utc_s(local)

    def set_clock(self, line: Line, utc_s: float) -> None:
        """With a password, this meter's; without one by a broadcast, which sets every meter of the line.

        Raises:
            AccessDenied: the meter takes neither.
        """
        if self.spec.edition == 2007 and self.spec.password is not None:
            local = local_time(utc_s, self._zone)
            weekday = local.isoweekday() % 7
            date = _pairs(weekday, local.day, local.month, local.year % 100)
            self._write(line, table.DATE, date)
            self._write(line, table.TIME, _pairs(local.second, local.minute, local.hour))
            return
        asked_s = self._clock.now()
        local = local_time(utc_s, self._zone)
        octets = _pairs(local.second, local.minute, local.hour, local.day, local.month, local.year % 100)
        self._asker.tell(line, Frame(wire.BROADCAST, wire.TIME_BROADCAST, octets).encode(self.spec.wake_up))
        self._asker.rest(line, 0.5)
        off_s = self.read_clock(line) - (utc_s + self._clock.now() - asked_s)
        if abs(off_s) > 5.0:
            raise AccessDenied(
                f"its clock is still {off_s:+.0f} s off: a broadcast moves it by {BROADCAST_REACH_S:.0f} s at most and "
                f"once a day; give its password",
                meter=self.spec.id,
            )

    # Registers

    def _wanted(self) -> list[Item]:
        items = list(table.ITEMS_2007 if self.spec.edition == 2007 else table.ITEMS_1997)
        if self.spec.rates and self.spec.edition == 2007:
            items[:2] = [table.IMPORT_RATES, table.EXPORT_RATES]
        return [item for item in items if self.spec.live or not item.live]

    def _discover(self, line: Line, item: Item) -> Item | None:
        """The item as this meter has it, None where it has not."""
        try:
            octets = self._read(line, item.di).frame.data
            return item._replace(fields=_present(item.fields, octets)) if _values(item.fields, octets) else None
        except RegisterUnavailable:
            if item.single is None:
                return None
            return self._discover(line, Item(item.single, item.fields[:1], live=item.live))

    def _values(self, line: Line) -> list[Value]:
        values: list[Value] = []
        for item in self._items:
            try:
                answer = self._read(line, item.di)
            except RegisterUnavailable:
                continue  # not now; the others are still good
            for known, number in _values(item.fields, answer.frame.data):
                values.append(Value(known.obis, number, known.unit, answer.asked_s, answer.heard_s))
                if known.obis == obis.POWER_IMPORT:
                    values[-1] = values[-1]._replace(value=max(number, 0.0))
                    export = values[-1]._replace(obis=obis.POWER_EXPORT, value=max(-number, 0.0))
                    values.append(export)
        return values

    # Profiles and events

    def _load_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        readings: list[Reading] = []
        cursor = local_time(first_s, self._zone)
        seen_s = float("-inf")
        for _ in range(MAX_ROWS // RECORDS_AT_ONCE):
            asked = _pairs(RECORDS_AT_ONCE, cursor.minute, cursor.hour, cursor.day, cursor.month, cursor.year % 100)
            try:
                octets = self._read(line, table.LOAD_RECORDS, asked).frame.data
            except RegisterUnavailable:
                if not readings and seen_s == float("-inf"):
                    raise
                break  # it has come to its end
            fresh = [(time_s, r) for r in table.load_records(octets) if (time_s := self._utc_s(r.time)) > seen_s]
            for time_s, record in fresh:
                if first_s <= time_s <= last_s:
                    local_s = record.time.timestamp()
                    readings.append(self._stored(obis.ENERGY_IMPORT, record.import_wh, time_s, local_s))
                    if record.export_wh is not None:
                        readings.append(self._stored(obis.ENERGY_EXPORT, record.export_wh, time_s, local_s))
            if not fresh or fresh[-1][0] >= last_s:
                break
            seen_s = fresh[-1][0]
            cursor = local_time(seen_s + 60.0, self._zone)
        return readings

    def _freezes(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        readings: list[Reading] = []
        for back in range(1, table.MAX_FREEZES + 1):
            octets = self._optional(line, table.FREEZE_TIME + back)
            local = None if octets is None else table.moment(octets)
            if local is None or (time_s := self._utc_s(local)) < first_s:
                break
            if time_s > last_s:
                continue
            for name, di in ((obis.ENERGY_IMPORT, table.FREEZE_IMPORT), (obis.ENERGY_EXPORT, table.FREEZE_EXPORT)):
                energy = self._optional(line, di + back)
                number = None if energy is None or len(energy) < 4 else wire.bcd_number(energy[:4])
                if number is not None:
                    readings.append(self._stored(name, number * 10.0, time_s, local.timestamp()))
        return sorted(readings, key=lambda reading: reading.sampled_s)

    def _stored(self, name: ObisCode, value: float, time_s: float, local_s: float) -> Reading:
        return Reading(self.spec.id, name, value, Unit.WATT_HOUR, time_s, 0.0, local_s, Quality.FROM_PROFILE)

    def _records(self, line: Line, kind: EventKind, count: int, since_s: float) -> list[MeterEvent]:
        events: list[MeterEvent] = []
        received_s = self._clock.now()
        for back in range(1, count + 1):
            octets = self._optional(line, kind.records + back)
            begin = None if octets is None else table.moment(octets[:6])
            if octets is None or begin is None:
                break
            end = table.moment(octets[6:12])
            for code, local in ((kind.begins, begin), (kind.ends, end)):
                if code is not None and local is not None and (time_s := self._utc_s(local)) > since_s:
                    events.append(MeterEvent(self.spec.id, kind.log, code, time_s, received_s))
            if self._utc_s(begin) <= since_s:
                break
        return events

    def _utc_s(self, local: datetime) -> float:
        """UTC seconds of a local time that came without a zone."""
        return local.replace(tzinfo=self._zone).timestamp()

    # Services

    def _read(self, line: Line, di: int, more: bytes = b"") -> Answer[Frame]:
        """The data behind an identifier, of all frames that it takes.

        Raises:
            RegisterUnavailable: the meter says that it has no such data.
            AccessDenied: it says that we may not.
        """
        modern = self.spec.edition == 2007
        identifier = table.di_octets(di, self.spec.edition)
        control = wire.READ if modern else wire.READ_1997
        answer = self._ask(line, control, identifier + more, di, identifier)
        collected = answer.frame.data[len(identifier) :]
        follow_on, sequence = answer.frame.follow_on, 1
        while follow_on:
            if sequence > MAX_FOLLOW_ON:
                raise RemoteProtocolError(f"{di:08X} has no end after {sequence} frames", meter=self.spec.id)
            ask = identifier + (bytes((sequence,)) if modern else b"")
            end = bytes((sequence,)) if modern else b""
            part = self._ask(line, wire.READ_ON if modern else wire.READ_ON_1997, ask, di, identifier, end)
            collected += part.frame.data[len(identifier) : len(part.frame.data) - len(end)]
            follow_on, sequence = part.frame.follow_on, sequence + 1
        return answer._replace(frame=answer.frame._replace(data=collected))

    def _optional(self, line: Line, di: int) -> bytes | None:
        try:
            return self._read(line, di).frame.data
        except RegisterUnavailable:
            return None

    def _write(self, line: Line, di: int, octets: bytes) -> None:
        assert self.spec.password is not None
        self._ask(
            line,
            wire.WRITE,
            table.di_octets(di, 2007) + self.spec.password + self.spec.operator + octets,
            di,
            b"",
        )

    def _ask(self, line: Line, control: int, octets: bytes, di: int, begins: bytes, ends: bytes = b"") -> Answer[Frame]:
        def answers(reply: Frame) -> bool:
            ours = reply.address == self._address and reply.is_reply and not (reply.control ^ control) & wire.FUNCTION
            if not ours:
                return False
            said = reply.data
            long_enough = len(said) >= len(begins) + len(ends)
            return reply.abnormal or (long_enough and said.startswith(begins) and said.endswith(ends))

        request = wire.encode(self._address, control, octets, self.spec.wake_up)
        answer = self._asker.ask(line, Question(request, wire.parse, answers, wire.LONGEST, f"{di:08X}"))
        if answer.frame.abnormal:
            word = answer.frame.data[0] if answer.frame.data else 0
            text = f"{di:08X}: {wire.error_text(word)}"
            if word & wire.NOT_AUTHORISED:
                raise AccessDenied(f"{text}; check the password, three wrong ones lock the meter", meter=self.spec.id)
            raise RegisterUnavailable(text, meter=self.spec.id)
        return answer


def _values(fields: tuple[Field, ...], octets: bytes) -> list[tuple[Field, float]]:
    """Fields and their values, as far as the data reach and are numbers."""
    values: list[tuple[Field, float]] = []
    at = 0
    for known in fields:
        number = known.at(octets, at)
        at += known.octets
        if number is not None:
            values.append((known, number))
    return values


def _present(fields: tuple[Field, ...], octets: bytes) -> tuple[Field, ...]:
    """Fields that the data reach; those without a value now may have one later."""
    reach = 0
    present: list[Field] = []
    for known in fields:
        reach += known.octets
        if reach <= len(octets):
            present.append(known)
    return tuple(present)


def _pairs(*numbers: int) -> bytes:
    """Two BCD digits each."""
    return b"".join(wire.to_bcd(number, 1) for number in numbers)


def _number_text(octets: bytes | None) -> str | None:
    if not octets or wire.bcd_number(octets) in (None, 0):
        return None
    return wire.digits_of(octets)


def _ascii_text(octets: bytes | None) -> str | None:
    """A text that is sent last character first, as all of this protocol's fields are."""
    if not octets:
        return None
    text = octets[::-1].decode("ascii", "replace").strip("\x00 ")
    return text if text and text.isprintable() else None
