"""A simulated DL/T 698.45 meter on a shared line: CONNECT, GET of attributes and of freeze records.

`login` says what it wants before it shows its registers: nothing, a CONNECT of anybody, or one with its password.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from firmware_io.asking.exchange import Framer
from firmware_io.clock import local_time
from firmware_io.dlt698 import apdu
from firmware_io.dlt698 import frame as wire
from firmware_io.dlt698.driver import CLOCK, FROZEN_AT, NUMBER
from firmware_io.dlt698.frame import Frame
from firmware_io.dlt698.scan import ADDRESS
from firmware_io.simulator.line.shared import Modem
from firmware_io.simulator.line.station import Piece
from firmware_io.simulator.meter.meter import SimulatedMeter

NO_OBJECT, NO_RIGHT = 4, 3
PASSWORD = b"00000000"
PERIOD_S, DAY_S = 900, 86_400


class Dlt698Station:
    """See `shared.Listener`."""

    def __init__(
        self,
        meter: SimulatedMeter,
        address: bytes,
        *,
        timezone: str = "UTC",
        parity: bool = True,
        login: Literal["none", "public", "password"] = "none",
        password: bytes = PASSWORD,
        minute_freezes: bool = True,
    ) -> None:
        self.meter = meter
        self.address = address
        self._zone = ZoneInfo(timezone)
        self._login, self._password = login, password
        self._minute_freezes = minute_freezes
        self._open_until_s = float("-inf")
        self._framer: Framer[Frame] = Framer(wire.parse, 2 * wire.LONGEST)
        self._modem = Modem(meter.faults, meter.now, parity=parity)

    def hear(self, octets: bytes, *, torn: bool) -> bytes:
        if torn:
            self._framer.idle()
        reply = b""
        for frame in self._framer.receive(octets):
            if frame.control == wire.REQUEST and wire.covers(frame.address, self.address):
                reply = Frame(self.address, wire.RESPONSE, self._answer(frame.apdu), frame.client).encode()
        return reply

    def modem(self, answer: bytes, question_end_s: float) -> list[Piece]:
        other = bytes((self.address[0] ^ 1, *self.address[1:]))
        said = bytes.fromhex("85010100100200 01 0101 06 04000000 00 00")
        return self._modem.pieces(answer, Frame(other, wire.RESPONSE, said).encode(), question_end_s)

    def _answer(self, request: bytes) -> bytes:
        if request[:1] == bytes((apdu.CONNECT,)) and len(request) > 39:
            return self._connect(request)
        if request[:1] == bytes((apdu.RELEASE,)) and len(request) > 1:
            self._open_until_s = float("-inf")
            return bytes((apdu.RELEASE | 0x80, request[1], 0, 0, 0))
        if request[:2] == bytes((apdu.GET, apdu.RECORD)) and len(request) > 29:
            return bytes((apdu.GET_RESPONSE, apdu.RECORD, request[2])) + self._records(request[3:]) + b"\x00\x00"
        if request[:2] == bytes((apdu.GET, apdu.NORMAL)) and len(request) >= 7:
            return bytes((apdu.GET_RESPONSE, apdu.NORMAL, request[2])) + self._result(request[3:7]) + b"\x00\x00"
        if request[:2] == bytes((apdu.GET, apdu.LIST)) and len(request) >= 4 + 4 * request[3]:
            names = [request[4 + 4 * n : 8 + 4 * n] for n in range(request[3])]
            head = bytes((apdu.GET_RESPONSE, apdu.LIST, request[2], request[3]))
            return head + b"".join(map(self._result, names)) + b"\x00\x00"
        return bytes((apdu.ERROR_RESPONSE, request[2] if len(request) > 2 else 0, 1))

    def _connect(self, request: bytes) -> bytes:
        """Open to everybody, or to who knows the password; the answer repeats what was proposed."""
        proposed, mechanism = request[2:39], request[39]
        said = request[41 : 41 + request[40]] if mechanism == 1 else b""
        wrong = self._login == "password" and said != self._password
        if not wrong:
            self._open_until_s = self.meter.now() + int.from_bytes(proposed[-4:], "big")
        return bytes((apdu.CONNECT_RESPONSE, request[1])) + bytes(32) + proposed + bytes((wrong, 0, 0, 0))

    @property
    def _closed(self) -> bool:
        return self._login != "none" and self.meter.now() > self._open_until_s

    def _records(self, request: bytes) -> bytes:
        """The rows of a freeze table that selector 2 names."""
        table = int.from_bytes(request[:4], "big")
        periods = {0x50020200: PERIOD_S if self._minute_freezes else 0, 0x50040200: DAY_S}
        first, at = _moment(request, 9)
        last, at = _moment(request, at)
        count, columns = request[at + 1], request[at + 2 :]
        names = [int.from_bytes(columns[5 * n + 1 : 5 * n + 5], "big") for n in range(count)]
        head = request[:4] + bytes((count,)) + columns[: 5 * count]
        if self._closed:
            return head + bytes((0, NO_RIGHT))
        if not periods.get(table):
            return head + bytes((0, NO_OBJECT))
        period_s = periods[table]
        offset_s = self.meter.clock.offset_s(self.meter.now())
        rows: list[bytes] = []
        local = first.replace(tzinfo=self._zone)
        start_s = max(local.timestamp(), self.meter.installed_s + offset_s)
        utc_offset_s = local.utcoffset() or timedelta()
        shift_s = utc_offset_s.total_seconds() if period_s == DAY_S else 0.0
        shown_s = -(-(start_s + shift_s) // period_s) * period_s - shift_s
        while shown_s < last.replace(tzinfo=self._zone).timestamp() and len(rows) < apdu.MAX_ROWS:
            if shown_s - offset_s > self.meter.now():
                break
            rows.append(b"".join(self._cell(name, shown_s, shown_s - offset_s) for name in names))
            shown_s += period_s
        return head + bytes((1, len(rows))) + b"".join(rows)

    def _cell(self, name: int, shown_s: float, true_s: float) -> bytes:
        if name == FROZEN_AT:
            local = local_time(shown_s, self._zone)
            parts = (local.month, local.day, local.hour, local.minute, local.second)
            return bytes((28,)) + local.year.to_bytes(2, "big") + bytes(parts)
        imported, exported = self.meter.energy_wh(true_s)
        energy = int((imported if name >> 16 == 0x0010 else exported) // 10)
        return _array(6, [energy, energy, 0, 0, 0]) if name & 0xFF == 0 else bytes((6,)) + energy.to_bytes(4, "big")

    def _result(self, name: bytes) -> bytes:
        oad = int.from_bytes(name, "big")
        if self._closed and oad != ADDRESS:
            return name + bytes((0, NO_RIGHT))
        value = self._value(oad)
        return name + (bytes((0, NO_OBJECT)) if value is None else b"\x01" + value)

    def _value(self, oad: int) -> bytes | None:
        meter = self.meter
        imported, exported = meter.energy_wh(meter.now())
        live = meter.live()
        match oad:
            case 0x00100200:
                return _array(6, [int(imported // 10), int(imported // 10), 0, 0, 0])
            case 0x00200200:
                return _array(6, [int(exported // 10), int(exported // 10), 0, 0, 0])
            case 0x20000200:
                return _array(18, [round(volt * 10) for volt in live.voltages_v])
            case 0x20010200:
                return _array(5, [round(amperes * 1000) for amperes in live.currents_a])
            case 0x20010400:
                return bytes((5,)) + round(live.neutral_a * 1000).to_bytes(4, "big", signed=True)
            case 0x20040200:
                return _array(5, [round(live.power_w * 10)] * 2)
            case 0x200A0200:
                return _array(16, [round(live.power_factor * 1000)])
            case 0x200F0200:
                return bytes((18,)) + (5000).to_bytes(2, "big")
            case _ if oad == NUMBER:
                digits = "".join(c for c in meter.serial_number() if c.isdigit()).rjust(12, "0")
                return bytes((9, 6)) + bytes.fromhex(digits[-12:])
            case _ if oad == ADDRESS:
                return bytes((9, len(self.address))) + self.address[::-1]
            case _ if oad == CLOCK:
                local = local_time(meter.clock.shown_s(meter.now()), self._zone)
                parts = (local.month, local.day, local.hour, local.minute, local.second)
                return bytes((28,)) + local.year.to_bytes(2, "big") + bytes(parts)
        return None


def _array(kind: int, numbers: list[int]) -> bytes:
    size = {5: 4, 6: 4, 16: 2, 18: 2}[kind]
    items = b"".join(bytes((kind,)) + number.to_bytes(size, "big", signed=kind in (5, 16)) for number in numbers)
    return bytes((1, len(numbers))) + items


def _moment(octets: bytes, at: int) -> tuple[datetime, int]:
    """A date_time_s at a place, and where it ends."""
    year, month, day, hour, minute, second = struct.unpack_from(">HBBBBB", octets, at + 1)
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC), at + 8
