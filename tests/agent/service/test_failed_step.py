"""`checkmeter run` when the system denies it memory in the middle of a step: code 70, and a new start goes on."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.status.local_socket import ask
from agent.status.snapshot import Snapshot
from agent.store.history import open_archive, read_history

METERS = ("main", "flat-1", "flat-2")
STEP_S = 20.0
# Eight days: no search for losses yet. It multiplies matrices, and OpenBLAS tries for ever where it gets no buffer.
ROOM_BYTES = 6_000_000  # enough to read the meters; to judge a week in rows of 20 s takes more
SITE = """\
[site]
site = "rig"
gateway = "gw-rig"
[[bus]]
id = "line"
port = "{folder}/line"
timeout_s = 0.5
{meters}
[[zone]]
id = "building"
main = "main"
subs = ["flat-1", "flat-2"]
[detection]
interval_s = {step_s}
balance_s = {step_s}
[store]
path = "{folder}/store.sqlite"
[service]
socket = "{folder}/control.sock"
[simulation]
history_days = 8
pace = false
turnaround_s = 0.0
"""


class Gateway:
    """A building and the agent's process before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "agent.log"
        meters = "\n".join(
            f'[[meter]]\nid = "{name}"\nbus = "line"\naddress = {16 + n}' for n, name in enumerate(METERS)
        )
        self._site = folder / "site.toml"
        self._site.write_text(SITE.format(folder=folder, meters=meters, step_s=STEP_S))
        self.building = self._start("simulate", folder / "building.log")
        until((lambda: "ready" in (folder / "building.log").read_text()), "a building")

    def _start(self, verb: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen([sys.executable, "-m", "agent.cli.main", verb, self._site], stdout=out, stderr=out)

    def run(self) -> subprocess.Popen[bytes]:
        self.agent = self._start("run", self.log)
        return self.agent

    def seen(self) -> Snapshot | None:
        """What `status` sees; None while nobody answers."""
        try:
            return ask(str(self.folder / "control.sock"))
        except OSError:
            return None

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and booked registers of what is committed."""
        with open_archive(self.folder / "store.sqlite") as db:
            rows = read_history(db, -math.inf, math.inf, METERS)
        return rows.times_s, rows.wh

    def end(self) -> None:
        for process in (self.agent, self.building):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(20)


def until(true: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.05)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.end()


def allow_no_more_than(pid: int, more_bytes: int) -> None:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@pytest.mark.timeout(180)
def test_a_step_that_gets_no_memory_ends_with_70_and_the_next_start_goes_on(gateway: Gateway) -> None:
    gateway.building.send_signal(signal.SIGSTOP)  # no meter answers before the limit is set
    agent = gateway.run()
    until(gateway.seen, "an agent that can be asked")
    allow_no_more_than(agent.pid, ROOM_BYTES)
    gateway.building.send_signal(signal.SIGCONT)
    assert agent.wait(90) == 70
    *_, last = gateway.log.read_text().splitlines()
    assert "ended for a new start from the last commit: " in last
    assert "MemoryError" in last
    times, registers = gateway.rows()
    assert 86_400 / STEP_S < len(times) < 7 * 86_400 / STEP_S  # it failed on the way

    stored_s = time.time() // 900 * 900
    gateway.run()
    until(lambda: (seen := gateway.seen()) and seen.status.state == "online", "online")
    until(lambda: gateway.rows()[0][-1] >= stored_s, "all that the meters stored")
    gateway.agent.terminate()
    assert gateway.agent.wait(20) == 0
    text = gateway.log.read_text()
    assert "starts anew" not in text
    assert "Traceback" not in text
    again, later = gateway.rows()
    np.testing.assert_array_equal(again[: len(times)], times)
    np.testing.assert_array_equal(later[: len(times)], registers)
    assert np.all(np.diff(again) == STEP_S)
