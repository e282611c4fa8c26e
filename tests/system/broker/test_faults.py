"""Every way in which a broker or a network lets one down: all that was committed arrives, once or more with the same id
and content, and nothing else."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from agent.uplink.send_window import Pace
from agent.wire.codec import encode
from agent.wire.downlink import Ack
from agent.wire.live import Live
from agent.wire.state import Health
from agent.wire.values import utc

pytestmark = pytest.mark.mosquitto
Check = Callable[..., None]


def test_a_broker_that_is_down_for_long(stage: Any, wait: Check, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port)
    wait(lambda: gateway.publisher.connected)
    before = gateway.alerts(5)
    everything_arrived(gateway, listener)
    broker.stop()
    wait(lambda: not gateway.publisher.connected)
    # With nobody to send to, committing still ends: it does not wait for the broker.
    away = [key for _ in range(10) for key in gateway.alerts(20)]
    gateway.balances(300)
    time.sleep(1.0)
    broker.start()
    everything_arrived(gateway, listener)
    assert set(listener.order[: len(before)]) == set(before)
    first = list(dict.fromkeys(listener.order))[len(before) :]
    assert first == away[::-1], "after an outage the newest alerts go first"


def test_what_is_of_the_moment_is_not_said_behind_an_outage_when_it_is_over(stage: Any, wait: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port)
    wait(lambda: gateway.publisher.connected)
    proxy.cut()
    wait(lambda: not gateway.publisher.connected)
    live = Live(
        zone="building", time=utc(gateway.wall_s), by="power", span_s=0.0, skew_s=1.0, main_w=900.0, sum_w=880.0,
        difference_w=20.0, uncertainty_w=None,
    )  # fmt: skip
    gateway.publisher.moment("live/building", live, 5)
    gateway.publisher.health(Health(time=utc(gateway.wall_s), uptime_s=60))
    gateway.wall_s += 60.0
    proxy.mend()
    wait(lambda: listener.topics["health"])
    assert listener.topics["live/building"] == []  # it was said before the health, and would have come before it
    assert listener.properties["health"].MessageExpiryInterval <= 120
    gateway.publisher.moment("live/building", live, 5)
    wait(lambda: listener.topics["live/building"])
    assert listener.wrong == []


def test_alerts_overtake_a_backlog_of_balances(stage: Any, wait: Check, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port, replace_pace(rate_per_s=300.0))
    gateway.balances(900)
    wait(lambda: len(listener.topics["balance/building"]) > 20)
    began_s = time.monotonic()
    (key,) = gateway.alerts(1)
    wait(lambda: key in listener.events)
    assert listener.at_s[key] - began_s < 0.5
    assert len(listener.topics["balance/building"]) < 800, "the backlog is paced and still on its way"
    everything_arrived(gateway, listener)
    # The broker acknowledges before it has passed on what it took.
    wait(lambda: len({json.loads(body)["end"] for body in listener.topics["balance/building"]}) == 900)


def replace_pace(**changed: float) -> Any:
    return replace(
        Pace(start_jitter_s=0.05, pause_s=0.1, pause_limit_s=0.4, silence_s=2.0, backoff_s=0.05, backoff_limit_s=0.3),
        **changed,
    )


def test_a_slow_link(stage: Any, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    proxy.rate = 20_000.0
    gateway = stage.gateway(proxy.port)
    gateway.alerts(100)
    everything_arrived(gateway, listener)
    assert listener.duplicates == 0, "a slow link is no dead link"


def test_a_link_that_goes_silent_is_given_up_for_want_of_acknowledgements(
    stage: Any, wait: Check, everything_arrived: Check
) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port, replace_pace(silence_s=0.5), keepalive_s=3600)
    gateway.alerts(3)
    everything_arrived(gateway, listener)
    proxy.frozen = True
    gateway.alerts(3)
    wait(lambda: not gateway.publisher.connected, what="noticing, though the socket is up")
    proxy.mend()
    everything_arrived(gateway, listener)


def test_a_network_that_is_cut_again_and_again(stage: Any, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port)
    for _ in range(8):
        gateway.alerts(25)
        time.sleep(0.03)
        proxy.cut()
        gateway.alerts(5)
        time.sleep(0.1)
        proxy.mend()
    everything_arrived(gateway, listener)


@pytest.mark.parametrize("kill", [False, True])
def test_a_broker_restarted_with_messages_in_flight(
    stage: Any, wait: Check, everything_arrived: Check, kill: bool
) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)  # slow, so that the window is full when the broker goes
    proxy.rate = 60_000.0
    gateway = stage.gateway(proxy.port)
    for _ in range(3):
        gateway.alerts(40)
        wait(lambda: gateway.publisher._send_window.in_flight > 0)
        time.sleep(1.2 if kill else 0.05)  # a killed broker forgets what it had not saved yet: not ours to mend
        if kill:
            wait(lambda: set(gateway.committed) <= set(listener.events))
        broker.stop(kill)
        gateway.alerts(5)
        broker.start()
    everything_arrived(gateway, listener)


def test_a_broker_that_has_lost_every_session(stage: Any, wait: Check, everything_arrived: Check) -> None:
    broker = stage.broker(persistent=False)
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port)
    gateway.alerts(5)
    everything_arrived(gateway, listener)
    broker.stop()
    gateway.alerts(5)
    broker.start()
    everything_arrived(gateway, listener)
    listener.publish("cmd/req", b"after the restart")
    wait(lambda: [d.payload for d in gateway.came] == [b"after the restart"], what="subscribed anew")


def test_without_a_subscriber_an_acknowledgement_is_no_delivery(
    stage: Any, wait: Check, everything_arrived: Check
) -> None:
    broker = stage.broker()
    gateway = stage.gateway(broker.port)
    gateway.alerts(20)
    gateway.balances(1)
    wait(lambda: gateway.publisher.refused >= 3)
    assert gateway.store.counters.messages == 21
    listener = stage.listener(broker.port)
    everything_arrived(gateway, listener)


def test_end_to_end_a_row_waits_for_the_backend_and_is_sent_again(
    stage: Any, wait: Check, everything_arrived: Check
) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port, delivery="end_to_end")
    keys = gateway.alerts(10)
    gateway.balances(1)
    wait(lambda: listener.duplicates >= 10, what="sent again, since nobody acknowledged")
    assert gateway.store.counters.messages == 10, "the balance is gone, the alerts are not"
    listener.publish("ack", encode_ids(keys[:9]))
    wait(lambda: gateway.store.counters.messages == 1)
    listener.publish("ack", b"\x00 nonsense")
    listener.publish("ack", encode_ids([*keys, "unknown"]))
    everything_arrived(gateway, listener)


def encode_ids(keys: list[str]) -> bytes:
    return encode(Ack(ids=keys))


def test_what_comes_down_is_acknowledged_only_when_it_is_done(stage: Any, wait: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port)
    wait(lambda: gateway.publisher.connected)
    gateway.room = False
    listener.publish("cmd/req", b"one")
    listener.publish("config/desired", b"two", retain=True)
    time.sleep(0.2)
    proxy.cut()  # not acknowledged: the broker sends them again
    wait(lambda: not gateway.publisher.connected)
    gateway.room = True
    proxy.mend()
    wait(lambda: {"cmd/req", "config/desired"} <= {d.suffix for d in gateway.came})
    payloads = [d.payload for d in gateway.came if d.suffix == "cmd/req"]
    time.sleep(0.3)
    proxy.cut()
    wait(lambda: not gateway.publisher.connected)
    proxy.mend()
    wait(lambda: gateway.publisher.connected)
    time.sleep(0.3)
    assert [d.payload for d in gateway.came if d.suffix == "cmd/req"] == payloads == [b"one"]


def test_a_topic_that_the_broker_refuses_keeps_its_row_and_the_others_go_on(
    stage: Any, wait: Check, everything_arrived: Check
) -> None:
    acl = stage.folder / "acl"
    acl.write_text("topic read checkmeter/v1/#\ntopic write checkmeter/v1/+/+/+/balance/#\n")
    broker = stage.broker(f"acl_file {acl}\n")
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port)
    gateway.alerts(3)
    gateway.balances(10)
    wait(lambda: len(listener.topics["balance/building"]) == 10)
    wait(lambda: gateway.publisher.refused >= 2)
    wait(lambda: gateway.store.counters.messages == 3)  # the subscriber may have them before the gateway knows
    acl.write_text("topic readwrite checkmeter/v1/#\n")
    proxy.cut()
    broker.stop()
    broker.start()
    # Mosquitto takes what a client that is away may not read yet as delivered: let the subscriber be there first.
    wait(listener.client.is_connected)
    proxy.mend()
    everything_arrived(gateway, listener)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\xff\xff\xff\xff",
        b"\x20\x03\x00\x00\xff",
        b"\x40\x01\x00",
        b"\x00" * 64,
    ],
)
def test_a_peer_that_talks_nonsense_does_not_end_the_publisher(
    stage: Any, wait: Check, everything_arrived: Check, nonsense: bytes
) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    with socket.create_server(("127.0.0.1", 0)) as liar:
        gateway = stage.gateway(liar.getsockname()[1])
        gateway.alerts(2)
        for _ in range(3):
            peer, _ = liar.accept()
            with peer:
                peer.recv(1024)
                peer.sendall(nonsense)
                time.sleep(0.05)
        assert gateway.thread.is_alive()
    gateway.publisher._mqtt = msgspec.structs.replace(gateway.publisher._mqtt, url=f"mqtt://localhost:{broker.port}")
    everything_arrived(gateway, listener)
