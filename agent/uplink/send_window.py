"""What to send next, and what an acknowledgement means: the publisher's decisions, without a socket or a thread.

It owns the in-flight window, the pace, the pauses after refusals, and liveness. It refuses to know MQTT's library: the
publisher asks `next`, tells `sent`, `acknowledged`, `disconnected`, and acts on what it is told. Times are monotonic
seconds of whoever calls.

- A row leaves the store on a successful PUBACK only (in end-to-end delivery: an alert or tamper event on the backend's
  `ack` only, and is sent again when that does not come).
- A refusal pauses its priority, for ever longer, and lets a single message try again after each pause: the broker may
  have no subscriber for alerts (MQTT v5 reason 0x10) and take balances all the same. Other priorities go on.
- After a connect, alerts go at once; the backlog of the others after a random delay and at a bounded rate, so that a
  thousand gateways do not fall upon a broker that has just come back.
- Alive means that acknowledgements progress while something is in flight, whatever the socket says.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.store.commit import Outgoing
from agent.store.messages import Priority
from agent.store.store import Store

SUCCESS = 0x00
NO_MATCHING_SUBSCRIBERS = 0x10
UNACKNOWLEDGED_MAX = 1000  # end to end: events that wait for the backend; more would grow memory while it is away
ARRIVED_MAX = 5000  # rows that arrived while the store could not be written: then nothing more is sent
FLUSH_RETRY_S = 5.0
BATCH = 200  # rows read from the store at once


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how patient. Times in seconds."""

    inflight: int = 20
    rate_per_s: float = 5000.0  # of the backlog
    start_jitter_s: float = 2.0  # before the backlog that is not alerts
    pause_s: float = 2.0  # after the first refusal; doubled with each further one
    pause_limit_s: float = 60.0
    silence_s: float = 30.0  # without any acknowledgement while something is in flight: the link is dead
    bytes_per_s: float = 1000.0  # the slowest link we are patient with
    ack_s: float = 120.0  # end to end: send again when the backend has not acknowledged by then
    backoff_s: float = 1.0  # before the second attempt to connect; doubled each time, the wait drawn from [0, that]
    backoff_limit_s: float = 120.0


@dataclass(slots=True)
class _Pause:
    until_s: float = 0.0
    length_s: float = 0.0


@dataclass(slots=True)
class Flow:
    """What happened since the start, counters for `health` and metrics."""

    delivered: int = 0
    refused: int = 0
    last_reason: int = 0


