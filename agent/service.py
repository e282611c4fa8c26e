"""The agent on a gateway: builds the graph of one site file, starts and stops it in order, and watches its threads.

Threads: one for each bus, one for the pipeline, one for the publisher, and this one (the process's main thread) for
signals, the watchdog and the local doors. They are stopped in the order buses, pipeline, publisher, so that whatever
was read is judged and committed, and what was committed has a last chance to go out.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from agent import exits, logging_setup, models, sdnotify, wire
from agent.alerts import AlertBook, Condition
from agent.backend import Backend, InForce, Wish
from agent.collector import Collector
from agent.config import Config, ConfigError
from agent.control import Doors
from agent.pipeline import Pipeline
from agent.publisher import Publisher
from agent.sdnotify import Heartbeat
from agent.store import Store
from agent.vitals import ProcessUse, Snapshot, hold_little
from agent.worker import Batch, CaughtUp, Worker
from core.model import CompactModel, ModelRefused
from firmware_io.clock import Clock

log = logging.getLogger("checkmeter")

QUEUE_BATCHES = 1000  # bounds memory while the pipeline is held up; a full queue skips polls, and counts them
LOOK_S = 1.0  # how often the main thread looks at the others, host seconds
HEALTH_S = 60.0
TEXTFILE_S = 30.0
STOP_S = 5.0  # for each stage of stopping


class Agent:
    """The running graph of one configuration. Clock: the site's time, simulated in a demo; waiting here is the host's.

    Raises:
        ConfigError: a secret or the model cannot be read.
        StoreBusy: another agent owns the store.
    """

    def __init__(self, config: Config, config_sha256: str, clock: Clock, in_force: InForce | None = None) -> None:
        self._config, self._clock = config, clock
        self._began_s = time.monotonic()
        self._use = ProcessUse()
        self._versions = {"checkmeter": importlib.metadata.version("checkmeter")}
        self._config_sha256 = config_sha256
        address = wire.Address(config.site.tenant, config.site.site, config.site.gateway)
        store = config.store
        self._store = Store(
            store.path, clock.now(), outbox_bytes=store.outbox_mb * 1e6, history_days=store.history_days
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._store.close)
            self._inbox: queue.Queue[Batch | CaughtUp] = queue.Queue(QUEUE_BATCHES)
            self._model = _model(config)
            self._book = AlertBook.from_config(config, self._model.sha256, self._model.threshold)
            self._pipeline = Pipeline(config, self._book, self._model)
            self._collector = Collector(config, clock, self._inbox)
            self._worker = Worker(
                config, clock, self._pipeline, self._book, self._store, self._inbox, self._collector.buses
            )
            self._backend = Backend(
                config,
                in_force,
                self._store,
                clock,
                give=self._give,
                open_alerts=lambda: self._worker.view.alerts,
                say_all=self._say_all,
                send_evidence=self._worker.send_evidence,
            )
            self._publisher_beat = Heartbeat("publisher", 120.0)
            self._publisher = self._make_publisher(address)
            undo.pop_all()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._told: tuple[object, ...] = ()
        self._plates: dict[str, tuple[str | None, str | None]] = {}
        self._state_since_s = clock.now()
        self._health_due_s = time.monotonic()

    def _make_publisher(self, address: wire.Address) -> Publisher | None:
        if self._config.mqtt is None:
            return None
        came_down = self._backend.came_down
        return Publisher(
            self._config.mqtt,
            address,
            self._store,
            self._clock.now,
            came_down,
            self._versions,
            beat=self._publisher_beat.beat,
        )

    def _give(self, wish: Wish) -> bool:
        """Hand something to the pipeline's thread; False if its queue is full."""
        try:
            self._inbox.put_nowait(Batch(wishes=(wish,)))
        except queue.Full:
            return False
        return True

    def _say_all(self) -> None:
        """Say status, info, active and health anew, also what has not changed."""
        self._told = ()
        self._health_due_s = time.monotonic()
        if self._publisher is not None:
            self._publisher.tell("info", self._info())

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all threads; the meters are being read when this returns."""
        known_s = self._worker.restore()
        self._tell_of_the_store()
        self._say_state()
        pipeline = threading.Thread(target=self._worker.run, args=(self._stop,), name="pipeline")
        self._threads = [pipeline]
        pipeline.start()
        if self._publisher is not None:
            self._publisher.tell("info", self._info())
            self._backend.say(self._publisher)
            sender = threading.Thread(target=self._publisher.run, name="publisher")
            self._threads.append(sender)
            sender.start()
        self._collector.start(known_s)

    def stop(self) -> None:
        """Stop in order: buses, pipeline, publisher; then close the store. Nothing that was read is lost."""
        self._collector.stop(STOP_S)
        self._stop.set()
        for thread in self._threads:
            if thread.name == "publisher" and self._publisher is not None:
                self._publisher.stop()
            thread.join(STOP_S)
            if thread.is_alive():
                log.error("thread %s did not stop within %.0f s", thread.name, STOP_S)
        self._store.close()

    def _tell_of_the_store(self) -> None:
        """A store that was put aside or is not on disk is the operator's to mend: an alert says so."""
        for reason in (self._store.replaced, self._store.volatile):
            if reason is not None:
                log.error("store: %s", reason)
                now_s = self._clock.now()
                condition = Condition(
                    kind="meter_fault", active=True, time_s=now_s, since_s=now_s, bus="store", detail=reason
                )
                self._inbox.put_nowait(Batch(conditions=(condition,)))

    # -- what can be seen ---------------------------------------------------------------------------------------------

    @property
    def failure(self) -> str | None:
        """Why the pipeline cannot go on in this process; None while it can."""
        return self._worker.failure

    def heartbeats(self) -> list[Heartbeat]:
        """Of all threads that must make progress."""
        sender = [] if self._publisher is None else [self._publisher_beat]
        return [self._worker.heartbeat, *sender, *self._collector.heartbeats()]

    def look(self) -> bool:
        """Once a second, from the main thread: tell the utility what has changed about us, and do what it wishes.

        True: start again with the configuration that is in force now.
        """
        self._say_state()
        if self._publisher is None:
            return False
        now_s = time.monotonic()
        if now_s >= self._health_due_s:
            self._health_due_s = now_s + HEALTH_S
            self._publisher.health(self.health())
        silent = set(self._collector.silent())
        readable = [m.id for m in self._config.meter if m.id not in silent] if self._collector.ready else []
        return self._backend.look(self._publisher, readable)

    def _say_state(self) -> None:
        silent = tuple(self._collector.silent())
        state = self._state(silent)
        alerts = tuple((alert.alert_id, alert.revision) for alert in self._worker.view.alerts)
        plates = self._collector.name_plates() if self._collector.ready else self._plates
        if self._publisher is not None and plates != self._plates:
            self._plates = plates  # the name plates are read only after the first info has gone out
            self._publisher.tell("info", self._info())
        if self._publisher is None or (state, silent, alerts) == self._told:
            return
        if not self._told or self._told[0] != state:
            self._state_since_s = self._clock.now()
        if not self._told or self._told[:2] != (state, silent):
            self._publisher.tell("status", self.status())
        if not self._told or self._told[2] != alerts:
            snapshot = wire.ActiveSnapshot(time=wire.utc(self._clock.now()), alerts=self._worker.view.alerts)
            self._publisher.tell("active", snapshot)
        self._told = (state, silent, alerts)

    def _state(self, silent: tuple[str, ...]) -> str:
        return "online" if self._collector.ready and not silent else "degraded"

    def status(self) -> wire.Status:
        """Online: all meters can be read."""
        silent = self._collector.silent()
        online = self._state(tuple(silent)) == "online"
        return wire.Status(
            state="online" if online else "degraded",
            since=wire.utc(self._state_since_s),
            reason=None if online else self._collector.phase or f"{len(silent)} meters do not answer",
            meters=silent,
            versions=self._versions,
        )

    def _info(self) -> wire.Info:
        plates = self._collector.name_plates()
        return wire.Info(
            time=wire.utc(self._clock.now()),
            versions=self._versions,
            meters=[
                wire.MeterInfo(
                    id=m.id,
                    bus=m.bus,
                    accuracy_class=m.accuracy_class,
                    serial=plates[m.id][0] or m.serial,
                    firmware=plates[m.id][1],
                )
                for m in self._config.meter
            ],
            zones=[
                wire.ZoneInfo(id=zone.id, main=zone.main, subs=zone.subs, minus=zone.minus)
                for zone in self._config.zone
            ],
            config_sha256=self._config_sha256,
            model_sha256=self._model.sha256,
            schemas={name.split(".")[1]: name for name in wire.SCHEMAS},
        )

    def health(self) -> wire.Health:
        """The figures of `health`, metrics and `status`."""
        counters = self._store.counters
        oldest_s = self._store.oldest_s()
        buses, meters = self._collector.health()
        return wire.Health(
            time=wire.utc(self._clock.now()),
            uptime_s=round(time.monotonic() - self._began_s, 1),
            buses=buses,
            meters=meters,
            queue=wire.QueueHealth(
                messages=counters.messages,
                bytes=counters.bytes,
                oldest=None if oldest_s is None else wire.utc(oldest_s),
                evicted=counters.evicted,
                refused=0 if self._publisher is None else self._publisher.refused,
                store_errors=counters.errors,
            ),
            cpu_percent=round(self._use.cpu_percent(), 1),
            memory_mb=round(self._use.memory_mb(), 1),
        )

    def snapshot(self) -> Snapshot:
        """Everything, for `status` and `watch`."""
        view = self._worker.view
        return Snapshot(
            now_s=self._clock.now(),
            status=self.status(),
            health=self.health(),
            phase=self._collector.phase or "watching",
            broker="none" if self._publisher is None else "connected" if self._publisher.connected else "disconnected",
            meters=self._collector.views(),
            balances=list(view.balances.values()),
            alerts=view.alerts,
            suspicion=view.suspicion,
        )


