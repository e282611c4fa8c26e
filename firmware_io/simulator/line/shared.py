"""A half-duplex line of stations that answer questions, for protocols with neither links nor windows. Sans IO.

Octets and times in, octets and times out, as `Multidrop` has it for DLMS; `MixedLine` puts lines of both kinds on one
pair of wires. With parity, an octet in which noise has flipped an odd number of bits does not come through: that is
what a UART makes of it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from firmware_io.simulator.line.bus import CHUNK_S, MAX_PENDING, TORN_S, Due, Wires
from firmware_io.simulator.line.station import Piece
from firmware_io.simulator.meter.faults import Faults

AT_ONCE_S = 0.001
REBOOT_S = 5.0  # how long a meter is gone that was asked too fast
KEPT_OCTETS = 4096  # of a question that never ends


class Listener(Protocol):
    """One meter on a shared line: it hears everything and speaks when it is asked."""

    def hear(self, octets: bytes, *, torn: bool) -> bytes:
        """Octets of the line; `torn` says that there was silence before them. Returns the answer, or nothing."""

    def modem(self, answer: bytes, question_end_s: float) -> list[Piece]:
        """What goes wrong with an answer and its time."""


class Modem:
    """What one meter's modem does wrong, by its faults."""

    def __init__(self, faults: Faults, now: Callable[[], float], *, parity: bool) -> None:
        self._faults = faults
        self._now = now
        self._parity = parity
        self._answered_s = float("-inf")
        self._down_until_s = float("-inf")

    def pieces(self, answer: bytes, foreign: bytes, line_s: float) -> list[Piece]:
        """An answer as it leaves; `foreign` is what another meter of the protocol might say to somebody."""
        faults, time_s = self._faults, self._now()
        gap = faults.at("min_gap", time_s)
        if gap and line_s >= self._down_until_s and line_s - self._answered_s < gap.amount:
            self._down_until_s = line_s + REBOOT_S
        if not answer or line_s < self._down_until_s or faults.strikes("silence", time_s):
            return []
        if faults.strikes("bad_fcs", time_s) and len(answer) > 1:
            answer = answer[:-2] + bytes((answer[-2] ^ 0xFF,)) + answer[-1:]
        if faults.strikes("foreign_frame", time_s):
            answer = foreign + answer
        if faults.strikes("duplicate", time_s):
            answer *= 2
        truncated = faults.strikes("truncated", time_s)
        if truncated:
            answer = answer[: -int(truncated.amount)]
        extra = faults.strikes("extra", time_s)
        if extra:
            answer += faults.random_octets(int(extra.amount))
        noise = faults.strikes("noise", time_s)
        if noise:
            answer = through_noise(faults, answer, noise.amount, parity=self._parity)
        self._answered_s = line_s
        late = faults.strikes("late", time_s)
        tail = faults.strikes("late_tail", time_s)
        if tail:
            half = len(answer) // 2
            return [Piece(0.0, answer[:half]), Piece(tail.amount, answer[half:])]
        return [Piece(late.amount if late else 0.0, answer)]


def through_noise(faults: Faults, octets: bytes, rate: float, *, parity: bool) -> bytes:
    """What is left of octets when each bit flips with probability `rate`."""
    spoiled = faults.flip_bits(octets, rate)
    if not parity:
        return spoiled
    return bytes(new for new, old in zip(spoiled, octets, strict=True) if not (new ^ old).bit_count() & 1)


