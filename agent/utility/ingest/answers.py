"""What the ingest has to tell gateways: acknowledgements of their events, published at QoS 1 under the broker's window.

Bounded: what is in flight by the broker's receive maximum, what waits by MAX_WAITING, beyond which the oldest are given
up. A gateway that misses one sends its events again and is answered again, so nothing is lost by that, and nothing by a
connection that ends with some of them in flight.
"""

from __future__ import annotations

from collections import deque

from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Connection

MAX_WAITING = 10_000
MAX_IN_FLIGHT = 100  # whatever the broker allows: Mosquitto allows 20 unless it is told otherwise
EXPIRY_S = 3600  # a gateway that was away for longer has sent its events again


class Answers:
    """Publishes in order; one thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[bytes, bytes]] = deque(maxlen=MAX_WAITING)
        self._in_flight: set[int] = set()
        self._window = MAX_IN_FLIGHT
        self._next_id = 1

    def reconnected(self, receive_maximum: int) -> None:
        """A new connection: what was in flight on the old one is given up."""
        self._in_flight.clear()
        self._window = min(MAX_IN_FLIGHT, receive_maximum)

    def queue(self, topic: bytes, payload: bytes) -> None:
        """Publish it when the window has room."""
        self._waiting.append((topic, payload))

    def acknowledged(self, packet_id: int) -> None:
        """The broker has one of them, or nobody who would listen (0x10)."""
        self._in_flight.discard(packet_id)

    def send(self, connection: Connection) -> None:
        """As much as the window takes."""
        octets = []
        while self._waiting and len(self._in_flight) < self._window:
            topic, payload = self._waiting.popleft()
            while self._next_id in self._in_flight:
                self._next_id = self._next_id % 0xFFFF + 1
            self._in_flight.add(self._next_id)
            octets.append(
                packets.publish(
                    topic,
                    payload,
                    packet_id=self._next_id,
                    expiry_s=EXPIRY_S,
                    content_type="application/json",
                    user_properties=[("schema", "checkmeter.ack.v1")],
                )
            )
            self._next_id = self._next_id % 0xFFFF + 1
        if octets:
            connection.send(b"".join(octets))
