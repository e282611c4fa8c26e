"""What has come down and waits for its turn: a bounded queue that drops and counts what is too much.

It owns the limits on messages from the backend, by topic, by number and by octets. It knows neither MQTT's library nor
what a message says. A desired file is a state: a newer one takes the place of one that still waits. What is dropped is
acknowledged too; an unacknowledged message would take one of the few places that the broker has for us (receive
maximum), until nothing came any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from agent.wire.downlink import MAX_ACK_BYTES, MAX_COMMAND_BYTES, MAX_CONFIG_BYTES, MAX_MODEL_BYTES

WAITING_MAX = 64  # messages; as many as the receive maximum lets an honest broker send
WAITING_BYTES = 6 * 1024 * 1024
# The topics that we subscribe to, and the most octets of a message on each: a longer one is dropped without an answer.
# What is only somewhat too long gets one, with the reason, from those who read it.
LIMITS: Mapping[str, int] = {
    "cmd/req": 4 * MAX_COMMAND_BYTES,
    "config/desired": 2 * MAX_CONFIG_BYTES,
    "model/desired": MAX_MODEL_BYTES + 64 * 1024,
    "ack": MAX_ACK_BYTES,
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it arrived. `packet_id` is 0 at QoS 0: there is nothing to acknowledge then."""

    suffix: str
    payload: bytes
    packet_id: int


class Intake:
    """The queue. `offer` what arrives, `first` and `take` what is worked off, acknowledge what `dropped` returns."""

    def __init__(self) -> None:
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._dropped: deque[int] = deque()  # packet ids; bounded by the broker's window, and worked off at each turn
        self.lost = 0  # messages dropped since the start

    def offer(self, arrival: Arrival) -> bool:
        """Take a message, or drop it and count it (then False)."""
        limit = LIMITS.get(arrival.suffix)
        if limit is None or len(arrival.payload) > limit:
            return self._drop(arrival)
        if arrival.suffix.endswith("/desired"):
            older = [waiting for waiting in self._waiting if waiting.suffix == arrival.suffix]
            for waiting in older:
                self._waiting.remove(waiting)
                self._bytes -= len(waiting.payload)
                self._drop(waiting)
        if len(self._waiting) >= WAITING_MAX or self._bytes + len(arrival.payload) > WAITING_BYTES:
            return self._drop(arrival)
        self._waiting.append(arrival)
        self._bytes += len(arrival.payload)
        return True

    def first(self) -> Arrival | None:
        """The message whose turn it is; it stays."""
        return self._waiting[0] if self._waiting else None

    def take(self) -> None:
        """The first message has been handed on."""
        self._bytes -= len(self._waiting.popleft().payload)

    def dropped(self) -> list[int]:
        """The packet ids of what was dropped since the last call and must be acknowledged all the same."""
        ids = list(self._dropped)
        self._dropped.clear()
        return ids

    def _drop(self, arrival: Arrival) -> bool:
        self.lost += 1
        if arrival.packet_id:
            self._dropped.append(arrival.packet_id)
        return False
