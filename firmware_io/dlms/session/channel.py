"""A way to one meter: hands units to it and waits for its own, under deadlines, over HDLC or the wrapper.

It drives a sans-IO link over a transport: writing, waiting, repeating once. What the units mean is the session's.

Its timers:
- *first octet*: `timeout_s` after our last octet has left; then the request is repeated, once. A meter that was late
  before is given up to `PATIENCE` times as much, so that it is not asked twice each time.
- *silence*: `inter_octet_s` without an octet inside a reply; what is held is a torn frame. When a frame was
  corrupt the reply is lost for certain, and the request is repeated after this short silence.
- *turn*: the longest reply the window allows, at the line's speed; nobody babbles longer than that.
- *stalled*: twice `timeout_s` of answers that neither acknowledge nor bring anything.
- *unit*: the longest that one unit may take, however much of it still comes.
- *busy*: `timeout_s` in which a meter may answer RR or RNR instead of the unit we wait for.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from firmware_io.dlms.hdlc.framer import MAX_LENGTH, MIN_LENGTH, Address, Framer
from firmware_io.dlms.hdlc.link import Busy, ClientLink, Disconnected, Event, Parameters, Received, State
from firmware_io.dlms.session.opening import OCTET_BITS, ModeE
from firmware_io.dlms.session.timing import Latency
from firmware_io.dlms.session.wrapper import MAX_UNIT, Unit, Unwrapper
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Trace, Traffic
from firmware_io.errors import RemoteProtocolError, ResponseTimeout
from firmware_io.spec import BusSpec, Timing
from firmware_io.transport import Transport

READ_OCTETS = 4096
LLC_OCTETS = 3
BUSY_PAUSE_S = 0.05
STALLED_TIMEOUTS = 2  # so long may answers come that move nothing: bounds how long a broken link can hold us
READ_BOUND_S = 60.0
UNIT_S = 60.0


class Channel(Protocol):
    """The way from a session to its meter."""

    traffic: Traffic
    in_order: bool  # whether a reply is never that to a question before the last one

    @property
    def unit_octets(self) -> int:
        """The longest unit that goes out in one piece."""

    def open(self) -> None:
        """Open the link. Raises: MeterError."""

    def send(self, pdu: bytes) -> None:
        """Take a unit to be sent by the next `receive`. Raises: MeterError."""

    def receive(self) -> bytes:
        """Send what is due and wait for the next unit of the meter. Raises: MeterError."""

    def poll(self) -> None:
        """Keep an idle link open. Raises: MeterError."""

    def monotonic(self) -> float:
        """The line's time, seconds."""

    def close(self) -> None:
        """Release the link where the other side still listens. Raises: TransportError."""


class FrameRejected(RemoteProtocolError):
    """The meter takes no such frame (FRMR)."""


