"""Real `checkmeter run`, a real broker, `utility ingest`: what the agent sends is what the SQL holds.

Two gateways. One is healthy and real time: it retains an `active` without alerts, and waits for the backend's own
acknowledgements. The other lives 1,800 times as fast, two days ago: a flat bypasses its meter, and the backend commands
it. Nothing here writes a message of a gateway by hand; every topic that the contract has must have come.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from click.testing import CliRunner
from paho.mqtt.enums import CallbackAPIVersion

from agent import wire
from agent.cli.main import cli
from agent.keys import signing
from agent.offline.demo.demo import NEVER_IDLE_S, _rfc3339
from agent.process.clock import SystemClock
from agent.site.edit import text_of
from agent.site.load import read_site
from agent.utility.load_test.building import INTERVAL_S, Building
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker, Connection
from agent.utility.sql.store import open_store
from agent.wire.contract import CHANNELS

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "agent" / "utility"))

from conftest import Mosquitto, Replica, until  # noqa: E402  # the same servers as in the ingest's own tests

pytestmark = [pytest.mark.mosquitto, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]
SPEED = 1800.0
THIEF = "flat-302"
UP = {channel.suffix.split("/{")[0] for channel in CHANNELS if channel.up}


def kind_of(suffix: str) -> str:
    """The contract's name of a topic: without zone, alert and chunk."""
    return next(name for name in UP if suffix == name or suffix.startswith(name + "/"))


