"""A real Mosquitto on a free port of the loopback, a proxy that can fail, a subscriber that keeps books."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import paho.mqtt.client as paho
import pytest

from agent.alerts.book import AlertBook
from agent.alerts.condition import Condition
from agent.site.tables import Mqtt
from agent.store.commit import Answered, Commit
from agent.store.messages import Message, alert_message, balance_message
from agent.store.store import Store
from agent.uplink.publisher import Downlink, Publisher
from agent.uplink.send_window import Pace
from agent.wire.state import Balance
from agent.wire.topics import Address, split_topic
from agent.wire.values import utc

T0 = 1_767_225_600.0
ADDRESS = Address("acme", "riverside-12", "gw-0012")
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "schemas"
QUICK = Pace(
    start_jitter_s=0.05, pause_s=0.1, pause_limit_s=0.4, silence_s=2.0, ack_s=0.5, backoff_s=0.05, backoff_limit_s=0.3
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=None, help="how often the agent is killed (the proof's long form)")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--kills", None) or 60


def until(condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "") -> None:
    """Wait until `condition` holds, or fail."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A Mosquitto with its own folder; `stop` and `start` at will, `persistent` over them or not."""

    def __init__(self, folder: Path, extra: str = "", persistent: bool = True) -> None:
        self.folder, self.extra, self.persistent = folder, extra, persistent
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        auth = "" if "allow_anonymous" in self.extra else "allow_anonymous true\n"
        store = (
            f"persistence true\npersistence_location {self.folder}/\nautosave_interval 1\nautosave_on_changes true\n"
        )
        (self.folder / "mosquitto.conf").write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nmax_queued_messages 200000\nset_tcp_nodelay true\n"
            f"{auth}{store if self.persistent else ''}{self.extra}"
        )
        log = (self.folder / "mosquitto.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [MOSQUITTO, "-c", "mosquitto.conf"], cwd=self.folder, stdout=log, stderr=log
            )
        until(self._answers, 10.0, (self.folder / "mosquitto.log").read_text())

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, kill: bool = False) -> None:
        assert self.process is not None
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(10)
        self.process = None


