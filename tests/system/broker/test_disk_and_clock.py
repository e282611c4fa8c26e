"""A gateway's own disk and clock let it down: alerts still arrive, each with one id and content."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.store.commit import Commit
from agent.store.messages import Priority
from core.registers.booked import HistoryRow

pytestmark = pytest.mark.mosquitto
T0 = 1_767_225_600.0
Check = Callable[..., None]


def test_a_full_disk_stops_nothing_but_history(
    stage: Any, root_only: None, everything_arrived: Check, wait: Check
) -> None:
    disk = stage.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    stage.exit.callback(lambda: subprocess.run(["umount", "-l", disk], check=True))
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port, path=disk / "gateway.sqlite")
    gateway.alerts(3)
    hog = (disk / "hog").open("wb", buffering=0)
    try:
        while True:
            hog.write(b"x" * 4096)
    except OSError:
        pass
    for n in range(60):
        history = [HistoryRow(T0 + 900 * n, np.arange(500.0), np.zeros(500), np.zeros(500, np.uint8))]
        gateway.store.commit(Commit(meters=[f"m{i}" for i in range(500)], history=history), T0)
        gateway.alerts(2)
    everything_arrived(gateway, listener)  # on a disk that is still full
    hog.close()
    gateway.stop()
    gateway.start()
    assert gateway.store.replaced is None
    gateway.alerts(1)
    everything_arrived(gateway, listener)


def test_a_torn_tail_of_the_file_costs_no_alert_that_was_waiting(
    stage: Any, wait: Check, everything_arrived: Check
) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(1)  # no broker there: everything waits
    gateway.alerts(200)
    gateway.stop()
    path = gateway.path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 5000])
    gateway.mqtt["url"] = f"mqtt://localhost:{broker.port}"
    gateway.start()
    assert gateway.store.replaced is not None
    lost = set(gateway.committed) - {o.message.key for o in gateway.store.pending(1000, [Priority.ALERT])}
    for key in lost:
        del gateway.committed[key]
    assert len(lost) <= 8, "no more than what stood on the pages torn off"
    gateway.alerts(3)
    everything_arrived(gateway, listener)


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400.0, 3600.0, 6 * 86400.0])
def test_a_clock_that_jumps(stage: Any, wait: Check, everything_arrived: Check, jump_s: float) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port)
    gateway.alerts(5)
    gateway.wall_s += jump_s
    gateway.alerts(5)
    gateway.balances(1)
    everything_arrived(gateway, listener)
    wait(lambda: len(listener.topics["balance/building"]) == 1)
