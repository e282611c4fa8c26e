"""The HDLC link of IEC 62056-46 in normal response mode, sans IO: a client that polls and a server that answers.

Theory of operation. The client (primary) alone may start: with P=1 it hands the turn to the server, which answers
with one or more frames, the last of them with F=1, and so hands the turn back. SNRM/UA opens the link, negotiates
the sizes and sets the sequence numbers to 0; I frames carry segments of protocol data units, N(S) counts them,
N(R) says which one is expected next and so acknowledges all before. Whoever sees a gap repeats its N(R), and the
other side sends again from there. A time-out is the caller's to notice: it calls `repeat()`.

All transitions are in the three tables of `states`: what the caller orders, what a client makes of an answer, what a
server makes of a request. A breach of the rules is `Order.FORGET`. Nothing else changes a state.

Both links take whole frames (`handle`) and keep what has to go out until `take` is called: they never read, write
or wait. Frames that are not for this link are counted in `foreign` and change nothing; an echo of our own frame is
one of them, because it is addressed to the other side. A frame that came twice changes nothing either.
"""

from __future__ import annotations

from firmware_io.dlms.hdlc.flow import (
    DISC,
    DM,
    FINAL,
    FRMR,
    LLC_COMMAND,
    LLC_RESPONSE,
    MAX_INFORMATION,
    MAX_PDU,
    REJ,
    RNR,
    RR,
    SNRM,
    UA,
    UI,
    Flow,
    Parameters,
    control_name,
    is_information,
    is_supervisory,
)
from firmware_io.dlms.hdlc.framer import Address, Frame, frame_octets
from firmware_io.dlms.hdlc.states import (
    ANSWERS,
    ORDERS,
    REQUESTS,
    Busy,
    Connected,
    Disconnected,
    Event,
    Order,
    Received,
    State,
)
from firmware_io.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "DISC",
    "DM",
    "FINAL",
    "FRMR",
    "LLC_COMMAND",
    "LLC_RESPONSE",
    "MAX_INFORMATION",
    "MAX_PDU",
    "REJ",
    "RNR",
    "RR",
    "SNRM",
    "UA",
    "UI",
    "Busy",
    "ClientLink",
    "Connected",
    "Disconnected",
    "Event",
    "Parameters",
    "Received",
    "ServerLink",
    "State",
    "control_name",
    "is_information",
    "is_supervisory",
]


def _strip(pdu: bytes, llc: bytes) -> bytes:
    if pdu[:3] != llc:
        raise RemoteProtocolError(f"LLC header: expected {llc.hex()}, got {pdu[:3].hex()}")
    return pdu[3:]


