"""The demo: a broker, a building and an agent as real processes, and a subscriber who waits for the alert.

Nothing in it knows the answer: the building's meters speak DLMS over a pseudo-terminal, the agent is the service as
it runs on a gateway, and what is printed is what the subscriber received. Only the clock is not real: it runs
faster, and both processes are given the same one.
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
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.offline.demo.brokers import LocalBroker, end, local_broker
from agent.offline.demo.view import Scene, Screen, alert_lines
from agent.site.edit import text_of
from agent.site.errors import ConfigError
from agent.site.load import load, read_site
from agent.status.local_socket import ask
from agent.status.snapshot import Snapshot
from agent.status.text import when
from agent.wire.codec import decode
from agent.wire.events import AlertEvent
from agent.wire.values import utc

START = "2026-03-01T22:00:00Z"  # a Sunday night: the theft begins on Monday afternoon
NEVER_IDLE_S = 1e8  # a time-out of two minutes would be over in a blink of an accelerated clock
READY_S = 20.0
LOOK_S = 0.25


class DemoError(Exception):
    """A part of the demo did not start or ended early; the text says which, and what it said."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is shown: the thief, the time of the onset (site time), and how fast time runs."""

    thief: str
    onset_s: float
    start_s: float
    speed: float
    deadline_s: float  # host seconds since the beginning


@dataclass(slots=True)
class Outcome:
    """What the subscriber received. `found` is the alert that named thief and loss with the site's confidence."""

    alerts: list[AlertEvent] = field(default_factory=list)
    found: AlertEvent | None = None
    early: AlertEvent | None = None  # of a loss, before there was one
    elapsed_s: float = 0.0


def demo_site(site_file: Path, folder: Path, broker: LocalBroker) -> Path:
    """The site file with this demo's broker, folder and clock-proof time-outs; where the copy is.

    Raises:
        ConfigError: the site file is wrong, or has no theft to be found.
    """
    load(site_file, online=True)
    tree = copy.deepcopy(read_site(site_file).tree)
    tree["mqtt"] = {"url": broker.url, "version": broker.version}
    tree["store"] = {"path": str(folder / "checkmeter.sqlite")}
    tree["service"] = {"socket": str(folder / "control.sock")}
    for bus in tree["bus"]:
        bus["port"] = str(folder / bus["id"])
    for meter in tree["meter"]:
        meter["inactivity_s"] = NEVER_IDLE_S
    # Octets at a serial line's pace would need minutes for weeks of stored profiles; the protocol is the same.
    tree["simulation"] |= {"pace": False, "turnaround_s": 0.0}
    copied = folder / "site.toml"
    copied.write_text(text_of(tree))
    load(copied, online=True)
    return copied


def plan_of(site_file: Path, speed: float, lead_days: float, deadline_s: float, start_s: float | None = None) -> Plan:
    """Who steals from when on, by the site file's first theft; `lead_days` of quiet come before it.

    Time begins at `start_s`, by default on a Sunday in spring.

    Raises:
        ConfigError: the site file has no theft of a flat.
    """
    thefts = (load(site_file).simulation or {}).get("theft", [])
    thief = thefts[0].get("meter") if isinstance(thefts, list) and thefts else None
    if thief is None:
        raise ConfigError(
            [f"{site_file}: [[simulation.theft]] with a meter is missing: the demo needs a thief to find"]
        )
    if start_s is None:
        start_s = datetime.fromisoformat(START).timestamp()
    return Plan(thief, start_s + lead_days * 86400, start_s, speed, deadline_s)


class Demo:
    """The running processes and what came out of them. Use as a context manager."""

    def __init__(self, site_file: Path, folder: Path, plan: Plan, screen: Screen) -> None:
        self._original, self._folder, self._plan, self._screen = site_file, folder, plan, screen
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._arrived: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._began_s = time.monotonic()
        self._origin_s = 0.0

    def run(
        self,
        broker_kind: Any = None,
        beside: Callable[[LocalBroker], Mapping[str, Sequence[str]]] | None = None,
        afterwards: Callable[[Outcome], None] | None = None,
    ) -> Outcome:
        """Start everything, wait for the alert or the deadline, stop everything.

        `beside` gives further `checkmeter` processes by name, started before building and agent; `afterwards` is called
        with what was found while everything still runs.

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
            self._origin_s = time.time()
            clock = ["--speed", str(plan.speed), "--start", _rfc3339(plan.start_s), "--origin", repr(self._origin_s)]
            self._start("building", "simulate", str(site), *clock)
            self._await_line("building")
            flats = len(config.meter) - len(config.zone)
            say(f"building  {flats} flats and a main meter on a serial line, {plan.speed:g} times as fast as life")
            clock = [
                "--clock-start", repr(plan.start_s), "--clock-speed", str(plan.speed),
                "--clock-origin", repr(self._origin_s),
            ]  # fmt: skip
            self._start("agent", "run", str(site), *clock)
            say("agent     checkmeter run: reads the weeks that the meters have stored, then polls them")
            outcome = self._watch(Path(config.service.socket), config.detection.confidence)
            if afterwards is not None:
                afterwards(outcome)
            return outcome

    # -- the course of events -----------------------------------------------------------------------------------------

    def _watch(self, socket: Path, confidence: float) -> Outcome:
        plan, scene, outcome = self._plan, Scene(), Outcome()
        begun = False
        while outcome.found is None:
            outcome.elapsed_s = scene.elapsed_s = time.monotonic() - self._began_s
            if scene.elapsed_s > plan.deadline_s:
                break
            self._must_run()
            now_s = self._now_s()
            if not begun and now_s >= plan.onset_s:
                begun = True
                self._screen.say(f"\n{when(now_s)}  {plan.thief} begins to bypass its meter (nobody tells the agent)\n")
            scene.snapshot = self._snapshot(socket) or scene.snapshot
            scene.stage = f"{plan.thief} steals" if begun else "all is well"
            self._screen.show(scene)
            with contextlib.suppress(queue.Empty):
                topic, payload = self._arrived.get(timeout=LOOK_S)
                if not topic.endswith("/event/alert"):
                    continue
                event = decode(AlertEvent, payload)
                outcome.alerts.append(event)
                alert_lines(topic, event, self._screen.say)
                found, early = self._judged(event, confidence)
                outcome.found, outcome.early = found, outcome.early or early
        outcome.elapsed_s = time.monotonic() - self._began_s
        return outcome

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
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def _end_all(self) -> None:
        for name in reversed(list(self._processes)):
            end(self._processes[name])

    def _await_line(self, name: str) -> None:
        """Wait until a process has said its first line: it is ready."""
        log = self._folder / f"{name}.log"
        deadline = time.monotonic() + READY_S
        while b"\n" not in log.read_bytes():
            self._must_run()
            if time.monotonic() > deadline:
                raise DemoError(f"the {name} was not ready within {READY_S:.0f} s; see {log}")
            time.sleep(0.05)

    def _must_run(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                said = (self._folder / f"{name}.log").read_text(errors="replace").strip()[-800:]
                raise DemoError(f"the {name} ended with exit code {process.returncode}; it said:\n{said}")

    def _now_s(self) -> float:
        return self._plan.start_s + (time.time() - self._origin_s) * self._plan.speed

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


def _rfc3339(time_s: float) -> str:
    return utc(time_s).strftime("%Y-%m-%dT%H:%M:%SZ")
