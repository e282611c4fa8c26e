"""An optical head in front of a line of one meter: IEC 62056-21 mode E has to be spoken before HDLC is understood.

Sans IO, as the line behind it. A link that was released, or idle for long, needs the sign-on again.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Hashable

from firmware_io.dlms.hdlc.flow import DISC, FINAL
from firmware_io.dlms.hdlc.framer import Framer
from firmware_io.simulator.line.bus import Due, Multidrop

IDENTIFICATION = b"/CHM5\\2CHECKMETER-SIM\r\n"  # 5: up to 9600 Bd
_CALL = re.compile(rb"/\?[^!\r\n]{0,32}!\r\n")
_CHOICE = re.compile(rb"\x062([0-6])2\r\n")
KEPT_OCTETS = 256
CHOICE_S = 5.0  # so long is the choice of the client waited for


class State(enum.Enum):
    """What is understood now."""

    CALL = enum.auto()
    CHOICE = enum.auto()
    HDLC = enum.auto()


class OpticalHead:
    """A line that has to be signed on to; `inactivity_s` without a frame and it is text again."""

    def __init__(self, line: Multidrop, inactivity_s: float) -> None:
        self._line = line
        self._inactivity_s = inactivity_s
        self._state = State.CALL
        self._text = bytearray()
        self._framer = Framer()
        self._heard_s = float("-inf")
        self.sign_ons = 0

    @property
    def busy_until_s(self) -> float:
        """See `Wires`."""
        return self._line.busy_until_s

    @busy_until_s.setter
    def busy_until_s(self, time_s: float) -> None:
        self._line.busy_until_s = time_s

    def receive(self, octets: bytes, time_s: float, connection: Hashable = None) -> None:
        """See `Wires`."""
        patience_s = CHOICE_S if self._state is State.CHOICE else self._inactivity_s
        if self._state is not State.CALL and time_s - self._heard_s > patience_s:
            self._state = State.CALL
        self._heard_s = time_s
        if self._state is State.HDLC:
            self._line.receive(octets, time_s, connection)
            if any(frame.control & ~FINAL == DISC for frame in self._framer.receive(octets)):
                self._state = State.CALL
            return
        self._text += bytes(octet & 0x7F for octet in octets)
        del self._text[:-KEPT_OCTETS]
        if self._state is State.CALL and _CALL.search(self._text):
            self._say(IDENTIFICATION, State.CHOICE, time_s, connection)
        elif self._state is State.CHOICE and (choice := _CHOICE.search(self._text)):
            self.sign_ons += 1
            self._framer.reset()
            self._say(choice.group(0), State.HDLC, time_s, connection)

    def due(self, time_s: float) -> list[Due]:
        """See `Wires`."""
        return self._line.due(time_s)

    def next_due_s(self) -> float | None:
        """See `Wires`."""
        return self._line.next_due_s()

    def forget(self, connection: Hashable) -> None:
        """See `Wires`."""
        self._line.forget(connection)

    def _say(self, text: bytes, state: State, time_s: float, connection: Hashable) -> None:
        self._text.clear()
        self._state = state
        self._line.utter(text, time_s + self._line.turnaround_s, connection)