class ClientLink:
    """Our end towards one meter. `turn` says that it is on us to send; at first, after F=1, and after a time-out."""

    def __init__(self, server: Address, client: Address, offer: Parameters, max_pdu: int = MAX_PDU) -> None:
        self._server = server.encode()
        self._client = client.encode()
        self._offer = offer
        self._max_pdu = max_pdu
        self._flow = Flow(Parameters(), max_pdu)
        self._outbox = bytearray()
        self.state = State.DISCONNECTED
        self.turn = True
        self.foreign = 0

    @property
    def parameters(self) -> Parameters:
        """What was negotiated."""
        return self._flow.parameters

    @property
    def progress(self) -> tuple[int, int]:
        """Changes with every segment that arrives, here or there."""
        return self._flow.expected, self._flow.oldest

    def take(self) -> bytes:
        """What has to go out now, once."""
        octets = bytes(self._outbox)
        self._outbox.clear()
        if octets:
            self.turn = False
        return octets

    def connect(self) -> None:
        """Ask for the link: SNRM."""
        self.state = ORDERS[Order.CONNECT]
        self._flow = Flow(Parameters(), self._max_pdu)
        self._outbox.clear()
        self._send(SNRM | FINAL, self._offer.encode())

    def disconnect(self) -> None:
        """Release the link: DISC."""
        self.state = ORDERS[Order.RELEASE]
        self._outbox.clear()
        self._send(DISC | FINAL)

    def send(self, pdu: bytes) -> None:
        """Send a unit, in segments where it must be.

        Raises:
            LocalProtocolError: the link is not open, or the last unit is still under way.
        """
        if self.state is not State.CONNECTED or self._flow.unacknowledged:
            raise LocalProtocolError(f"a unit was to be sent while the link is {self.state.name.lower()} or busy")
        self._flow.load(LLC_COMMAND + pdu)
        self._send_window()

    def poll(self) -> None:
        """Give the meter the turn without a unit: RR. It keeps an idle link open, and fetches what is late."""
        self._send(RR | FINAL | self._flow.expected << 5)

    def repeat(self) -> None:
        """Nothing came in time: send again what is not answered."""
        self.turn = True
        if self.state is State.CONNECTING:
            self._send(SNRM | FINAL, self._offer.encode())
        elif self.state is State.DISCONNECTING:
            self._send(DISC | FINAL)
        elif self.state is State.CONNECTED:
            self._flow.rewind()
            self._send_window()

    def drop(self) -> None:
        """Forget the link without a word."""
        self.state = ORDERS[Order.FORGET]
        self._outbox.clear()
        self.turn = True

    def handle(self, frame: Frame) -> list[Event]:
        """Take a frame from the line.

        Raises:
            RemoteProtocolError: it breaks the rules of the link; the link is closed then.
        """
        if frame.destination != self._client or frame.source != self._server:
            self.foreign += 1
            return []
        try:
            return self._handle(frame)
        except RemoteProtocolError:
            self.drop()
            raise

    def _handle(self, frame: Frame) -> list[Event]:
        control = frame.control
        if is_information(control):
            return self._handle_information(frame) if self.state is State.CONNECTED else []
        if is_supervisory(control):
            return self._handle_supervisory(control) if self.state is State.CONNECTED else []
        answer = control & ~FINAL
        if answer == UI and self.state is State.CONNECTED:
            return [Received(_strip(frame.information, LLC_RESPONSE), unnumbered=True)]
        transition = ANSWERS.get((self.state, answer))
        if transition is None:
            return []
        self.state, reason = transition
        self.turn = True
        if self.state is not State.CONNECTED:
            self._outbox.clear()
            return [Disconnected(reason, answer == FRMR)]
        self._flow = Flow(self._offer.agreed_with(Parameters.decode(frame.information)), self._max_pdu)
        return [Connected(self._flow.parameters)]

    def _handle_information(self, frame: Frame) -> list[Event]:
        flow, number = self._flow, frame.control >> 1 & 7
        if number != flow.expected and flow.is_repeat(number):
            return []  # its answer is still to come, or came already: the turn does not change
        if not flow.answers_all(frame.control >> 5):
            return []  # late: what it answers is not what we asked last
        flow.acknowledge(frame.control >> 5)
        events: list[Event] = []
        if number == flow.expected:
            pdu = flow.accept(frame.information, frame.segmented)
            if pdu is not None:
                events.append(Received(_strip(pdu, LLC_RESPONSE)))
        if frame.control & FINAL:
            self.turn = True
            if not events:
                self._send_window()  # the rest of ours, or RR for the next segments
        return events

    def _handle_supervisory(self, control: int) -> list[Event]:
        kind = control & 0x0F
        if kind not in (RR, RNR, REJ):
            raise RemoteProtocolError(f"control field {control:#04x} is unknown")
        if self.turn:
            return []  # an answer to what was asked before: nothing is open
        self._flow.acknowledge(control >> 5)
        if not control & FINAL:
            return []
        self.turn = True
        if kind == RNR or not self._flow.unacknowledged:
            return [Busy()]
        self._flow.rewind()
        self._send_window()
        return []

    def _send_window(self) -> None:
        frames = self._flow.window()
        for control, information, segmented in frames:
            self._send(control, information, segmented)
        if not frames:
            self.poll()

    def _send(self, control: int, information: bytes = b"", segmented: bool = False) -> None:
        self._outbox += frame_octets(self._server, self._client, control, information, segmented)