class HdlcChannel:
    """A meter behind an HDLC link, on a serial line or a TCP connection that carries one."""

    def __init__(
        self,
        transport: Transport,
        link: ClientLink,
        timing: Timing,
        traffic: Traffic | None = None,
        trace: Trace | None = None,
        *,
        repeats: int = 1,
        min_gap_s: float = 0.0,
        latency: Latency | None = None,
        opening: ModeE | None = None,
    ) -> None:
        self.in_order = True
        self._opening = opening
        self.latency = latency or Latency()
        self.probing = False  # nobody is expected to answer
        self._transport = transport
        self._link = link
        self._timing = timing
        self._trace = trace
        self.repeats = repeats
        self._min_gap_s = min_gap_s
        self._quiet_since = -min_gap_s
        self._framer = Framer()
        self._inbox: deque[bytes] = deque()
        self.traffic = traffic if traffic is not None else Traffic()

    @property
    def unit_octets(self) -> int:
        """What fits into one information field, behind the LLC header."""
        return self._link.parameters.transmit_size - LLC_OCTETS

    def open(self) -> None:
        """SNRM and UA.

        Raises:
            ResponseTimeout: nobody there.
            RemoteProtocolError: the meter refuses the link.
        """
        self._inbox.clear()
        if self._opening is not None:
            baud = self._opening.sign_on(self._transport)
            if baud is not None:
                self._timing = self._timing._replace(octet_s=OCTET_BITS / baud)
        self._link.connect()
        while self._link.state is not State.CONNECTED:
            self._take(self._turn())

    def send(self, pdu: bytes) -> None:
        """Take a unit; the next `receive` sends it."""
        self._inbox.clear()  # a late unit answers a question that nobody asks any more
        self._link.send(pdu)

    def receive(self) -> bytes:
        """The meter's next unit."""
        busy_until: float | None = None
        moved, moved_s = self._link.progress, self._transport.monotonic()
        last_s = moved_s + UNIT_S
        while not self._inbox:
            if self._transport.monotonic() > last_s:
                self._link.drop()
                raise RemoteProtocolError(f"a reply that is not whole after {UNIT_S:.0f} s")
            events = self._turn()
            self._take(events)
            if events or self._link.progress != moved:
                moved, moved_s = self._link.progress, self._transport.monotonic()
            elif self._transport.monotonic() - moved_s > STALLED_TIMEOUTS * self._timing.timeout_s:
                self._link.drop()
                raise RemoteProtocolError("the meter answers, but neither takes our segments nor sends its own")
            if not any(isinstance(event, Busy) for event in events):
                continue
            now = self._transport.monotonic()
            busy_until = now + self._timing.timeout_s if busy_until is None else busy_until
            if now >= busy_until:
                raise ResponseTimeout(f"the meter kept us waiting for {self._timing.timeout_s} s; ask later")
            self._pause(BUSY_PAUSE_S)
        return self._inbox.popleft()

    def monotonic(self) -> float:
        """The line's time."""
        return self._transport.monotonic()

    def poll(self) -> None:
        """RR, so that an idle link is not dropped by the meter."""
        self._link.poll()
        self._take(self._turn())

    def close(self) -> None:
        """DISC, once; a meter that does not answer has its inactivity time-out."""
        if self._link.state is not State.CONNECTED:
            self._link.drop()
            return
        self._link.disconnect()
        try:
            self._turn(repeats=0)
        except (ResponseTimeout, RemoteProtocolError):
            pass
        finally:
            self._link.drop()

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Received):
                self._inbox.append(event.pdu)
            elif isinstance(event, Disconnected) and event.rejected:
                raise FrameRejected(f"{event.reason}; associate again, and ask for less at once")
            elif isinstance(event, Disconnected):
                raise RemoteProtocolError(f"{event.reason}; associate again")

    def _turn(self, repeats: int | None = None) -> list[Event]:
        """Send what is due and read until it is on us again; repeat on silence.

        Raises:
            ResponseTimeout: no answer to the request nor to its repetition; the link is dropped.
        """
        repeats = self.repeats if repeats is None else repeats
        due = self._link.take()
        if not due and self._link.turn:
            self._link.poll()
            due = self._link.take()
        octets, asked_s = self.traffic.received_octets, self._transport.monotonic()
        usual_s = self._timing.timeout_s
        timeout_s = self.latency.probe_timeout_s(usual_s) if self.probing else self.latency.timeout_s(usual_s)
        for attempt in range(repeats + 1):
            if attempt:
                self.traffic.repeats += 1
                self._link.repeat()
                due = self._link.take()
            events = self._exchange(due, timeout_s, asked_s)
            if events is not None:
                return events
        state = self._link.state
        self._link.drop()
        what = "SNRM" if state is State.CONNECTING else "the request"
        heard = self.traffic.received_octets - octets >= MIN_LENGTH  # a glitch is shorter than a frame
        raise ResponseTimeout(
            f"no {'whole ' * heard}answer to {what} within {timeout_s:.3g} s, asked {repeats + 1} times", heard=heard
        )

    def _exchange(self, due: bytes, timeout_s: float, asked_s: float) -> list[Event] | None:
        """Write and read until something happened, None when nothing did in time."""
        if due:
            self._write(due)
        framer, traffic, timing = self._framer, self.traffic, self._timing
        corrupt, skipped, foreign = framer.corrupt, framer.skipped, self._link.foreign
        sent_s = len(due) * timing.octet_s
        first_octet = self._transport.monotonic() + sent_s + timeout_s
        foreign_before = self._link.foreign
        reply_s: float | None = None
        window = self._link.parameters.receive_window
        turn_end = first_octet + max(window * MAX_LENGTH * timing.octet_s, timing.timeout_s)
        deadline = first_octet
        try:
            while True:
                octets = self._transport.read(READ_OCTETS, deadline)
                if octets:
                    self._received(octets)
                    reply_s = self._transport.monotonic() if reply_s is None else reply_s
                events: list[Event] = []
                for frame in framer.receive(octets) if octets else framer.idle():
                    events += self._link.handle(frame)
                if events or self._link.turn:
                    if reply_s is not None and framer.corrupt == corrupt and self._link.foreign == foreign_before:
                        self.latency.replied(max(0.0, reply_s - asked_s - sent_s))
                    return events
                now = self._transport.monotonic()
                # A glitch when the line turns round is a few octets; a reply in which noise hit a flag is more.
                lost = framer.corrupt > corrupt or framer.skipped - skipped >= MIN_LENGTH
                if now >= turn_end or (not octets and (lost or now >= first_octet)):
                    return None
                silence = now + timing.inter_octet_s
                deadline = min(silence, turn_end) if framer.pending or lost else first_octet
        finally:
            self._quiet_since = self._transport.monotonic()
            traffic.corrupt_frames += framer.corrupt - corrupt
            traffic.foreign_frames += self._link.foreign - foreign

    def _write(self, octets: bytes) -> None:
        self._pause(self._quiet_since + self._min_gap_s - self._transport.monotonic())
        self._framer.reset()
        if self._trace:
            self._trace(True, octets)
        self.traffic.exchanges += 1
        self.traffic.sent_octets += len(octets)
        self._transport.write(octets)

    def _received(self, octets: bytes) -> None:
        if self._trace:
            self._trace(False, octets)
        self.traffic.received_octets += len(octets)

    def _pause(self, pause_s: float) -> None:
        """Let time pass; what comes in it belongs to nobody."""
        end = self._transport.monotonic() + pause_s
        while self._transport.monotonic() < end:
            octets = self._transport.read(READ_OCTETS, end)
            if octets:
                self._received(octets)


