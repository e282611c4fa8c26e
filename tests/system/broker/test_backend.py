"""Commands and desired state over a real broker: asked, done, answered; wrong ones answered with the reason."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.downlink.backend import Backend
from agent.downlink.in_force import InForce
from agent.keys.signing import sign
from agent.pipeline.inbox import BookRequest
from agent.site.tables import Config
from agent.store.messages import alert_message
from agent.wire.codec import encode
from agent.wire.downlink import Command, DesiredConfig
from agent.wire.values import utc

pytestmark = pytest.mark.mosquitto
T0 = 1_767_225_600.0
TARGET = "acme/riverside-12/gw-0012"
Check = Callable[..., None]


class Running:
    """A gateway with a backend's room, driven by hand as the main thread does; the site file lies in `folder`."""

    def __init__(self, stage: Any) -> None:
        self.folder: Path = stage.folder
        self.key = Ed25519PrivateKey.generate()
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.folder / "ops.pub").write_bytes(public)
        self.broker = stage.broker()
        self.listener = stage.listener(self.broker.port)
        self.site_file = self.folder / "site.toml"
        self.site_file.write_text(self.site(1.0))
        self.monotonic_s = 0.0
        self.gateway = stage.gateway(self.broker.port)
        self.restart()

    def now(self) -> float:
        return T0

    monotonic = wait = None  # the clock's other hands are not used here

    def site(self, accuracy_class: float, more: str = "") -> str:
        return (
            f'[site]\ntenant = "acme"\nsite = "riverside-12"\ngateway = "gw-0012"\n'
            f'[store]\npath = "{self.folder}/gateway.sqlite"\n'
            f'[mqtt]\nurl = "mqtt://localhost:{self.broker.port}"\ncommand_keys = ["{self.folder}/ops.pub"]\n'
            f'[[bus]]\nid = "b"\nport = "tcp://127.0.0.1:4059"\n'
            f'[[meter]]\nid = "main"\nbus = "b"\naddress = 1\naccuracy_class = {accuracy_class}\n'
            f'[[meter]]\nid = "f1"\nbus = "b"\naddress = 2\n'
            f'[[zone]]\nid = "building"\nmain = "main"\nsubs = ["f1"]\n{more}'
        )

    def restart(self) -> Config:
        """What the service does when `look` says so."""
        self.in_force = InForce(self.site_file, self, lambda: self.monotonic_s)  # type: ignore[arg-type]
        config, _ = self.in_force.load()
        self.said: list[str] = []
        self.backend = Backend(
            config,
            self.in_force,
            self.gateway.store,
            self,  # type: ignore[arg-type]
            give=self.give,
            open_alerts=lambda: self.gateway.book.active(T0).alerts,
            republish_all=lambda: self.said.append("all"),
            send_evidence=lambda alert, since, until: self.said.append(alert.alert_id) or 3,
        )
        self.gateway._came = self.backend.on_downlink
        self.gateway.publisher._inbox = self.backend.on_downlink
        self.backend.publish_reported(self.gateway.publisher)
        return config

    def give(self, request: BookRequest) -> bool:
        outcome = request.act(self.gateway.book)
        messages = [*map(alert_message, outcome.events), *outcome.messages]
        self.gateway.commit(messages, outcome.answers)
        request.committed()
        return True

    def look(self, readable: tuple[str, ...] = ("main", "f1")) -> bool:
        return self.backend.tick(self.gateway.publisher, readable)

    def until_answered(self, suffix: str, count: int = 1) -> dict[str, Any]:
        deadline_s = time.monotonic() + 10
        restart = False
        while len(self.listener.topics[suffix]) < count:
            assert time.monotonic() < deadline_s, f"nothing on {suffix}"
            restart |= self.look()
            time.sleep(0.005)
        assert self.listener.wrong == []
        answer: dict[str, Any] = json.loads(self.listener.topics[suffix][-1])
        answer["restart"] = restart
        return answer

    def command(self, name: str, n: int, **args: Any) -> dict[str, Any]:
        wish = Command(
            id=f"c-{n}",
            target=TARGET,
            name=name,
            issued=utc(T0),
            expires=utc(T0) + timedelta(hours=1),
            by="ops",
            args=args,  # type: ignore[arg-type]
        )
        self.listener.publish("cmd/req", encode(sign(self.key, "command", encode(wish))))
        return self.until_answered("cmd/res", n)

    def desire(self, version: int, toml: str) -> None:
        wish = DesiredConfig(target=TARGET, version=version, issued=utc(T0), toml=toml)
        self.listener.publish("config/desired", encode(sign(self.key, "config", encode(wish))), retain=True)

    def reported(self, state: str) -> dict[str, Any]:
        deadline_s = time.monotonic() + 10
        restart = False
        while True:
            assert time.monotonic() < deadline_s, f"config/reported never said {state}"
            restart |= self.look()
            said = self.listener.topics["config/reported"]
            if said and json.loads(said[-1])["state"] == state:
                return {**json.loads(said[-1]), "restart": restart}
            time.sleep(0.005)


@pytest.fixture
def running(stage: Any, wait: Check) -> Running:
    running = Running(stage)
    wait(lambda: running.gateway.publisher.connected)
    return running


