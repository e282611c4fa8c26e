"""A simulated DL/T 698.45 meter on a shared line: it answers GET in the pre-established association."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from firmware_io.clock import local_time
from firmware_io.dlt698 import apdu
from firmware_io.dlt698 import frame as wire
from firmware_io.dlt698.driver import CLOCK, NUMBER
from firmware_io.dlt698.frame import Frame
from firmware_io.exchange import Framer
from firmware_io.simulator.line.shared import Modem
from firmware_io.simulator.line.station import Piece
from firmware_io.simulator.meter.meter import SimulatedMeter

NO_OBJECT = 4


class Dlt698Station:
    """See `shared.Listener`."""

    def __init__(self, meter: SimulatedMeter, address: bytes, *, timezone: str = "UTC", parity: bool = True) -> None:
        self.meter = meter
        self.address = address
        self._zone = ZoneInfo(timezone)
        self._framer: Framer[Frame] = Framer(wire.parse, 2 * wire.LONGEST)
        self._modem = Modem(meter.faults, meter.now, parity=parity)

    def hear(self, octets: bytes, *, torn: bool) -> bytes:
        if torn:
            self._framer.idle()
        reply = b""
        for frame in self._framer.receive(octets):
            if frame.control == wire.REQUEST and frame.address == self.address:
                reply = Frame(self.address, wire.RESPONSE, self._answer(frame.apdu), frame.client).encode()
        return reply

    def modem(self, answer: bytes, question_end_s: float) -> list[Piece]:
        other = bytes((self.address[0] ^ 1, *self.address[1:]))
        said = bytes.fromhex("85010100100200 01 0101 06 04000000 00 00")
        return self._modem.pieces(answer, Frame(other, wire.RESPONSE, said).encode(), question_end_s)

    def _answer(self, request: bytes) -> bytes:
        if request[:2] == bytes((apdu.GET, apdu.NORMAL)) and len(request) >= 7:
            return bytes((apdu.GET_RESPONSE, apdu.NORMAL, request[2])) + self._result(request[3:7]) + b"\x00\x00"
        if request[:2] == bytes((apdu.GET, apdu.LIST)) and len(request) >= 4 + 4 * request[3]:
            names = [request[4 + 4 * n : 8 + 4 * n] for n in range(request[3])]
            head = bytes((apdu.GET_RESPONSE, apdu.LIST, request[2], request[3]))
            return head + b"".join(map(self._result, names)) + b"\x00\x00"
        return bytes((apdu.ERROR_RESPONSE, request[2] if len(request) > 2 else 0, 1))

    def _result(self, name: bytes) -> bytes:
        value = self._value(int.from_bytes(name, "big"))
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
            case _ if oad == CLOCK:
                local = local_time(meter.clock.shown_s(meter.now()), self._zone)
                parts = (local.month, local.day, local.hour, local.minute, local.second)
                return bytes((28,)) + local.year.to_bytes(2, "big") + bytes(parts)
        return None


def _array(kind: int, numbers: list[int]) -> bytes:
    size = {5: 4, 6: 4, 16: 2, 18: 2}[kind]
    items = b"".join(bytes((kind,)) + number.to_bytes(size, "big", signed=kind in (5, 16)) for number in numbers)
    return bytes((1, len(numbers))) + items
