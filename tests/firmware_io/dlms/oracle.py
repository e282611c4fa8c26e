"""The kernel's twins in plain Python, written for reading: what `_codec` must do, octet for octet."""

from __future__ import annotations

import struct

from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.hdlc.framer import Frame
from firmware_io.errors import RemoteProtocolError


def fcs16(octets: bytes) -> int:
    """ISO/IEC 13239: CRC of 16 bits, polynomial x^16+x^12+x^5+1, bit by bit."""
    crc = 0xFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return crc ^ 0xFFFF


def encode_frame(frame: Frame) -> bytes:
    header = frame.destination + frame.source + bytes((frame.control,))
    length = 2 + len(header) + 2 + (len(frame.information) + 2 if frame.information else 0)
    body = (0xA000 | 0x0800 * frame.segmented | length).to_bytes(2, "big") + header
    body += fcs16(body).to_bytes(2, "little")
    if frame.information:
        body += frame.information
        body += fcs16(body).to_bytes(2, "little")
    return b"\x7e" + body + b"\x7e"


def frames(stream: bytes, max_length: int = 0x7FF) -> list[Frame]:
    """The frames of a stream that has ended: at each flag, is there one? The search goes on behind it."""
    found, at = [], 0
    while (at := stream.find(b"\x7e", at)) >= 0:
        frame, size = _frame_at(stream[at + 1 :], max_length)
        if frame is not None:
            found.append(frame)
        at += 1 + size
    return found


def _frame_at(octets: bytes, max_length: int) -> tuple[Frame | None, int]:
    nothing = (None, 0)
    if len(octets) < 2 or octets[0] & 0xF0 != 0xA0:
        return nothing
    length = (octets[0] & 7) << 8 | octets[1]
    if not 7 <= length <= min(max_length, len(octets)):
        return nothing
    body, position, addresses = octets[:length], 2, []
    for _ in range(2):
        end = next((i for i in range(position, min(position + 4, length)) if body[i] & 1), None)
        if end is None or end - position == 2:
            return nothing
        addresses.append(body[position : end + 1])
        position = end + 1
    header, check, rest = body[: position + 1], body[position + 1 : position + 3], body[position + 3 :]
    if len(check) < 2 or fcs16(header).to_bytes(2, "little") != check or 0 < len(rest) < 3:
        return nothing
    if rest and fcs16(body[:-2]).to_bytes(2, "little") != body[-2:]:
        return nothing
    return Frame(addresses[0], addresses[1], body[position], rest[:-2], bool(octets[0] & 8)), length


_NUMBERS = {5: ">i", 6: ">I", 13: ">b", 15: ">b", 16: ">h", 17: ">B", 18: ">H", 20: ">q", 21: ">Q", 22: ">B"}
_NUMBERS |= {23: ">f", 24: ">d"}


def value(octets: bytes, at: int = 0, depth: int = 0) -> tuple[Data, int]:
    """One A-XDR value and where it ends."""

    def take(count: int) -> bytes:
        nonlocal at
        taken = octets[at : at + count]
        if len(taken) != count:
            raise RemoteProtocolError("cut short")
        at += count
        return taken

    def length() -> int:
        first = take(1)[0]
        if first < 0x80:
            return first
        if not 1 <= first & 0x7F <= 4:
            raise RemoteProtocolError("no length")
        return int.from_bytes(take(first & 0x7F), "big")

    tag = take(1)[0]
    if tag in _NUMBERS:
        return Data(tag, struct.unpack(_NUMBERS[tag], take(struct.calcsize(_NUMBERS[tag])))[0]), at
    if tag in (0, 255):
        return Data(tag), at
    if tag == 3:
        return Data(tag, take(1) != b"\x00"), at
    if tag in (25, 26, 27):
        return Data(tag, take({25: 12, 26: 5, 27: 4}[tag])), at
    if tag in (1, 2):
        if depth >= 16:
            raise RemoteProtocolError("too deep")
        count, items = length(), []
        for _ in range(count):
            item, at = value(octets, at, depth + 1)
            items.append(item)
        return Data(tag, tuple(items)), at
    if tag == 4:
        count = length()
        return Data(tag, "".join(f"{o:08b}" for o in take((count + 7) // 8))[:count]), at
    if tag in (9, 10, 12):
        raw = take(length())
        try:
            return Data(tag, raw if tag == 9 else raw.decode("latin-1" if tag == 10 else "utf-8")), at
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("not UTF-8") from error
    if tag == 19:
        if depth >= 16:
            raise RemoteProtocolError("too deep")
        kind, at = _type(octets, at, depth + 1)
        end = length()
        end += at
        if end > len(octets):
            raise RemoteProtocolError("cut short")
        made: list[Data] = []
        while at < end:
            before = at
            item, at = _described(octets, at, kind, depth + 1)
            if at == before:
                raise RemoteProtocolError("no octets")
            made.append(item)
        if at != end:
            raise RemoteProtocolError("too long")
        return Data(1, tuple(made)), at
    raise RemoteProtocolError("unknown")


def _type(octets: bytes, at: int, depth: int) -> tuple[object, int]:
    """A type description of a compact array and where it ends."""
    if at >= len(octets) or depth >= 16:
        raise RemoteProtocolError("no type")
    tag, at = octets[at], at + 1
    if tag == 1:
        if at + 2 > len(octets):
            raise RemoteProtocolError("cut short")
        count = int.from_bytes(octets[at : at + 2], "big")
        kind, at = _type(octets, at + 2, depth + 1)
        return (1, count, kind), at
    if tag == 2:
        count, at = _length(octets, at)
        if count > len(octets) - at:
            raise RemoteProtocolError("a lie")
        kinds = []
        for _ in range(count):
            kind, at = _type(octets, at, depth + 1)
            kinds.append(kind)
        return (2, kinds), at
    if tag == 19:
        raise RemoteProtocolError("compact in compact")
    return tag, at


def _length(octets: bytes, at: int) -> tuple[int, int]:
    if at >= len(octets):
        raise RemoteProtocolError("cut short")
    first, at = octets[at], at + 1
    if first < 0x80:
        return first, at
    count = first & 0x7F
    if not 1 <= count <= 4 or at + count > len(octets):
        raise RemoteProtocolError("no length")
    return int.from_bytes(octets[at : at + count], "big"), at + count


def _described(octets: bytes, at: int, kind: object, depth: int) -> tuple[Data, int]:
    """A value of a described type and where it ends."""
    if isinstance(kind, int):
        item, end = value(bytes((kind,)) + octets[at:], 0, depth)
        return item, at + end - 1
    assert isinstance(kind, tuple)
    kinds = kind[1] if kind[0] == 2 else [kind[2]] * kind[1]
    items, before = [], at
    for one in kinds:
        item, at = _described(octets, at, one, depth + 1)
        if kind[0] == 1 and at == before:
            raise RemoteProtocolError("no octets")
        items.append(item)
    return Data(kind[0], tuple(items)), at
