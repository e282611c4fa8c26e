"""From the broker into the store: receive, batch, commit, and only then acknowledge.

One thread and no queue: while a batch is being written nothing is received, and the broker holds what it may not send
(at most RECEIVE_MAXIMUM messages are unacknowledged). That is the back-pressure, and the bound on memory. A message
leaves the broker when its rows are committed, so kill -9 at any instruction loses none; what comes again is written
again, and changes nothing (see agent.utility.sql.store).

Replicas share `$share/{group}/...`. Each has a fixed client id: the broker keeps the unacknowledged messages of a
dead member for that id and gives them to no other. What gateways retain (status, info, open alerts) comes through
ordinary subscriptions instead, since a shared one is sent no retained messages (MQTT 5, section 3.8.4); every replica
writes it, to the same effect.

A replica that is away still gets its share of the new messages, as far as Mosquitto is concerned: they wait in its
session. So one that is to go for good has to leave: unsubscribe, take what waits, end the session.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from agent import wire
from agent.utility.ingest.answers import Answers
from agent.utility.ingest.decode import Reader
from agent.utility.ingest.metrics import Metrics
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker, Connection
from agent.utility.sql.batch import Letter
from agent.utility.sql.cases import ALERT_EVENT, TAMPER
from agent.utility.sql.schema import BALANCE, DAY_S, DEAD_LETTER
from agent.utility.sql.server import StoreError, StoreMisfit, StoreRefused, StoreUnavailable
from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store, timestamp
from firmware_io.clock import Clock

log = logging.getLogger(__name__)

MAX_LETTERS = 500  # in one transaction
MAX_OCTETS = 4 << 20  # of payload in one transaction: a quarter of the smallest max_allowed_packet in use
LINGER_S = 0.2  # how long the first message of a batch waits for others
RECEIVE_MAXIMUM = 4 * MAX_LETTERS  # the next batches are on their way while one is being committed
SESSION_EXPIRY_S = 7 * DAY_S  # as long as a balance waits in the broker
SETTLE_S = 0.004  # after a meagre read: let the socket fill, instead of a system call for each message
MEAGRE = 100
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
METRICS_EVERY_S = 10.0
LEAVE_QUIET_S = 3.0  # nothing for so long after unsubscribing: nothing is left for us

SHARED = ("balance/+", "event/+", "evidence/+/+", "health", "cmd/res")
RETAINED = ("status", "info", "active", "model/reported", "config/reported", "forecast/+", "register/+")


class _Told(msgspec.Struct):
    """What is acknowledged of an event."""

    id: str


class Stopped(Exception):
    """We were told to stop while the store was away: nothing is acknowledged, all of it comes again."""


@dataclass(frozen=True, slots=True)
class Replica:
    """Which of the side-by-side ingests this is."""

    number: int = 1
    group: str = "checkmeter"

    @property
    def client_id(self) -> str:
        """Fixed: the broker keeps this replica's unacknowledged messages under it."""
        return f"checkmeter-ingest-{self.group}-{self.number}"

    def subscriptions(self) -> list[packets.Subscription]:
        """What a replica subscribes to."""
        anyone = f"{wire.ROOT}/+/+/+"
        return [
            *(packets.Subscription(f"$share/{self.group}/{anyone}/{suffix}") for suffix in SHARED),
            *(packets.Subscription(f"{anyone}/{suffix}") for suffix in RETAINED),
        ]


