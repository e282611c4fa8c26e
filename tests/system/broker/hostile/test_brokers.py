"""Brokers that flood, and clients that flood through an honest one: the agent stays small, and goes on reading."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest

from agent.wire.codec import encode
from agent.wire.downlink import Ack

pytestmark = [pytest.mark.timeout(240)]
LIMIT_MB = 120.0
TOPIC = "checkmeter/v1/acme/riverside-12/gw-0012"


def publish(kind: int, suffix: str, body: bytes, properties: bytes = b"\0") -> bytes:
    topic = f"{TOPIC}/{suffix}".encode()
    content = len(topic).to_bytes(2, "big") + topic + (b"\0\1" if kind & 6 else b"") + properties + body
    length, octets = len(content), bytearray([kind])
    while True:
        length, low = divmod(length, 128)
        octets.append(low | (0x80 if length else 0))
        if not length:
            return bytes(octets) + content


def announced(kind: int, length: int) -> Iterator[bytes]:
    """A packet that is said to be `length` octets long, and then all of it."""
    yield bytes([kind, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
    for _ in range(length >> 20):
        yield bytes(1 << 20)


ATTACKS: dict[str, Callable[[], Iterator[bytes]]] = {
    "endless commands": lambda: itertools.repeat(publish(0x30, "cmd/req", bytes(50_000))),
    "endless small commands": lambda: itertools.repeat(publish(0x30, "cmd/req", b"hello") * 1000),
    "endless acknowledgements": lambda: itertools.repeat(publish(0x30, "ack", encode(Ack(ids=["x"] * 5000)))),
    "endless models": lambda: itertools.repeat(publish(0x30, "model/desired", bytes(2_000_000))),
    "a topic of nobody": lambda: itertools.repeat(publish(0x30, "x", bytes(50_000))),
    "256 MB announced": lambda: announced(0x30, (1 << 28) - 1),
    "CONNACK of 256 MB": lambda: announced(0x20, (1 << 28) - 1),
    "QoS 2 without end": lambda: itertools.repeat(publish(0x34, "cmd/req", bytes(50_000))),
    "400,000 properties": lambda: itertools.repeat(
        publish(0x30, "cmd/req", b"", b"\x80\x89\x7a" + b"\x26\0\0\0\0" * 400_000)
    ),
    "PINGRESP without end": lambda: itertools.repeat(b"\xd0\0" * 30_000),
    "not MQTT": lambda: itertools.repeat(b"HTTP/1.1 200 OK\r\n" * 1000),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_broker_neither_fills_memory_nor_stops_the_reading(house: Any, hostile: Any, name: str) -> None:
    broker = hostile(ATTACKS[name])
    house.build(f'url = "mqtt://127.0.0.1:{broker.port}"')
    house.start()
    house.until(house.read, 60.0, "all meters read")
    house.until(lambda: broker.connections > 0, 30.0, "a connection")
    largest_mb = 0.0
    readings = sum(meter.readings for meter in house.snapshot().health.meters)
    for _ in range(60):
        assert house.alive(), house.log()[-2000:]
        largest_mb = max(largest_mb, house.memory_mb())
        time.sleep(0.1)
    house.until(
        lambda: sum(meter.readings for meter in house.snapshot().health.meters) > readings, 30.0, "read meanwhile"
    )
    house.stop()
    print(f"{name}: {largest_mb:.0f} MB, {broker.sent_bytes / 1e6:.0f} MB sent, {broker.connections} connections")
    assert largest_mb <= LIMIT_MB
    assert "Traceback" not in house.log()


@pytest.mark.mosquitto
def test_messages_of_qos_0_leave_the_gateway_connected(house: Any, stage: Any) -> None:
    """And an acknowledgement at QoS 0 is taken for one: our own ingest sends them so."""
    broker = stage.broker()
    listener = stage.listener(broker.port)
    house.build(f'url = "mqtt://127.0.0.1:{broker.port}"\ndelivery = "end_to_end"')
    house.start()
    statuses = listener.topics["status"]
    house.until(lambda: statuses and json.loads(statuses[-1])["state"] == "online", 60.0, "online")
    for suffix in ("cmd/req", "ack", "config/desired", "model/desired") * 5:
        listener.client.publish(f"{TOPIC}/{suffix}", b"hello", qos=0).wait_for_publish(5)
        time.sleep(0.05)
    house.until(lambda: listener.topics["cmd/res"], 20.0, "a refusal of the command")
    log = (broker.folder / "mosquitto.log").read_text()
    assert "protocol error" not in log
    assert log.count("as gw-0012") == 1, "it connected once and stayed"
    house.stop()


@pytest.mark.mosquitto
def test_a_flood_through_an_honest_broker(house: Any, stage: Any) -> None:
    """A client without any key sends 500 kB messages at QoS 0 for 10 s."""
    broker = stage.broker()
    house.build(f'url = "mqtt://127.0.0.1:{broker.port}"')
    house.start()
    house.until(house.read, 60.0, "all meters read")
    house.until(lambda: house.snapshot().broker == "connected", 30.0, "connected")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    largest_mb, deadline_s = 0.0, time.monotonic() + 10
    while time.monotonic() < deadline_s:
        client.publish(f"{TOPIC}/cmd/req", bytes(500_000), qos=0).wait_for_publish(5)
        largest_mb = max(largest_mb, house.memory_mb())
    client.disconnect()
    client.loop_stop()
    print(f"flood: {largest_mb:.0f} MB")
    assert largest_mb <= LIMIT_MB
    assert house.snapshot().broker == "connected"
    house.stop()
