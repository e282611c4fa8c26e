"""Frames of the M-Bus link layer (EN 13757-2, 5.7): octets to frames and back, and secondary addresses. Sans IO.

E5                                          a single octet: acknowledged
10 | C | A | CS | 16                        short
68 | L | L | 68 | C | A | CI | data | CS | 16    long; L counts C to the end of the data
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io import _octets
from firmware_io.errors import LocalProtocolError

ACK, SHORT, LONG, END = 0xE5, 0x10, 0x68, 0x16
LONGEST = 261

# C fields of the primary, and the bits that change in them.
SND_NKE, REQ_UD2, SND_UD = 0x40, 0x5B, 0x53
FCB = 0x20  # frame count bit: toggled with each new telegram of an answer
RSP_UD, DIRECTION = 0x08, 0x40
SELECT, RESPONSE_VARIABLE, RESPONSE_SHORT, RESPONSE_NONE, RESPONSE_FIXED = 0x52, 0x72, 0x7A, 0x78, 0x73
APPLICATION_ERROR, ALARM = 0x70, 0x71
SELECTED, BROADCAST_ANSWERED, BROADCAST = 253, 254, 255  # special primary addresses
MAX_PRIMARY = 250


class Frame(NamedTuple):
    """One frame. An acknowledgement has control `ACK`, a short frame has ci None."""

    control: int
    address: int = 0
    ci: int | None = None
    data: bytes = b""

    @property
    def is_response(self) -> bool:
        """Whether a meter's data are in it; our own frames have the direction bit."""
        return self.ci is not None and not self.control & DIRECTION and self.control & 0x0F == RSP_UD

    def encode(self) -> bytes:
        """The octets.

        Raises:
            LocalProtocolError: more data than a frame holds.
        """
        if self.control == ACK:
            return bytes((ACK,))
        if self.ci is None:
            return bytes((SHORT, self.control, self.address, (self.control + self.address) & 0xFF, END))
        body = bytes((self.control, self.address, self.ci)) + self.data
        if len(body) > 255:
            raise LocalProtocolError(f"{len(self.data)} octets do not fit into a frame of M-Bus")
        return bytes((LONG, len(body), len(body), LONG)) + body + bytes((sum(body) & 0xFF, END))


parse = _octets.MbusParser(Frame)


class SecondaryAddress(NamedTuple):
    """Who a meter is: eight digits, manufacturer, version and medium; wildcards are F, None, None, None."""

    digits: str
    manufacturer: str | None = None
    version: int | None = None
    medium: int | None = None

    @classmethod
    def parse(cls, text: str) -> SecondaryAddress:
        """Sixteen digits as they are printed and as most tools write them, or the first eight of them.

        Raises:
            ValueError: neither.
        """
        text = text.strip().upper()
        known = len(text) in (8, 16) and all(c in "0123456789F" for c in text[:8])
        try:
            rest = bytes.fromhex(text[8:])
        except ValueError:
            known = False
        if not known:
            raise ValueError(
                f"{text!r} is no secondary address: expected 8 digits (F is any), or 16 with maker, version and medium"
            )
        if not rest:
            return cls(text)
        maker = int.from_bytes(rest[:2], "little")
        return cls(
            text[:8],
            None if maker == 0xFFFF else manufacturer(maker),
            None if rest[2] == 0xFF else rest[2],
            None if rest[3] == 0xFF else rest[3],
        )

    def encode(self) -> bytes:
        """The eight octets of a selection."""
        maker = 0xFFFF if self.manufacturer is None else manufacturer_code(self.manufacturer)
        version = 0xFF if self.version is None else self.version
        medium = 0xFF if self.medium is None else self.medium
        return bytes.fromhex(self.digits)[::-1] + maker.to_bytes(2, "little") + bytes((version, medium))

    def __str__(self) -> str:
        return self.digits + self.encode()[4:].hex().upper()


def manufacturer(code: int) -> str:
    """The three letters of a manufacturer's code (EN 62056-21, FLAG association)."""
    return "".join(chr((code >> shift & 0x1F) + 64) for shift in (10, 5, 0))


def manufacturer_code(letters: str) -> int:
    """The code of three letters."""
    first, second, third = (ord(letter) - 64 & 0x1F for letter in letters)
    return first << 10 | second << 5 | third