class Listener:
    """A backend: subscribes to everything of the gateway, notes every message, and checks it against its schema."""

    def __init__(self, port: int, client_id: str = "backend", **options: Any) -> None:
        self.events: dict[str, set[bytes]] = defaultdict(set)  # event id -> bodies
        self.order: list[str] = []
        self.topics: dict[str, list[bytes]] = defaultdict(list)  # suffix -> bodies
        self.at_s: dict[str, float] = {}  # event id -> monotonic time of the first arrival
        self.duplicates = 0
        self.properties: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.on_event: Callable[[str], None] = lambda _id: None
        self.subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        self.client.on_connect = lambda *_: self.client.subscribe("checkmeter/v1/#", 1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._note
        self.client.max_inflight_messages_set(1000)
        self.client.reconnect_delay_set(1, 1)
        for name, value in options.items():
            getattr(self.client, name)(*value)
        session = paho.Properties(paho.PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self.client.loop_start()
        assert self.subscribed.wait(10)

    def _note(self, _client: Any, _user: Any, message: Any) -> None:
        arrived_s = time.monotonic()
        suffix = split_topic(message.topic)[1]
        if suffix in ("cmd/req", "ack") or suffix.endswith("/desired"):
            return
        self.topics[suffix].append(message.payload)
        self.properties[suffix] = message.properties
        if not message.payload and suffix.startswith("forecast/"):
            return  # withdrawn
        body = json.loads(message.payload)
        schema = schema_of(suffix)
        for error in schema.iter_errors(body):
            self.wrong.append(f"{suffix}: {error.message}")
        if suffix.startswith("event/"):
            self.duplicates += body["id"] in self.events
            self.events[body["id"]].add(message.payload)
            self.at_s.setdefault(body["id"], arrived_s)
            self.order.append(body["id"])
            self.on_event(body["id"])

    def publish(self, suffix: str, payload: bytes, retain: bool = False) -> None:
        self.client.publish(ADDRESS.topic(suffix), payload, qos=1, retain=retain).wait_for_publish(5)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


_VALIDATORS: dict[str, jsonschema.Draft202012Validator] = {}


def schema_of(suffix: str) -> jsonschema.Draft202012Validator:
    """The validator of the committed schema of a topic."""
    head, _, tail = suffix.partition("/")
    name = {"event": tail, "cmd": "result", "config": "reported", "model": "reported"}.get(head, head)
    if name not in _VALIDATORS:
        schema = json.loads((SCHEMAS / f"checkmeter.{name}.v1.json").read_text())
        _VALIDATORS[name] = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    return _VALIDATORS[name]


def balance(n: int) -> Message:
    return balance_message(
        Balance(
            zone="building", start=utc(T0 + 900 * n), end=utc(T0 + 900 * n + 900), main_kwh=1.0, sum_kwh=0.9,
            technical_loss_kwh=0.01, residual_kwh=0.09, uncertainty_kwh=0.01, coverage=1.0,
        )
    )  # fmt: skip


class Gateway:
    """Store, alert book and publisher as the agent has them; `alert` commits one more alert."""

    def __init__(self, path: Path, pace: Pace = QUICK, **mqtt: Any) -> None:
        self.path, self.pace, self.mqtt = path, pace, mqtt
        self.committed: dict[str, bytes] = {}
        self.came: list[Downlink] = []
        self.room = True
        self.book = AlertBook(ADDRESS)
        self.number = 0
        self.wall_s = T0
        self.start()

    def start(self) -> None:
        self.store = Store(self.path, T0)
        self.publisher = Publisher(
            Mqtt(**self.mqtt), ADDRESS, self.store, lambda: self.wall_s, self._came, {"checkmeter": "0"}, pace=self.pace
        )
        self.thread = threading.Thread(target=self.publisher.run, name="publisher")
        self.thread.start()

    def _came(self, down: Downlink) -> bool:
        if self.room:
            self.came.append(down)
            down.done()
        return self.room

    def alerts(self, count: int = 1) -> list[str]:
        """Commit `count` alerts in one step each; their ids."""
        made = []
        for _ in range(count):
            self.number += 1
            time_s = T0 + self.number
            events = self.book.observe([Condition("meter_fault", True, time_s, time_s, meter=f"m{self.number}")])
            self.commit([alert_message(e) for e in events])
            made += [e.id for e in events]
        return made

    def balances(self, count: int) -> None:
        """Commit the first `count` balances in one step."""
        self.commit([balance(n) for n in range(count)])

    def commit(self, messages: list[Message], answers: Sequence[Answered] = ()) -> None:
        self.store.commit(Commit(messages, {"alerts": self.book.state()}, answers=answers), T0)
        self.committed |= {m.key: m.body for m in messages if m.suffix.startswith("event/")}

    def stop(self) -> None:
        self.publisher.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.store.close()


class Proxy:
    """TCP in between: `cut` ends all connections and refuses new ones, `freeze` moves nothing, `rate` slows down."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.rate: float | None = None  # octets a second, both directions
        self.frozen = self.refusing = self.ended = False
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self._run, name="proxy")
        self.thread.start()

    def _run(self) -> None:
        while not self.ended:
            if self.frozen:
                time.sleep(0.01)
                continue
            ends = {a: b for pair in self.pairs for a, b in (pair, pair[::-1])}
            readable, _, _ = select.select([self.listener, *ends], [], [], 0.02)
            for sock in readable:
                if sock is self.listener:
                    self._accept()
                    continue
                try:
                    octets = sock.recv(65536 if self.rate is None else 256)
                    ends[sock].sendall(octets)
                except OSError:
                    octets = b""
                if not octets:
                    self._close(sock)
                elif self.rate is not None:
                    time.sleep(len(octets) / self.rate)

    def _accept(self) -> None:
        one, _ = self.listener.accept()
        if self.refusing:
            one.close()
            return
        try:
            other = socket.create_connection(("127.0.0.1", self.target), 1)
        except OSError:
            one.close()
            return
        other.settimeout(None)
        for end in (one, other):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pairs.append((one, other))

    def _close(self, sock: socket.socket) -> None:
        for pair in [p for p in self.pairs if sock in p]:
            self.pairs.remove(pair)
            for end in pair:
                end.close()

    def cut(self) -> None:
        """End all connections without a word, and refuse new ones."""
        self.refusing = True
        for one, other in list(self.pairs):
            for end in (one, other):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.refusing = self.frozen = False

    def close(self) -> None:
        self.ended = True
        self.thread.join(5)
        self.listener.close()
        for pair in self.pairs:
            for end in pair:
                end.close()


class Stage:
    """Makes the players of a scene and clears up after them, in the right order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exit = contextlib.ExitStack()

    def broker(self, extra: str = "", persistent: bool = True) -> Broker:
        folder = self.folder / f"broker{len(list(self.folder.glob('broker*')))}"
        folder.mkdir()
        broker = Broker(folder, extra, persistent)
        self.exit.callback(lambda: broker.stop() if broker.process else None)
        return broker

    def listener(self, port: int, client_id: str = "backend", **options: Any) -> Listener:
        listener = Listener(port, client_id, **options)
        self.exit.callback(listener.close)
        return listener

    def proxy(self, port: int) -> Proxy:
        proxy = Proxy(port)
        self.exit.callback(proxy.close)
        return proxy

    def gateway(self, port: int, pace: Pace = QUICK, path: Path | None = None, **mqtt: Any) -> Gateway:
        mqtt = {"url": f"mqtt://localhost:{port}", **mqtt}
        gateway = Gateway(path or self.folder / "gateway.sqlite", pace, **mqtt)
        self.exit.callback(gateway.stop)
        return gateway


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    with stage.exit:
        yield stage


@pytest.fixture
def everything_arrived() -> Callable[[Gateway, Listener], None]:
    """Wait until the outbox is empty; then: all that was committed is there, nothing else, each with one body."""

    def check(gateway: Gateway, listener: Listener, timeout_s: float = 20.0) -> None:
        until(lambda: set(gateway.committed) <= set(listener.events), timeout_s, "all alerts with the subscriber")
        until(lambda: gateway.store.counters.messages == 0, timeout_s, "an empty outbox")
        assert {key: {body} for key, body in gateway.committed.items()} == dict(listener.events)
        assert listener.wrong == []

    return check


@pytest.fixture
def wait() -> Callable[..., None]:
    return until


@pytest.fixture
def root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for a tmpfs")