class SendWindow:
    """The order and the fate of the outbox's rows on one connection after another."""

    def __init__(
        self,
        store: Store,
        pace: Pace,
        *,
        end_to_end: bool = False,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._pace = pace
        self._end_to_end = end_to_end
        self._uniform = uniform
        self._ready: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}  # by MQTT packet id
        self._awaiting_ack: dict[int, tuple[float, str]] = {}  # end to end, by row: when to send again, and its key
        self._arrived: list[int] = []
        self._flush_s = 0.0
        self._pauses = {priority: _Pause() for priority in Priority}
        self._window = 0
        self._limit_bytes: int | None = None
        self._stale = True
        self._backlog_s = 0.0
        self._next_s = 0.0
        self._progress_s = 0.0
        self._passed_over_s: float | None = None  # since when later messages than the oldest are acknowledged
        self._in_flight_bytes = 0
        self.flow = Flow()

    # -- connection ---------------------------------------------------------------------------------------------------

    def connected(self, now_s: float, receive_maximum: int, maximum_bytes: int | None) -> None:
        """A connection stands; the broker takes so many unacknowledged messages, and none larger."""
        self._window = max(1, min(self._pace.inflight, receive_maximum))
        self._limit_bytes = maximum_bytes
        self._backlog_s = now_s + self._uniform(0.0, self._pace.start_jitter_s)
        self._next_s = self._progress_s = now_s
        for pause in self._pauses.values():
            pause.until_s = now_s  # a new connection is a new chance; one message tries
        self._stale = True

    def disconnected(self, now_s: float) -> None:
        """The connection is gone: what was in flight is still in the store and goes again."""
        self._window = 0
        self._in_flight.clear()
        self._passed_over_s = None
        self._in_flight_bytes = 0
        self._ready.clear()
        self.flush(now_s)

    def invalidate(self) -> None:
        """Something was committed: look again before going on with what was read earlier."""
        self._stale = True

    # -- out ----------------------------------------------------------------------------------------------------------

    def next(self, now_s: float, wall_s: float) -> Outgoing | None:
        """The message to send now; None if there is none, or the window is full, or it is not its time."""
        if len(self._in_flight) >= self._window or len(self._arrived) >= ARRIVED_MAX:
            return None
        while True:
            if self._stale or not self._ready:
                self._read(now_s)
            if not self._ready:
                return None
            out = self._ready[0]
            priority = out.message.priority
            if not self._sendable(priority, now_s):
                self._ready = deque(o for o in self._ready if o.message.priority != priority)
                continue
            if priority is not Priority.ALERT and now_s < self._next_s:
                return None
            self._ready.popleft()
            expires_s = out.message.expires_s
            if expires_s is not None and wall_s > expires_s:
                self._mark_delivered(out.id)
            elif self._limit_bytes is not None and len(out.message.body) + 1024 > self._limit_bytes:
                self._refuse(out, 0x95, now_s)
            else:
                return out

    def sent(self, mid: int, out: Outgoing, now_s: float) -> None:
        """It was handed to the connection under this packet id."""
        if not self._in_flight:
            self._progress_s = now_s
        self._in_flight[mid] = out
        self._in_flight_bytes += len(out.message.body)
        self._next_s = max(self._next_s, now_s - 0.1) + 1.0 / self._pace.rate_per_s

    def acknowledged(self, mid: int, reason: int, now_s: float) -> None:
        """A PUBACK came."""
        self._progress_s = now_s
        oldest = next(iter(self._in_flight), None)
        out = self._in_flight.pop(mid, None)
        if out is None:
            return
        if mid == oldest:
            self._passed_over_s = None
        elif self._passed_over_s is None:
            self._passed_over_s = now_s
        self._in_flight_bytes -= len(out.message.body)
        if reason != SUCCESS:
            self._refuse(out, reason, now_s)
            return
        self._pauses[out.message.priority].length_s = 0.0
        if self._end_to_end and out.message.priority <= Priority.TAMPER:
            self._awaiting_ack[out.id] = (now_s + self._pace.ack_s, out.message.key)
        else:
            self._mark_delivered(out.id)

    def confirmed(self, keys: list[str]) -> None:
        """End to end: the backend has these events for good."""
        self.flow.delivered += self._store.delete_keys(set(keys))
        known = set(keys)
        self._awaiting_ack = {row: wait for row, wait in self._awaiting_ack.items() if wait[1] not in known}

    def flush(self, now_s: float) -> None:
        """Take what has arrived out of the store; where that fails, later, and none of it is sent again meanwhile."""
        if not self._arrived or now_s < self._flush_s:
            return
        if self._store.delete(self._arrived):
            self._arrived.clear()
        else:
            self._flush_s = now_s + FLUSH_RETRY_S

    # -- in between ---------------------------------------------------------------------------------------------------

    @property
    def arrived(self) -> int:
        """How many have arrived since the last flush."""
        return len(self._arrived)

    @property
    def in_flight(self) -> int:
        """How many wait for their PUBACK."""
        return len(self._in_flight)

    def dead(self, now_s: float) -> bool:
        """Whether acknowledgements have stopped for longer than even a slow link explains; or one was passed over.

        They come in the order of the messages [MQTT-4.6.0-2]. A broker that has lost one never gives it; only a new
        connection sends that message again [MQTT-4.4.0-1].
        """
        if self._passed_over_s is not None and now_s - self._passed_over_s > self._pace.silence_s:
            return True
        patience_s = self._pace.silence_s + self._in_flight_bytes / self._pace.bytes_per_s
        return bool(self._in_flight) and now_s - self._progress_s > patience_s

    def due_s(self, now_s: float) -> float:
        """How long nothing will be due, at most: seconds to wait for the network."""
        if len(self._in_flight) >= self._window:
            return 1.0
        if self._ready:
            return max(0.0, self._next_s - now_s)
        later = [p.until_s - now_s for p in self._pauses.values() if p.until_s > now_s]
        later += [self._backlog_s - now_s] if self._backlog_s > now_s else []
        later += [wait - now_s for wait, _ in self._awaiting_ack.values()]
        return min([1.0, *(max(0.01, wait_s) for wait_s in later)])

    # -- how ----------------------------------------------------------------------------------------------------------

    def _sendable(self, priority: Priority, now_s: float) -> bool:
        """Whether messages of this priority may go now: not paused, and only one at a time after a pause."""
        if priority is not Priority.ALERT and now_s < self._backlog_s:
            return False
        unacknowledged = len(self._awaiting_ack) + len(self._in_flight)
        if self._end_to_end and priority <= Priority.TAMPER and unacknowledged >= UNACKNOWLEDGED_MAX:
            return False
        pause = self._pauses[priority]
        if now_s < pause.until_s:
            return False
        return not pause.length_s or all(o.message.priority != priority for o in self._in_flight.values())

    def _read(self, now_s: float) -> None:
        """Fill up from the store with what may go."""
        self._stale = False
        again = [row for row, (due_s, _) in self._awaiting_ack.items() if now_s >= due_s]
        for row in again:
            del self._awaiting_ack[row]
        self.flush(now_s)
        may = [priority for priority in Priority if self._sendable(priority, now_s)]
        without = {o.id for o in self._in_flight.values()} | self._awaiting_ack.keys() | set(self._arrived)
        self._ready = deque(self._store.pending(BATCH, may, without)) if may else deque()

    def _mark_delivered(self, row: int) -> None:
        self._arrived.append(row)
        self.flow.delivered += 1

    def _refuse(self, out: Outgoing, reason: int, now_s: float) -> None:
        """Keep the row behind its like, and pause its priority."""
        pause = self._pauses[out.message.priority]
        if now_s >= pause.until_s:  # not once more for each of a whole window
            pause.length_s = min(max(2.0 * pause.length_s, self._pace.pause_s), self._pace.pause_limit_s)
            pause.until_s = now_s + self._uniform(0.5 * pause.length_s, pause.length_s)
        self.flow.refused += 1
        self.flow.last_reason = reason
        self._store.refused(out.id)
        self._stale = True
