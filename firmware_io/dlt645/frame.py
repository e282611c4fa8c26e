"""Frames of DL/T 645 (2007 clause 5; 1997 has the same): octets to frames and back, addresses, BCD. Sans IO.

    FE FE FE FE | 68 | A0..A5 | 68 | C | L | L octets of data, each + 33h | CS | 16

The four FEh wake a sleeping receiver and may be missing. The address is twelve BCD digits, low octet first; AAh is a
wildcard octet, 99h..99h addresses everybody and nobody answers it.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io import _octets
from firmware_io.errors import LocalProtocolError

HEAD, TAIL = 10, 2  # octets around the data
MAX_READ_DATA = 200  # of a reply (clause 5.2.5)
LONGEST = 4 + HEAD + 255 + TAIL
BROADCAST = b"\x99" * 6
ANYBODY = b"\xaa" * 6

# Control codes, 2007; the low five bits are the function.
REPLY, ABNORMAL, FOLLOW_ON = 0x80, 0x40, 0x20
FUNCTION = 0x1F
TIME_BROADCAST, READ, READ_ON, READ_ADDRESS, WRITE = 0x08, 0x11, 0x12, 0x13, 0x14
READ_1997, READ_ON_1997 = 0x01, 0x02

# Bits of the error word (2007, annex C table 7).
OTHER_ERROR, NO_DATA, NOT_AUTHORISED = 0x01, 0x02, 0x04
_ERROR_TEXTS = (
    "another error",
    "no such data",
    "wrong password or no right",
    "baud rate cannot be changed",
    "too many yearly time zones",
    "too many daily periods",
    "too many rates",
)


class Frame(NamedTuple):
    """One frame; `address` as on the wire (low octet first), `data` without the offset of 33h."""

    address: bytes
    control: int
    data: bytes = b""

    @property
    def is_reply(self) -> bool:
        """Whether a meter sent it; our echo is none."""
        return bool(self.control & REPLY)

    @property
    def abnormal(self) -> bool:
        """Whether the meter refuses; the error word is in `data` then."""
        return bool(self.control & ABNORMAL)

    @property
    def follow_on(self) -> bool:
        """Whether the meter has more to say."""
        return bool(self.control & FOLLOW_ON)

    def encode(self, wake_up: int = 4) -> bytes:
        """The octets, behind `wake_up` times FEh.

        Raises:
            LocalProtocolError: an address that is not six octets, or more data than fits.
        """
        try:
            return _octets.encode_dlt645(self.address, self.control, self.data, wake_up)
        except (ValueError, OverflowError) as error:
            raise LocalProtocolError(f"no frame of DL/T 645: {error}") from error


parse = _octets.Dlt645Parser(Frame)
encode = _octets.encode_dlt645  # address, control, data, octets of wake-up: the frame, without a `Frame`


def address_of(digits: str) -> bytes:
    """The address octets of up to twelve digits, as printed on the meter; shorter ones are filled with zeros.

    `A` stands for a wildcard digit; only whole octets can be wild.

    Raises:
        ValueError: not up to twelve digits.
    """
    text = digits.strip().upper().rjust(12, "0")
    pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
    if len(text) != 12 or any(not (pair.isdigit() or pair == "AA") for pair in pairs):
        raise ValueError(f"{digits!r} is no address of DL/T 645: expected up to twelve digits, as printed on the meter")
    return bytes(int(pair, 16) for pair in reversed(pairs))


def digits_of(address: bytes) -> str:
    """Twelve digits of address octets, as printed on the meter."""
    return address[::-1].hex().upper()


def covers(pattern: bytes, address: bytes) -> bool:
    """Whether an address, perhaps with wildcard octets, is meant for a meter."""
    return all(wanted in (0xAA, octet) for wanted, octet in zip(pattern, address, strict=True))


def error_text(word: int) -> str:
    """The bits of an error word in words."""
    found = [text for bit, text in enumerate(_ERROR_TEXTS) if word >> bit & 1]
    return ", ".join(found) or f"error word {word:02X}h"


def bcd_number(octets: bytes, *, signed: bool = False) -> int | None:
    """The number of up to nine BCD octets, low octet first; None where a digit is none (FFh: not available).

    With `signed`, the highest bit is the sign (2007, annex A: power, power factor, current of newer meters).
    """
    return _octets.bcd_number(octets, signed)


def to_bcd(number: int, octets: int, *, signed: bool = False) -> bytes:
    """BCD octets of a number, low octet first; see `bcd_number`."""
    encoded = bytearray.fromhex(f"{abs(number) % 10 ** (2 * octets):0{2 * octets}d}")[::-1]
    if signed and number < 0:
        encoded[-1] |= 0x80
    return bytes(encoded)
