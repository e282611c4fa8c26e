"""Frames of DL/T 698.45 (link layer, clause 6): octets to frames and back. Sans IO.

    FE.. | 68 | L (2, low first) | C | AF | SA (low first) | CA | HCS (2) | APDU | FCS (2) | 16

L counts everything between 68 and 16. The address is BCD digits, low octet first; both checks are the CRC-16 of HDLC.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io import _octets
from firmware_io.errors import LocalProtocolError

START, END, WAKE_UP = 0x68, 0x16, 0xFE
FROM_METER, BEGUN_BY_CLIENT, FRAGMENT, SCRAMBLED = 0x80, 0x40, 0x20, 0x08
USER_DATA = 0x03
REQUEST, RESPONSE = BEGUN_BY_CLIENT | USER_DATA, FROM_METER | BEGUN_BY_CLIENT | USER_DATA
CLIENT = 0x00  # our address: 0 says that nobody needs one (clause 6.2.2)
ANY, WILDCARD = 0xAA, 0x40  # an octet of an address that is any, and the kind of such an address
MAX_LENGTH = 2048
LONGEST = MAX_LENGTH + 8


fcs16 = _octets.fcs16


def covers(pattern: bytes, address: bytes) -> bool:
    """Whether a meter of this address is meant: octet by octet the same, or any."""
    return len(pattern) == len(address) and all(
        wanted in (ANY, own) for wanted, own in zip(pattern, address, strict=True)
    )


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
        """The octets, behind `wake_up` times FEh; an address with AAh in it is a wildcard.

        Raises:
            LocalProtocolError: an address of no or too many octets, or an APDU that does not fit.
        """
        if not 1 <= len(self.address) <= 16 or len(self.apdu) > MAX_LENGTH - 32:
            raise LocalProtocolError(f"no frame of DL/T 698.45: {len(self.address)} and {len(self.apdu)} octets")
        kind = WILDCARD if ANY in self.address else 0
        length = 2 + 1 + 1 + len(self.address) + 1 + 2 + len(self.apdu) + 2
        head = length.to_bytes(2, "little") + bytes((self.control, kind | len(self.address) - 1))
        head += self.address + bytes((self.client,))
        body = head + fcs16(head).to_bytes(2, "little") + self.apdu
        body += fcs16(body).to_bytes(2, "little")
        return bytes((WAKE_UP,)) * wake_up + bytes((START,)) + body + bytes((END,))


parse = _octets.Dlt698Parser(Frame)
