"""However the demo is ended, nothing that it has started runs on: the real verb, with all its real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.offline.demo.brokers import find_mosquitto
from agent.process.exit_codes import CONFIG

ROOT = Path(__file__).resolve().parents[4]
LOOKS, LOOK_S = 600, 0.1


def _running(folder: Path) -> dict[int, str]:
    """Processes that name the folder on their command line, by id; without those that have ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if os.fsencode(folder) in words and state != "Z":
            found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


@pytest.mark.skipif(find_mosquitto() is None, reason="needs mosquitto")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_demo_leaves_nobody_behind(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "agent.cli.main", "demo", str(ROOT / "examples/demo-building.toml"), "--utility",
               "--broker", "mosquitto", "--keep", str(folder)]  # fmt: skip
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    left: dict[int, str] = {}
    try:
        assert demo.stdout is not None
        said = ""
        for line in demo.stdout:
            said += line
            if line.startswith("agent "):
                break
        started = " ".join(_running(folder).values())
        for name in ("mosquitto", " ingest ", " serve ", " simulate ", " run "):
            assert name in started, said + started
        demo.send_signal(number)
        assert demo.wait(60) == (-number if number is signal.SIGKILL else 128 + number)
        for _ in range(LOOKS):
            left = _running(folder)
            if number is signal.SIGKILL and os.geteuid() == 0:  # a broker of root's changes its user: see prctl(2)
                left = {pid: words for pid, words in left.items() if "mosquitto.conf" not in words}
            if not left:
                break
            time.sleep(LOOK_S)
        assert not left
    finally:
        demo.kill()
        demo.wait()
        demo.stdout.close()
        for pid in _running(folder):
            os.kill(pid, signal.SIGKILL)


def test_away_from_the_clone_the_demo_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["demo", "--utility"])
    assert done.exit_code == CONFIG
    assert "clone" in done.stderr
