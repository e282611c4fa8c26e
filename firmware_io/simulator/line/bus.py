"""A multidrop line: who hears what, and how long octets take. Sans IO: octets and times in, octets and times out.

Half-duplex as RS-485 is: every octet takes its time at the line's speed in either direction, and an answer starts a
turnaround after the last octet of its question. Two meters that speak at once are heard interleaved.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from firmware_io.dlms.hdlc.framer import Framer
from firmware_io.dlms.session.wrapper import Unwrapper
from firmware_io.simulator.line.station import Piece, Station
from firmware_io.simulator.meter.faults import Faults

ALL_STATIONS = (b"\xff", b"\xfe\xff", b"\xfe\xfe\xfe\xff")
CHUNK_S = 0.008  # an answer is handed to the host in portions of this length
TORN_S = 0.025  # silence inside a question after which the rest is not waited for (IEC 62056-46: 25 ms)
MAX_PENDING = 4096  # portions: bounds what a client that never reads can make us keep


class Due(NamedTuple):
    """Octets that have arrived at the client by `time_s`; `connection` says at which one."""

    time_s: float
    connection: Hashable
    octets: bytes


class Wires(Protocol):
    """What a port, or a transport without one, needs of a line."""

    busy_until_s: float

    def receive(self, octets: bytes, time_s: float, connection: Hashable = None) -> None:
        """Octets that a client hands to the line at a time."""

    def due(self, time_s: float) -> list[Due]:
        """What has arrived at the clients by a time, in order; told once."""

    def next_due_s(self) -> float | None:
        """When there will be something."""

    def forget(self, connection: Hashable) -> None:
        """A connection has closed: what was meant for it is lost."""


class Multidrop:
    """The meters of one line. A serial line has one connection, a TCP link one for each client."""

    def __init__(
        self,
        stations: Sequence[Station],
        *,
        framing: str = "hdlc",
        octet_s: float = 0.0,
        turnaround_s: float = 0.0,
        faults: Faults | None = None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.stations = tuple(stations)
        self._by_address = {address: station for station in stations for address in station.addresses}
        self._by_port = {station.meter.identity.address: station for station in stations}
        self._wrapper = framing == "wrapper"
        self.octet_s = octet_s
        self.turnaround_s = turnaround_s
        self._faults = faults
        self._now = now
        self._framers: dict[Hashable, Framer] = {}
        self._unwrappers: dict[Hashable, Unwrapper] = {}
        self.busy_until_s = float("-inf")  # when the last octet that was put on the line is over
        self._order = itertools.count()
        self._due: list[tuple[float, int, Hashable, bytes, Station | None]] = []
        self.dropped = 0

    def receive(self, octets: bytes, time_s: float, connection: Hashable = None) -> None:
        """Octets that a client hands to the line at a time.

        Raises:
            RemoteProtocolError: not the wrapper's octets; the connection is of no use any more.
        """
        torn = time_s - self.busy_until_s > max(TORN_S, 20 * self.octet_s)
        end_s = max(time_s, self.busy_until_s if not torn else time_s) + len(octets) * self.octet_s
        if self._faults:
            heard_s = self._now()
            if self._faults.strikes("echo", heard_s):
                self._put(end_s, connection, octets, None)
            noise = self._faults.strikes("noise", heard_s)
            if noise:
                octets = self._faults.flip_bits(octets, noise.amount)
        self.busy_until_s = end_s
        if self._wrapper:
            for unit in self._unwrappers.setdefault(connection, Unwrapper()).receive(octets):
                station = self._by_port.get(unit.destination)
                if station:
                    self._speak(station, station.unit(unit, connection, end_s), end_s, connection)
            return
        framer = self._framers.setdefault(connection, Framer())
        if torn:
            framer.reset()
        for frame in framer.receive(octets):
            if frame.destination in ALL_STATIONS:
                for everybody in self.stations:
                    everybody.broadcast(frame)
                continue
            station = self._by_address.get(frame.destination)
            for other in self.stations:
                if other is not station:
                    other.overhear(frame)
            if station:
                self._speak(station, station.frame(frame, end_s), end_s, connection)

    def utter(self, octets: bytes, time_s: float, connection: Hashable = None) -> None:
        """A meter speaks without being asked."""
        start_s = max(time_s, self.busy_until_s)
        self.busy_until_s = start_s + len(octets) * self.octet_s
        self._put(self.busy_until_s, connection, octets, None)

    def due(self, time_s: float) -> list[Due]:
        """What has arrived at the clients by a time, in order; told once."""
        arrived = []
        while self._due and self._due[0][0] <= time_s:
            at_s, _, connection, octets, last_of = heapq.heappop(self._due)
            if last_of is not None:
                last_of.answered(at_s)
            arrived.append(Due(at_s, connection, octets))
        return arrived

    def next_due_s(self) -> float | None:
        """When there will be something."""
        return self._due[0][0] if self._due else None

    def forget(self, connection: Hashable) -> None:
        """A connection has closed: what was meant for it is lost."""
        self._framers.pop(connection, None)
        self._unwrappers.pop(connection, None)
        self._due = [entry for entry in self._due if entry[2] != connection]
        heapq.heapify(self._due)
        for station in self.stations:
            station.forget(connection)

    def _speak(self, station: Station, pieces: list[Piece], question_end_s: float, connection: Hashable) -> None:
        start_s = question_end_s + self.turnaround_s
        for piece in pieces:
            start_s += piece.delay_s
            size = max(1, int(CHUNK_S / self.octet_s)) if self.octet_s else max(len(piece.octets), 1)
            for at in range(0, len(piece.octets), size):
                chunk = piece.octets[at : at + size]
                start_s += len(chunk) * self.octet_s
                last = piece is pieces[-1] and at + size >= len(piece.octets)
                self._put(start_s, connection, chunk, station if last else None)
        if pieces and not any(piece.delay_s for piece in pieces):
            self.busy_until_s = start_s

    def _put(self, time_s: float, connection: Hashable, octets: bytes, last_of: Station | None) -> None:
        if len(self._due) >= MAX_PENDING:
            self.dropped += len(octets)
            return
        heapq.heappush(self._due, (time_s, next(self._order), connection, octets, last_of))


class LineClock:
    """The clock of those who use a `NullModem`: it stands at `start_s` (UTC) and is moved by whoever waits."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self.elapsed_s = 0.0

    def now(self) -> float:
        """See `clock.Clock`."""
        return self._start_s + self.elapsed_s

    def monotonic(self) -> float:
        """See `clock.Clock`."""
        return self.elapsed_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """See `clock.Clock`."""
        self.move(max(0.0, timeout_s))
        return event.is_set()

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed_s += seconds


