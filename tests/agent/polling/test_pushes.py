"""Pushes from a site file's `listen` and `push` to samples: simulated meters that push over TCP, in another process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.pipeline.inbox import Batch
from agent.polling.buses import open_buses
from agent.process.clock import SystemClock
from agent.site.errors import ConfigError
from agent.site.load import load
from firmware_io.obis import ENERGY_IMPORT

SITE = """
[site]
site = "lab"
gateway = "lab"
[store]
path = "{folder}/store.sqlite"
[[bus]]
id = "line"
port = "tcp://127.0.0.1:{port}"
framing = "wrapper"
listen = "{listen}"
[[meter]]
id = "main"
bus = "line"
address = 16
[[meter]]
id = "flat-1"
bus = "line"
address = 17
client = 1
security = "hls-gmac"
authentication_key = "{folder}/ak"
encryption_key = "{folder}/ek"
system_title = "43484B0000000001"
push = true
[[zone]]
id = "building"
main = "main"
subs = ["flat-1"]
[simulation]
seed = 3
history_days = 2
push_s = 0.2
"""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(folder: Path, listen: str) -> Path:
    for name, octet in (("ak", "d0"), ("ek", "0e")):
        (folder / name).write_text(octet * 16)
    path = folder / "site.toml"
    path.write_text(SITE.format(folder=folder, port=free_port(socket.SOCK_STREAM), listen=listen))
    return path


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_a_meter_that_pushes_is_sampled_between_polls(scheme: str, tmp_path: Path) -> None:
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    path = write(tmp_path, f"{scheme}://127.0.0.1:{free_port(kind)}")
    simulator = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", "simulate", str(path), "--json"], stdout=subprocess.PIPE, text=True
    )
    assert simulator.stdout is not None
    (bus,) = open_buses(load(path, online=True), SystemClock()).values()
    try:
        assert json.loads(simulator.stdout.readline())["ready"]
        assert all(poll.error is None for poll in bus.poll_cycle())
        end, pushed = time.monotonic() + 20, []
        while len(pushed) < 3 and time.monotonic() < end:
            pushed += list(bus.probe())
            threading.Event().wait(0.05)
    finally:
        bus.close()
        simulator.send_signal(signal.SIGTERM)
        simulator.wait(20)
        simulator.stdout.close()
    assert {poll.meter for poll in pushed} == {"flat-1"}
    assert all([reading.obis for reading in poll.readings] == [ENERGY_IMPORT] for poll in pushed)


def test_pushes_become_samples_of_the_pipeline(make_rig) -> None:
    rig = make_rig('[[simulation.fault]]\nkind = "push"\n', meter="push = true")
    rig.thread.catch_up(rig.stop, None)
    rig.taken()
    rig.thread.cycle(rig.stop)
    samples = [sample.meter for item in rig.taken() if isinstance(item, Batch) for sample in item.samples]
    assert samples.count("flat-1") > 1
    assert samples.count("flat-2") == 1  # it pushes as well, and is not configured to


@pytest.mark.parametrize("listen", ["tcp://127.0.0.1", "4059", "http://127.0.0.1:4059", "udp://[::1:4059", ""])
def test_where_nobody_can_push_to_is_said(listen: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected tcp://address:port or udp://address:port"):
        load(write(tmp_path, listen), online=True)