class SharedLine:
    """The stations of one line; see `Wires`."""

    def __init__(
        self,
        stations: Sequence[Listener],
        *,
        octet_s: float = 0.0,
        turnaround_s: float = 0.0,
        faults: Faults | None = None,
        now: Callable[[], float] = lambda: 0.0,
        parity: bool = False,
    ) -> None:
        self.stations = tuple(stations)
        self.octet_s = octet_s
        self.turnaround_s = turnaround_s
        self.busy_until_s = float("-inf")
        self._faults = faults
        self._now = now
        self._parity = parity
        self._order = itertools.count()
        self._due: list[tuple[float, int, Hashable, bytes]] = []
        self._speaking: list[tuple[float, float, float, object]] = []  # asked, from, until, who

    def receive(self, octets: bytes, time_s: float, connection: Hashable = None) -> None:
        torn = time_s - self.busy_until_s > max(TORN_S, 20 * self.octet_s)
        end_s = max(time_s, self.busy_until_s if not torn else time_s) + len(octets) * self.octet_s
        if self._faults:
            if self._faults.strikes("echo", self._now()):
                self._put(end_s, connection, octets)
            noise = self._faults.strikes("noise", self._now())
            if noise:
                octets = through_noise(self._faults, octets, noise.amount, parity=self._parity)
        self.busy_until_s = end_s
        for station in self.stations:
            answer = station.hear(octets, torn=torn)
            if answer:
                self._speak(station.modem(answer, end_s), end_s, connection, station)

    def due(self, time_s: float) -> list[Due]:
        arrived = []
        while self._due and self._due[0][0] <= time_s:
            at_s, _, connection, octets = heapq.heappop(self._due)
            arrived.append(Due(at_s, connection, octets))
        return arrived

    def next_due_s(self) -> float | None:
        return self._due[0][0] if self._due else None

    def forget(self, connection: Hashable) -> None:
        self._due = [entry for entry in self._due if entry[2] != connection]
        heapq.heapify(self._due)

    def _speak(self, pieces: list[Piece], question_end_s: float, connection: Hashable, speaker: object) -> None:
        """Put an answer on the line. A meter finishes one before it begins the next; two at once spoil each other."""
        start_s = question_end_s + self.turnaround_s
        self._speaking = [entry for entry in self._speaking if entry[2] > question_end_s]
        for piece in pieces:
            before = (end for _, _, end, who in self._speaking if who is speaker and self.octet_s)
            start_s = max([start_s + piece.delay_s, *before])
            end_s = start_s + len(piece.octets) * self.octet_s
            # On a line without pace octets take no time; two answers to one question spoil each other all the same.
            over_s = end_s if self.octet_s else start_s + AT_ONCE_S
            collides = any(
                who is not speaker
                and start_s < end
                and begin < over_s
                and (self.octet_s > 0 or asked_s == question_end_s)
                for asked_s, begin, end, who in self._speaking
            )
            self._speaking.append((question_end_s, start_s, over_s, speaker))
            if collides:
                piece = piece._replace(octets=bytes(octet & 0xA7 for octet in piece.octets))
            size = max(1, int(CHUNK_S / self.octet_s)) if self.octet_s else max(len(piece.octets), 1)
            for at in range(0, len(piece.octets), size):
                chunk = piece.octets[at : at + size]
                start_s += len(chunk) * self.octet_s
                self._put(start_s, connection, chunk)
        if pieces and not any(piece.delay_s for piece in pieces):
            self.busy_until_s = max(self.busy_until_s, start_s)

    def _put(self, time_s: float, connection: Hashable, octets: bytes) -> None:
        if octets and len(self._due) < MAX_PENDING:
            heapq.heappush(self._due, (time_s, next(self._order), connection, octets))


class MixedLine:
    """Lines of several protocols on one pair of wires: everybody hears every question. See `Wires`."""

    def __init__(self, lines: Sequence[Wires]) -> None:
        self.lines = tuple(lines)

    @property
    def busy_until_s(self) -> float:
        """When the last octet that was put on the line is over."""
        return max(line.busy_until_s for line in self.lines)

    @busy_until_s.setter
    def busy_until_s(self, time_s: float) -> None:
        for line in self.lines:
            line.busy_until_s = time_s

    def receive(self, octets: bytes, time_s: float, connection: Hashable = None) -> None:
        busy_s = self.busy_until_s
        for line in self.lines:
            line.busy_until_s = max(line.busy_until_s, busy_s)  # all are on the same wires
            line.receive(octets, time_s, connection)

    def due(self, time_s: float) -> list[Due]:
        return sorted((due for line in self.lines for due in line.due(time_s)), key=lambda due: due.time_s)

    def next_due_s(self) -> float | None:
        times = [due_s for line in self.lines if (due_s := line.next_due_s()) is not None]
        return min(times, default=None)

    def forget(self, connection: Hashable) -> None:
        for line in self.lines:
            line.forget(connection)