def _model(config: Config) -> CompactModel:
    """The compact model of the site file, or the shipped one."""
    try:
        return models.in_use(config.detection.model)
    except (OSError, ModelRefused) as error:
        raise ConfigError([f"[detection] model = {config.detection.model!r}: {error}"]) from error


class Signals:
    """Signals as bytes in a pipe that the main thread can wait for together with its sockets."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch TERM, INT and HUP meanwhile."""
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self.read_end)
            os.close(self._write_end)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, bytes([number]))

    def take(self) -> set[int]:
        """The signals since the last call."""
        with contextlib.suppress(BlockingIOError):
            return set(os.read(self.read_end, 64))
        return set()


def run(site_file: Path, clock: Clock) -> int:
    """Run until SIGTERM or SIGINT, or until a step fails; SIGHUP reads the site file again. The exit code.

    Raises:
        ConfigError: the site file is wrong at the start. One that is wrong at a reload is told and left unused.
        StoreBusy: another agent owns the store.
    """
    hold_little()
    signals = Signals()
    in_force = InForce(site_file, clock, time.monotonic)
    config, sha256 = in_force.load()
    logging_setup.configure(config.service.log_level, config.service.log_format)
    with signals.caught():
        while True:
            try:
                agent = Agent(config, sha256, clock, in_force)
            except ConfigError as error:  # what the utility sent must never leave a gateway that does not start
                if not in_force.give_up("; ".join(error.errors)):
                    raise
                config, sha256 = in_force.load()
                continue
            doors = Doors(config.service.socket, config.service.metrics_port, config.service.metrics_textfile)
            try:
                agent.start()
                sdnotify.notify("READY=1", f"STATUS={len(config.meter)} meters on {len(config.bus)} buses")
                log.info("reading %d meters on %d buses", len(config.meter), len(config.bus))
                renewed = _watch(agent, doors, signals, lambda: _reload(in_force))
                sdnotify.notify("STOPPING=1" if renewed is None else sdnotify.reloading())
            finally:
                doors.close()
                agent.stop()
            if agent.failure is not None:
                log.error("ended for a new start from the last commit: %s", agent.failure)
                return exits.SOFTWARE
            if renewed is None:
                log.info("stopped")
                return 0
            config, sha256 = renewed
            logging_setup.configure(config.service.log_level, config.service.log_format)


