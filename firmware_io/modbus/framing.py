"""Reading registers over Modbus, both framings: questions to octets, octets to replies. Sans IO.

RTU (Modbus over serial line 1.02, 2.5.1): unit, function, ..., CRC-16 low octet first. A reply does not say which
registers it holds, only how many. TCP (Modbus messaging guide, 3.1): a header with a transaction number instead.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from firmware_io.exchange import Parser, Verdict

Framing = Literal["rtu", "tcp"]
HOLDING, INPUT = 3, 4  # function codes: read holding registers, read input registers
EXCEPTION = 0x80
MAX_REGISTERS = 125  # of a reply (application protocol 1.1b3, 6.3)
LONGEST = 3 + 2 * MAX_REGISTERS + 2 + 7
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY, GATEWAY_SILENT = 1, 2, 3, 6, 11
EXCEPTION_TEXTS = {
    1: "it does not know this function: try the other of 3 and 4",
    2: "it has no such register",
    3: "it does not read so many registers at once",
    4: "it has failed",
    5: "it needs longer",
    6: "it is busy",
    10: "the gateway has no way to it",
    11: "the gateway got no answer from it",
}
_HEADER = struct.Struct(">HHHB")
_READ = struct.Struct(">BBHH")


def _crc_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC = _crc_table()


def crc16(octets: bytes | bytearray) -> int:
    """The check of an RTU frame (polynomial A001h reflected, start FFFFh)."""
    crc = 0xFFFF
    table = _CRC
    for octet in octets:
        crc = crc >> 8 ^ table[(crc ^ octet) & 0xFF]
    return crc


class Read(NamedTuple):
    """Asks a unit for `size` registers: `address` as in the frame, counted from 0."""

    unit: int
    function: int
    address: int
    size: int

    def rtu(self) -> bytes:
        """The octets of an RTU frame."""
        body = _READ.pack(*self)
        return body + crc16(body).to_bytes(2, "little")

    def tcp(self, transaction: int) -> bytes:
        """The octets of a TCP frame."""
        return _HEADER.pack(transaction, 0, 6, self.unit) + _READ.pack(*self)[1:]


class Reply(NamedTuple):
    """What a unit said; `exception` is its code, 0 for none."""

    unit: int
    function: int
    registers: bytes
    exception: int = 0
    transaction: int | None = None


def rtu_parser(unit: int, function: int) -> Parser[Reply]:
    """Finds replies of one unit to one function; what others say is noise between them."""

    def parse(octets: bytearray, at: int) -> tuple[Reply, int] | Verdict:
        if octets[at] != unit:
            return Verdict.NOTHING
        held = len(octets) - at
        if held < 3:
            said = octets[at + 1] if held == 2 else function
            return Verdict.MORE if said & ~EXCEPTION == function else Verdict.NOTHING
        said, size = octets[at + 1], octets[at + 2]
        if said == function | EXCEPTION:
            end = at + 5
        elif said == function and size and not size & 1 and size <= 2 * MAX_REGISTERS:
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


def parse_tcp(octets: bytearray, at: int) -> tuple[Reply, int] | Verdict:
    """A TCP frame; see `exchange.Parser`. One that is no reply to a read is an exception 0 without registers."""
    if len(octets) - at < _HEADER.size + 2:
        return Verdict.MORE
    transaction, protocol, length, unit = _HEADER.unpack_from(octets, at)
    if protocol != 0 or not 3 <= length <= 254:
        return Verdict.NOTHING
    end = at + 6 + length
    if len(octets) < end:
        return Verdict.MORE
    function, size = octets[at + 7], octets[at + 8]
    if function & EXCEPTION:
        return Reply(unit, function & ~EXCEPTION, b"", size, transaction), end
    registers = bytes(octets[at + 9 : end])
    return Reply(unit, function, registers if len(registers) == size else b"", 0, transaction), end
