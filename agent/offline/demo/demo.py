"""The demo: a broker, a building and an agent as real processes, and a subscriber who waits for the alert.

Nothing in it knows the answer: the building's meters speak DLMS over a pseudo-terminal, the agent is the service as
it runs on a gateway, and what is printed is what the subscriber received. Only the clock is not real: it runs
faster, building and agent read the same one, and it waits for them where the host is busy (`governor`).
"""

from __future__ import annotations

import contextlib
import copy
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.offline.demo.brokers import LocalBroker, end, local_broker
from agent.offline.demo.ending import die_with_parent
from agent.offline.demo.governor import Governor, without_past
from agent.offline.demo.view import Scene, Screen, alert_lines
from agent.process.clock import ClockFile
from agent.site.edit import text_of
from agent.site.errors import ConfigError
from agent.site.load import load, read_site
from agent.site.tables import Config
from agent.status.local_socket import ask
from agent.status.snapshot import Snapshot
from agent.status.text import when
from agent.wire.codec import decode
from agent.wire.events import AlertEvent
from agent.wire.values import utc

START = "2026-03-02T04:00:00Z"  # a Monday morning: the theft begins in the afternoon
NEVER_IDLE_S = 1e8  # a time-out of two minutes would be over in a blink of an accelerated clock
LEAD_DAYS, LEARNING_DAYS = 0.5, 10.0  # with the meters' stored past, and without: half of them are learned from
FASTEST_BAUD = 115_200
DAYS_LATER, LATER_S = 2, 1800.0  # whole days for the evidence page, and what the last interval needs to close
# Looks are counted, not seconds: on a busy host looks take longer too, and nothing fails by the wall's clock.
READY_LOOKS, READY_LOOK_S = 2400, 0.05


class DemoError(Exception):
    """A part of the demo did not start or ended early; the text says which, and what it said."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is shown: the thief, the time of the onset (site time), and how fast time runs."""

    thief: str
    onset_s: float
    start_s: float
    speed: float
    patience_s: float  # of the building's time after the onset: then the demo has failed


@dataclass(slots=True)
class Outcome:
    """What the subscriber received. `found` is the alert that named thief and loss with the site's confidence."""

    alerts: list[AlertEvent] = field(default_factory=list)
    found: AlertEvent | None = None
    early: AlertEvent | None = None  # of a loss, before there was one
    elapsed_s: float = 0.0
    site: Path | None = None  # the site file that the agent ran with


def demo_site(site_file: Path, folder: Path, broker: LocalBroker) -> Path:
    """The site file with this demo's broker, folder and clock-proof time-outs; where the copy is.

    Raises:
        ConfigError: the site file is wrong, or has no theft to be found.
    """
    config = load(site_file, online=True)
    tree = copy.deepcopy(read_site(site_file).tree)
    tree["mqtt"] = {"url": broker.url, "version": broker.version}
    tree["store"] = {"path": str(folder / "checkmeter.sqlite")}
    tree["service"] = {"socket": str(folder / "control.sock")}
    for bus in tree["bus"]:
        bus["port"] = str(folder / bus["id"])
        if without_past(config):  # polls alone tell the energy: one at each end of an interval
            bus["poll_s"] = config.detection.interval_s
        bus["baud"] = FASTEST_BAUD  # of the silences ahead of a question, which are of the host's time
    for meter in tree["meter"]:
        meter["inactivity_s"] = NEVER_IDLE_S
    # Octets at a serial line's pace would need minutes for weeks of stored profiles; the protocol is the same.
    tree["simulation"] |= {"pace": False, "turnaround_s": 0.0}
    copied = folder / "site.toml"
    copied.write_text(text_of(tree))
    load(copied, online=True)
    return copied


def plan_of(
    site_file: Path, speed: float, lead_days: float | None, patience_s: float, start_s: float | None = None
) -> Plan:
    """Who steals from when on, by the site file's first theft; `lead_days` of quiet come before it.

    None: as many as the detection needs, which is half a day where the meters have stored the weeks before.

    Time begins at `start_s`, by default on a Monday in spring.

    Raises:
        ConfigError: the site file has no theft of a flat.
    """
    config = load(site_file)
    thefts = (config.simulation or {}).get("theft", [])
    thief = thefts[0].get("meter") if isinstance(thefts, list) and thefts else None
    if thief is None:
        raise ConfigError(
            [f"{site_file}: [[simulation.theft]] with a meter is missing: the demo needs a thief to find"]
        )
    if start_s is None:
        start_s = datetime.fromisoformat(START).timestamp()
    if lead_days is None:
        lead_days = LEARNING_DAYS if without_past(config) else LEAD_DAYS
    return Plan(thief, start_s + lead_days * 86400, start_s, speed, patience_s)


