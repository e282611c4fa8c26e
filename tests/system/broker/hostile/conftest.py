"""The real agent beside simulated meters, and peers that mean it ill: what the red team's harness did by hand."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.keys.signing import make, read_private
from agent.status.local_socket import ask
from agent.status.snapshot import Snapshot
from agent.wire.topics import Address

ADDRESS = Address("acme", "riverside-12", "gw-0012")
METERS = ("main", "flat-1", "flat-2")
STOP_S = 4.0  # the promise: SIGTERM is obeyed within this time, whatever goes on


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Wait until `condition` holds, or fail."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)


class House:
    """One building, simulated, and the real agent in a process of its own; its store, log and socket in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent: subprocess.Popen[str] | None = None
        private, public = make()
        (folder / "ops.key").write_bytes(private)
        (folder / "ops.pub").write_bytes(public)
        self.key = read_private(folder / "ops.key")
        self.site_file = folder / "site.toml"
        self.store = folder / "store.sqlite"
        self._exit = contextlib.ExitStack()

    def site(
        self, broker: str = "", *, interval_s: int = 60, meter: str = "", history_days: int = 1, more: str = ""
    ) -> str:
        """The text of a site file; `broker` is the [mqtt] section's."""
        meters = "\n".join(
            f'[[meter]]\nid = "{name}"\nbus = "line"\naddress = {16 + n}\n{meter}' for n, name in enumerate(METERS)
        )
        mqtt = f'[mqtt]\n{broker}\ncommand_keys = ["{self.folder}/ops.pub"]\n' if broker else ""
        return (
            f'[site]\ntenant = "acme"\nsite = "riverside-12"\ngateway = "gw-0012"\n'
            f'[[bus]]\nid = "line"\nport = "{self.folder}/line"\nbaud = 115200\npoll_s = 2.0\n{meters}\n'
            f'[[zone]]\nid = "building"\nmain = "main"\nsubs = ["flat-1", "flat-2"]\n'
            f"[detection]\ninterval_s = {interval_s}\nbalance_s = {interval_s}\n{mqtt}"
            f'[store]\npath = "{self.store}"\n[service]\nsocket = "{self.folder}/control.sock"\n'
            f"[simulation]\nhistory_days = {history_days}\npace = false\nturnaround_s = 0.0\n{more}"
        )

    def build(self, broker: str = "", **options: Any) -> None:
        """Write the site file and start the meters."""
        self.site_file.write_text(self.site(broker, **options))
        building = self._process("simulate", stdout=subprocess.PIPE)
        self._exit.callback(self._end, building)
        assert building.stdout is not None
        assert building.stdout.readline().startswith("ready")

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start the agent, with more in its environment."""
        with (self.folder / "agent.log").open("a") as log:
            self.agent = self._process("run", stdout=log, stderr=log, env={**os.environ, **environment})
        self._exit.callback(self._end, self.agent)
        return self.agent

    def _process(self, verb: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "agent.cli.main", verb, self.site_file], text=True, **options)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        if process.stdout is not None:
            process.stdout.close()

    @staticmethod
    def until(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        """Wait until `condition` holds, or fail."""
        until(condition, timeout_s, what)

    def stop(self) -> None:
        """SIGTERM, which must be obeyed in time; a stack dump would be no use, the log is shown."""
        assert self.agent is not None
        self.agent.terminate()
        try:
            assert self.agent.wait(STOP_S) == 0, self.log()[-3000:]
        except subprocess.TimeoutExpired:
            pytest.fail(f"SIGTERM had no effect within {STOP_S} s\n{self.log()[-3000:]}")

    def kill(self) -> None:
        """kill -9."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGKILL)
        self.agent.wait(10)

    def log(self) -> str:
        """What the agent has said so far."""
        return (self.folder / "agent.log").read_text()

    def snapshot(self) -> Snapshot | None:
        """What `checkmeter status` gets; None while nobody answers."""
        try:
            return ask(str(self.folder / "control.sock"))
        except (OSError, msgspec.DecodeError):
            return None

    def state(self) -> str:
        """online, degraded, or nothing."""
        snapshot = self.snapshot()
        return "" if snapshot is None else snapshot.status.state

    def read(self, count: int = 1) -> bool:
        """Whether every meter has been read `count` times since the start."""
        snapshot = self.snapshot()
        return snapshot is not None and all(meter.readings >= count for meter in snapshot.health.meters)

    def memory_mb(self) -> float:
        """Resident memory of the agent now."""
        assert self.agent is not None
        pages = int(Path(f"/proc/{self.agent.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def alive(self) -> bool:
        """Whether the agent runs."""
        return self.agent is not None and self.agent.poll() is None

    def close(self) -> None:
        """End what still runs."""
        self._exit.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def packet(kind: int, body: bytes) -> bytes:
    """One MQTT packet with its fixed header."""
    length, octets = len(body), bytearray([kind])
    while True:
        length, low = divmod(length, 128)
        octets.append(low | (0x80 if length else 0))
        if not length:
            return bytes(octets) + body


def text(value: str) -> bytes:
    """A UTF-8 string as MQTT writes it."""
    octets = value.encode()
    return len(octets).to_bytes(2, "big") + octets


CONNACK = packet(0x20, b"\0\0\0")


class HostileBroker:
    """Accepts any client, says CONNACK, and then sends what `attack` yields until the client goes."""

    def __init__(self, attack: Callable[[], Iterator[bytes]], connack: bytes = CONNACK) -> None:
        self._attack, self._connack = attack, connack
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port = int(self._listener.getsockname()[1])
        self.connections = self.sent_bytes = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="hostile broker")
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            with client, contextlib.suppress(OSError):
                client.settimeout(0.5)
                client.recv(65536)
                client.sendall(self._connack)
                for octets in self._attack():
                    self._send(client, octets)
                    if self._ended:
                        break

    def _send(self, client: socket.socket, octets: bytes) -> None:
        view = memoryview(octets)
        while view and not self._ended:
            try:
                sent = client.send(view[: 1 << 18])
            except TimeoutError:
                continue
            self.sent_bytes += sent
            view = view[sent:]

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join(5)
        self._listener.close()


@pytest.fixture
def hostile() -> Iterator[Callable[..., HostileBroker]]:
    brokers: list[HostileBroker] = []

    def make(attack: Callable[[], Iterator[bytes]], connack: bytes = CONNACK) -> HostileBroker:
        brokers.append(HostileBroker(attack, connack))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()
