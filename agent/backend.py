"""What the utility wishes, on its way through the gateway: commands to the desk, desired files to their trial.

It owns which file is in force and what each command does to the running agent. It is the main thread's: messages are
noted by the publisher's thread (`came_down`) and worked off in `look`. The alert book belongs to the pipeline's
thread, so what concerns it is handed over as a `Wish`.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent.alerts import AlertBook
from agent.commands import Acknowledge, CommandDesk, CommandFailed, Handler, NoArguments, Report, SetMode
from agent.config import Config, digest, load
from agent.desired import Desired, DesiredRefused
from agent.publisher import Down, Publisher
from agent.signing import KeyRing
from agent.store import Store
from agent.toml_tables import ConfigError
from agent.wire import Address, AlertData, AlertEvent
from core.features import FEATURES
from core.model import ModelRefused
from core.model import load as load_model
from firmware_io.clock import Clock

log = logging.getLogger("checkmeter.backend")

WAITING_MAX = 32  # messages from the backend not yet worked off; more stay with the broker
MAINTENANCE_S = 86400.0  # the longest


@dataclass(frozen=True, slots=True)
class Wish:
    """Something to be done with the alert book, by the thread that owns it."""

    act: Callable[[AlertBook], list[AlertEvent]]


class InForce:
    """Which configuration and model run: the gateway's own, or what the utility sent. Outlives a reload.

    Raises:
        ConfigError: the gateway's own site file is wrong.
    """

    def __init__(self, site_file: Path, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._site_file = site_file
        own = load(site_file, online=True)
        self._own = own
        address = Address(own.site.tenant, own.site.site, own.site.gateway)
        self.folder = Path(own.store.path).parent / "desired"
        self.config = Desired("config", self.folder, address, self._check_config, clock.now, monotonic)
        self.model = Desired("model", self.folder, address, _check_model, clock.now, monotonic)
        self.config.started()
        self.model.started()

    def load(self) -> tuple[Config, str]:
        """The configuration in force with the model in force, and its SHA-256.

        A desired site file that no longer loads (a key file is gone, say) is rolled back here.

        Raises:
            ConfigError: the gateway's own site file is wrong.
        """
        path = self.config.active
        if path is not None:
            try:
                return self._with_model(load(path, online=True)), digest(path)
            except ConfigError as error:
                self.config.give_up("; ".join(error.errors))
        return self._with_model(load(self._site_file, online=True)), digest(self._site_file)

    def give_up(self, reason: str) -> bool:
        """The agent cannot be built of what is in force: give up what was sent, what is on trial first.

        False: nothing of it was sent, so it is the gateway's own configuration that is wrong.
        """
        sent = [desired for desired in (self.model, self.config) if desired.active is not None]
        on_trial = [desired for desired in sent if desired.reported.state == "on_trial"]
        for desired in on_trial or sent:
            desired.give_up(reason)
        return bool(sent)

    def _with_model(self, config: Config) -> Config:
        if self.model.active is None:
            return config
        detection = msgspec.structs.replace(config.detection, model=str(self.model.active))
        return msgspec.structs.replace(config, detection=detection)

    def _check_config(self, content: bytes) -> None:
        """Refuse a site file that does not load here, or that makes another gateway of this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".check-", suffix=".toml") as file:
            file.write(content)
            file.flush()
            try:
                wanted = load(file.name, online=True)
            except ConfigError as error:
                raise DesiredRefused("; ".join(error.errors).replace(file.name, "site file")) from None
        if wanted.site != self._own.site:
            raise DesiredRefused("[site] differs: a gateway keeps its tenant, site, name and time zone")
        if wanted.store.path != self._own.store.path:
            raise DesiredRefused(f"[store] path differs from {self._own.store.path}, where this record is kept")


