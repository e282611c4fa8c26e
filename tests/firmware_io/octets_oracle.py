"""Plain Python twins of the kernel `firmware_io/_octets.pyx`, written for reading: what its tests hold it against."""

from __future__ import annotations

import math
import struct

from firmware_io.asking.exchange import Verdict
from firmware_io.dlt645.frame import Frame as Frame645
from firmware_io.dlt698.frame import Frame as Frame698
from firmware_io.mbus.frame import Frame as MbusFrame
from firmware_io.modbus.framing import Reply


def crc(octets: bytes, polynomial: int) -> int:
    value = 0xFFFF
    for octet in octets:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return value


def crc16(octets: bytes) -> int:
    return crc(octets, 0xA001)


def fcs16(octets: bytes) -> int:
    return crc(octets, 0x8408) ^ 0xFFFF


class Framer:
    """Finds frames in a stream of octets; anything between them is skipped.

    Octets that look like the head of a frame hold up what follows; `idle` says that nothing follows, and looks for
    frames inside them.
    """

    def __init__(self, parse: object, max_octets: int) -> None:
        self._parse = parse
        self._max_octets = max_octets  # bounds what a babbling line can make us keep
        self._held = bytearray()
        self.skipped = 0

    @property
    def pending(self) -> bool:
        """Whether octets are held that may become a frame."""
        return bool(self._held)

    def receive(self, octets: bytes) -> list:
        """Frames that are complete with these octets."""
        self._held += octets
        frames = self._scan()
        while len(self._held) > self._max_octets:  # no frame is so long: its head was noise
            self._skip()
            frames += self._scan()
        return frames

    def idle(self) -> list:
        """The line is silent: frames that a false head has hidden. Nothing is held afterwards."""
        frames: list = []
        while self._held:
            self._skip()
            frames += self._scan()
        return frames

    def _skip(self) -> None:
        del self._held[0]
        self.skipped += 1

    def _scan(self) -> list:
        frames: list = []
        at = 0
        while at < len(self._held):
            found = self._parse(self._held, at)
            if found is Verdict.MORE:
                break
            if isinstance(found, tuple):
                frames.append(found[0])
                at = found[1]
            else:
                at += 1
                self.skipped += 1
        del self._held[:at]
        return frames


def encode_dlt645(address: bytes, control: int, said: bytes, wake_up: int) -> bytes:
    body = bytes((0x68, *address, 0x68, control, len(said)))
    body += bytes((octet + 0x33) & 0xFF for octet in said)
    return b"\xfe" * wake_up + body + bytes((sum(body) & 0xFF, 0x16))


def dlt645(octets: bytearray, at: int) -> tuple[Frame645, int] | Verdict:
    if octets[at] != 0x68:
        return Verdict.NOTHING
    held = len(octets) - at
    if held < 10:
        # The second 68h sorts out nearly every false head early.
        return Verdict.NOTHING if held > 7 and octets[at + 7] != 0x68 else Verdict.MORE
    if octets[at + 7] != 0x68:
        return Verdict.NOTHING
    end = at + 10 + octets[at + 9]
    if len(octets) < end + 2:
        return Verdict.MORE
    if octets[end + 1] != 0x16 or sum(octets[at:end]) & 0xFF != octets[end]:
        return Verdict.NOTHING
    frame = Frame645(
        bytes(octets[at + 1 : at + 7]), octets[at + 8], bytes((o - 0x33) & 0xFF for o in octets[at + 10 : end])
    )
    return frame, end + 2


def rtu(unit: int, function: int) -> object:
    """Finds replies of one unit to one function; what others say is noise between them."""

    def parse(octets: bytearray, at: int) -> tuple[Reply, int] | Verdict:
        if octets[at] != unit:
            return Verdict.NOTHING
        held = len(octets) - at
        if held < 3:
            said = octets[at + 1] if held == 2 else function
            return Verdict.MORE if said & ~0x80 == function else Verdict.NOTHING
        said, size = octets[at + 1], octets[at + 2]
        if said == function | 0x80:
            end = at + 5
        elif said == function and size and not size & 1 and size <= 2 * 125:
            end = at + 3 + size + 2
        else:
            return Verdict.NOTHING
        if len(octets) < end:
            return Verdict.MORE
        if crc16(octets[at:end]):  # over its own check a frame gives 0
            return Verdict.NOTHING
        if said != function:
            return Reply(unit, function, b"", size), end
        return Reply(unit, function, bytes(octets[at + 3 : end - 2])), end

    return parse