class Listener:
    """Keeps what the gateways send, by topic of the contract, beside the ingest."""

    def __init__(self, port: int) -> None:
        self.bodies: dict[str, list[bytes]] = defaultdict(list)
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=paho.MQTTv5)
        self.client.on_message = self._note
        self.client.on_connect = lambda client, *_: client.subscribe("checkmeter/#", qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _note(self, _client: Any, _user: Any, message: Any) -> None:
        suffix = wire.split_topic(message.topic)[1]
        if suffix != "ack" and suffix != "cmd/req":
            self.bodies[kind_of(suffix)].append(bytes(message.payload))

    def alerts(self) -> list[wire.AlertEvent]:
        return [wire.decode(wire.AlertEvent, body) for body in list(self.bodies["event/alert"])]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Gateway:
    """`checkmeter simulate` and `checkmeter run` on one site file."""

    def __init__(self, folder: Path, name: str, url: str, mqtt: dict[str, Any], simulation: dict[str, Any]) -> None:
        folder.mkdir()
        self.folder, self.name = folder, name
        tree = copy.deepcopy(read_site(ROOT / "examples/demo-building.toml").tree)
        tree["site"] |= {"site": f"site-{name}", "gateway": name, "name": "滨江 12 号", "address": "12 Riverside"}
        tree["site"] |= {"contact": "caretaker, 555 0112", "feeder": "10 kV 滨江线", "district": "Harbour"}
        tree["zone"][0]["name"] = "whole house"
        tree["meter"][1] |= {"name": "1 单元 101 室", "service_point": "SP-101"}
        tree["mqtt"] = {"url": url, **mqtt}
        tree["store"] = {"path": str(folder / "checkmeter.sqlite")}
        tree["service"] = {"socket": str(folder / "control.sock")}
        tree["bus"][0]["port"] = str(folder / "line")
        tree["bus"].append({"id": "cellar", "port": str(folder / "cellar"), "protocol": "mbus", "baud": 2400,
                            "parity": "E", "poll_s": tree["bus"][0]["poll_s"]})  # fmt: skip
        tree["meter"].append({"id": "water", "bus": "cellar", "address": 3, "medium": "cold-water"})
        tree["simulation"] |= {"pace": False, "turnaround_s": 0.0, **simulation}
        for meter in tree["meter"]:
            meter["inactivity_s"] = NEVER_IDLE_S
        self.site = folder / "site.toml"
        self.site.write_text(text_of(tree))
        self.origin_s = self.start_s = 0.0

    def start(self, launch: Callable[..., Any], start_s: float | None = None) -> None:
        building: list[Any] = ["simulate", self.site]
        agent: list[Any] = ["run", self.site]
        if start_s is not None:
            self.start_s, self.origin_s = start_s, time.time()
            building += ["--speed", SPEED, "--start", _rfc3339(start_s), "--origin", repr(self.origin_s)]
            agent += ["--clock-start", repr(start_s), "--clock-speed", SPEED, "--clock-origin", repr(self.origin_s)]
        launch(self.folder / "building.log", *building)
        until(lambda: "ready" in (self.folder / "building.log").read_text(), "the building's meters answer")
        launch(self.folder / "agent.log", *agent)

    def now_s(self) -> float:
        """What the gateway's clock says."""
        return self.start_s + (time.time() - self.origin_s) * SPEED if self.start_s else time.time()


@pytest.fixture
def launch() -> Iterator[Callable[..., Any]]:
    """Start `checkmeter` processes that write to a log; they are ended after the test."""
    import subprocess

    running: list[subprocess.Popen[bytes]] = []

    def start(log: Path, *words: Any) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            command = [sys.executable, "-m", "agent.cli.main", *map(str, words)]
            running.append(subprocess.Popen(command, stdout=out, stderr=out))
        return running[-1]

    yield start
    for process in reversed(running):
        process.terminate()
    for process in reversed(running):
        with contextlib.suppress(Exception):
            process.wait(10)
        process.kill()


def command(url: str, gateway: Gateway, key: Path, name: str, **args: Any) -> None:
    """Sign a command by the gateway's own clock, and publish it."""
    now_s = gateway.now_s()
    address = wire.Address("acme", f"site-{gateway.name}", gateway.name)
    wish = wire.Command(
        id=f"{name}-{time.time_ns()}", target=address.target, name=name, by="the test",
        issued=wire.utc(now_s - 60), expires=wire.utc(now_s) + timedelta(hours=23), args=args,
    )  # fmt: skip
    body = wire.encode(signing.sign(signing.read_private(key), "command", wire.encode(wish)))
    connection = Connection(Broker(url), SystemClock(), "commander", clean_start=True)
    connection.send(packets.publish(address.topic("cmd/req"), body, packet_id=1))
    until(lambda: any(isinstance(e, packets.Puback) for e in connection.receive(5.0)), "the broker has the command")
    connection.close()


MAPPINGS = {"features", "schemas", "errors", "versions", "quantiles_w", "*"}


def shapes(body: bytes) -> set[str]:
    """The paths of a JSON message's fields, lists and mappings of names as one."""

    def walk(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                # In these the keys are names of meters, features, schemas: they are no form.
                step = "*" if path.split(".")[-1] in MAPPINGS else name
                yield from walk(inner, f"{path}.{step}")
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner, f"{path}[]")
        else:
            yield path

    return set(walk(json.loads(body), "")) if body else set()  # a forecast that is withdrawn is an empty message


QUESTIONS = {
    "losses": ["--days", "30"],
    "cases": [],
    "suspects": ["--signs", "1"],
    "gateways": ["--silent-hours", "0.25"],
    "trend": [],
    "precision": [],
    "letters": [],
}


def ask(verb: str, dsn: str, *options: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli, ["utility", verb, "--store", dsn, "--json", *options])
    assert result.exit_code == 0, f"{verb}: {result.output}"
    return [json.loads(line) for line in result.output.splitlines()]


def test_every_topic_of_real_gateways_reaches_the_store_and_every_question_has_its_answer(
    tmp_path: Path, launch: Callable[..., Any]
) -> None:
    mosquitto = Mosquitto(tmp_path / "mosquitto")
    listener = Listener(mosquitto.port)
    dsn = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    with open_store(dsn, make=True) as store:
        store.migrate(time.time())
    ingest = Replica(mosquitto.url, dsn, tmp_path)
    private, public = signing.make()
    (tmp_path / "ops.key").write_bytes(private)
    (tmp_path / "ops.pub").write_bytes(public)
    try:
        start_s = time.time() - 3 * 86_400
        theft = {"meter": THIEF, "kind": "bypass", "onset": _rfc3339(start_s + 0.3 * 86_400), "cover_event": True}
        keys = {"command_keys": [str(tmp_path / "ops.pub")]}
        thief = Gateway(tmp_path / "gw-thief", "gw-thief", mosquitto.url, keys, {"theft": [theft], "history_days": 35})
        # A meter that does not answer makes an event, for which this gateway waits until the backend has it.
        silent = {"kind": "magnet", "meter": "flat-101", "onset": "-1h"}
        healthy = Gateway(
            tmp_path / "gw-healthy", "gw-healthy", mosquitto.url, {"delivery": "end_to_end", **keys},
            {"theft": [], "fault": [silent], "history_days": 9},  # from seven on it forecasts
        )  # fmt: skip
        until(lambda: ingest.connected() == 1, "the ingest is connected")
        thief.start(launch, start_s)
        healthy.start(launch)

        def loss() -> wire.AlertEvent | None:
            return next((event for event in listener.alerts() if event.data.loss_w and event.data.zone), None)

        def alive() -> bool:
            assert ingest.process.poll() is None, f"the ingest ended: {ingest.log.read_text()[-2000:]}"
            return True

        until(lambda: alive() and loss() is not None, "the theft is reported", 120)
        alert = loss()
        assert alert is not None
        command(mosquitto.url, thief, tmp_path / "ops.key", "report", alert_id=alert.data.alert_id)
        command(mosquitto.url, healthy, tmp_path / "ops.key", "live", zone="building", meters=True)
        with open_store(dsn) as store:

            def count(table: str) -> int:
                return int(str(store.rows(f"SELECT COUNT(*) FROM {table}")[0][0]))

            until(lambda: alive() and {k for k, v in listener.bodies.items() if v} >= UP, "every topic has come", 60)
            tables = (
                "balance", "forecast", "alert_event", "tamper", "evidence_chunk", "gateway_health", "command_result",
                "config_reported", "model_reported", "gateway_status", "gateway_info", "register",
            )  # fmt: skip
            until(lambda: all(map(count, tables)), f"a row in each of {tables}")
            fresh = "SELECT COUNT(*) FROM forecast WHERE issued_s > ?"
            until(
                lambda: alive() and store.rows(fresh, (time.time() - 3600,)) != [(0,)], "the next day is forecast", 60
            )
            assert count("dead_letter") == 0, store.rows("SELECT topic, reason FROM dead_letter")
            until(lambda: count("alert_event") == len({e.id for e in listener.alerts()}), "every alert is stored")
            assert (
                store.rows("SELECT SUM(intervals) FROM balance_day")[0] == store.rows("SELECT COUNT(*) FROM balance")[0]
            )
            assert [row[0] for row in store.rows("SELECT gateway FROM gateway ORDER BY gateway")] == [
                "gw-healthy", "gw-thief",
            ]  # fmt: skip
        answers = {verb: ask(verb, dsn, *options) for verb, options in QUESTIONS.items()}
        assert any(case["alert_id"] == alert.data.alert_id for case in answers["cases"])
        assert any(row["site"] == "site-gw-thief" and row["unexplained_kwh"] > 0 for row in answers["losses"])
        assert any(row["meter"] == THIEF for row in answers["suspects"])
        assert answers["trend"]
        (feeder,) = ask("forecast", dsn, "--by", "feeder")  # of the thief's time is two days ago: its forecasts are old
        assert (feeder["feeder"], feeder["zones"]) == ("10 kV 滨江线", 1)
        assert 0 < feeder["at_least_kw"] < feeder["peak_kw"] < feeder["at_most_kw"] < 100
        assert ask("forecast", dsn, "--by", "district")[0]["district"] == "Harbour"
        assert answers["letters"] == []
        recorded = CliRunner().invoke(
            cli, ["utility", "outcome", "--store", dsn, alert.data.alert_id, "theft", "--meter", THIEF, "--by", "ana"]
        )
        assert recorded.exit_code == 0, recorded.output
        assert ask("precision", dsn)[0]["theft"] == 1
        _the_fleet_sends_what_the_agent_sends(listener)
        assert ingest.stop() == 0
        for gateway in (thief, healthy):
            log = (gateway.folder / "agent.log").read_text()
            assert "Traceback" not in log
            assert "protocol error" not in log
    finally:
        listener.close()
        ingest.kill()
        mosquitto.stop()


def _the_fleet_sends_what_the_agent_sends(listener: Listener) -> None:
    """Every field that a real gateway has sent, the simulated fleet can send too, on the same topics."""
    made: dict[str, set[str]] = defaultdict(set)
    first_s = int(time.time()) // INTERVAL_S * INTERVAL_S - 10 * 86_400
    for number in range(1, 250):  # one in twenty has a thief, and one thief in three opens a cover
        building = Building(1, number, first_s, first_s + 4 * 86_400)
        for start_s in range(first_s, first_s + 4 * 86_400, INTERVAL_S):
            for suffix, message in building.interval(start_s):
                if not (suffix.startswith("balance") and made["balance"]):  # these are all alike
                    made[kind_of(suffix)] |= shapes(wire.encode(message))
        for suffix, message in building.hello(first_s):
            made[kind_of(suffix)] |= shapes(wire.encode(message))
    real: dict[str, set[str]] = defaultdict(set)
    for kind, bodies in listener.bodies.items():
        for body in bodies:
            real[kind] |= shapes(body)
    del real["live"]  # for who asks a gateway by a signed command; no backend keeps it
    assert set(made) >= UP - {"live"}
    missing = {kind: sorted(fields - made[kind]) for kind, fields in real.items() if fields - made[kind]}
    assert missing == {}, "fields of real gateways that the simulated fleet never sends"
