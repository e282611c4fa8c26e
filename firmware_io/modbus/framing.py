"""Reading registers over Modbus, both framings: questions to octets, octets to replies. Sans IO.

RTU (Modbus over serial line 1.02, 2.5.1): unit, function, ..., CRC-16 low octet first. A reply does not say which
registers it holds, only how many. TCP (Modbus messaging guide, 3.1): a header with a transaction number instead.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Literal, NamedTuple

from firmware_io import _octets
from firmware_io.asking.exchange import Parser

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


crc16 = _octets.crc16_modbus


class Read(NamedTuple):
    """Asks a unit for `size` registers: `address` as in the frame, counted from 0."""

    unit: int
    function: int
    address: int
    size: int

    def rtu(self) -> bytes:
        """The octets of an RTU frame."""
        return _octets.encode_rtu_read(self.unit, self.function, self.address, self.size)

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


@lru_cache(maxsize=64)
def rtu_parser(unit: int, function: int) -> Parser[Reply]:
    """Finds replies of one unit to one function; what others say is noise between them."""
    return _octets.RtuParser(Reply, unit, function)


parse_tcp = _octets.TcpParser(Reply)  # a frame that is no reply to a read is an exception 0 without registers
