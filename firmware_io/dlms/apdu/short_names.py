"""READ with short names (IEC 62056-5-3, 9.3): attributes by a number of 16 bits, in both directions. No WRITE.

Attribute n of an object stands at its base name + 8 (n - 1); the association itself at 0xFA00.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, counted, encode_length
from firmware_io.dlms.apdu.reader import Reader
from firmware_io.dlms.apdu.services import DataAccessResult, Selection
from firmware_io.errors import RemoteProtocolError

READ_REQUEST, READ_RESPONSE, INFORMATION_REPORT = 0x05, 0x0C, 0x18
ASSOCIATION = 0xFA00
OBJECT_LIST = ASSOCIATION + 8
REPLY_TO_HLS = ASSOCIATION + 0x58


def address(base: int, attribute: int) -> int:
    """The short name of an attribute."""
    return base + 8 * (attribute - 1) & 0xFFFF


class Variable(NamedTuple):
    """One attribute to read; with parameters, of a method or of selective access."""

    name: int
    selection: Selection | None = None

    def encode(self) -> bytes:
        octets = self.name.to_bytes(2, "big")
        if self.selection is None:
            return b"\x02" + octets
        return b"\x04" + octets + bytes((self.selection.selector,)) + axdr.encode(self.selection.parameters)


class NextBlock(NamedTuple):
    """The block behind that number of a long value."""

    block: int

    def encode(self) -> bytes:
        return b"\x05" + self.block.to_bytes(2, "big")


class ValueBlock(NamedTuple):
    """A part of a long value."""

    last: bool
    block: int
    payload: bytes


class ReadRequest(NamedTuple):
    """READ.request."""

    items: tuple[Variable | NextBlock, ...]

    def encode(self) -> bytes:
        return bytes((READ_REQUEST,)) + encode_length(len(self.items)) + b"".join(item.encode() for item in self.items)

    @classmethod
    def decode(cls, octets: bytes) -> ReadRequest:
        """Raises: RemoteProtocolError: malformed."""
        r = _reader(octets, READ_REQUEST)
        items: list[Variable | NextBlock] = []
        for _ in range(r.count()):
            match r.octet("variable access"):
                case 2:
                    items.append(Variable(r.number(2, "short name")))
                case 4:
                    items.append(Variable(r.number(2, "short name"), Selection(r.octet("selector"), r.value())))
                case 5:
                    items.append(NextBlock(r.number(2, "block number")))
                case other:
                    raise RemoteProtocolError(f"variable access {other}: expected 2, 4 or 5")
        r.finish()
        return cls(tuple(items))


class ReadResponse(NamedTuple):
    """READ.response."""

    results: tuple[Data | DataAccessResult | ValueBlock, ...]

    def encode(self) -> bytes:
        return bytes((READ_RESPONSE,)) + encode_length(len(self.results)) + b"".join(map(_encoded, self.results))

    @classmethod
    def decode(cls, octets: bytes) -> ReadResponse:
        """Raises: RemoteProtocolError: malformed."""
        r = _reader(octets, READ_RESPONSE)
        results: list[Data | DataAccessResult | ValueBlock] = []
        for _ in range(r.count()):
            match r.octet("result"):
                case 0:
                    results.append(r.value())
                case 1:
                    results.append(DataAccessResult(r.octet("data access error")))
                case 2:
                    results.append(ValueBlock(r.flag("last block"), r.number(2, "block number"), r.counted("block")))
                case other:
                    raise RemoteProtocolError(f"result {other} of a READ: expected 0 to 2")
        r.finish()
        return cls(tuple(results))


def _encoded(result: Data | DataAccessResult | ValueBlock) -> bytes:
    if isinstance(result, ValueBlock):
        head = bytes((2, result.last)) + result.block.to_bytes(2, "big")
        return head + counted(result.payload)
    return b"\x00" + axdr.encode(result) if isinstance(result, Data) else bytes((1, result))


def _reader(octets: bytes, tag: int) -> Reader:
    r = Reader(octets)
    if r.octet("APDU tag") != tag:
        raise RemoteProtocolError(f"APDU {octets[:1].hex()}: expected {tag:#04x}")
    return r