def test_each_command_is_done_and_answered(running: Running, wait: Check, everything_arrived: Check) -> None:
    running.gateway.alerts(1)
    alert_id = running.gateway.book.active(T0).alerts[0].alert_id
    assert running.command("ping", 1)["status"] == "done"
    assert running.command("snapshot", 2)["status"] == "done"
    assert running.command("report", 3, alert_id=alert_id)["result"] == {"messages": 3}
    assert running.command("acknowledge", 4, alert_id=alert_id)["status"] == "done"
    assert running.said == ["all", alert_id]
    everything_arrived(running.gateway, running.listener)
    last = json.loads(running.listener.topics["event/alert"][-1])["data"]
    assert (last["alert_id"], last["revision"], last["acknowledged"]["by"]) == (alert_id, 2, "ops")
    assert running.command("set-mode", 5, mode="maintenance")["result"] == {"mode": "maintenance"}
    assert running.gateway.alerts(1) == [], "held back"
    assert running.command("set-mode", 6, mode="normal")["status"] == "done"
    assert len(running.gateway.alerts(1)) == 1
    again = running.command("resend", 7, since="2025-12-31T00:00:00Z", until="2026-02-01T00:00:00Z")
    assert again["result"]["queued"] == 3
    wait(lambda: running.listener.duplicates >= 2)
    assert running.command("reload", 8)["restart"]
    assert running.command("acknowledge", 9, alert_id="nobody")["reason"] == "no open alert has the id nobody"
    too_long = running.command("set-mode", 10, mode="maintenance", until="2027-01-01T00:00:00Z")
    assert (too_long["status"], too_long["reason"]) == ("failed", "maintenance ends in the future, within a day")


def test_a_reload_of_a_wrong_file_is_answered_and_changes_nothing(running: Running) -> None:
    running.site_file.write_text("[site]\nnonsense = 1\n")
    answer = running.command("reload", 1)
    assert (answer["status"], answer["restart"]) == ("failed", False)
    assert "site.toml:1: [site]" in answer["reason"]


def test_a_command_sent_twice_is_done_once(running: Running) -> None:
    first = running.command("snapshot", 1)
    wish = Command(
        id="c-1", target=TARGET, name="snapshot", issued=utc(T0), expires=utc(T0) + timedelta(hours=1), by="ops"
    )
    running.listener.publish("cmd/req", encode(sign(running.key, "command", encode(wish))))
    second = running.until_answered("cmd/res", 2)
    assert second == first
    assert running.said == ["all"]


@pytest.mark.parametrize("payload", [b"", b"\x00" * 3000, b"{}", b"[" * 20_000, b'{"payload":"x"}'])
def test_junk_is_answered_with_the_reason(running: Running, payload: bytes) -> None:
    running.listener.publish("cmd/req", payload)
    answer = running.until_answered("cmd/res")
    assert answer["status"] == "refused"
    assert answer["reason"]


def test_a_desired_configuration_is_tried_and_kept(running: Running) -> None:
    assert "version" not in running.reported("none")
    running.desire(1, running.site(0.5))
    assert running.reported("on_trial")["restart"]
    config = running.restart()
    assert [m.accuracy_class for m in config.meter] == [0.5, 1.0]
    running.monotonic_s += 600
    running.reported("kept")
    assert [m.accuracy_class for m in running.restart().meter] == [0.5, 1.0]


def test_one_that_loses_a_meter_is_rolled_back(running: Running) -> None:
    running.desire(1, running.site(0.5))
    running.reported("on_trial")
    running.restart()
    running.monotonic_s += 600
    assert running.backend.tick(running.gateway.publisher, ["main"])
    assert "lost: f1" in running.reported("rolled_back")["reason"]
    assert [m.accuracy_class for m in running.restart().meter] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text + "\n[nonsense]\n", "nonsense"),
        (lambda text: text.replace("riverside-12", "elsewhere"), "[site] differs"),
        (lambda text: text.replace("gateway.sqlite", "other.sqlite"), "[store] path differs"),
        (lambda text: "#" * 600_000, "over the limit"),
    ],
)
def test_one_that_cannot_be_used_is_rejected_with_the_reason(
    running: Running, change: Callable[[str], str], reason: str
) -> None:
    running.desire(1, change(running.site(0.5)))
    said = running.reported("rejected")
    assert reason in said["reason"]
    assert not said["restart"]
    assert running.in_force.config.active is None


def test_one_that_no_agent_can_be_built_of_is_given_up_and_the_own_file_is_not(running: Running) -> None:
    assert not running.in_force.give_up("the gateway's own is wrong")
    running.desire(1, running.site(0.5))
    running.reported("on_trial")
    running.restart()
    assert running.in_force.give_up("password: the secret cannot be read")
    assert running.in_force.config.reported.state == "rolled_back"
    assert [m.accuracy_class for m in running.in_force.load()[0].meter] == [1.0, 1.0]


def test_a_desired_file_that_no_longer_loads_is_rolled_back_at_the_start(running: Running) -> None:
    (running.folder / "second.pub").write_bytes((running.folder / "ops.pub").read_bytes())
    running.desire(1, running.site(0.5).replace("ops.pub", "second.pub"))
    running.reported("on_trial")
    running.restart()
    running.monotonic_s += 600
    running.reported("kept")
    active = running.in_force.config.active
    assert active is not None
    active.write_text("broken")
    assert [m.accuracy_class for m in running.restart().meter] == [1.0, 1.0]
    assert running.in_force.config.reported.state == "rolled_back"
