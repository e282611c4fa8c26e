"""The example subscriber and the shell line of the documentation, as they stand, against a real gateway."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mosquitto
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("delivery", ["broker", "end_to_end"])
def test_the_example_keeps_each_transition_once(stage: Any, wait: Callable[..., None], delivery: str) -> None:
    broker = stage.broker()
    database = stage.folder / "alerts.sqlite"
    options = ["--database", str(database), *(["--end-to-end"] if delivery == "end_to_end" else [])]
    command = [sys.executable, str(ROOT / "examples" / "subscribe.py"), f"mqtt://127.0.0.1:{broker.port}", *options]
    example = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stage.exit.callback(lambda: (example.kill(), example.wait(), example.stdout and example.stdout.close()))
    assert example.stdout is not None
    gateway = stage.gateway(broker.port, delivery=delivery)
    keys = set(gateway.alerts(5))
    lines = [example.stdout.readline() for _ in range(5)]
    assert all("meter/m" in line and "raised: meter_fault" in line for line in lines)
    wait(lambda: gateway.store.counters.messages == 0)
    watcher = stage.listener(broker.port)
    gateway.store.resend(0, 1e12, 100)  # all once more
    wait(lambda: len(watcher.events) == 5)
    keys |= set(gateway.alerts(1))
    assert "m6" in example.stdout.readline(), "the repeated ones were not shown again"
    with sqlite3.connect(database) as store:
        assert {key for (key,) in store.execute("SELECT id FROM event")} == keys
        assert store.execute("SELECT count(*) FROM alert").fetchone() == (6,)
    store.close()


def test_the_shell_line(stage: Any) -> None:
    text = (ROOT / "docs" / "mqtt.md").read_text() + (ROOT / "examples" / "subscribe.py").read_text()
    lines = re.findall(r"^ *(mosquitto_sub .*)$", text, re.MULTILINE)
    assert len(lines) >= 2
    broker = stage.broker()
    for n, line in enumerate(lines):
        words = [*shlex.split(line.replace("desk-1", f"desk-{n}")), "-p", str(broker.port), "-C", "3"]
        shell = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        stage.exit.callback(lambda shell=shell: (shell.kill(), shell.wait()))
        gateway = stage.gateway(broker.port, path=stage.folder / f"gateway{n}.sqlite")
        gateway.alerts(3)
        out, _ = shell.communicate(timeout=20)
        assert out.count("event/alert") == 3
        gateway.publisher.stop()
        gateway.thread.join()
