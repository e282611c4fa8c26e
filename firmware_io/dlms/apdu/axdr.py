"""A-XDR (IEC 61334-6) as COSEM uses it: lengths, and the `Data` type of IEC 62056-62, in both directions.

A value keeps its type (`Data`), so that what was read can be written back octet for octet and a register that
suddenly answers with another type is seen. It knows no attributes and no units.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from firmware_io.dlms import _codec
from firmware_io.errors import LocalProtocolError, RemoteProtocolError


class Tag(enum.IntEnum):
    """Types of `Data`, by their tag on the wire."""

    NULL = 0
    ARRAY = 1
    STRUCTURE = 2
    BOOLEAN = 3
    BIT_STRING = 4
    INT32 = 5
    UINT32 = 6
    OCTET_STRING = 9
    VISIBLE_STRING = 10
    UTF8_STRING = 12
    BCD = 13
    INT8 = 15
    INT16 = 16
    UINT8 = 17
    UINT16 = 18
    COMPACT_ARRAY = 19
    INT64 = 20
    UINT64 = 21
    ENUM = 22
    FLOAT32 = 23
    FLOAT64 = 24
    DATE_TIME = 25
    DATE = 26
    TIME = 27
    DONT_CARE = 255


class Data(NamedTuple):
    """One typed value.

    `value` is None (null), a tuple of Data (array, structure), bool, a str of 0 and 1 (bit string), int, float,
    bytes (octet strings, date and time types) or str (visible and UTF-8 strings).
    """

    tag: int
    value: Any = None

    def plain(self) -> Any:
        """The value as plain Python: arrays and structures become lists, all the way down."""
        if isinstance(self.value, tuple):
            return [item.plain() for item in self.value]
        return self.value

    def __str__(self) -> str:
        name = Tag(self.tag).name.lower().replace("_", "-") if self.tag in _KNOWN else f"type {self.tag}"
        if isinstance(self.value, tuple):
            return f"{name}[{', '.join(map(str, self.value))}]"
        return f"{name} {self.value.hex() if isinstance(self.value, bytes) else self.value}"


_KNOWN = frozenset(Tag)
_FIXED: dict[int, struct.Struct] = {
    Tag.INT32: struct.Struct(">i"),
    Tag.UINT32: struct.Struct(">I"),
    Tag.BCD: struct.Struct(">b"),
    Tag.INT8: struct.Struct(">b"),
    Tag.INT16: struct.Struct(">h"),
    Tag.UINT8: struct.Struct(">B"),
    Tag.UINT16: struct.Struct(">H"),
    Tag.INT64: struct.Struct(">q"),
    Tag.UINT64: struct.Struct(">Q"),
    Tag.ENUM: struct.Struct(">B"),
    Tag.FLOAT32: struct.Struct(">f"),
    Tag.FLOAT64: struct.Struct(">d"),
}
_TIMES = {Tag.DATE_TIME: 12, Tag.DATE: 5, Tag.TIME: 4}

NULL = Data(Tag.NULL)


def boolean(value: bool) -> Data:
    """A boolean."""
    return Data(Tag.BOOLEAN, value)


def int8(value: int) -> Data:
    """integer."""
    return Data(Tag.INT8, value)


def int16(value: int) -> Data:
    """long."""
    return Data(Tag.INT16, value)


def int32(value: int) -> Data:
    """double-long."""
    return Data(Tag.INT32, value)


def int64(value: int) -> Data:
    """long64."""
    return Data(Tag.INT64, value)


def uint8(value: int) -> Data:
    """unsigned."""
    return Data(Tag.UINT8, value)


def uint16(value: int) -> Data:
    """long-unsigned."""
    return Data(Tag.UINT16, value)


def uint32(value: int) -> Data:
    """double-long-unsigned."""
    return Data(Tag.UINT32, value)


def uint64(value: int) -> Data:
    """long64-unsigned."""
    return Data(Tag.UINT64, value)


def enumeration(value: int) -> Data:
    """enum."""
    return Data(Tag.ENUM, value)


def octet_string(value: bytes) -> Data:
    """octet-string."""
    return Data(Tag.OCTET_STRING, bytes(value))


def visible_string(value: str) -> Data:
    """visible-string."""
    return Data(Tag.VISIBLE_STRING, value)


def array(items: Iterable[Data]) -> Data:
    """array."""
    return Data(Tag.ARRAY, tuple(items))


def structure(*items: Data) -> Data:
    """structure."""
    return Data(Tag.STRUCTURE, items)


def encode_length(length: int) -> bytes:
    """A length: one octet below 128, else the number of octets with the high bit set, then the octets."""
    if length < 0x80:
        return bytes((length,))
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def counted(octets: bytes) -> bytes:
    """Octets behind their length."""
    return encode_length(len(octets)) + octets


def decode_length(octets: bytes, offset: int) -> tuple[int, int]:
    """A length at `offset`, and the offset behind it.

    Raises:
        RemoteProtocolError: cut short, or a length that no APDU can have.
    """
    if offset >= len(octets):
        raise RemoteProtocolError("the APDU ends where a length was expected")
    first = octets[offset]
    if first < 0x80:
        return first, offset + 1
    count = first & 0x7F
    end = offset + 1 + count
    if not 1 <= count <= 4 or end > len(octets):
        raise RemoteProtocolError(f"length of {count} octets at offset {offset}: expected 1..4 octets that are there")
    return int.from_bytes(octets[offset + 1 : end], "big"), end


def take(octets: bytes, offset: int, count: int, what: str) -> bytes:
    """`count` octets from `offset`.

    Raises:
        RemoteProtocolError: the APDU is shorter than that.
    """
    end = offset + count
    if end > len(octets):
        raise RemoteProtocolError(f"{what}: expected {count} octets at offset {offset}, got {len(octets) - offset}")
    return octets[offset:end]


def _counted(tag: int, count: int, body: bytes) -> bytes:
    return bytes((tag,)) + encode_length(count) + body


def encode(data: Data) -> bytes:
    """A value on the wire.

    Raises:
        LocalProtocolError: the value does not fit its type.
    """
    tag, value = data
    try:
        if tag in _FIXED:
            return bytes((tag,)) + _FIXED[tag].pack(value)
        if tag in (Tag.NULL, Tag.DONT_CARE):
            return bytes((tag,))
        if tag == Tag.BOOLEAN:
            return bytes((tag, 0xFF if value else 0))
        if tag == Tag.OCTET_STRING:
            return _counted(tag, len(value), value)
        if tag in (Tag.ARRAY, Tag.STRUCTURE):
            return _counted(tag, len(value), b"".join(map(encode, value)))
        if tag in (Tag.VISIBLE_STRING, Tag.UTF8_STRING):
            text = value.encode("latin-1" if tag == Tag.VISIBLE_STRING else "utf-8")
            return _counted(tag, len(text), text)
        if tag == Tag.BIT_STRING:
            packed = int(value.ljust((len(value) + 7) // 8 * 8, "0") or "0", 2).to_bytes((len(value) + 7) // 8, "big")
            return _counted(tag, len(value), packed)
        if tag in _TIMES and len(value) == _TIMES[Tag(tag)]:
            return bytes((tag, *value))
    except (struct.error, TypeError, ValueError, AttributeError) as error:
        raise LocalProtocolError(f"{value!r} cannot be encoded as type {tag}: {error}") from error
    raise LocalProtocolError(f"{value!r} cannot be encoded as type {tag}")


def decode(octets: bytes) -> Data:
    """The one value that `octets` are: all of them.

    Raises:
        RemoteProtocolError: malformed, cut short, or octets are left over.
    """
    data, end = decode_at(octets, 0)
    if end != len(octets):
        raise RemoteProtocolError(f"{len(octets) - end} octets are left behind {data}")
    return data


def decode_at(octets: bytes, offset: int) -> tuple[Data, int]:
    """The value at `offset`, and the offset behind it.

    Raises:
        RemoteProtocolError: malformed or cut short.
    """
    return _codec.decode_value(octets, offset, Data)
