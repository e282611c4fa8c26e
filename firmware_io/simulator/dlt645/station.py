"""A simulated DL/T 645-2007 meter on a shared line: which frames it answers, and what it says.

Its registers, clock, log and faults are those of `SimulatedMeter`; a meter of this protocol holds its load records
for a quarter of an hour each.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from firmware_io.asking.exchange import Framer
from firmware_io.clock import local_time
from firmware_io.dlt645 import frame as wire
from firmware_io.dlt645 import registers as table
from firmware_io.dlt645.frame import Frame
from firmware_io.simulator.line.shared import Modem
from firmware_io.simulator.line.station import Piece
from firmware_io.simulator.meter.meter import SimulatedMeter

PERIOD_S = 900
DAY_S = 86_400
MAX_DATA = wire.MAX_READ_DATA - 5  # the identifier and a sequence number stand in the same frame
MAX_RECORDS = 10
LATEST_SET_S = 300.0  # a broadcast moves the clock by so much and no more
PASSWORD = bytes((0x02, 0x00, 0x00, 0x00))


class Dlt645Station:
    """See `shared.Listener`. `single_phase` meters have no blocks of three phases."""

    def __init__(
        self,
        meter: SimulatedMeter,
        address: str,
        *,
        timezone: str = "UTC",
        password: bytes = PASSWORD,
        rates: bool = True,
        load_records: bool = True,
        parity: bool = True,
        wake_up: int = 4,
    ) -> None:
        self.meter = meter
        self.address = wire.address_of(address)
        self._zone = ZoneInfo(timezone)
        self._password = password
        self._rates = rates
        self._load_records = load_records
        self._wake_up = wake_up
        self._framer: Framer[Frame] = Framer(wire.parse, 2 * wire.LONGEST)
        self._modem = Modem(meter.faults, meter.now, parity=parity)
        self._rest: tuple[bytes, list[bytes]] | None = None  # identifier, frames to follow
        self._broadcast_day = -1
        self._date: tuple[int, int, int] | None = None  # written, until the time follows

    def hear(self, octets: bytes, *, torn: bool) -> bytes:
        if torn:
            self._framer.idle()  # the rest of a question that was never finished
        reply = b""
        for frame in self._framer.receive(octets):
            answer = None if frame.is_reply else self._answer(frame)
            if answer is not None:
                reply = answer.encode(self._wake_up)
        return reply

    def modem(self, answer: bytes, question_end_s: float) -> list[Piece]:
        other = bytes((self.address[0] ^ 0x01, *self.address[1:]))
        lie = Frame(other, wire.READ | wire.REPLY, table.di_octets(0x00010000, 2007) + wire.to_bcd(66666666, 4))
        return self._modem.pieces(answer, lie.encode(), question_end_s)

    def _answer(self, frame: Frame) -> Frame | None:
        if frame.address == wire.BROADCAST:
            if frame.control == wire.TIME_BROADCAST:
                self._broadcast(frame.data)
            return None
        if not wire.covers(frame.address, self.address):
            return None
        if frame.control == wire.READ_ADDRESS:
            return Frame(self.address, wire.READ_ADDRESS | wire.REPLY, self.address)
        if frame.control == wire.READ and len(frame.data) >= 4:
            octets = self._value(int.from_bytes(frame.data[:4], "little"), frame.data[4:])
            if octets is None or self.meter.faults.strikes("undefined_object", self.meter.now()):
                return self._refusal(frame, wire.NO_DATA)
            return self._first(frame.data[:4], octets)
        if frame.control == wire.READ_ON and len(frame.data) == 5:
            return self._next(frame)
        if frame.control == wire.WRITE and len(frame.data) >= 12:
            return self._written(frame)
        return self._refusal(frame, wire.OTHER_ERROR)

    def _refusal(self, frame: Frame, word: int) -> Frame:
        return Frame(self.address, frame.control | wire.REPLY | wire.ABNORMAL, bytes((word,)))

    def _first(self, identifier: bytes, octets: bytes) -> Frame:
        parts = [octets[at : at + MAX_DATA] for at in range(0, len(octets), MAX_DATA)] or [b""]
        self._rest = (identifier, parts[1:])
        control = wire.READ | wire.REPLY | (wire.FOLLOW_ON if parts[1:] else 0)
        return Frame(self.address, control, identifier + parts[0])

    def _next(self, frame: Frame) -> Frame:
        sequence = frame.data[4]
        if self._rest is None or self._rest[0] != frame.data[:4] or not 1 <= sequence <= len(self._rest[1]):
            return self._refusal(frame, wire.NO_DATA)
        more = sequence < len(self._rest[1])
        control = wire.READ_ON | wire.REPLY | (wire.FOLLOW_ON if more else 0)
        return Frame(self.address, control, frame.data[:4] + self._rest[1][sequence - 1] + frame.data[4:])

    # Clock

    def _local(self, utc_s: float) -> datetime:
        return local_time(utc_s, self._zone)

    def _shown(self) -> datetime:
        return self._local(self.meter.clock.shown_s(self.meter.now()))

    def _broadcast(self, octets: bytes) -> None:
        local = table.moment(octets)
        now = self.meter.now()
        if local is None or self._broadcast_day == int(now // DAY_S):
            return
        told_s = local.replace(tzinfo=self._zone).timestamp()
        if abs(told_s - self.meter.clock.shown_s(now)) <= LATEST_SET_S:
            self._broadcast_day = int(now // DAY_S)
            self.meter.set_clock(told_s)

    def _written(self, frame: Frame) -> Frame:
        if frame.data[4:8] != self._password:
            return self._refusal(frame, wire.NOT_AUTHORISED)
        di, octets = int.from_bytes(frame.data[:4], "little"), frame.data[12:]
        shown = self._shown()
        if di == table.DATE and len(octets) == 4:
            local = table.moment(_time(shown)[:3] + octets[1:])
        elif di == table.TIME and len(octets) == 3:
            local = table.moment(octets + _time(shown)[3:])
        else:
            return self._refusal(frame, wire.NO_DATA)
        if local is None:
            return self._refusal(frame, wire.OTHER_ERROR)
        self.meter.set_clock(local.replace(tzinfo=self._zone).timestamp())
        return Frame(self.address, wire.WRITE | wire.REPLY)

    # Values

    def _value(self, di: int, more: bytes) -> bytes | None:
        meter, now = self.meter, self.meter.now()
        serial = meter.serial_number()
        if di == table.METER_NUMBER:
            return wire.to_bcd(int("".join(c for c in serial if c.isdigit()) or 0) + 10**9 * serial.count("R"), 6)
        if di == table.SOFTWARE:
            return b"checkmeter-sim".ljust(32, b"\x00")[::-1]
        if di in (table.DATE, table.TIME):
            stamp, weekday = _time(self._shown()), self._shown().isoweekday() % 7
            return bytes((weekday,)) + stamp[3:] if di == table.DATE else stamp[:3]
        energies = self._energies(di, now)
        if energies is not None:
            return energies
        if di >> 24 == 0x02:
            return self._live(di)
        if di >> 24 == 0x03:
            return self._event(di)
        if di >> 8 == table.FREEZE_TIME >> 8 or di >> 8 in (table.FREEZE_IMPORT >> 8, table.FREEZE_EXPORT >> 8):
            return self._freeze(di)
        if di == table.LOAD_RECORDS and self._load_records and len(more) == 6:
            return self._records(more)
        return None

    def _energies(self, di: int, now: float) -> bytes | None:
        imported, exported = self.meter.energy_wh(now)
        match di:
            case 0x00010000:
                return _kwh(imported)
            case 0x00020000:
                return _kwh(exported)
            case 0x0001FF00 if self._rates:
                day, night = self.meter.rates_wh()
                return _kwh(imported) + _kwh(day) + _kwh(night) + _kwh(0) + _kwh(0)
            case 0x0002FF00 if self._rates:
                return _kwh(exported) + _kwh(exported) + _kwh(0) * 3
        return None

    def _live(self, di: int) -> bytes | None:
        live = self.meter.live()
        three = len(live.voltages_v) == 3
        match di:
            case 0x0201FF00 if three:
                return b"".join(wire.to_bcd(round(v * 10), 2) for v in live.voltages_v)
            case 0x02010100:
                return wire.to_bcd(round(live.voltages_v[0] * 10), 2)
            case 0x0202FF00 if three:
                return b"".join(wire.to_bcd(round(a * 1000), 3, signed=True) for a in live.currents_a)
            case 0x02020100:
                return wire.to_bcd(round(live.currents_a[0] * 1000), 3, signed=True)
            case 0x02030000:
                return wire.to_bcd(round(live.power_w * 10), 3, signed=True)
            case 0x02060000:
                return wire.to_bcd(round(live.power_factor * 1000), 2, signed=True)
            case 0x02800001:
                return wire.to_bcd(round(live.neutral_a * 1000), 3, signed=True)
            case 0x02800002:
                return wire.to_bcd(5000, 2)
        return None

    def _event(self, di: int) -> bytes | None:
        back = di & 0xFF
        for kind in table.EVENTS:
            if kind.counter != di - back:
                continue
            fraud = kind.begins >= 40
            times = self.meter.log.entries(fraud, self.meter.now())
            begins = [entry.time_s for entry in times if entry.code == kind.begins]
            if not back:
                return wire.to_bcd(len(begins), 3)
            if back > min(len(begins), MAX_RECORDS):
                return None
            begin_s = begins[-back]
            end_s = next((e.time_s for e in times if e.code == kind.ends and e.time_s >= begin_s), None)
            shown = self.meter.clock.shown_s
            end = _time(self._local(shown(end_s))) if end_s is not None else bytes(6)
            return _time(self._local(shown(begin_s))) + end + bytes(20)
        return None

    def _freeze(self, di: int) -> bytes | None:
        back = di & 0xFF
        midnight = self._shown().replace(hour=0, minute=0, second=0, microsecond=0)
        frozen_s = midnight.timestamp() - (back - 1) * DAY_S
        if not 1 <= back <= table.MAX_FREEZES or frozen_s < self.meter.installed_s:
            return None
        if di >> 8 == table.FREEZE_TIME >> 8:
            return _time(self._local(frozen_s))[1:]
        true_s = frozen_s - self.meter.clock.offset_s(self.meter.now())
        imported, exported = self.meter.energy_wh(true_s)
        return _kwh(imported if di >> 8 == table.FREEZE_IMPORT >> 8 else exported) + _kwh(0) * 4

    def _records(self, more: bytes) -> bytes | None:
        local = table.moment(more[1:])
        if local is None:
            return None
        offset_s = self.meter.clock.offset_s(self.meter.now())
        first_s = local.replace(tzinfo=self._zone).timestamp()
        first_s = max(first_s, self.meter.installed_s + offset_s)
        shown_s = -(-first_s // PERIOD_S) * PERIOD_S
        octets = b""
        for _ in range(min(wire.bcd_number(more[:1]) or 0, 99)):
            if shown_s - offset_s > self.meter.now():
                break
            imported, exported = self.meter.energy_wh(shown_s - offset_s)
            body = _time(self._local(shown_s))[1:] + b"\xaa" * 3
            body += _kwh(imported) + _kwh(exported) + bytes(8) + b"\xaa" * 3
            record = bytes((0xA0, 0xA0, len(body))) + body
            octets += record + bytes((sum(record) & 0xFF, 0xE5))
            shown_s += PERIOD_S
        return octets or None


def _kwh(energy_wh: float) -> bytes:
    return wire.to_bcd(int(energy_wh // 10), 4)


def _time(local: datetime) -> bytes:
    """ss mm hh DD MM YY."""
    parts = (local.second, local.minute, local.hour, local.day, local.month, local.year % 100)
    return b"".join(wire.to_bcd(part, 1) for part in parts)