class WrapperChannel:
    """A meter behind the wrapper, on a TCP connection of its own."""

    def __init__(
        self,
        transport: Transport,
        client: int,
        server: int,
        timing: Timing,
        traffic: Traffic | None = None,
        trace: Trace | None = None,
        *,
        min_gap_s: float = 0.0,
    ) -> None:
        self.in_order = False
        self._transport = transport
        self._min_gap_s = min_gap_s
        self._quiet_since = -min_gap_s
        self._client = client
        self._server = server
        self._timing = timing
        self._trace = trace
        self._unwrapper = Unwrapper()
        self._inbox: deque[bytes] = deque()
        self._due = b""
        self.traffic = traffic if traffic is not None else Traffic()

    @property
    def unit_octets(self) -> int:
        """What the wrapper's length field can say."""
        return MAX_UNIT

    def open(self) -> None:
        """Nothing to do: the connection is the link."""
        self._inbox.clear()

    def send(self, pdu: bytes) -> None:
        """Take a unit; the next `receive` sends it."""
        self._inbox.clear()
        self._due = Unit(self._client, self._server, pdu).encode()

    def receive(self) -> bytes:
        """The meter's next unit."""
        if self._due:
            due, self._due = self._due, b""
            self._keep_gap()
            if self._trace:
                self._trace(True, due)
            self.traffic.exchanges += 1
            self.traffic.sent_octets += len(due)
            self._transport.write(due)
        deadline = self._transport.monotonic() + self._timing.timeout_s
        # A reply may take as long as it keeps coming, but not for ever.
        last = deadline + READ_BOUND_S
        while not self._inbox:
            octets = self._transport.read(READ_OCTETS, min(deadline, last))
            if not octets:
                raise ResponseTimeout(f"no answer within {self._timing.timeout_s} s")
            if self._trace:
                self._trace(False, octets)
            self.traffic.received_octets += len(octets)
            for unit in self._unwrapper.receive(octets):
                if (unit.source, unit.destination) == (self._server, self._client):
                    self._inbox.append(unit.pdu)
                else:
                    self.traffic.foreign_frames += 1
            self._quiet_since = self._transport.monotonic()
            deadline = self._quiet_since + self._timing.timeout_s
        return self._inbox.popleft()

    def _keep_gap(self) -> None:
        """Let the meter rest, as it wants; what comes meanwhile belongs to nobody, but keeps the units in step."""
        end = self._quiet_since + self._min_gap_s
        while self._transport.monotonic() < end:
            self._unwrapper.receive(self._transport.read(READ_OCTETS, end))

    def monotonic(self) -> float:
        """The line's time."""
        return self._transport.monotonic()

    def poll(self) -> None:
        """A connection needs no keep-alive of ours: TCP has one."""

    def close(self) -> None:
        """Nothing to release: whoever opened the connection closes it."""


def open_channel(
    transport: Transport,
    bus: BusSpec,
    meter: DlmsSpec,
    traffic: Traffic | None = None,
    trace: Trace | None = None,
    *,
    client: int | None = None,
    repeats: int = 1,
    latency: Latency | None = None,
) -> HdlcChannel | WrapperChannel:
    """The channel that the site file asks for; `client` is another client than the meter's own."""
    number = meter.client if client is None else client
    timing = Timing.of(bus)
    if meter.framing == "wrapper":
        return WrapperChannel(transport, number, meter.address, timing, traffic, trace, min_gap_s=meter.min_gap_s)
    offer = Parameters(meter.max_frame, meter.max_frame, meter.window, meter.window)
    server = Address.server(meter.logical_address, meter.address, meter.address_octets)
    link = ClientLink(server, Address.client(number), offer)
    return HdlcChannel(
        transport,
        link,
        timing,
        traffic,
        trace,
        repeats=repeats,
        min_gap_s=meter.min_gap_s,
        latency=latency,
        opening=None if bus.opening is None else ModeE(bus.baud, trace),
    )