class Ingest:
    """One replica."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        reader: Reader,
        clock: Clock,
        replica: Replica,
        *,
        maintain: Callable[[float], object] | None = None,
        metrics_path: Path | None = None,
        leaving: bool = False,
    ) -> None:
        self._broker = broker
        self._store = store
        self._reader = reader
        self._clock = clock
        self._replica = replica
        self._maintain = maintain
        self._leaving = leaving
        self._maintained_day = -1
        self._metrics_path = metrics_path
        self._metrics_due_s = 0.0
        self._answers = Answers()
        self.metrics = Metrics(str(replica.number), letters_dead=reader.refused)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set. Raises mqtt.Refused or StoreMisfit: then an operator acts next."""
        failures = 0
        while not stop.is_set():
            before = self.metrics.batches
            try:
                self._session(stop)
                if self._leaving:
                    break
            except Stopped:
                break
            except packets.Refused:
                raise
            except (OSError, packets.MqttError) as error:
                failures = 1 if self.metrics.batches > before else failures + 1
                pause_s = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
                log.warning("broker %s: %s; trying again in %g s", self._broker.url, error, pause_s)
                self._clock.wait(stop, pause_s)
        self._report(force=True)

    def _session(self, stop: threading.Event) -> None:
        """One connection, from its beginning to its end."""
        connection = Connection(
            self._broker,
            self._clock,
            self._replica.client_id,
            session_expiry_s=SESSION_EXPIRY_S,
            receive_maximum=RECEIVE_MAXIMUM,
        )
        self._answers.reconnected(connection.receive_maximum)
        self._reader.forget_names()  # what was in hand when the last connection broke was not written
        try:
            self.metrics.connections += 1
            change = connection.unsubscribe if self._leaving else connection.subscribe
            change(self._replica.subscriptions())
            log.info("connected to %s as %s", self._broker.url, self._replica.client_id)
            self._serve(connection, stop)
        except BaseException:
            connection.close(orderly=False)
            raise
        connection.close(forget=self._leaving and not stop.is_set())

    def _serve(self, connection: Connection, stop: threading.Event) -> None:
        letters: list[Letter] = []
        octets = 0
        deadline_s = 0.0
        read, now = self._reader.read, self._clock.monotonic
        heard_s = now()
        while not stop.is_set() and not (self._leaving and now() - heard_s > LEAVE_QUIET_S):
            self._upkeep()
            events = connection.receive(max(0.0, deadline_s - now()) if letters else LINGER_S)
            if events:
                heard_s = now()
            for event in events:
                if isinstance(event, packets.Puback):
                    self._answers.acknowledged(event.packet_id)
                    continue
                if not isinstance(event, packets.Publish):
                    continue
                if not letters:
                    deadline_s = now() + LINGER_S
                letters.append(read(event))
                octets += len(event.payload)
                if len(letters) >= MAX_LETTERS or octets >= MAX_OCTETS:
                    self._flush(letters, connection, stop)
                    letters, octets = [], 0
            self._answers.send(connection)
            if letters and now() >= deadline_s:
                self._flush(letters, connection, stop)
                letters, octets = [], 0
            elif 0 < len(events) < MEAGRE:
                self._clock.wait(stop, SETTLE_S)
        if letters:
            self._flush(letters, connection, stop)

    def _flush(self, letters: list[Letter], connection: Connection, stop: threading.Event) -> None:
        """Commit, then acknowledge in the order of arrival (MQTT-4.6.0-2)."""
        self.metrics.messages += len(letters)
        self.metrics.unacknowledged = len(letters)
        begun_s = self._clock.monotonic()
        self._write(letters, connection, stop)
        connection.send(packets.pubacks([letter.packet_id for letter in letters]))
        self._confirm(letters, connection)
        self.metrics.unacknowledged = 0
        self.metrics.commit_seconds += self._clock.monotonic() - begun_s
        self.metrics.batches += 1
        if balances := _balances(letters):
            start_s, seconds = cast(tuple[int, int], balances[-1][1:3])
            self.metrics.newest_interval_seconds = start_s + seconds

    def _confirm(self, letters: list[Letter], connection: Connection) -> None:
        """End-to-end delivery: tell gateways which of their events are stored for good, at QoS 1 (the contract)."""
        stored: dict[bytes, list[str]] = {}
        for letter in letters:
            for table, _ in letter.rows[-1:]:
                if table in {ALERT_EVENT, TAMPER}:
                    told = msgspec.json.decode(letter.payload, type=_Told).id
                    stored.setdefault(letter.topic.rpartition(b"/event/")[0], []).append(told)
        for gateway, ids in stored.items():
            self._answers.queue(gateway + b"/ack", wire.encode(wire.Ack(ids=ids)))
        self._answers.send(connection)

    def _write(self, letters: list[Letter], connection: Connection, stop: threading.Event) -> None:
        """Apply the batch, whatever it takes; what overlaps is put aside before anything is acknowledged."""
        failures = 0
        while True:
            try:
                new, overlapping = self._store.apply(letters)
                self.metrics.balances += new
                self.metrics.repeated += len(_balances(letters)) - new - len(overlapping)
                if not overlapping:
                    return
                letters = [self._overlapping(letter) for letter in overlapping]
            except StoreUnavailable as error:
                self.metrics.store_waits += 1
                pause_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
                failures += 1
                # One conflict with another replica is everyday; an absent server is not.
                log.log(logging.WARNING if failures > 2 else logging.DEBUG, "%s; trying again in %g s", error, pause_s)
                self._report()
                if self._clock.wait(stop, pause_s):
                    raise Stopped from error
                connection.keep_alive()
            except StoreMisfit:
                raise
            except Exception as error:
                # StoreRefused: a row that the server will not have. Anything else is a bug of ours that one message
                # has found: the same message would find it again after each restart, so it must not end us.
                if len(letters) > 1:
                    half = len(letters) // 2
                    self._write(letters[:half], connection, stop)
                    self._write(letters[half:], connection, stop)
                    return
                letter = letters[0]
                if letter.rows[:1] and letter.rows[0][0] is DEAD_LETTER:
                    raise StoreMisfit(f"the store refuses even a dead letter: {error}") from error
                ours = not isinstance(error, StoreRefused)
                said = f"bug: {type(error).__name__}: {error}" if ours else f"store: {error}"
                log.warning(
                    "%s: %s; put aside as a dead letter", letter.topic.decode(errors="replace"), said, exc_info=ours
                )
                letters = [self._reader.dead(letter.packet_id, letter.topic, letter.payload, said)]
                self._reader.forget_names()

    def _overlapping(self, letter: Letter) -> Letter:
        """The dead letter of a balance of which some time is counted already."""
        start_s, seconds = cast(tuple[int, int], _balances([letter])[0][1:3])
        said = f"overlap: {seconds} s from {timestamp(start_s)} UTC on: another interval of the zone counts that time"
        return self._reader.dead(letter.packet_id, letter.topic, letter.payload, said)

    def _upkeep(self) -> None:
        """Once a day the store's maintenance, and every few seconds the metrics."""
        now_s = self._clock.now()
        self.metrics.progress_seconds = now_s
        if self._maintain is not None and (day := int(now_s // DAY_S)) != self._maintained_day:
            try:
                self._maintain(now_s)
            except StoreError as error:  # partitions are made weeks ahead: tomorrow will do
                log.warning("maintenance: %s", error)
            self._maintained_day = day
        self._report()

    def _report(self, *, force: bool = False) -> None:
        if self._metrics_path is None or (not force and self._clock.monotonic() < self._metrics_due_s):
            return
        self._metrics_due_s = self._clock.monotonic() + METRICS_EVERY_S
        try:
            self.metrics.write(self._metrics_path)
        except OSError as error:
            log.warning("metrics: %s", error)


def _balances(letters: list[Letter]) -> list[Row]:
    """Their balances. A message may be in order and make no row at all: `active` of a healthy gateway."""
    return [row for letter in letters for table, row in letter.rows[-1:] if table is BALANCE]