class NullModem:
    """A `Transport` straight into a line, in time of its own: it jumps to what happens next, nobody sleeps.

    For tests and benches of clients without a host's timers in the way. `lag` is called with each jump, seconds.
    """

    def __init__(self, line: Wires, lag: Callable[[float], None] | None = None) -> None:
        self._line = line
        self._lag = lag
        self._time_s = max(line.busy_until_s, 0.0)
        self._held = bytearray()
        self.closed = False

    def read(self, max_octets: int, deadline: float) -> bytes:
        """See `transport.Transport`."""
        while not self._held:
            due_s = self._line.next_due_s()
            if due_s is None or due_s > deadline:
                self._move(deadline)
                return b""
            self._move(due_s)
            for arrived in self._line.due(self._time_s):
                self._held += arrived.octets
        octets = bytes(self._held[:max_octets])
        del self._held[:max_octets]
        return octets

    def write(self, octets: bytes) -> None:
        """See `transport.Transport`."""
        self._line.receive(octets, self._time_s)

    def close(self) -> None:
        """See `transport.Transport`."""
        self.closed = True

    def monotonic(self) -> float:
        """The line's time, which moves only when somebody waits."""
        return self._time_s

    def _move(self, time_s: float) -> None:
        if time_s > self._time_s:
            if self._lag:
                self._lag(time_s - self._time_s)
            self._time_s = time_s