def _reload(in_force: InForce) -> tuple[Config, str] | None:
    """The site file as it is now, None if it is wrong."""
    try:
        return in_force.load()
    except ConfigError as e:
        for line in e.errors:
            log.error("reload: %s", line)
        log.error("reload: the old configuration stays in use")
        return None


def _watch(
    agent: Agent, doors: Doors, signals: Signals, reload: Callable[[], tuple[Config, str] | None]
) -> tuple[Config, str] | None:
    """The main thread's loop. None to stop, a configuration to go on with."""
    interval_s = sdnotify.watchdog_interval_s()
    fed_s = textfile_s = 0.0
    late: set[str] = set()
    while True:
        waiting: list[int | socket.socket] = [signals.read_end, *doors.listeners]
        ready, _, _ = select.select(waiting, [], [], min(LOOK_S, interval_s or LOOK_S))
        for listener in ready:
            if isinstance(listener, socket.socket):
                doors.serve(listener, agent.snapshot)
        caught = signals.take()
        if caught & {signal.SIGTERM, signal.SIGINT} or agent.failure is not None:
            return None
        if signal.SIGHUP in caught and (renewed := reload()) is not None:
            return renewed
        if agent.look() and (renewed := reload()) is not None:
            return renewed
        now_s = time.monotonic()
        hung = {beat.name for beat in agent.heartbeats() if beat.late_by_s() > 0}
        for name in sorted(hung - late):
            log.error("thread %s makes no progress; the watchdog is not fed", name)
        late = hung
        if interval_s is not None and not hung and now_s - fed_s >= interval_s / 2:
            fed_s = now_s
            sdnotify.notify("WATCHDOG=1")
        if now_s - textfile_s >= TEXTFILE_S:
            textfile_s = now_s
            doors.write_textfile(agent.snapshot)
