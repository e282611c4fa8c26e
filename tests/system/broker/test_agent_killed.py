"""`checkmeter run` itself: killed with meters behind it and a broker before it, commanded and reconfigured."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.keys.signing import make, read_private, sign
from agent.wire.codec import encode
from agent.wire.downlink import Command, DesiredConfig
from agent.wire.topics import Address

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(240)]
ADDRESS = Address("acme", "riverside-12", "gw-0012")
KILLS = 3


def site(folder: Path, port: int, poll_s: float = 2.0) -> str:
    meters = "\n".join(
        f'[[meter]]\nid = "{name}"\nbus = "line"\naddress = {16 + n}'
        for n, name in enumerate(("main", "flat-1", "flat-2"))
    )
    return (
        f'[site]\ntenant = "acme"\nsite = "riverside-12"\ngateway = "gw-0012"\n'
        f'[[bus]]\nid = "line"\nport = "{folder}/line"\nbaud = 115200\npoll_s = {poll_s}\n{meters}\n'
        f'[[zone]]\nid = "building"\nmain = "main"\nsubs = ["flat-1", "flat-2"]\n'
        f"[detection]\ninterval_s = 60\nbalance_s = 60\n"
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\ncommand_keys = ["{folder}/ops.pub"]\n'
        f'[store]\npath = "{folder}/store.sqlite"\n[service]\nsocket = "{folder}/control.sock"\n'
        f"[simulation]\nhistory_days = 1\npace = false\nturnaround_s = 0.0\n"
    )


class Scene:
    """A building, a broker, a backend with a key, and an agent that can be killed."""

    def __init__(self, stage: Any) -> None:
        self.folder = stage.folder
        private, public = make()
        (self.folder / "ops.key").write_bytes(private)
        (self.folder / "ops.pub").write_bytes(public)
        self.key = read_private(self.folder / "ops.key")
        self.broker = stage.broker()
        self.listener = stage.listener(self.broker.port)
        self.site_file = self.folder / "site.toml"
        self.site_file.write_text(site(self.folder, self.broker.port))
        self.building = self._process("simulate", stdout=subprocess.PIPE)
        assert self.building.stdout is not None
        assert self.building.stdout.readline().startswith("ready")
        self.agent = self.start()

    def _process(self, verb: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "agent.cli.main", verb, self.site_file], text=True, **options)

    def start(self) -> subprocess.Popen[str]:
        with (self.folder / "agent.log").open("a") as log:
            self.agent = self._process("run", stdout=log, stderr=log)
        return self.agent

    def close(self) -> None:
        for process in (self.agent, self.building):
            if process.poll() is None:
                process.terminate()
                process.wait(20)
        assert self.building.stdout is not None
        self.building.stdout.close()

    def command(self, name: str, command_id: str, **args: Any) -> None:
        now = datetime.now(UTC)
        wish = Command(
            id=command_id,
            target=ADDRESS.target,
            name=name,
            issued=now,
            expires=now + timedelta(hours=1),
            by="ops",  # type: ignore[arg-type]
            args=args,
        )
        self.listener.publish("cmd/req", encode(sign(self.key, "command", encode(wish))))

    def answers(self, command_id: str) -> list[dict[str, Any]]:
        return [a for a in map(json.loads, self.listener.topics["cmd/res"]) if a["id"] == command_id]

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()


@pytest.fixture
def scene(stage: Any) -> Iterator[Scene]:
    scene = Scene(stage)
    yield scene
    scene.close()


def test_killed_commanded_and_reconfigured_it_goes_on_reading(scene: Scene, wait: Callable[..., None]) -> None:
    listener, rng = scene.listener, random.Random(7)
    statuses = listener.topics["status"]
    wait(lambda: statuses and json.loads(statuses[-1])["state"] == "online", 60.0, "online")
    for n in range(KILLS):
        time.sleep(rng.uniform(0.2, 1.5))
        scene.command("ping", f"ping-{n}")  # it may come while there is nobody
        time.sleep(rng.uniform(0.0, 0.2))
        scene.agent.send_signal(signal.SIGKILL)
        scene.agent.wait(10)
        if n == 1:
            scene.broker.stop()
        before = len(listener.topics["info"])
        scene.start()
        if n == 1:
            time.sleep(1.5)
            scene.broker.start()
        wait(lambda before=before: len(listener.topics["info"]) > before, 60.0, "info after the restart")
        wait(lambda n=n: scene.answers(f"ping-{n}"), 60.0, "an answer to the ping")
    wait(lambda: json.loads(statuses[-1])["state"] == "online", 60.0, "online again")
    assert all(answer["status"] in ("done", "failed") for n in range(KILLS) for answer in scene.answers(f"ping-{n}"))
    assert scene.answers(f"ping-{KILLS - 1}")[-1]["status"] == "done"

    scene.command("live", "live-1", zone="building", for_s=4.0, meters=True)
    scene.command("live", "live-2", zone="shed")
    views = listener.topics["live/building"]
    wait(lambda: len(views) >= 3, 30.0, "a live view")
    wait(lambda: scene.answers("live-2"), 30.0, "an answer about the shed")
    assert scene.answers("live-2")[-1]["status"] == "failed"
    assert "there is no zone shed; there are building" in scene.answers("live-2")[-1]["reason"]
    view = json.loads(views[-1])
    assert set(view["meters"]) == {"main", "flat-1", "flat-2"}
    assert view["difference_w"] == pytest.approx(view["main_w"] - view["sum_w"], abs=0.2)
    wait(lambda: len(set(views)) == len(views) <= 6, 5.0, "each once, and none when its time is over")

    scene.command("weather", "weather-1", start=datetime.now(UTC) - timedelta(hours=3.5), outdoor_c=[4.0] * 52)
    wait(lambda: scene.answers("weather-1"), 30.0, "an answer about the weather")
    assert scene.answers("weather-1")[-1]["result"] == {"measured": 4, "expected": 48}

    wish = DesiredConfig(
        target=ADDRESS.target, version=1, issued=datetime.now(UTC), toml=site(scene.folder, scene.broker.port, 3.0)
    )
    listener.publish("config/desired", encode(sign(scene.key, "config", encode(wish))), retain=True)
    reported = listener.topics["config/reported"]
    wait(lambda: json.loads(reported[-1])["state"] == "on_trial", 60.0, "on trial")
    assert json.loads(reported[-1])["version"] == 1
    infos = listener.topics["info"]
    digest = json.loads(infos[0])["config_sha256"]
    wait(lambda: json.loads(infos[-1])["config_sha256"] != digest, 60.0, "the new file in force")
    wait(lambda: json.loads(statuses[-1])["state"] == "online", 60.0, "online with it")
    assert scene.agent.poll() is None
    # Balances that came more than once say the same.
    balances: dict[str, set[bytes]] = {}
    for body in listener.topics["balance/building"]:
        balances.setdefault(json.loads(body)["end"], set()).add(body)
    assert all(len(bodies) == 1 for bodies in balances.values())
    assert {key: len(bodies) for key, bodies in listener.events.items() if len(bodies) > 1} == {}
    assert listener.wrong == []
    assert "Traceback" not in scene.log()
    assert os.path.exists(scene.folder / "store.sqlite")
