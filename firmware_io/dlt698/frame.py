"""Frames of DL/T 698.45 (link layer, clause 6): octets to frames and back. Sans IO.

    FE.. | 68 | L (2, low first) | C | AF | SA (low first) | CA | HCS (2) | APDU | FCS (2) | 16

L counts everything between 68 and 16. The address is BCD digits, low octet first; both checks are the CRC-16 of HDLC.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io.errors import LocalProtocolError
from firmware_io.exchange import Verdict

START, END, WAKE_UP = 0x68, 0x16, 0xFE
FROM_METER, BEGUN_BY_CLIENT, FRAGMENT, SCRAMBLED = 0x80, 0x40, 0x20, 0x08
USER_DATA = 0x03
REQUEST, RESPONSE = BEGUN_BY_CLIENT | USER_DATA, FROM_METER | BEGUN_BY_CLIENT | USER_DATA
CLIENT = 0x00  # our address: 0 says that nobody needs one (clause 6.2.2)
MAX_LENGTH = 2048
LONGEST = MAX_LENGTH + 8
OFFSET = 0x33


def _table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        for _ in range(8):
            octet = octet >> 1 ^ (0x8408 if octet & 1 else 0)
        table.append(octet)
    return tuple(table)


_CRC = _table()


def fcs16(octets: bytes | bytearray) -> int:
    """The check of header and frame (RFC 1662: reflected 8408h, start and final XOR FFFFh)."""
    crc = 0xFFFF
    for octet in octets:
        crc = crc >> 8 ^ _CRC[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFF


class Frame(NamedTuple):
    """One frame; `address` is the meter's, as on the wire."""

    address: bytes
    control: int
    apdu: bytes
    client: int = CLIENT

    @property
    def is_response(self) -> bool:
        """Whether a meter sent it, to a question of ours, whole."""
        return self.control & ~SCRAMBLED == RESPONSE

    def encode(self, wake_up: int = 4) -> bytes:
        """The octets, behind `wake_up` times FEh.

        Raises:
            LocalProtocolError: an address of no or too many octets, or an APDU that does not fit.
        """
        if not 1 <= len(self.address) <= 16 or len(self.apdu) > MAX_LENGTH - 32:
            raise LocalProtocolError(f"no frame of DL/T 698.45: {len(self.address)} and {len(self.apdu)} octets")
        length = 2 + 1 + 1 + len(self.address) + 1 + 2 + len(self.apdu) + 2
        head = length.to_bytes(2, "little") + bytes((self.control, len(self.address) - 1))
        head += self.address + bytes((self.client,))
        body = head + fcs16(head).to_bytes(2, "little") + self.apdu
        body += fcs16(body).to_bytes(2, "little")
        return bytes((WAKE_UP,)) * wake_up + bytes((START,)) + body + bytes((END,))


def parse(octets: bytearray, at: int) -> tuple[Frame, int] | Verdict:
    """What begins at this place; see `exchange.Parser`."""
    if octets[at] != START:
        return Verdict.NOTHING
    held = len(octets) - at
    if held < 3:
        return Verdict.MORE
    length = int.from_bytes(octets[at + 1 : at + 3], "little")
    if not 10 <= length <= MAX_LENGTH:
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
    if octets[end] != END or fcs16(octets[at + 1 : end - 2]) != int.from_bytes(octets[end - 2 : end], "little"):
        return Verdict.NOTHING
    apdu = bytes(octets[head + 2 : end - 2])
    if octets[at + 3] & SCRAMBLED:
        apdu = bytes((octet - OFFSET) & 0xFF for octet in apdu)
    return Frame(bytes(octets[at + 5 : at + 5 + size]), octets[at + 3], apdu, octets[head - 1]), end + 1
