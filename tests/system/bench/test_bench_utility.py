"""The bench itself: it refuses a figure of which a part was sent to nobody, and none of its waits is without an end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.process.clock import SystemClock
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker, Connection
from tests.system.bench import bench_utility as bench

COUNT = 4 * bench.CONNECTIONS


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[bench.Mosquitto]:
    started = bench.Mosquitto(tmp_path / "mosquitto")
    yield started
    started.kill()


def test_what_nobody_takes_is_in_no_figure(broker: bench.Mosquitto) -> None:
    sender = bench.Sender(broker.port, COUNT)
    sender.go()
    with pytest.raises(AssertionError, match=f"accepted {COUNT} balances for no subscriber"):
        sender.finish()


def test_what_somebody_takes_is(broker: bench.Mosquitto) -> None:
    link = Connection(Broker(broker.url), SystemClock(), "taker", clean_start=True)
    link.subscribe([packets.Subscription("checkmeter/v1/#")])
    sender = bench.Sender(broker.port, COUNT)
    sender.go()
    sender.finish()
    link.close()


def test_a_broker_that_goes_silent_ends_the_bench(broker: bench.Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes octets and acknowledges nothing: each side gives up by its own deadline."""
    monkeypatch.setattr(bench, "DEADLINE_S", 1.0)
    sender = bench.Sender(broker.port, COUNT)
    broker.freeze()
    sender.go()
    with pytest.raises(subprocess.TimeoutExpired):
        sender.finish()
    assert sender.process.returncode is not None, "and leaves no process behind"


def test_a_receiver_whose_broker_is_gone_ends(broker: bench.Mosquitto) -> None:
    pytest.importorskip("paho.mqtt.client")
    for receive in (bench.receive_with_paho, bench.receive_with_ours):
        if broker.process.poll() is not None:
            broker.start()
        with pytest.raises((AssertionError, OSError, packets.MqttError)):
            receive(broker.port, 1, broker.kill)
