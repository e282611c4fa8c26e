"""What the utility wishes, on its way through the gateway: commands to the desk, desired files to their trial.

It owns which file is in force and what each command does to the running agent. It is the main thread's: messages are
noted by the publisher's thread (`on_downlink`) and worked off in `look`. The alert book belongs to the pipeline's
thread, so what concerns it is handed over as a `BookRequest`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from agent.alerts.book import AlertBook
from agent.downlink.commands import (
    Acknowledge,
    BookChange,
    BookHandler,
    CommandDesk,
    CommandFailed,
    Handler,
    LiveArguments,
    NoArguments,
    Report,
    SetMode,
    WeatherArguments,
)
from agent.downlink.examination import Kind
from agent.downlink.in_force import InForce
from agent.downlink.live_view import LiveView
from agent.keys.signing import KeyRing
from agent.pipeline.inbox import BookRequest
from agent.site.errors import ConfigError
from agent.site.tables import Config
from agent.store.store import Store
from agent.uplink.publisher import Downlink, Publisher
from agent.wire.events import AlertData, AlertEvent
from agent.wire.topics import Address
from agent.wire.values import utc
from core.arrays import Floats
from firmware_io.clock import Clock

log = logging.getLogger("checkmeter.backend")

WAITING_MAX = 32  # messages from the backend not yet worked off; more stay with the broker
MAINTENANCE_S = 86400.0  # the longest
WEATHER_BACK_S, WEATHER_AHEAD_S = 75 * 86400.0, 10 * 86400.0  # how far temperatures may lie from now


class Backend:
    """Works off what comes down for one running agent.

    Args:
        give: hands a BookRequest to the pipeline's thread; False if it has no room.
        open_alerts: the alerts that are open now.
        republish_all: says status, info, active and health anew.
        send_evidence: queues the evidence of an alert between two times (None: the whole case); the messages queued.
        take_weather: takes temperatures in degrees Celsius at UTC seconds, as of a time, in the pipeline's thread.
    """

    def __init__(
        self,
        config: Config,
        in_force: InForce | None,
        store: Store,
        clock: Clock,
        *,
        give: Callable[[BookRequest], bool],
        open_alerts: Callable[[], list[AlertData]],
        republish_all: Callable[[], None],
        send_evidence: Callable[[AlertData, float | None, float | None], int],
        take_weather: Callable[[Floats, Floats, float], None] | None = None,
    ) -> None:
        self._config, self._in_force, self._clock = config, in_force, clock
        self._open_alerts = open_alerts
        self._republish_all, self._send_evidence = republish_all, send_evidence
        self._keys = KeyRing.load(config.mqtt.command_keys if config.mqtt else [])
        address = Address(config.site.tenant, config.site.site, config.site.gateway)
        handlers: dict[str, Handler] = {
            "snapshot": self._snapshot,
            "report": self._report,
            "reload": self._reload,
            "live": self._look,
        }
        self._take_weather = take_weather
        book_handlers: dict[str, BookHandler] = {
            "acknowledge": self._acknowledge,
            "set-mode": self._set_mode,
            "weather": self._weather,
        }
        self._desk = CommandDesk(address, self._keys, store, clock.now, handlers, book_handlers, give)
        self.live = LiveView(zone.id for zone in config.zone)
        self._lock = threading.Lock()
        self._waiting: deque[Downlink] = deque()
        self._restart = False

    def on_downlink(self, down: Downlink) -> bool:
        """Note a message, from the publisher's thread; False if there is no room."""
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                return False
            if down.suffix != "cmd/req" and any(waiting.suffix == down.suffix for waiting in self._waiting):
                return False  # one of each kind: they are large, and only the last counts
            self._waiting.append(down)
            return True

    def publish_reported(self, publisher: Publisher) -> None:
        """Report the desired state, retained."""
        if self._in_force is not None:
            publisher.publish_retained("config/reported", self._in_force.config.reported)
            publisher.publish_retained("model/reported", self._in_force.model.reported)

    def tick(self, publisher: Publisher, readable: Iterable[str]) -> bool:
        """Work off what came down and judge the trials. True: start again with what is in force now."""
        readable = set(readable)
        for _ in range(len(self._waiting)):
            with self._lock:
                down = self._waiting.popleft()
            if down.suffix == "cmd/req":
                self._desk.handle(down.payload, down.done)
            elif not self._offer(down, publisher, readable):
                with self._lock:
                    self._waiting.append(down)  # its turn comes again when it has been examined
        if self._in_force is not None:
            configured = [meter.id for meter in self._config.meter]
            for desired in (self._in_force.config, self._in_force.model):
                verdict = desired.judge(publisher.connected, configured, readable)
                self._restart |= verdict == "back"
                if verdict != "wait":
                    self.publish_reported(publisher)
        restart, self._restart = self._restart, False
        return restart

    def _offer(self, down: Downlink, publisher: Publisher, readable: Iterable[str]) -> bool:
        """Offer a desired file; False while it is being examined in a process of its own."""
        if self._in_force is not None:
            kind: Kind = "config" if down.suffix == "config/desired" else "model"
            desired = self._in_force.config if kind == "config" else self._in_force.model
            content = desired.wants(down.payload, self._keys)
            if content is not None and not self._in_force.examined(kind, content):
                return False
            self._restart |= desired.offer(down.payload, self._keys, readable)
            self.publish_reported(publisher)
        down.done()
        return True

    # -- commands -----------------------------------------------------------------------------------------------------

    def _snapshot(self, _arguments: NoArguments, _by: str) -> dict[str, Any]:
        self._republish_all()
        return {}

    def _report(self, arguments: Report, _by: str) -> dict[str, Any]:
        since, until = arguments.since, arguments.until
        count = self._send_evidence(
            self._open(arguments.alert_id),
            None if since is None else since.timestamp(),
            None if until is None else until.timestamp(),
        )
        return {"messages": count}

    def _look(self, arguments: LiveArguments, by: str) -> dict[str, Any]:
        if arguments.zone not in self.live.zones:
            raise CommandFailed(f"there is no zone {arguments.zone}; there are {', '.join(self.live.zones)}")
        until_s = self.live.ask(arguments.zone, self._clock.now(), arguments.for_s, meters=arguments.meters)
        log.info("live view of zone %s until %s, asked for by %s", arguments.zone, utc(until_s).isoformat(), by)
        return {"until": utc(until_s).isoformat()}

    def _acknowledge(self, arguments: Acknowledge, by: str) -> BookChange:
        time_s = self._clock.now()

        def act(book: AlertBook) -> list[AlertEvent]:
            try:
                return book.acknowledge(arguments.alert_id, by, time_s, arguments.reason)
            except KeyError:
                raise CommandFailed(f"no open alert has the id {arguments.alert_id}") from None
            except ValueError as error:
                raise CommandFailed(str(error)) from None

        return BookChange(act)

    def _set_mode(self, arguments: SetMode, _by: str) -> BookChange:
        now_s = self._clock.now()
        until_s = 0.0
        if arguments.mode == "maintenance":
            until_s = now_s + MAINTENANCE_S if arguments.until is None else arguments.until.timestamp()
            if not now_s < until_s <= now_s + MAINTENANCE_S:
                raise CommandFailed("maintenance ends in the future, within a day")

        def act(book: AlertBook) -> list[AlertEvent]:
            book.maintain(until_s)
            return []

        return BookChange(act, {"mode": arguments.mode})

    def _weather(self, arguments: WeatherArguments, _by: str) -> BookChange:
        take, now_s = self._take_weather, self._clock.now()
        if take is None:
            raise CommandFailed(
                "this gateway makes no forecast: [forecast] enabled = false, or its interval is too odd"
            )
        times_s = arguments.start.timestamp() + arguments.interval_s * np.arange(len(arguments.outdoor_c))
        if times_s[0] < now_s - WEATHER_BACK_S or times_s[-1] > now_s + WEATHER_AHEAD_S:
            raise CommandFailed("temperatures are taken of the last 75 days and the next 10")
        outdoor_c = np.array(arguments.outdoor_c)

        def act(_book: AlertBook) -> list[AlertEvent]:
            take(times_s, outdoor_c, now_s)
            return []

        past = int((times_s <= now_s).sum())
        return BookChange(act, {"measured": past, "expected": len(times_s) - past})

    def _reload(self, _arguments: NoArguments, _by: str) -> dict[str, Any]:
        if self._in_force is None:
            raise CommandFailed("this agent was started without a site file to read again")
        try:
            self._in_force.load()
        except ConfigError as error:
            raise CommandFailed("; ".join(error.errors)) from None
        self._restart = True
        return {}

    def _open(self, alert_id: str) -> AlertData:
        for alert in self._open_alerts():
            if alert.alert_id == alert_id:
                return alert
        raise CommandFailed(f"no open alert has the id {alert_id}")
