"""The states of an HDLC link, every transition between them, and the events that a link tells its caller.

Rule: no state changes outside of these tables. They know no octets.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

from firmware_io.dlms.hdlc.flow import DISC, DM, FRMR, SNRM, UA, Parameters


class Connected(NamedTuple):
    """The link is open with these parameters."""

    parameters: Parameters


class Disconnected(NamedTuple):
    """The link is closed; why, and whether the other side took a frame of ours for a breach of the rules."""

    reason: str
    rejected: bool = False


class Received(NamedTuple):
    """A whole protocol data unit; `unnumbered` when it came in a UI frame, outside of the sequence."""

    pdu: bytes
    unnumbered: bool = False


class Busy(NamedTuple):
    """The server answered, but has nothing for us yet: ask again after a moment."""


Event: TypeAlias = Connected | Disconnected | Received | Busy


class State(enum.Enum):
    """Of either link; a server is never CONNECTING or DISCONNECTING."""

    DISCONNECTED = enum.auto()
    CONNECTING = enum.auto()
    CONNECTED = enum.auto()
    DISCONNECTING = enum.auto()


class Order(enum.Enum):
    """What the caller of a link wants, or a breach of the rules makes necessary."""

    CONNECT = enum.auto()
    RELEASE = enum.auto()
    FORGET = enum.auto()


# From every state.
ORDERS = {
    Order.CONNECT: State.CONNECTING,
    Order.RELEASE: State.DISCONNECTING,
    Order.FORGET: State.DISCONNECTED,
}
# What a request does to a server, in every state. Others change nothing.
REQUESTS = {SNRM: State.CONNECTED, DISC: State.DISCONNECTED}
# What an unnumbered answer does to a client: (state, answer) -> (next state, reason). Others change nothing.
ANSWERS: dict[tuple[State, int], tuple[State, str]] = {
    (State.CONNECTING, UA): (State.CONNECTED, ""),
    (State.CONNECTING, DM): (State.DISCONNECTED, "the meter refuses the link (DM)"),
    (State.CONNECTING, FRMR): (State.DISCONNECTED, "the meter rejects SNRM (FRMR)"),
    (State.CONNECTED, DM): (State.DISCONNECTED, "the meter has dropped the link (DM)"),
    (State.CONNECTED, FRMR): (State.DISCONNECTED, "the meter rejects our frame (FRMR)"),
    (State.DISCONNECTING, UA): (State.DISCONNECTED, "released"),
    (State.DISCONNECTING, DM): (State.DISCONNECTED, "released"),
}
