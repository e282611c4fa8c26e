"""Every way in which a broker, a network, a disk or a clock lets one down: all that was committed arrives, once or more
with the same id and content, and nothing else."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.messages import Message, Priority, balance_message
from agent.wire import ActiveSnapshot, Balance, Health, Info, Status, encode, utc

pytestmark = pytest.mark.mosquitto
T0 = 1_767_225_600.0
Check = Callable[..., None]


def balance(n: int) -> Message:
    return balance_message(
        Balance(
            zone="building", start=utc(T0 + 900 * n), end=utc(T0 + 900 * n + 900), main_kwh=1.0, sum_kwh=0.9,
            technical_loss_kwh=0.01, residual_kwh=0.09, uncertainty_kwh=0.01, coverage=1.0,
        )
    )  # fmt: skip


def test_each_topic_has_its_form_and_its_properties(stage: Any, wait: Check, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port)
    gateway.publisher.tell("status", Status(state="online", since=utc(T0), versions={"checkmeter": "0"}))
    gateway.publisher.tell("info", Info(time=utc(T0), versions={}, meters=[], zones=[], schemas={}))
    gateway.publisher.tell("active", ActiveSnapshot(time=utc(T0), alerts=[]))
    gateway.alerts(3)
    gateway.commit([balance(0)])
    wait(lambda: gateway.publisher.connected)
    gateway.publisher.health(Health(time=utc(T0), uptime_s=1.0))
    everything_arrived(gateway, listener)
    wait(lambda: {"status", "info", "active", "health", "balance/building"} <= set(listener.topics))
    alert = listener.properties["event/alert"]
    assert (alert.ContentType, alert.PayloadFormatIndicator) == ("application/cloudevents+json", 1)
    assert alert.UserProperty == [("schema", "checkmeter.alert.v1")]
    assert not hasattr(alert, "TopicAlias")
    assert 604000 < listener.properties["balance/building"].MessageExpiryInterval <= 604800 + 900
    assert listener.properties["health"].MessageExpiryInterval <= 180
    late = stage.listener(broker.port, "late")  # only what is retained
    wait(lambda: {"status", "info", "active"} <= set(late.topics))
    assert set(late.topics) == {"status", "info", "active"}


def test_mqtt_3_1_1_by_configuration(stage: Any, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port, version="3.1.1")
    gateway.alerts(30)
    everything_arrived(gateway, listener)
    assert not hasattr(listener.properties["event/alert"], "ContentType")


def test_status_and_info_are_said_again_on_every_connect(stage: Any, wait: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port)
    gateway.publisher.tell("status", Status(state="online", versions={}))
    gateway.publisher.tell("info", Info(time=utc(T0), versions={}, meters=[], zones=[], schemas={}))
    for n in (1, 2, 3):
        wait(lambda n=n: len(listener.topics["status"]) >= n and len(listener.topics["info"]) >= n)
        proxy.cut()
        wait(lambda: not gateway.publisher.connected)
        proxy.mend()
    wait(lambda: gateway.publisher.connected)
    gateway.publisher.stop()
    gateway.thread.join(10)
    wait(lambda: state_of(listener.topics["status"][-1]) == ("offline", "stopped"))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_the_last_will_is_said_when_the_link_dies_and_not_when_it_comes_back_in_time(
    stage: Any, wait: Check, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.connection.WILL_DELAY_S", 1)
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port, version=version)
    gateway.publisher.tell("status", Status(state="online", versions={}))
    wait(lambda: listener.topics["status"])
    proxy.cut()
    if version == "5":  # 3.1.1 knows no delay
        time.sleep(0.3)
        proxy.mend()
        wait(lambda: gateway.publisher.connected)
        time.sleep(1.5)
        assert {state_of(body)[0] for body in listener.topics["status"]} == {"online"}
        proxy.cut()
    wait(lambda: state_of(listener.topics["status"][-1]) == ("offline", "connection lost"))
    proxy.mend()
    wait(lambda: state_of(listener.topics["status"][-1])[0] == "online")


def state_of(body: bytes) -> tuple[str, str | None]:
    status = json.loads(body)
    return status["state"], status.get("reason")


def test_a_broker_that_is_down_for_long(stage: Any, wait: Check, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port)
    wait(lambda: gateway.publisher.connected)
    before = gateway.alerts(5)
    everything_arrived(gateway, listener)
    broker.stop()
    wait(lambda: not gateway.publisher.connected)
    began_s = time.monotonic()
    away = [key for _ in range(10) for key in gateway.alerts(20)]
    gateway.commit([balance(n) for n in range(300)])
    assert time.monotonic() - began_s < 5, "committing must not wait for the broker"
    time.sleep(1.0)
    broker.start()
    everything_arrived(gateway, listener)
    assert set(listener.order[: len(before)]) == set(before)
    first = list(dict.fromkeys(listener.order))[len(before) :]
    assert first == away[::-1], "after an outage the newest alerts go first"


def test_alerts_overtake_a_backlog_of_balances(stage: Any, wait: Check, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port, replace_pace(rate_per_s=300.0))
    gateway.commit([balance(n) for n in range(900)])
    wait(lambda: len(listener.topics["balance/building"]) > 20)
    began_s = time.monotonic()
    (key,) = gateway.alerts(1)
    wait(lambda: key in listener.events)
    assert listener.at_s[key] - began_s < 0.5
    assert len(listener.topics["balance/building"]) < 800, "the backlog is paced and still on its way"
    everything_arrived(gateway, listener)
    ends = [json.loads(body)["end"] for body in listener.topics["balance/building"]]
    assert len(set(ends)) == 900


def replace_pace(**changed: float) -> Any:
    from agent.outflow import Pace

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
        wait(lambda: gateway.publisher._outflow.in_flight > 0)
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
    gateway.commit([balance(0)])
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
    gateway.commit([balance(0)])
    wait(lambda: listener.duplicates >= 10, what="sent again, since nobody acknowledged")
    assert gateway.store.counters.messages == 10, "the balance is gone, the alerts are not"
    listener.publish("ack", encode_ids(keys[:9]))
    wait(lambda: gateway.store.counters.messages == 1)
    listener.publish("ack", b"\x00 nonsense")
    listener.publish("ack", encode_ids([*keys, "unknown"]))
    everything_arrived(gateway, listener)


def encode_ids(keys: list[str]) -> bytes:
    from agent.wire import Ack

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
    gateway.commit([balance(n) for n in range(10)])
    wait(lambda: len(listener.topics["balance/building"]) == 10)
    wait(lambda: gateway.publisher.refused >= 2)
    assert gateway.store.counters.messages == 3
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


# -- TLS ------------------------------------------------------------------------------------------------------------


def tls(stage: Any, server_days: float = 30.0) -> tuple[Any, Path, str]:
    ca = stage.certificates.authority("ca")
    certificate, key = stage.certificates.issue("ca", "localhost", server_days)
    extra = (
        f"cafile {ca}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\nuse_identity_as_username true\n"
        f"allow_anonymous false\n"
    )
    return stage.broker(extra), ca, extra


def backend_tls(stage: Any, ca: Path) -> dict[str, Any]:
    certificate, key = stage.certificates.issue("ca", "backend")
    return {"tls_set": (str(ca), str(certificate), str(key)), "tls_insecure_set": (True,)}


def test_tls_with_a_client_certificate_and_alpn(stage: Any, everything_arrived: Check) -> None:
    broker, ca, _ = tls(stage)
    listener = stage.listener(broker.port, **backend_tls(stage, ca))
    certificate, key = stage.certificates.issue("ca", "gw-0012")
    gateway = stage.gateway(
        broker.port,
        url=f"mqtts://localhost:{broker.port}",
        ca=str(ca),
        certificate=str(certificate),
        key=str(key),
        alpn=["mqtt"],
    )
    gateway.alerts(50)
    everything_arrived(gateway, listener)


@pytest.mark.parametrize("fault", ["server expired", "wrong CA", "client expired", "wrong host"])
def test_a_certificate_that_is_wrong_sends_nothing_and_once_right_everything(
    stage: Any, wait: Check, everything_arrived: Check, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker, ca, extra = tls(stage, -1.0 if fault == "server expired" else 30.0)
    stage.certificates.authority("other-ca")
    certificate, key = stage.certificates.issue("ca", "gw-0012")
    theirs = stage.folder / "gateway-ca.pem"
    theirs.write_bytes((stage.folder / "other-ca.pem").read_bytes() if fault == "wrong CA" else ca.read_bytes())
    mine = stage.folder / "mine.pem"
    mine.write_bytes(certificate.read_bytes())
    my_key = stage.folder / "mine.key"
    my_key.write_bytes(key.read_bytes())
    if fault == "client expired":
        old, old_key = stage.certificates.issue("ca", "gw-0012", -1.0)
        mine.write_bytes(old.read_bytes())
        my_key.write_bytes(old_key.read_bytes())
    host = "127.0.0.1" if fault == "wrong host" else "localhost"
    gateway = stage.gateway(
        broker.port, url=f"mqtts://{host}:{broker.port}", ca=str(theirs), certificate=str(mine), key=str(my_key)
    )
    gateway.alerts(3)
    wait(lambda: sum("broker mqtts" in r.message for r in caplog.records) >= 2, what="trying again")
    assert not gateway.publisher.connected
    assert gateway.store.counters.messages == 3
    if fault in ("server expired", "wrong CA", "wrong host"):
        assert any("its certificate is not accepted" in r.message for r in caplog.records)
    if fault == "wrong host":
        return
    # Renewed on disk, without a restart of the gateway.
    theirs.write_bytes(ca.read_bytes())
    mine.write_bytes(certificate.read_bytes())
    my_key.write_bytes(key.read_bytes())
    if fault == "server expired":
        good, good_key = stage.certificates.issue("ca", "localhost", 31.0)
        broker.stop()
        broker.extra = extra.replace(extra.split("certfile ")[1].split("\n")[0], str(good)).replace(
            extra.split("keyfile ")[1].split("\n")[0], str(good_key)
        )
        broker.start()
    listener = stage.listener(broker.port, **backend_tls(stage, ca))
    everything_arrived(gateway, listener)


def test_user_and_password_from_a_file(stage: Any, wait: Check, everything_arrived: Check) -> None:
    users = stage.folder / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "gw-0012", "right"], check=True, capture_output=True)
    subprocess.run(["mosquitto_passwd", "-b", users, "backend", "b"], check=True, capture_output=True)
    broker = stage.broker(f"password_file {users}\nallow_anonymous false\n")
    listener = stage.listener(broker.port, username_pw_set=("backend", "b"))
    secret = stage.folder / "password"
    gateway = stage.gateway(broker.port, username="gw-0012", password=str(secret))  # not there yet
    gateway.alerts(3)
    time.sleep(0.2)
    secret.write_text("wrong\n")
    time.sleep(0.4)
    assert not listener.events
    secret.write_text("right\n")
    everything_arrived(gateway, listener)


# -- disk and clock -------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_nothing_but_history(
    stage: Any, root_only: None, everything_arrived: Check, wait: Check
) -> None:
    import numpy as np

    from agent.pipeline import HistoryRow
    from agent.store import Commit

    disk = stage.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    stage.exit.callback(lambda: subprocess.run(["umount", "-l", disk], check=True))
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port, path=disk / "gateway.sqlite")
    gateway.alerts(3)
    hog = (disk / "hog").open("wb", buffering=0)
    try:
        while True:
            hog.write(b"x" * 4096)
    except OSError:
        pass
    for n in range(60):
        history = [HistoryRow(T0 + 900 * n, np.arange(500.0), np.zeros(500))]
        gateway.store.commit(Commit(meters=[f"m{i}" for i in range(500)], history=history), T0)
        gateway.alerts(2)
    everything_arrived(gateway, listener)  # on a disk that is still full
    hog.close()
    gateway.stop()
    gateway.start()
    assert gateway.store.replaced is None
    gateway.alerts(1)
    everything_arrived(gateway, listener)


def test_a_torn_tail_of_the_file_costs_no_alert_that_was_waiting(
    stage: Any, wait: Check, everything_arrived: Check
) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(1)  # no broker there: everything waits
    gateway.alerts(200)
    gateway.stop()
    path = gateway.path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 5000])
    gateway.mqtt["url"] = f"mqtt://localhost:{broker.port}"
    gateway.start()
    assert gateway.store.replaced is not None
    lost = set(gateway.committed) - {o.message.key for o in gateway.store.pending(1000, [Priority.ALERT])}
    for key in lost:
        del gateway.committed[key]
    assert len(lost) <= 8, "no more than what stood on the pages torn off"
    gateway.alerts(3)
    everything_arrived(gateway, listener)


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400.0, 3600.0, 6 * 86400.0])
def test_a_clock_that_jumps(stage: Any, wait: Check, everything_arrived: Check, jump_s: float) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port)
    gateway.alerts(5)
    gateway.wall_s += jump_s
    gateway.alerts(5)
    gateway.commit([balance(0)])
    everything_arrived(gateway, listener)
    wait(lambda: len(listener.topics["balance/building"]) == 1)
