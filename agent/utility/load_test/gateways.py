"""A fleet to test a backend with: N gateways as MQTT clients, with balances, alerts, outages and backlogs.

One thread for all of them. Bounded: at most MAX_GATEWAYS clients for at most MAX_SECONDS, each with a bounded backlog.
Simulated time ends at the wall's now, so that nothing is dated into the future; the balances of an outage are sent
after it with their own times, and what was in flight when the connection broke is sent again, as a real gateway does.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import random
import resource
import select
import signal
import socket
import threading
from collections import deque
from dataclasses import asdict, dataclass

import click
import msgspec

from agent import wire
from agent.process.clock import SystemClock
from agent.utility.load_test.building import INTERVAL_S, Building
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker
from firmware_io.clock import Clock

MAX_GATEWAYS = 10_000
MAX_SECONDS = 86_400.0
MAX_SIMULATED_S = 80 * 86_400  # backends refuse what is older than they keep
WINDOW = 20  # unacknowledged messages of a gateway
BACKLOG = 10_000  # messages that a gateway keeps in an outage: the oldest go first
DRAIN_S = 30.0
LIVE_AT_ONCE = 500  # intervals between two looks at what the broker says
RETAINED = {"status", "info", "active", "config/reported", "model/reported"}
OUTAGE_SHARE = 0.02  # of the gateways, in each simulated day
OUTAGE_INTERVALS = (2, 12)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(slots=True)
class FleetReport:
    """What was said, and what the broker has acknowledged."""

    gateways: int = 0
    balances: int = 0
    alerts: int = 0
    tampers: int = 0
    outages: int = 0
    sent: int = 0
    sent_again: int = 0
    acknowledged: int = 0
    evicted: int = 0
    left: int = 0

    def text(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))


class _Gateway:
    """One client: its building, its backlog, what is in flight."""

    def __init__(self, building: Building) -> None:
        self.building = building
        self.socket: socket.socket | None = None
        self.parser = packets.Parser()
        self.accepted = False
        self.backlog: deque[bytes] = deque(maxlen=BACKLOG)  # packets without their id: see `_numbered`
        self.flying: dict[int, bytes] = {}
        self.next_id = 1
        self.away_until_s = 0.0


class Fleet:
    """N gateways on one broker. `run` returns when the time is over and the backlogs are sent."""

    def __init__(
        self, broker: Broker, clock: Clock, gateways: int, seconds: float, speed: float, seed: int = 0
    ) -> None:
        if not 1 <= gateways <= MAX_GATEWAYS or not 0 < seconds <= MAX_SECONDS:
            raise ValueError(f"a fleet has 1 to {MAX_GATEWAYS} gateways and runs for at most {MAX_SECONDS:.0f} s")
        if not 0 < seconds * speed <= MAX_SIMULATED_S:
            raise ValueError(
                f"{seconds:g} s at speed {speed:g} are more than the {MAX_SIMULATED_S // 86_400} days simulated"
            )
        self._broker = broker
        self._clock = clock
        self._seconds = seconds
        self._speed = speed
        self._rng = random.Random(seed)
        self._origin_s = clock.monotonic()
        self._end_s = clock.now()
        self._start_s = self._end_s - seconds * speed
        # Whole days are what a fleet is judged by: what was before the start, from yesterday's midnight on, the
        # gateways have stored and send first, as after an outage.
        yesterday_s = (int(clock.now()) // 86_400 - 1) * 86_400
        first_s = min(int(self._start_s) // INTERVAL_S * INTERVAL_S, yesterday_s)
        self._gateways = [
            _Gateway(Building(seed, number, first_s, int(clock.now()))) for number in range(1, gateways + 1)
        ]
        # When each gateway's next interval is over, in simulated time; a few seconds apart, as clocks and polls are.
        self._due = [(first_s + INTERVAL_S + self._rng.uniform(0.0, 60.0), n, first_s) for n in range(gateways)]
        heapq.heapify(self._due)
        self._poll = select.poll()
        self._by_fd: dict[int, _Gateway] = {}
        self.report = FleetReport(gateways=gateways)

    def run(self, stop: threading.Event) -> FleetReport:
        """Live through the simulated time; raises OSError where the broker cannot be reached at all."""
        _allow_sockets(len(self._gateways))
        try:
            for gateway in self._gateways:
                self._connect(gateway)
                self._listen(0.0)
            while not stop.is_set() and ((now_s := self._now()) < self._end_s or self._due[0][0] <= self._end_s):
                self._live(now_s)
                self._listen(min(0.05, max(0.0, (self._due[0][0] - now_s) / self._speed)))
            self._drain(stop)
        finally:
            for gateway in self._gateways:
                self._leave(gateway)
        self.report.left = sum(len(g.backlog) + len(g.flying) for g in self._gateways)
        return self.report

    def _now(self) -> float:
        """Simulated UTC; it stands still at its end, also for those who come back while the backlogs are sent."""
        return min(self._end_s, self._start_s + (self._clock.monotonic() - self._origin_s) * self._speed)

    def _live(self, now_s: float) -> None:
        """Everything whose time has come."""
        outage = OUTAGE_SHARE * INTERVAL_S / 86_400
        for _ in range(LIVE_AT_ONCE):
            if self._due[0][0] > now_s:
                break
            due_s, n, start_s = heapq.heappop(self._due)
            gateway = self._gateways[n]
            self._speak(gateway, start_s)
            heapq.heappush(self._due, (due_s + INTERVAL_S, n, start_s + INTERVAL_S))
            if gateway.socket is not None and self._rng.random() < outage:
                self.report.outages += 1
                gateway.away_until_s = now_s + self._rng.randrange(*OUTAGE_INTERVALS) * INTERVAL_S
                self._drop(gateway)
            elif gateway.socket is None and now_s >= gateway.away_until_s:
                self._come_back(gateway)
            self._send(gateway)

    def _speak(self, gateway: _Gateway, start_s: int) -> None:
        for suffix, message in gateway.building.interval(start_s):
            self.report.alerts += suffix == "event/alert"
            self.report.tampers += suffix == "event/tamper"
            self.report.balances += isinstance(message, wire.Balance)
            if suffix == "health":
                self._say_at_once(gateway, suffix, message)
            else:
                self._queue(gateway, suffix, message)

    def _say_at_once(self, gateway: _Gateway, suffix: str, message: msgspec.Struct) -> None:
        """At QoS 0, or not at all: nobody needs to know how a gateway was."""
        if gateway.socket is None or not gateway.accepted:
            return
        octets = self._packet(gateway, suffix, message, packet_id=0, expiry_s=180)
        with contextlib.suppress(OSError):  # the next read finds out
            gateway.socket.sendall(octets)

    def _queue(self, gateway: _Gateway, suffix: str, message: msgspec.Struct) -> None:
        self.report.evicted += len(gateway.backlog) == BACKLOG
        gateway.backlog.append(self._packet(gateway, suffix, message, packet_id=0xFFFF))

    @staticmethod
    def _packet(
        gateway: _Gateway, suffix: str, message: msgspec.Struct, packet_id: int, expiry_s: int | None = None
    ) -> bytes:
        event = suffix.startswith("event/")
        return packets.publish(
            gateway.building.address.topic(suffix),
            wire.encode(message),
            packet_id=packet_id,
            retain=suffix in RETAINED or suffix.startswith("forecast/"),
            expiry_s=7 * 86_400 if isinstance(message, wire.Balance) else expiry_s,
            content_type="application/cloudevents+json" if event else "application/json",
            user_properties=[("schema", wire.SCHEMA_OF[type(message)])],
        )

    # -- connections -------------------------------------------------------------------------------------------

    def _connect(self, gateway: _Gateway) -> None:
        building = gateway.building
        user, password = self._broker.credentials()
        gateway.socket = self._broker.open_socket()
        gateway.parser = packets.Parser()
        gateway.accepted = False
        self._by_fd[gateway.socket.fileno()] = gateway
        self._poll.register(gateway.socket, select.POLLIN)
        will = packets.Will(building.address.topic("status"), wire.encode(building.status("offline", None)))
        gateway.socket.sendall(
            packets.connect(
                building.address.gateway, keepalive_s=600, clean_start=True, username=user, password=password, will=will
            )
        )
        # First what was in flight, in its order, then who we are, then the backlog.
        again = [*gateway.flying.values()]
        self.report.sent_again += len(again)
        gateway.flying.clear()
        backlog = [*gateway.backlog]
        gateway.backlog.clear()
        for suffix, message in building.hello(self._now()):
            self._queue(gateway, suffix, message)
        gateway.backlog.extendleft(reversed(again))
        gateway.backlog.extend(backlog)

    def _come_back(self, gateway: _Gateway) -> None:
        """Connect again; if the broker is away, later."""
        try:
            self._connect(gateway)
        except OSError:
            self._drop(gateway)

    def _drop(self, gateway: _Gateway) -> None:
        """The connection is gone, without a word: the broker sends the will."""
        if gateway.socket is not None:
            del self._by_fd[gateway.socket.fileno()]
            self._poll.unregister(gateway.socket)
            gateway.socket.close()
            gateway.socket = None

    def _leave(self, gateway: _Gateway) -> None:
        if gateway.socket is not None:
            with contextlib.suppress(OSError):  # then the broker sends the will, which says the same
                gateway.socket.sendall(packets.DISCONNECT)
            self._drop(gateway)

    def _send(self, gateway: _Gateway) -> None:
        """As much of the backlog as the window takes."""
        if gateway.socket is None or not gateway.accepted:
            return
        packets = []
        while gateway.backlog and len(gateway.flying) < WINDOW:
            packet = gateway.backlog.popleft()
            while gateway.next_id in gateway.flying:
                gateway.next_id = gateway.next_id % 0xFFFE + 1
            packets.append(_numbered(packet, gateway.next_id))
            gateway.flying[gateway.next_id] = packet
            gateway.next_id = gateway.next_id % 0xFFFE + 1
        if packets:
            self.report.sent += len(packets)
            try:
                gateway.socket.sendall(b"".join(packets))
            except OSError:
                self._drop(gateway)

    def _listen(self, timeout_s: float) -> None:
        """Take acknowledgements; a connection that fails is made again at its gateway's next interval."""
        for fd, _ in self._poll.poll(timeout_s * 1000):
            gateway = self._by_fd[fd]
            assert gateway.socket is not None
            try:
                chunk = gateway.socket.recv(1 << 16)
                events = gateway.parser.feed(chunk)
            except (OSError, packets.MqttError):
                chunk, events = b"", []
            if not chunk:
                self._drop(gateway)
                continue
            for event in events:
                if isinstance(event, packets.Connack):
                    gateway.accepted = True
                elif isinstance(event, packets.Puback) and gateway.flying.pop(event.packet_id, None) is not None:
                    self.report.acknowledged += 1
            self._send(gateway)

    def _drain(self, stop: threading.Event) -> None:
        """Everybody comes back and sends what is left."""
        deadline_s = self._clock.monotonic() + DRAIN_S
        while not stop.is_set() and self._clock.monotonic() < deadline_s:
            for gateway in self._gateways:
                if gateway.socket is None:
                    self._come_back(gateway)
            if not any(gateway.backlog or gateway.flying for gateway in self._gateways):
                return
            self._listen(0.05)


def _numbered(packet: bytes, packet_id: int) -> bytes:
    """A PUBLISH packet with this id in the place of its own: it stands behind the topic (section 3.3.2)."""
    at = 1
    while packet[at] > 127:
        at += 1
    at += 1
    at += 2 + (packet[at] << 8 | packet[at + 1])
    return packet[:at] + packet_id.to_bytes(2, "big") + packet[at + 2 :]


def _allow_sockets(count: int) -> None:
    """Ask for so many open files; raises OSError where the system's limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 100
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{count} gateways need {wanted} open files, the limit is {hard}: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_fleet(gateways: int, seconds: float, speed: float, url: str, *, loopback_only: bool) -> None:
    """`checkmeter simulate --fleet`: run one until its time is over or SIGTERM, and print its report."""
    try:
        broker = Broker(url)
        fleet = Fleet(broker, SystemClock(), gateways, seconds, speed)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if loopback_only and broker.host not in LOOPBACK:
        raise click.UsageError(
            f"{broker.host} is not this machine: {gateways} made-up gateways go there with --not-loopback"
        )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    click.echo(fleet.run(stop).text())
