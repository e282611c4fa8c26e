"""HDLC frames of IEC 62056-46 (frame format type 3) and the framer that finds them in a dirty octet stream.

It knows octets, addresses and check sequences; sequence numbers and time are the link's.

The framer must survive, and its tests show that it does:
- one octet at a time, and several frames in one read;
- 0x7E inside a frame and as the last octet of the FCS: the end comes from the length field, then the FCS;
- one flag shared by two frames, and any number of flags between them;
- a torn frame followed by a good one, a length field that promises more than will come: HCS and FCS tell;
- a closing flag that noise has changed: the FCS has vouched for the frame already;
- noise for ever: the buffer never holds more than one frame of the longest length.

"Corrupt" is not "incomplete": after a bad check sequence the search goes on one octet after the flag, so that
a good frame inside the rubbish is still found.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from firmware_io.dlms import _codec
from firmware_io.dlms.frame import Frame
from firmware_io.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["Address", "Frame", "Framer", "encode_frame", "fcs16", "frame_octets"]

FLAG = 0x7E
MAX_LENGTH = 0x7FF  # the length field has 11 bits
MIN_LENGTH = 7  # format 2, addresses 1 + 1, control 1, check sequence 2

ALL_STATION = 0x7F  # of a one-octet or the lower half of a two-octet address; 0x3FFF in four octets
NO_STATION = 0x00

fcs16 = _codec.fcs16
frame_octets = _codec.encode_frame  # of the parts of a frame, without making a Frame of them
Framer = _codec.Framer


class Address(NamedTuple):
    """An HDLC address: `upper` (logical device, or the client), `lower` (physical device, None in one octet)."""

    upper: int
    lower: int | None = None
    octets: int = 1

    @classmethod
    def server(cls, logical: int, physical: int, octets: int = 0) -> Self:
        """A server's address; `octets` 0 takes the shortest of 2 and 4. One octet carries `physical` alone.

        Raises:
            LocalProtocolError: the numbers do not fit into that many octets.
        """
        if octets == 1:
            return cls(physical)._checked()
        return cls(logical, physical, octets or (2 if max(logical, physical) < 0x80 else 4))._checked()

    @classmethod
    def client(cls, number: int) -> Self:
        """A client's address: one octet up to 127, two beyond that, as some meters have it.

        Raises:
            LocalProtocolError: above 16383.
        """
        return (cls(number) if number < 0x80 else cls(number >> 7, number & 0x7F, 2))._checked()

    def _checked(self) -> Self:
        limit = 0x4000 if self.octets == 4 else 0x80
        numbers = [self.upper] if self.lower is None else [self.upper, self.lower]
        if self.octets not in (1, 2, 4) or not all(0 <= n < limit for n in numbers):
            raise LocalProtocolError(f"HDLC address {self.upper}/{self.lower} does not fit into {self.octets} octets")
        return self

    def encode(self) -> bytes:
        """The octets on the wire: seven bits each, the least significant bit marks the last one."""
        if self.lower is None:
            return bytes((self.upper << 1 | 1,))
        if self.octets == 2:
            return bytes((self.upper << 1, self.lower << 1 | 1))
        upper, lower = self.upper, self.lower
        return bytes(
            ((upper >> 7) << 1, (upper & 0x7F) << 1, (lower >> 7) << 1, (lower & 0x7F) << 1 | 1),
        )

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read the octets of one address field.

        Raises:
            RemoteProtocolError: not 1, 2 or 4 octets, or the end mark is in the wrong place.
        """
        if len(octets) not in (1, 2, 4) or not octets[-1] & 1 or any(o & 1 for o in octets[:-1]):
            raise RemoteProtocolError(f"{octets.hex()} is not an HDLC address")
        bits = [o >> 1 for o in octets]
        if len(bits) == 1:
            return cls(bits[0])
        if len(bits) == 2:
            return cls(bits[0], bits[1], 2)
        return cls(bits[0] << 7 | bits[1], bits[2] << 7 | bits[3], 4)

    def __str__(self) -> str:
        return str(self.upper) if self.lower is None else f"{self.upper}/{self.lower}"


def encode_frame(frame: Frame) -> bytes:
    """The frame with its flags and check sequences.

    Raises:
        LocalProtocolError: longer than the length field can say.
    """
    return frame_octets(*frame)
