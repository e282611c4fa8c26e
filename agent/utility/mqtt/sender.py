"""Publishes a list of messages at QoS 1 and waits until the broker has every one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Connection

WINDOW = 16  # models are large: what is in flight stays small
ANSWER_S = 30.0


class Outgoing(NamedTuple):
    """A retained message."""

    topic: str
    payload: bytes
    schema: str


def publish_all(connection: Connection, messages: Iterable[Outgoing]) -> int:
    """Publish all, retained; returns how many. Raises mqtt.MqttError if the broker refuses one or falls silent."""
    waiting: dict[int, str] = {}
    sent = 0
    window = min(WINDOW, connection.receive_maximum)
    for message in messages:
        while len(waiting) >= window:
            _settle(connection, waiting)
        packet_id = sent % 65535 + 1
        waiting[packet_id] = message.topic
        connection.send(
            packets.publish(
                message.topic,
                message.payload,
                packet_id=packet_id,
                retain=True,
                content_type="application/json",
                user_properties=[("schema", message.schema)],
            )
        )
        sent += 1
    while waiting:
        _settle(connection, waiting)
    return sent


def _settle(connection: Connection, waiting: dict[int, str]) -> None:
    events = connection.receive(ANSWER_S)
    if not events:
        raise packets.MqttError(f"the broker does not acknowledge {next(iter(waiting.values()))}")
    for event in events:
        if not isinstance(event, packets.Puback):
            continue
        topic = waiting.pop(event.packet_id, None)
        # Nobody listening now (0x10) is no failure: the message is retained for the gateway that comes back.
        if topic is not None and event.reason >= 0x80:
            raise packets.MqttError(f"the broker refused {topic} (0x{event.reason:02x}): check its ACL")
