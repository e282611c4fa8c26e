"""Signing on at an optical head: mode E of IEC 62056-21, which ends in HDLC at a higher speed.

In text of 7 bits and even parity at 300 Bd the meter is called, says who it is and how fast it can be, and is told to
go on in HDLC (IEC 62056-46, annex "opening with mode E"). It forgets that when the link is released or was idle for
long, so that each link begins with it. Where the line's own speed cannot be changed from here (TCP), the parity bit is
made here, and the converter has to be set to the speed.
"""

from __future__ import annotations

from firmware_io.driver import Trace
from firmware_io.errors import RemoteProtocolError
from firmware_io.transport import Adjustable, Transport

CALL = b"/?!\r\n"
CALL_BAUD = 300
BAUDS = {b"0": 300, b"1": 600, b"2": 1200, b"3": 2400, b"4": 4800, b"5": 9600, b"6": 19200}
ACK, PROTOCOL_HDLC, MODE_HDLC = b"\x06", b"2", b"2"
MODE_E = b"\\2"  # in the identification: the meter knows mode E
MAX_IDENTIFICATION = 128
OCTET_BITS = 10  # start, seven bits and parity or eight, stop
CALL_TIMEOUT_S = 2.0  # for the first octet; IEC 62056-21 has 1.5 s
CHANGE_S = 0.3  # both sides turn to the new speed


class ModeE:
    """Opens a line before SNRM; `baud` is the highest speed that is wanted."""

    def __init__(self, baud: int, trace: Trace | None = None) -> None:
        self._most = max(baud, CALL_BAUD)
        self._trace = trace

    def sign_on(self, transport: Transport) -> int | None:
        """Have the meter turn to HDLC: the speed it goes on with; None if it does not answer to its call.

        A meter that does not answer may stand in HDLC still: the caller tries that, at the highest speed.

        Raises:
            RemoteProtocolError: it answers, and does not know mode E.
            TransportError: the line is gone.
        """
        self._adjust(transport, CALL_BAUD, call=True)
        self._write(transport, CALL)
        identification = self._line(transport)
        if not identification:
            self._adjust(transport, self._most)
            return None
        if identification[:1] != b"/" or len(identification) < 5 or MODE_E not in identification:
            raise RemoteProtocolError(f'identification "{_shown(identification)}": the meter does not know mode E')
        offered = BAUDS.get(identification[4:5])
        if offered is None:
            raise RemoteProtocolError(f'identification "{_shown(identification)}": expected a speed from 0 to 6')
        letter, baud = max(((k, b) for k, b in BAUDS.items() if b <= min(offered, self._most)), key=lambda one: one[1])
        choice = ACK + PROTOCOL_HDLC + letter + MODE_HDLC + b"\r\n"
        self._write(transport, choice)
        self._line(transport)  # its own acknowledgement; not every meter sends it
        self._adjust(transport, baud)
        end = transport.monotonic() + CHANGE_S
        while transport.monotonic() < end:
            transport.read(MAX_IDENTIFICATION, end)
        return baud

    def _line(self, transport: Transport) -> bytes:
        """One line of text; what there is of it when time is over."""
        text = bytearray()
        deadline = transport.monotonic() + CALL_TIMEOUT_S
        end = deadline + MAX_IDENTIFICATION * OCTET_BITS / CALL_BAUD
        while not text.endswith(b"\n") and len(text) < MAX_IDENTIFICATION:
            octets = transport.read(MAX_IDENTIFICATION, deadline)
            if not octets:
                break
            if self._trace:
                self._trace(False, octets)
            text += bytes(octet & 0x7F for octet in octets)
            deadline = min(end, transport.monotonic() + CALL_TIMEOUT_S)
        start = max(text.find(b"/"), 0)  # behind what the line made of the switching
        return bytes(text[start:])

    def _write(self, transport: Transport, text: bytes) -> None:
        octets = text if isinstance(transport, Adjustable) else bytes(map(_even, text))
        if self._trace:
            self._trace(True, octets)
        transport.write(octets)

    @staticmethod
    def _adjust(transport: Transport, baud: int, *, call: bool = False) -> None:
        if isinstance(transport, Adjustable):
            transport.adjust(baud, 7 if call else 8, "E" if call else "N")


def _even(octet: int) -> int:
    """Seven bits with their parity in the eighth."""
    return octet | (octet.bit_count() & 1) << 7


def _shown(text: bytes) -> str:
    return text.decode("ascii", "replace").strip()
