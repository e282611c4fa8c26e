"""The agent on a gateway: builds the graph of one site file, starts and stops it in order, and watches its threads.

Threads: one for each bus, one for the pipeline, one for the publisher, and this one (the process's main thread) for
signals, the watchdog and the local doors. They are stopped in the order buses, pipeline, publisher, so that whatever
was read is judged and committed, and what was committed has a last chance to go out.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import queue
import threading
import time
from datetime import datetime

from agent import models, wire
from agent.alerts.book import AlertBook
from agent.alerts.condition import Condition
from agent.downlink.backend import Backend
from agent.downlink.in_force import InForce
from agent.forecast.zone_forecasts import ZoneForecasts
from agent.pipeline.inbox import Batch, BookRequest, CaughtUp
from agent.pipeline.pipeline import Pipeline
from agent.pipeline.worker import Worker
from agent.polling.collector import Collector
from agent.process.heartbeat import Heartbeat
from agent.process.trusted_clock import TrustedClock
from agent.site.errors import ConfigError
from agent.site.tables import Config
from agent.status.live import live_balance
from agent.status.snapshot import ProcessUse, Snapshot
from agent.store.store import Store
from agent.uplink.publisher import Publisher
from core.scoring.model import ModelRefused
from firmware_io.clock import Clock

log = logging.getLogger("checkmeter")

QUEUE_BATCHES = 1000  # bounds memory while the pipeline is held up; a full queue skips polls, and counts them
LOOK_S = 1.0  # how often the main thread looks at the others, host seconds
HEALTH_S = 60.0
LIVE_EXPIRY_S = 5
REGISTER_S = 900.0
TEXTFILE_S = 30.0
STOP_S = 3.5  # for all stages of stopping together; a thread that is late ends with the process
LAST_STAGE_S = 1.0  # of it, kept for those that come after a thread that is late


class Agent:
    """The running graph of one configuration. Clock: the site's time, simulated in a demo; waiting here is the host's.

    Raises:
        ConfigError: a secret or the model cannot be read.
        StoreBusy: another agent owns the store.
    """

    def __init__(self, config: Config, config_sha256: str, clock: Clock, in_force: InForce | None = None) -> None:
        self._config, self._clock = config, clock
        self._trusted = clock if isinstance(clock, TrustedClock) else None
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
            named = self._model.named
            self._book = AlertBook.from_config(config, named.sha256, named.threshold)
            forecasts = ZoneForecasts(config, config.detection.row_s)
            self._pipeline = Pipeline(
                config, self._book, self._model.scorer, states=self._model.states, forecasts=forecasts
            )
            self._collector = Collector(config, clock, self._inbox)
            self._worker = Worker(
                config,
                clock,
                self._pipeline,
                self._book,
                self._store,
                self._inbox,
                self._collector.buses,
                settled=lambda: self._trusted is None or self._trusted.settled,
            )
            self._backend = Backend(
                config,
                in_force,
                self._store,
                clock,
                give=self._give,
                open_alerts=lambda: self._worker.view.alerts,
                republish_all=self._republish_all,
                send_evidence=self._worker.evidence.send,
                take_weather=forecasts.take_outdoor if forecasts.zones else None,
            )
            self._publisher_beat = Heartbeat("publisher", 120.0)
            self._publisher = self._make_publisher(address)
            undo.pop_all()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._last_published: tuple[object, ...] = ()
        self._last_forecasts: dict[str, wire.Forecast | None] = {}
        self._last_registers: dict[str, datetime] = {}
        self._last_told_of_store: tuple[str | None, ...] = (None, None, None)
        self._in_force = in_force
        self._nameplates: dict[str, tuple[str | None, str | None]] = {}
        self._state_since_s = clock.now()
        self._health_due_s = time.monotonic()

    def _make_publisher(self, address: wire.Address) -> Publisher | None:
        if self._config.mqtt is None:
            return None
        on_downlink = self._backend.on_downlink
        return Publisher(
            self._config.mqtt,
            address,
            self._store,
            self._clock.now,
            on_downlink,
            self._versions,
            beat=self._publisher_beat.beat,
        )

    def _give(self, request: BookRequest) -> bool:
        """Hand something to the pipeline's thread; False if its queue is full."""
        try:
            self._inbox.put_nowait(Batch(requests=(request,)))
        except queue.Full:
            return False
        return True

    def _republish_all(self) -> None:
        """Say status, info, active and health anew, also what has not changed."""
        self._last_published = ()
        self._last_forecasts = {}
        self._last_registers = {}
        self._health_due_s = time.monotonic()
        if self._publisher is not None:
            self._publisher.publish_retained("info", self._info())

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all threads; the meters are being read when this returns."""
        newest_s = self._store.newest_boundary_s()
        if self._trusted is not None and newest_s is not None:
            self._trusted.remember(newest_s)
        known_s = self._worker.restore()
        self._tell_of_the_store()
        self._say_state()
        pipeline = threading.Thread(target=self._worker.run, args=(self._stop,), name="pipeline", daemon=True)
        self._threads = [pipeline]
        pipeline.start()
        if self._publisher is not None:
            self._publisher.publish_retained("info", self._info())
            self._backend.publish_reported(self._publisher)
            sender = threading.Thread(target=self._publisher.run, name="publisher", daemon=True)
            self._threads.append(sender)
            sender.start()
        self._collector.start(known_s)

    def stop(self) -> None:
        """Stop in order: buses, pipeline, publisher; then close the store. Nothing that was read is lost."""
        deadline_s = time.monotonic() + STOP_S
        self._collector.stop(STOP_S - 2 * LAST_STAGE_S)
        self._stop.set()
        for thread in self._threads:
            last = thread is self._threads[-1]
            if thread.name == "publisher" and self._publisher is not None:
                self._publisher.stop()
            thread.join(max(0.1, deadline_s - time.monotonic() - (0.0 if last else LAST_STAGE_S)))
            if thread.is_alive():
                log.error("thread %s did not stop in time; what it has not committed is made again", thread.name)
        if self._in_force is not None:
            self._in_force.close()
        if not any(thread.is_alive() for thread in self._threads):
            self._store.close()

    def _tell_of_the_store(self) -> None:
        """A store that was put aside or mended, or is not on disk, is the operator's to mend: an alert says so."""
        damaged = self._store.counters.damaged
        told = (
            self._store.replaced,
            self._store.volatile,
            f"{damaged} messages that waited were found damaged and put aside; the disk is failing"
            if damaged
            else None,
        )
        before, self._last_told_of_store = self._last_told_of_store, told
        for reason, said in zip(told, before, strict=True):
            if reason is not None and reason != said:
                log.error("store: %s", reason)
                now_s = self._clock.now()
                condition = Condition(
                    kind="meter_fault", active=True, time_s=now_s, since_s=now_s, bus="store", detail=reason
                )
                with contextlib.suppress(queue.Full):
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

    def tick(self) -> bool:
        """Once a second, from the main thread: tell the utility what has changed about us, and do what it wishes.

        True: start again with the configuration that is in force now.
        """
        self._store.tick(self._clock.now())
        self._tell_of_the_store()
        self._say_state()
        if self._publisher is None:
            return False
        now_s = time.monotonic()
        if now_s >= self._health_due_s:
            self._health_due_s = now_s + HEALTH_S
            self._publisher.health(self.health())
        self._publish_live(self._publisher)
        silent = set(self._collector.silent())
        readable = [m.id for m in self._config.meter if m.id not in silent] if self._collector.ready else []
        return self._backend.tick(self._publisher, readable)

    @property
    def _clock_doubt(self) -> str | None:
        """What is wrong with the gateway's clock; None while it is believed."""
        return None if self._trusted is None else self._trusted.doubt

    def _say_state(self) -> None:
        silent = tuple(self._collector.silent())
        self._publish_forecasts()
        self._publish_registers()
        state = self._state(silent)
        alerts = tuple((alert.alert_id, alert.revision) for alert in self._worker.view.alerts)
        plates = self._collector.name_plates() if self._collector.ready else self._nameplates
        if self._publisher is not None and plates != self._nameplates:
            self._nameplates = plates  # the name plates are read only after the first info has gone out
            self._publisher.publish_retained("info", self._info())
        if self._publisher is None or (state, silent, alerts) == self._last_published:
            return
        if not self._last_published or self._last_published[0] != state:
            self._state_since_s = self._clock.now()
        if not self._last_published or self._last_published[:2] != (state, silent):
            self._publisher.publish_retained("status", self.status())
        if not self._last_published or self._last_published[2] != alerts:
            snapshot = wire.ActiveSnapshot(time=wire.utc(self._clock.now()), alerts=self._worker.view.alerts)
            self._publisher.publish_retained("active", snapshot)
        self._last_published = (state, silent, alerts)

    def _publish_forecasts(self) -> None:
        """Each zone's newest; where there is none any more, not even that of a life before stays with the broker."""
        if self._publisher is None or not self._collector.ready:
            return
        for zone in (zone.id for zone in self._config.zone):
            forecast = self._worker.view.forecasts.get(zone)
            if zone in self._last_forecasts and self._last_forecasts[zone] is forecast:
                continue
            self._last_forecasts[zone] = forecast
            if forecast is None:
                self._publisher.clear_retained(wire.forecast_suffix(zone), wire.Forecast)
            else:
                self._publisher.publish_retained(wire.forecast_suffix(zone), forecast)

    def _publish_registers(self) -> None:
        """Water, heat and gas: when they have been read anew, and not more often than every quarter of an hour."""
        if self._publisher is None:
            return
        for register in self._collector.registers():
            last = self._last_registers.get(register.meter)
            if last is None or (register.time - last).total_seconds() >= REGISTER_S:
                self._publisher.publish_retained(wire.register_suffix(register.meter), register)
                self._last_registers[register.meter] = register.time

    def _publish_live(self, publisher: Publisher) -> None:
        now_s = self._clock.now()
        asked = dict(self._backend.live.asked(now_s))
        if asked:
            trails = self._collector.trails()
            for zone in self._config.zone:
                if zone.id in asked:
                    seen = live_balance(zone, trails, now_s, meters=asked[zone.id])
                    publisher.moment(wire.live_suffix(zone.id), seen, LIVE_EXPIRY_S)

    def _state(self, silent: tuple[str, ...]) -> str:
        well = self._collector.ready and not silent and self._clock_doubt is None
        return "online" if well else "degraded"

    def status(self) -> wire.Status:
        """Online: all meters can be read."""
        silent = self._collector.silent()
        online = self._state(tuple(silent)) == "online"
        reason = f"{len(silent)} meters do not answer" if silent else self._clock_doubt
        return wire.Status(
            state="online" if online else "degraded",
            since=wire.utc(self._state_since_s),
            reason=None if online else self._collector.phase or reason,
            meters=silent,
            versions=self._versions,
        )

    def _info(self) -> wire.Info:
        plates = self._collector.name_plates()
        return wire.Info(
            time=wire.utc(self._clock.now()),
            name=self._config.site.name,
            address=self._config.site.address,
            contact=self._config.site.contact,
            feeder=self._config.site.feeder,
            district=self._config.site.district,
            versions=self._versions,
            meters=[
                wire.MeterInfo(
                    id=m.id,
                    name=m.name,
                    service_point=m.service_point,
                    bus=m.bus,
                    accuracy_class=m.accuracy_class,
                    serial=plates[m.id][0] or m.serial,
                    firmware=plates[m.id][1],
                )
                for m in self._config.meter
            ],
            zones=[
                wire.ZoneInfo(id=zone.id, name=zone.name, main=zone.main, subs=zone.subs, minus=zone.minus)
                for zone in self._config.zone
            ],
            config_sha256=self._config_sha256,
            model_sha256=self._model.named.sha256,
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
                damaged=counters.damaged,
                dropped=0 if self._publisher is None else self._publisher.dropped,
            ),
            clock=self._clock_doubt,
            cpu_percent=round(self._use.cpu_percent(), 1),
            memory_mb=round(self._use.memory_mb(), 1),
            flash_bytes_day=self._use.flash_bytes_day(),
            detectable_w={zone: round(watt, 1) for zone, watt in self._worker.view.detectable_w.items()},
        )

    def snapshot(self) -> Snapshot:
        """Everything, for `status` and `watch`."""
        view, trails, now_s = self._worker.view, self._collector.trails(), self._clock.now()
        return Snapshot(
            now_s=now_s,
            status=self.status(),
            health=self.health(),
            phase=self._collector.phase or "watching",
            broker="none" if self._publisher is None else "connected" if self._publisher.connected else "disconnected",
            meters=self._collector.views(),
            balances=list(view.balances.values()),
            alerts=view.alerts,
            suspicion=view.suspicion,
            forecasts=list(view.forecasts.values()),
            live=[live_balance(zone, trails, now_s, meters=True) for zone in self._config.zone],
        )


def _model(config: Config) -> models.InUse:
    """The compact model of the site file, or the shipped one."""
    try:
        return models.in_use(config.detection.model)
    except (OSError, ModelRefused) as error:
        raise ConfigError([f"[detection] model = {config.detection.model!r}: {error}"]) from error