class Backend:
    """Works off what comes down for one running agent.

    Args:
        give: hands a Wish to the pipeline's thread; False if it has no room.
        open_alerts: the alerts that are open now.
        say_all: says status, info, active and health anew.
        send_evidence: queues the evidence of an alert between two times (None: the whole case); the messages queued.
    """

    def __init__(
        self,
        config: Config,
        in_force: InForce | None,
        store: Store,
        clock: Clock,
        *,
        give: Callable[[Wish], bool],
        open_alerts: Callable[[], list[AlertData]],
        say_all: Callable[[], None],
        send_evidence: Callable[[AlertData, float | None, float | None], int],
    ) -> None:
        self._config, self._in_force, self._clock = config, in_force, clock
        self._give, self._open_alerts = give, open_alerts
        self._say_all, self._send_evidence = say_all, send_evidence
        self._keys = KeyRing.load(config.mqtt.command_keys if config.mqtt else [])
        address = Address(config.site.tenant, config.site.site, config.site.gateway)
        handlers: dict[str, Handler] = {
            "snapshot": self._snapshot,
            "report": self._report,
            "acknowledge": self._acknowledge,
            "set-mode": self._set_mode,
            "reload": self._reload,
        }
        self._desk = CommandDesk(address, self._keys, store, clock.now, handlers)
        self._lock = threading.Lock()
        self._waiting: deque[Down] = deque()
        self._restart = False

    def came_down(self, down: Down) -> bool:
        """Note a message, from the publisher's thread; False if there is no room."""
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                return False
            self._waiting.append(down)
            return True

    def say(self, publisher: Publisher) -> None:
        """Report the desired state, retained."""
        if self._in_force is not None:
            publisher.tell("config/reported", self._in_force.config.reported)
            publisher.tell("model/reported", self._in_force.model.reported)

    def look(self, publisher: Publisher, readable: Iterable[str]) -> bool:
        """Work off what came down and judge the trials. True: start again with what is in force now."""
        readable = set(readable)
        while self._waiting:
            with self._lock:
                down = self._waiting.popleft()
            if down.suffix == "cmd/req":
                self._desk.handle(down.payload)
            elif self._in_force is not None:
                desired = self._in_force.config if down.suffix == "config/desired" else self._in_force.model
                self._restart |= desired.offer(down.payload, self._keys, readable)
                self.say(publisher)
            down.done()
        if self._in_force is not None:
            configured = [meter.id for meter in self._config.meter]
            for desired in (self._in_force.config, self._in_force.model):
                verdict = desired.judge(publisher.connected, configured, readable)
                self._restart |= verdict == "back"
                if verdict != "wait":
                    self.say(publisher)
        restart, self._restart = self._restart, False
        return restart

    # -- commands -----------------------------------------------------------------------------------------------------

    def _snapshot(self, _arguments: NoArguments, _by: str) -> dict[str, Any]:
        self._say_all()
        return {}

    def _report(self, arguments: Report, _by: str) -> dict[str, Any]:
        since, until = arguments.since, arguments.until
        count = self._send_evidence(
            self._open(arguments.alert_id),
            None if since is None else since.timestamp(),
            None if until is None else until.timestamp(),
        )
        return {"messages": count}

    def _acknowledge(self, arguments: Acknowledge, by: str) -> dict[str, Any]:
        alert_id = self._open(arguments.alert_id).alert_id
        time_s = self._clock.now()

        def act(book: AlertBook) -> list[AlertEvent]:
            try:
                return book.acknowledge(alert_id, by, time_s)
            except KeyError:  # cleared meanwhile
                return []

        self._hand_over(Wish(act))
        return {}

    def _set_mode(self, arguments: SetMode, _by: str) -> dict[str, Any]:
        now_s = self._clock.now()
        until_s = 0.0
        if arguments.mode == "maintenance":
            until_s = now_s + MAINTENANCE_S if arguments.until is None else arguments.until.timestamp()
            if not now_s < until_s <= now_s + MAINTENANCE_S:
                raise CommandFailed("maintenance ends in the future, within a day")

        def act(book: AlertBook) -> list[AlertEvent]:
            book.maintain(until_s)
            return []

        self._hand_over(Wish(act))
        return {"mode": arguments.mode}

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

    def _hand_over(self, wish: Wish) -> None:
        if not self._give(wish):
            raise CommandFailed("the gateway is busy; send a new command later")


def _check_model(content: bytes) -> None:
    try:
        load_model(content, FEATURES)
    except ModelRefused as error:
        raise DesiredRefused(f"model {hashlib.sha256(content).hexdigest()[:12]}: {error}") from None