class ServerLink:
    """A meter's end towards one client: it speaks only when it is polled.

    It answers frames of the one pair of addresses it was made for; who has several clients keeps several links.
    The application answers a `Received` with `send`; until it does, the line stays silent.
    """

    def __init__(self, server: Address, client: Address, limits: Parameters, max_pdu: int = MAX_PDU) -> None:
        self._server = server.encode()
        self._client = client.encode()
        self._limits = limits
        self._max_pdu = max_pdu
        self._flow = Flow(Parameters(), max_pdu)
        self._outbox = bytearray()
        self.state = State.DISCONNECTED
        self.foreign = 0

    @property
    def parameters(self) -> Parameters:
        """What was negotiated."""
        return self._flow.parameters

    def take(self) -> bytes:
        """What has to go out now, once."""
        octets = bytes(self._outbox)
        self._outbox.clear()
        return octets

    def send(self, *pdus: bytes) -> None:
        """Answer with units, in segments where it must be; without one there is no answer.

        Raises:
            LocalProtocolError: the link is not open.
        """
        if self.state is not State.CONNECTED:
            raise LocalProtocolError("an answer on a link that is not open")
        for pdu in pdus:
            self._flow.load(LLC_RESPONSE + pdu)
        if pdus:
            self._send_window()

    def notify(self, pdu: bytes) -> None:
        """Send a unit outside of the sequence, in a UI frame."""
        self._send(UI, LLC_RESPONSE + pdu)

    def drop(self) -> None:
        """Forget the link, as after the inactivity time-out."""
        self.state = ORDERS[Order.FORGET]
        self._outbox.clear()

    def handle(self, frame: Frame) -> list[Event]:
        """Take a frame from the line; a breach of the rules is answered with FRMR and closes the link."""
        if frame.destination != self._server or frame.source != self._client:
            self.foreign += 1
            return []
        try:
            return self._handle(frame)
        except RemoteProtocolError as error:
            self.drop()
            flow = self._flow
            self._send(FRMR | FINAL, bytes((frame.control, flow.expected << 5, 0x01)))
            return [Disconnected(str(error))]

    def _handle(self, frame: Frame) -> list[Event]:
        control = frame.control
        kind = control & ~FINAL
        if kind == SNRM:
            parameters = self._limits.agreed_with(Parameters.decode(frame.information))
            self._flow = Flow(parameters, self._max_pdu)
            self.state = REQUESTS[kind]
            self._outbox.clear()
            self._send(UA | FINAL, parameters.encode())
            return [Connected(parameters)]
        if kind == DISC:
            was_open = self.state is State.CONNECTED
            self.state = REQUESTS[kind]
            self._outbox.clear()
            self._send((UA if was_open else DM) | FINAL)
            return [Disconnected("released by the client")] if was_open else []
        if self.state is not State.CONNECTED:
            if control & FINAL:
                self._send(DM | FINAL)
            return []
        if is_information(control):
            return self._handle_information(frame)
        if is_supervisory(control):
            self._handle_supervisory(control)
            return []
        if kind == UI:
            return [Received(_strip(frame.information, LLC_COMMAND), unnumbered=True)]
        raise RemoteProtocolError(f"control field {control:#04x} is unknown")

    def _handle_information(self, frame: Frame) -> list[Event]:
        flow, number = self._flow, frame.control >> 1 & 7
        if len(frame.information) > flow.parameters.receive_size:
            raise RemoteProtocolError(f"an information field of {len(frame.information)} octets")
        flow.acknowledge(frame.control >> 5)
        if number == flow.expected:
            pdu = flow.accept(frame.information, frame.segmented)
            if pdu is not None:
                return [Received(_strip(pdu, LLC_COMMAND))]
        if frame.control & FINAL:
            flow.rewind()  # a repeated request has missed our answer, which is sent again
            self._send_window()
        return []

    def _handle_supervisory(self, control: int) -> None:
        kind = control & 0x0F
        if kind not in (RR, RNR, REJ):
            raise RemoteProtocolError(f"control field {control:#04x} is unknown")
        self._flow.acknowledge(control >> 5)
        if not control & FINAL:
            return
        self._flow.rewind()
        if kind == RNR:
            self._send(RR | FINAL | self._flow.expected << 5)
        else:
            self._send_window()

    def _send_window(self) -> None:
        frames = self._flow.window()
        for control, information, segmented in frames:
            self._send(control, information, segmented)
        if not frames:
            self._send(RR | FINAL | self._flow.expected << 5)

    def _send(self, control: int, information: bytes = b"", segmented: bool = False) -> None:
        self._outbox += frame_octets(self._client, self._server, control, information, segmented)