class Demo:
    """The running processes and what came out of them. Use as a context manager."""

    def __init__(self, site_file: Path, folder: Path, plan: Plan, screen: Screen) -> None:
        self._original, self._folder, self._plan, self._screen = site_file, folder, plan, screen
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._arrived: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._began_s = time.monotonic()

    def run(
        self,
        broker_kind: Any = None,
        beside: Callable[[LocalBroker], Mapping[str, Sequence[str]]] | None = None,
        afterwards: Callable[[Outcome], None] | None = None,
    ) -> Outcome:
        """Start everything, wait for the alert or the end of patience, stop everything.

        `beside` gives further `checkmeter` processes by name, started before building and agent; `afterwards` is called
        with what was found while everything still runs. Without it two more days go by, of which the agent's store then
        knows (`Outcome.site` names it).

        Raises:
            DemoError: a part failed.
            NoBroker: no broker is installed.
        """
        plan, say = self._plan, self._screen.say
        with contextlib.ExitStack() as stack:
            broker = stack.enter_context(local_broker(self._folder, broker_kind))
            say(f"broker    {broker.name} at {broker.url}, MQTT {broker.version}")
            site = demo_site(self._original, self._folder, broker)
            config = load(site)
            self._set_onset(site)
            stack.enter_context(self._subscriber(broker))
            stack.callback(self._end_all)
            for name, words in (beside(broker) if beside else {}).items():
                self._start(name, *words)
            clock = ClockFile(self._folder / "clock", plan.start_s, plan.speed)
            stack.callback(clock.close)
            words = ["--clock-file", str(self._folder / "clock")]
            self._start("building", "simulate", str(site), "--start", _rfc3339(plan.start_s), *words)
            self._await_line("building")
            flats = len(config.meter) - len(config.zone)
            say(
                f"building  {flats} flats and a main meter on a serial line, up to {plan.speed:g} times as fast as life"
            )
            self._start("agent", "run", str(site), *words)
            say("agent     checkmeter run: reads the weeks that the meters have stored, then polls them")
            governor = Governor(clock, config, plan.speed)
            outcome = self._watch(Path(config.service.socket), config.detection.confidence, clock, governor)
            outcome.site = site
            if outcome.found is None or outcome.early is not None:
                return outcome
            if afterwards is not None:
                afterwards(outcome)
            else:
                self._two_days_later(config, outcome.found, clock, governor, ["run", str(site), *words])
            return outcome

    # -- the course of events -----------------------------------------------------------------------------------------

    def _watch(self, socket: Path, confidence: float, clock: ClockFile, governor: Governor) -> Outcome:
        plan, scene, outcome = self._plan, Scene(), Outcome()
        begun = False
        while outcome.found is None:
            outcome.elapsed_s = scene.elapsed_s = time.monotonic() - self._began_s
            now_s = clock.now()
            if now_s > plan.onset_s + plan.patience_s:
                break
            self._must_run()
            if not begun and now_s >= plan.onset_s:
                begun = True
                self._screen.say(f"\n{when(now_s)}  {plan.thief} begins to bypass its meter (nobody tells the agent)\n")
            fresh = self._snapshot(socket)
            self._keep_going(governor, fresh)
            scene.snapshot = fresh or scene.snapshot
            scene.stage = f"{plan.thief} steals" if begun else "all is well"
            self._screen.show(scene)
            with contextlib.suppress(queue.Empty):
                topic, payload = self._arrived.get(timeout=governor.look_s)
                if not topic.endswith("/event/alert"):
                    continue
                event = decode(AlertEvent, payload)
                outcome.alerts.append(event)
                alert_lines(topic, event, self._screen.say)
                found, early = self._judged(event, confidence)
                outcome.found, outcome.early = found, outcome.early or early
        outcome.elapsed_s = time.monotonic() - self._began_s
        return outcome

    def _two_days_later(
        self, config: Config, found: AlertEvent, clock: ClockFile, governor: Governor, agent: Sequence[str]
    ) -> None:
        """The agent is off for two days of the building, then reads what the meters have stored meanwhile."""
        midnight = datetime.combine(
            found.time.astimezone(ZoneInfo(config.site.timezone)).date() + timedelta(days=1 + DAYS_LATER),
            datetime.min.time(),
            ZoneInfo(config.site.timezone),
        )
        later_s = midnight.timestamp() + LATER_S
        self._screen.say(f"\n{when(later_s)}  two days later: the agent reads what the meters have stored meanwhile")
        end(self._processes.pop("agent"))
        clock.advance(later_s)
        governor.restart()
        self._start("agent", *agent)
        scene = Scene(stage="two days later")
        while scene.snapshot is None or not scene.snapshot.balances or not _up_to(scene.snapshot, midnight):
            self._must_run()
            fresh = self._snapshot(Path(config.service.socket))
            self._keep_going(governor, fresh)
            scene.snapshot = fresh or scene.snapshot
            scene.elapsed_s = time.monotonic() - self._began_s
            self._screen.show(scene)
            time.sleep(governor.look_s)
        end(self._processes.pop("agent"))  # what it knows is in its store then

    @staticmethod
    def _keep_going(governor: Governor, snapshot: Snapshot | None) -> None:
        if not governor.look(snapshot):
            raise DemoError("the agent stands still: no meter is read and nothing is balanced; see agent.log (--keep)")

    def _judged(self, event: AlertEvent, confidence: float) -> tuple[AlertEvent | None, AlertEvent | None]:
        """Whether the alert names the thief and the loss with confidence, or cried wolf before there was a thief."""
        alert = event.data
        if alert.zone is None or alert.loss_w is None or alert.state == "cleared":
            return None, None
        if event.time.timestamp() < self._plan.onset_s:
            return None, event
        first = max(alert.suspects or [], key=lambda s: s.probability, default=None)
        named = first is not None and first.meter == self._plan.thief and first.probability >= confidence
        measured = alert.loss_w_interval is not None and alert.loss_w_interval[0] > 0
        return (event if named and measured else None), None

    def _set_onset(self, site: Path) -> None:
        """The theft of the copied site begins when the plan says."""
        text = site.read_text()
        tree = copy.deepcopy(read_site(site).tree)
        tree["simulation"]["theft"][0]["onset"] = _rfc3339(self._plan.onset_s)
        site.write_text(text_of(tree))
        assert site.read_text() != text

    # -- processes ----------------------------------------------------------------------------------------------------

    def _start(self, name: str, *words: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "agent.cli.main", *words]
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
            )

    def _end_all(self) -> None:
        for name in reversed(list(self._processes)):
            end(self._processes[name])

    def _await_line(self, name: str) -> None:
        """Wait until a process has said its first line: it is ready."""
        log = self._folder / f"{name}.log"
        for _ in range(READY_LOOKS):
            if b"\n" in log.read_bytes():
                return
            self._must_run()
            time.sleep(READY_LOOK_S)
        raise DemoError(f"the {name} does not become ready; see {log}")

    def _must_run(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                said = (self._folder / f"{name}.log").read_text(errors="replace").strip()[-800:]
                raise DemoError(f"the {name} ended with exit code {process.returncode}; it said:\n{said}")

    @staticmethod
    def _snapshot(socket: Path) -> Snapshot | None:
        try:
            return ask(str(socket))
        except OSError:
            return None

    @contextlib.contextmanager
    def _subscriber(self, broker: LocalBroker) -> Iterator[None]:
        """The utility's side: whoever subscribes to the alerts."""
        version = paho.MQTTv5 if broker.version == "5" else paho.MQTTv311
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="utility", protocol=version)
        client.on_message = lambda _client, _userdata, message: self._arrived.put(
            (message.topic, bytes(message.payload))
        )
        client.on_connect = lambda client, *_: client.subscribe("checkmeter/#", qos=1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        try:
            yield
        finally:
            client.disconnect()
            client.loop_stop()


def _up_to(snapshot: Snapshot, moment: datetime) -> bool:
    return min(balance.end for balance in snapshot.balances) >= moment


def _rfc3339(time_s: float) -> str:
    return utc(time_s).strftime("%Y-%m-%dT%H:%M:%SZ")
