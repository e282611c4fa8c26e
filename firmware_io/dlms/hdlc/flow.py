"""What both ends of an HDLC link share: control fields, parameters, and the flow of numbered segments.

IEC 62056-46. It counts, cuts and joins; who may speak when is the links' business.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Self

from firmware_io.errors import RemoteProtocolError

LLC_COMMAND = b"\xe6\xe6\x00"  # in front of each unit from client to server
LLC_RESPONSE = b"\xe6\xe7\x00"
MAX_INFORMATION = 2030  # what the length field leaves with two addresses of four octets
MAX_PDU = 0x10000  # longest unit put together from segments: bounds what a peer can make us keep

# Control field; P/F is bit 0x10 and comes masked off here.
RR, RNR, REJ = 0x01, 0x05, 0x09
SNRM, DISC, UA, DM, FRMR, UI = 0x83, 0x43, 0x63, 0x0F, 0x87, 0x03
FINAL = 0x10


def is_information(control: int) -> bool:
    """Whether the control field is that of an I frame."""
    return not control & 0x01


def is_supervisory(control: int) -> bool:
    """Whether the control field is that of an RR, RNR or REJ frame."""
    return control & 0x03 == 0x01


def control_name(control: int) -> str:
    """The frame's name for a trace."""
    poll = " P/F" if control & FINAL else ""
    if is_information(control):
        return f"I N(S)={control >> 1 & 7} N(R)={control >> 5}{poll}"
    if is_supervisory(control):
        return f"{ {RR: 'RR', RNR: 'RNR', REJ: 'REJ'}.get(control & 0x0F, 'S?') } N(R)={control >> 5}{poll}"
    return _UNNUMBERED.get(control & ~FINAL, f"U {control:#04x}") + poll


_UNNUMBERED = {SNRM: "SNRM", DISC: "DISC", UA: "UA", DM: "DM", FRMR: "FRMR", UI: "UI"}


class Parameters(NamedTuple):
    """Sizes of information fields (octets) and windows (frames), as one side sees them."""

    transmit_size: int = 128
    receive_size: int = 128
    transmit_window: int = 1
    receive_window: int = 1

    def encode(self) -> bytes:
        """The information field of SNRM and UA."""
        body = b""
        for identifier, value, width in zip((5, 6, 7, 8), self, (2, 2, 4, 4), strict=True):
            body += bytes((identifier, width)) + value.to_bytes(width, "big")
        return b"\x81\x80" + bytes((len(body),)) + body

    @classmethod
    def decode(cls, information: bytes) -> Self:
        """What the other side proposes, from its own point of view; what it leaves out has its default.

        Raises:
            RemoteProtocolError: not a parameter field.
        """
        values = list(cls())
        if not information:
            return cls(*values)
        if information[:2] != b"\x81\x80" or len(information) < 3 or information[2] != len(information) - 3:
            raise RemoteProtocolError(f"{information.hex()} is no HDLC parameter field")
        offset = 3
        while offset < len(information):
            width = information[offset + 1] if offset + 1 < len(information) else 0
            field = information[offset + 2 : offset + 2 + width]
            if not 1 <= width <= 4 or len(field) != width:
                raise RemoteProtocolError(f"{information.hex()} is no HDLC parameter field")
            if 5 <= information[offset] <= 8:
                values[information[offset] - 5] = int.from_bytes(field, "big")
            offset += 2 + width
        if min(values) < 1:
            raise RemoteProtocolError(f"an HDLC parameter of 0 in {information.hex()}")
        return cls(*values)

    def agreed_with(self, other: Parameters) -> Parameters:
        """What both sides can do, from our point of view."""
        return Parameters(
            min(self.transmit_size, other.receive_size, MAX_INFORMATION),
            min(self.receive_size, other.transmit_size, MAX_INFORMATION),
            min(self.transmit_window, other.receive_window, 7),
            min(self.receive_window, other.transmit_window, 7),
        )


class Flow:
    """Sequence numbers, window and segmentation of a link; the same in both roles."""

    def __init__(self, parameters: Parameters, max_pdu: int) -> None:
        self.parameters = parameters
        self._max_pdu = max_pdu
        self._segments: deque[tuple[bytes, bool]] = deque()  # not acknowledged yet, oldest first
        self.oldest = 0  # N(S) of the oldest of them
        self._in_flight = 0
        self._assembly = bytearray()
        self.expected = 0  # V(R)

    @property
    def unacknowledged(self) -> bool:
        return bool(self._segments)

    def load(self, pdu: bytes) -> None:
        size = self.parameters.transmit_size
        parts = [pdu[i : i + size] for i in range(0, len(pdu), size)]
        self._segments.extend((part, i + 1 < len(parts)) for i, part in enumerate(parts))

    def window(self) -> list[tuple[int, bytes, bool]]:
        """Control field, information and segmentation bit of the frames to send now; P/F is in the last."""
        frames = []
        while self._in_flight < min(len(self._segments), self.parameters.transmit_window):
            information, segmented = self._segments[self._in_flight]
            number = (self.oldest + self._in_flight) & 7
            frames.append((self.expected << 5 | number << 1, information, segmented))
            self._in_flight += 1
        if frames:
            frames[-1] = (frames[-1][0] | FINAL, *frames[-1][1:])
        return frames

    def acknowledge(self, expected_by_peer: int) -> None:
        """N(R) of the other side: drop what it has.

        Raises:
            RemoteProtocolError: it acknowledges what was never sent.
        """
        count = (expected_by_peer - self.oldest) & 7
        if count > self._in_flight:
            raise RemoteProtocolError(f"N(R)={expected_by_peer} acknowledges frames that were never sent")
        for _ in range(count):
            self._segments.popleft()
        self.oldest = expected_by_peer
        self._in_flight -= count

    def answers_all(self, expected_by_peer: int) -> bool:
        """Whether N(R) says that the other side has had all that we sent."""
        return expected_by_peer == (self.oldest + self._in_flight) & 7

    def rewind(self) -> None:
        """Send what is not acknowledged again."""
        self._in_flight = 0

    def is_repeat(self, number: int) -> bool:
        """Whether N(S) is that of a frame we have had already, and not of one behind a gap."""
        return (number - self.expected) & 7 >= self.parameters.receive_window

    def accept(self, information: bytes, segmented: bool) -> bytes | None:
        """Take the expected segment; the whole unit when it was the last.

        Raises:
            RemoteProtocolError: the unit is longer than any may be.
        """
        self.expected = (self.expected + 1) & 7
        if not segmented and not self._assembly:
            return information
        self._assembly += information
        if len(self._assembly) > self._max_pdu:
            self._assembly.clear()
            raise RemoteProtocolError(f"a unit of more than {self._max_pdu} octets")
        if segmented:
            return None
        pdu = bytes(self._assembly)
        self._assembly.clear()
        return pdu
