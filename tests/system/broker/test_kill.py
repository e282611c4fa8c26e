"""kill -9 of the agent, at every named step and at random, with broker outages: nothing lost, nothing invented.

What must arrive is what was committed, each transition with one id and one content. And what was committed must be one
story: the thefts of the world are known, so are how many alerts each zone must have had and in which state each ends;
the revisions of each follow one another without a gap or a fork. Long form: `make proof-kill`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(7200)]
PROCESS = Path(__file__).resolve().parents[1] / "crash" / "agent_process.py"
STEPS_A_ROUND = 6


def load_process() -> Any:
    spec = importlib.util.spec_from_file_location("agent_process", PROCESS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Nursery:
    """The process that forks agents; one lives at a time."""

    def __init__(self, path: Path, port: int) -> None:
        self.path, self.port, self.born = path, port, 0
        self.process = subprocess.Popen(
            [sys.executable, PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def give_birth(self, steps: int, kill: tuple[str, int] | None = None, finish: bool = False, names: str = "") -> int:
        assert self.process.stdin is not None
        self.born += 1
        order = {"path": str(self.path), "port": self.port, "steps": steps, "noise": self.born}
        order |= {"kill": kill, "finish": finish, "names": names}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self._line()["pid"])

    def end(self) -> int:
        """Wait for the agent's end; the signal that killed it, 0 if it ended in order."""
        status = self._line()["ended"]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the agent failed by itself"
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def nursery(stage: Any) -> Iterator[Callable[[int], Nursery]]:
    made: list[Nursery] = []

    def make(port: int) -> Nursery:
        made.append(Nursery(stage.folder / "agent.sqlite", port))
        return made[-1]

    yield make
    for nursery in made:
        nursery.close()


def committed(path: Path) -> dict[str, set[bytes]]:
    """The transitions that the store has committed, delivered or not."""
    with contextlib.closing(sqlite3.connect(path)) as store:
        return {key: {body} for key, body in store.execute("SELECT key, body FROM event")}


def assert_one_story(events: dict[str, set[bytes]], steps: int) -> None:
    """Each theft of the world is one alert, raised at its step, with revisions in a row, cleared if it is over."""
    world = load_process()
    lives: dict[str, dict[int, Any]] = defaultdict(dict)
    for (body,) in events.values():
        event = json.loads(body)
        alert = event["data"]
        assert alert["revision"] not in lives[alert["alert_id"]], "two contents of one revision"
        lives[alert["alert_id"]][alert["revision"]] = event
    told: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for revisions in lives.values():
        assert sorted(revisions) == list(range(1, len(revisions) + 1))
        states = [revisions[n]["data"]["state"] for n in sorted(revisions)]
        assert states[0] == "raised"
        assert set(states[1:-1]) <= {"updated"}
        zone = int(revisions[1]["data"]["zone"].removeprefix("zone-"))
        began_s = datetime.fromisoformat(revisions[1]["time"]).timestamp()
        told[zone].append((began_s, states[-1]))
    for zone in range(world.ZONES):
        theft = [world.active(zone, step) for step in range(steps)]
        begins = [
            world.T0 + world.INTERVAL_S * step
            for step in range(steps)
            if theft[step] and (step == 0 or not theft[step - 1])
        ]
        story = sorted(told[zone])
        assert [began_s for began_s, _ in story] == begins
        assert all(state == "cleared" for _, state in story[:-1])


def test_killed_at_every_step_and_at_random_with_outages(
    stage: Any, nursery: Callable[[int], Nursery], wait: Callable[..., None], kills: int
) -> None:
    rng = random.Random(20260301)
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    agents = nursery(proxy.port)
    names_file = stage.folder / "names.json"
    agents.give_birth(STEPS_A_ROUND, finish=True, names=str(names_file))
    assert agents.end() == 0
    names = json.loads(names_file.read_text())
    assert {"store.before-commit", "store.after-commit", "publisher.before-send", "publisher.puback"} <= set(names)

    began_s = time.monotonic()
    done: Counter[str] = Counter()
    outages = 0
    steps = STEPS_A_ROUND
    for n in range(kills):
        steps += STEPS_A_ROUND
        if n % 25 == 10:  # the network is gone
            proxy.cut()
            outages += 1
        elif n % 25 == 14:
            proxy.mend()
        elif n % 25 == 18:  # the broker is gone, with what it had in flight
            broker.stop()
            outages += 1
        elif n % 25 == 20:
            broker.start()
        if n % 2:
            step = names[n // 2 % len(names)]
            pid = agents.give_birth(steps, kill=(step, rng.randint(1, 12)))
            # With the broker away some steps are never reached: then it is killed from outside.
            deadline_s = time.monotonic() + rng.uniform(0.15, 0.4)
            while time.monotonic() < deadline_s and alive(pid):
                time.sleep(0.002)
        else:
            step = "random"
            pid = agents.give_birth(steps)
            time.sleep(rng.uniform(0.0, 0.25))
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        assert agents.end() == signal.SIGKILL
        done[step] += 1
    proxy.mend()
    if broker.process is None:
        broker.start()
    wait(listener.client.is_connected)
    agents.give_birth(steps, finish=True)
    assert agents.end() == 0
    wanted = committed(agents.path)
    wait(lambda: len(listener.events) >= len(wanted), 30.0)
    lost = set(wanted) - set(listener.events)
    invented = set(listener.events) - set(wanted)
    differing = {key for key, bodies in listener.events.items() if len(bodies) > 1}
    print(
        f"\n{done.total()} kills ({done['random']} at random, the others at {len(names)} named steps), "
        f"{outages} outages, {time.monotonic() - began_s:.0f} s: {len(wanted)} alert transitions, {len(lost)} lost,"
        f" {len(invented)} invented, {listener.duplicates} duplicates, {len(differing)} of them differing"
    )
    assert_one_story(wanted, steps)
    assert not lost
    assert not invented
    assert dict(listener.events) == wanted
    assert listener.wrong == []


def alive(pid: int) -> bool:
    """Whether the process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