def tcp(octets: bytearray, at: int) -> tuple[Reply, int] | Verdict:
    """A TCP frame; see `exchange.Parser`. One that is no reply to a read is an exception 0 without registers."""
    if len(octets) - at < 7 + 2:
        return Verdict.MORE
    transaction, protocol, length, unit = struct.unpack_from(">HHHB", octets, at)
    if protocol != 0 or not 3 <= length <= 254:
        return Verdict.NOTHING
    end = at + 6 + length
    if len(octets) < end:
        return Verdict.MORE
    function, size = octets[at + 7], octets[at + 8]
    if function & 0x80:
        return Reply(unit, function & ~0x80, b"", size, transaction), end
    registers = bytes(octets[at + 9 : end])
    return Reply(unit, function, registers if len(registers) == size else b"", 0, transaction), end


def mbus(octets: bytearray, at: int) -> tuple[MbusFrame, int] | Verdict:
    first = octets[at]
    if first == 0xE5:
        return MbusFrame(0xE5), at + 1
    held = len(octets) - at
    if first == 0x10:
        if held < 5:
            return Verdict.MORE
        control, address, check, end = octets[at + 1 : at + 5]
        if end != 0x16 or (control + address) & 0xFF != check:
            return Verdict.NOTHING
        return MbusFrame(control, address), at + 5
    if first != 0x68:
        return Verdict.NOTHING
    if held < 4:
        return Verdict.NOTHING if held > 2 and octets[at + 1] != octets[at + 2] else Verdict.MORE
    size = octets[at + 1]
    if octets[at + 2] != size or octets[at + 3] != 0x68 or size < 3:
        return Verdict.NOTHING
    stop = at + 4 + size
    if len(octets) < stop + 2:
        return Verdict.MORE
    if octets[stop + 1] != 0x16 or sum(octets[at + 4 : stop]) & 0xFF != octets[stop]:
        return Verdict.NOTHING
    return MbusFrame(octets[at + 4], octets[at + 5], octets[at + 6], bytes(octets[at + 7 : stop])), stop + 2


def dlt698(octets: bytearray, at: int) -> tuple[Frame698, int] | Verdict:
    if octets[at] != 0x68:
        return Verdict.NOTHING
    held = len(octets) - at
    if held < 3:
        return Verdict.MORE
    length = int.from_bytes(octets[at + 1 : at + 3], "little")
    if not 10 <= length <= 2048:
        return Verdict.NOTHING
    if held < 5:
        return Verdict.MORE
    size = (octets[at + 4] & 0x0F) + 1
    head = at + 6 + size  # behind the client's address
    if length < size + 9:
        return Verdict.NOTHING
    if len(octets) < head + 2:
        return Verdict.MORE
    if fcs16(octets[at + 1 : head]) != int.from_bytes(octets[head : head + 2], "little"):
        return Verdict.NOTHING
    end = at + 1 + length
    if len(octets) < end + 1:
        return Verdict.MORE
    if octets[end] != 0x16 or fcs16(octets[at + 1 : end - 2]) != int.from_bytes(octets[end - 2 : end], "little"):
        return Verdict.NOTHING
    apdu = bytes(octets[head + 2 : end - 2])
    if octets[at + 3] & 0x08:
        apdu = bytes((octet - 0x33) & 0xFF for octet in apdu)
    return Frame698(bytes(octets[at + 5 : at + 5 + size]), octets[at + 3], apdu, octets[head - 1]), end + 1


def bcd(octets: bytes, signed: bool) -> int | None:
    negative = signed and bool(octets) and octets[-1] & 0x80
    digits = (octets[:-1] + bytes((octets[-1] & 0x7F,))) if negative else octets
    text = digits[::-1].hex()
    if not text.isdigit():
        return None
    return -int(text) if negative else int(text)


CODES = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}


def register(octets: bytes, kind: str, order: str, scale: float, none: tuple[int, ...]) -> float | None:
    if order == "little":
        octets = b"".join(octets[i : i + 2] for i in range(len(octets) - 2, -1, -2))
    if none and int.from_bytes(octets, "big") in none:
        return None
    number = struct.unpack(CODES[kind], octets)[0]
    if not math.isfinite(number):
        return None
    return float(number * scale if scale >= 1 else number / round(1 / scale, 9))
