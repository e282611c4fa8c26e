"""The link to the broker: one thread that alone touches paho-mqtt, between the outbox and the socket.

It owns connecting, the last will, what is said on every connect, reading and writing the socket, and reconnecting. What
to send next is `agent.uplink.send_window`'s, what waits `agent.store.store`'s, what a message means nobody's here.

paho runs without a thread of its own: this thread waits for the socket and a wake-up pipe, and lets paho read and
write. So its callbacks run in this thread too; they only record, and nothing is published from within one. Every
connection gets a new client object: paho keeps its own queue of unacknowledged messages in memory, and the outbox is
the better one. Topic aliases are never used (a broker's restart makes paho reconnect for ever).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from agent.process.clock import SystemClock
from agent.site.errors import ConfigError
from agent.site.tables import Mqtt
from agent.store.commit import no_probe
from agent.store.store import Store
from agent.uplink.connection import CONNECT_S, Connection, Refused, advice, drain, unprotected
from agent.uplink.intake import LIMITS
from agent.uplink.send_window import Pace, SendWindow
from agent.wire.codec import SCHEMA_OF, decode, encode
from agent.wire.downlink import MAX_ACK_BYTES, Ack
from agent.wire.state import Health, Status
from agent.wire.topics import Address
from agent.wire.values import WireError
from firmware_io.clock import Clock

log = logging.getLogger(__name__)

HEALTH_EXPIRY_S = 180
STEADY_S = 60.0  # a connection that lasted so long, or carried a message, resets the back-off
FLUSH_ROWS, FLUSH_S = 100, 0.05  # arrived rows are taken out of the store in batches of so many, or so often


@dataclass(frozen=True, slots=True)
class Downlink:
    """A message from the backend. `done` must be called, from any thread, when it need not come again."""

    suffix: str
    payload: bytes
    done: Callable[[], None]


class Publisher:
    """Outbox -> broker, and what comes down -> `inbox`.

    Args:
        mqtt: the site file's section.
        address: whose topics.
        store: the outbox; the publisher listens to its commits.
        now: UTC seconds as messages are stamped with, for what has expired.
        inbox: takes what comes down; it must only record, and may say False when it has no room.
        versions: for the last will.
        clock: of the network; the system's own, however fast a simulated building runs.
        probe: see `agent.store.no_probe`.
        beat: called at every turn, also while the broker is away: the thread lives.
    """

    def __init__(
        self,
        mqtt: Mqtt,
        address: Address,
        store: Store,
        now: Callable[[], float],
        inbox: Callable[[Downlink], bool],
        versions: dict[str, str],
        *,
        clock: Clock | None = None,
        pace: Pace | None = None,
        probe: Callable[[str], None] = no_probe,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._mqtt = mqtt
        self._beat = beat
        self._address = address
        self._now = now
        self._inbox = inbox
        self._clock = clock or SystemClock()
        self._probe = probe
        self._will = encode(Status(state="offline", reason="connection lost", versions=versions))
        self._bye = Status(state="offline", reason="stopped", versions=versions)
        self._pace = pace or Pace(inflight=mqtt.inflight)
        self._end_to_end = mqtt.delivery == "end_to_end"
        self._send_window = SendWindow(store, self._pace, end_to_end=self._end_to_end)
        self._lock = threading.Lock()
        self._waking = threading.Lock()  # around the pipe's end alone: wake is called under other locks
        self._states: dict[str, tuple[bytes, str]] = {}  # retained: suffix -> body and schema, told on every connect
        self._pending_retained: set[str] = set()
        self._moments: dict[str, tuple[bytes, str, float]] = {}  # said once, the newest of each suffix, until when
        self._done: deque[tuple[int, int]] = deque()  # packet ids of what came down and is done, by connection
        self._stopping = False
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._link: Connection | None = None
        self._links = 0
        self._failures = 0
        self.dropped = 0  # messages from the broker that were too large, too many or not ours
        self.connected_since_s: float | None = None  # monotonic, of the network's clock
        store.on_commit(lambda _priority: self._commit_seen())

    # -- from any thread ----------------------------------------------------------------------------------------------

    def publish_retained(self, suffix: str, state: msgspec.Struct) -> None:
        """Say this, retained, now and on every connect: status, info, active, config/reported, model/reported."""
        self._retain(suffix, encode(state), SCHEMA_OF[type(state)])

    def clear_retained(self, suffix: str, kind: type[msgspec.Struct]) -> None:
        """Nothing of this holds any more: the broker forgets what it keeps of it [MQTT-3.3.1-6]."""
        self._retain(suffix, b"", SCHEMA_OF[kind])

    def _retain(self, suffix: str, body: bytes, schema: str) -> None:
        with self._lock:
            self._states[suffix] = (body, schema)
            self._pending_retained.add(suffix)
        self.wake()

    def health(self, health: Health) -> None:
        """Say this once; it is not queued."""
        self.moment("health", health, HEALTH_EXPIRY_S)

    def moment(self, suffix: str, body: msgspec.Struct, expiry_s: int) -> None:
        """Say this once, at QoS 0, if there is a connection within `expiry_s`; the next of its suffix replaces it."""
        with self._lock:
            self._moments[suffix] = encode(body), SCHEMA_OF[type(body)], self._now() + expiry_s
        self.wake()

    def wake(self) -> None:
        """Make the publisher look around now."""
        with self._waking, contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"x")

    def stop(self) -> None:
        """Say goodbye and end `run`."""
        self._stopping = True
        self.wake()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection that stands."""
        return self.connected_since_s is not None

    @property
    def delivered(self) -> int:
        """Messages that have arrived since the start."""
        return self._send_window.flow.delivered

    @property
    def refused(self) -> int:
        """Messages that the broker did not take since the start; each is tried again."""
        return self._send_window.flow.refused

    def _commit_seen(self) -> None:
        self._send_window.invalidate()
        self.wake()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Connect, publish and reconnect until `stop`."""
        if unprotected(self._mqtt.url):
            log.warning(
                "broker %s: insecure = true, so nothing of what is sent is encrypted and the broker may be anyone; "
                "use mqtts://",
                self._mqtt.url,
            )
        try:
            while not self._stopping:
                began_s = self._clock.monotonic()
                delivered = self.delivered
                try:
                    self._connection()
                except (OSError, ValueError, Refused, ConfigError) as error:  # ssl.SSLError is an OSError
                    log.warning("broker %s: %s", self._mqtt.url, advice(error))
                except Exception:  # a broker that talks nonsense makes paho raise anything; we try again
                    log.exception("broker %s: the connection failed in an unexpected way", self._mqtt.url)
                finally:
                    self._disconnect()
                if self.delivered > delivered or self._clock.monotonic() - began_s > STEADY_S:
                    self._failures = 0
                self._failures += 1
                if not self._stopping:
                    limit_s = min(self._pace.backoff_limit_s, self._pace.backoff_s * 2.0 ** min(self._failures - 1, 10))
                    self._pause(random.uniform(0.0, limit_s))
        finally:
            os.close(self._woken)
            with self._waking:  # whoever wakes us now must not write to a number that is somebody else's file
                wake, self._wake = self._wake, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.close(wake)

    def _connection(self) -> None:
        """One connection from beginning to end."""
        self._links += 1
        link = self._link = Connection(
            self._mqtt, self._address, self._will, self._links, stopping=lambda: self._stopping
        )
        deadline_s = self._clock.monotonic() + CONNECT_S
        while not link.accepted:
            if self._stopping or self._clock.monotonic() > deadline_s:
                raise Refused("no CONNACK came in time")
            link.serve(self._woken, 0.2)
        self._on_connected(link)
        flushed_s = self._clock.monotonic()
        while not self._stopping:
            now_s = self._clock.monotonic()
            self._process_incoming(link, now_s)
            self._send(link, now_s)
            if self._send_window.arrived >= FLUSH_ROWS or (self._send_window.arrived and now_s - flushed_s > FLUSH_S):
                self._send_window.flush(now_s)
                flushed_s = now_s
            if self._send_window.dead(now_s):
                raise Refused(
                    f"no acknowledgement of {self._send_window.in_flight} messages in flight: the link is dead"
                )
            wait_s = FLUSH_S if self._send_window.arrived else self._send_window.due_s(now_s)
            link.serve(self._woken, wait_s)
            self._beat()
        self._close_gracefully(link)

    def _on_connected(self, link: Connection) -> None:
        """Subscribe, and say anew what is retained."""
        log.info("connected to %s as %s", self._mqtt.url, link.client_id)
        now_s = self._clock.monotonic()
        self._send_window.connected(now_s, link.receive_maximum, link.maximum_bytes)
        self.connected_since_s = now_s
        link.subscribe([self._address.topic(suffix) for suffix in LIMITS if suffix != "ack" or self._end_to_end])
        with self._lock:
            self._pending_retained = set(self._states)

    def _process_incoming(self, link: Connection, now_s: float) -> None:
        """Work off what the callbacks have recorded, and what was done with what came down."""
        while link.pubacks:
            mid, reason = link.pubacks.popleft()
            if mid not in link.retained_in_flight:
                self._probe("publisher.puback")
                self._send_window.acknowledged(mid, reason, now_s)
                if reason:
                    log.info("broker %s did not take a message: reason 0x%02x", self._mqtt.url, reason)
            elif link.retained_in_flight.pop(mid) and reason >= 0x80:
                log.warning(
                    "broker %s refuses our retained state: reason 0x%02x; check its ACL", self._mqtt.url, reason
                )
        while (ack := link.acks.first()) is not None:
            link.acks.take()
            try:
                if not self._end_to_end:  # a session of an earlier configuration; the broker's word is what counts
                    raise WireError("delivery is that of the broker")
                self._send_window.confirmed(decode(Ack, ack.payload, MAX_ACK_BYTES).ids)
            except WireError as error:
                log.warning("an acknowledgement that cannot be read: %s", error)
            self._finisher(link.number, ack.packet_id)()
        while (arrival := link.messages.first()) is not None:
            if not self._inbox(
                Downlink(arrival.suffix, arrival.payload, self._finisher(link.number, arrival.packet_id))
            ):
                break  # no room: it stays with us, unacknowledged, until there is
            link.messages.take()
        for mid in (*link.messages.dropped(), *link.acks.dropped()):
            self._done.append((link.number, mid))
        self._note_lost(link)
        while self._done:
            number, mid = self._done.popleft()
            if number == link.number and mid:  # at QoS 0 there is no packet id, and an acknowledgement is a fault
                link.client.ack(mid, 1)

    def _note_lost(self, link: Connection) -> None:
        """Count what the intake had to drop."""
        lost = link.messages.lost + link.acks.lost
        if lost:
            link.messages.lost = link.acks.lost = 0
            self.dropped += lost
            log.warning("broker %s: %d messages too large, too many or not ours were dropped", self._mqtt.url, lost)

    def _finisher(self, number: int, mid: int) -> Callable[[], None]:
        def done() -> None:
            self._done.append((number, mid))
            self.wake()

        return done

    def _send(self, link: Connection, now_s: float) -> None:
        """Fill the window."""
        with self._lock:
            states = [(suffix, *self._states[suffix]) for suffix in sorted(self._pending_retained)]
            self._pending_retained.clear()
            moments, self._moments = ({}, self._moments) if link.choked else (self._moments, {})
        for suffix, body, schema in states:
            link.retained_in_flight[link.publish(self._address.topic(suffix), body, schema, retain=True)] = True
        wall_s = self._now()
        for suffix, (body, schema, until_s) in moments.items():
            if until_s > wall_s:
                link.publish(self._address.topic(suffix), body, schema, qos=0, expiry_s=math.ceil(until_s - wall_s))
        while not link.choked and (out := self._send_window.next(now_s, wall_s)) is not None:
            self._probe("publisher.before-send")
            m = out.message
            expiry_s = None if m.expires_s is None else max(1, int(m.expires_s - wall_s))
            mid = link.publish(self._address.topic(m.suffix), m.body, m.schema, expiry_s=expiry_s)
            self._send_window.sent(mid, out, now_s)
            self._probe("publisher.sent")

    def _close_gracefully(self, link: Connection) -> None:
        """Let what is in flight arrive for a moment, say offline, and leave without the will."""
        self.publish_retained("status", self._bye)
        deadline_s = self._clock.monotonic() + 2.0
        with self._lock:
            body, schema = self._states["status"]
            self._pending_retained.clear()
        link.retained_in_flight[link.publish(self._address.topic("status"), body, schema, retain=True)] = True
        while (link.retained_in_flight or self._send_window.in_flight) and self._clock.monotonic() < deadline_s:
            link.serve(self._woken, 0.05)
            self._process_incoming(link, self._clock.monotonic())
        link.leave()

    def _disconnect(self) -> None:
        """The connection is over, for whatever reason."""
        if self._link is not None:
            self._link.drop()
            self._link = None
        self.connected_since_s = None
        self._done.clear()
        self._send_window.disconnected(self._clock.monotonic())

    def _pause(self, wait_s: float) -> None:
        """Wait before connecting again; only `stop` cuts it short."""
        deadline_s = self._clock.monotonic() + wait_s
        while not self._stopping and (left_s := deadline_s - self._clock.monotonic()) > 0:
            self._beat()
            select.select([self._woken], [], [], min(left_s, 10.0))
            drain(self._woken)
