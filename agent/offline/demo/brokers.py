"""A broker of one's own on the loopback address: Mosquitto where it is installed, else amqtt out of PyPI.

For the demo and for trials at a desk; a gateway's broker is the utility's. Neither needs root: a free port, and
configuration and log in a folder of the caller's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.offline.demo.ending import die_with_parent

START_LOOKS, LOOK_S = 1200, 0.05  # counted, because a busy host looks less often


class NoBroker(Exception):
    """No broker could be started; the text says what to install."""


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """A broker that runs: `version` is the newest protocol it speaks."""

    name: str
    port: int
    version: Literal["5", "3.1.1"]
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """As a site file names it."""
        return f"mqtt://127.0.0.1:{self.port}"


def find_mosquitto() -> str | None:
    """Mosquitto's path; Debian puts it where only root's PATH leads."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def local_broker(folder: Path, kind: Literal["mosquitto", "amqtt"] | None = None) -> Iterator[LocalBroker]:
    """Start a broker (Mosquitto first, if `kind` does not say which), and end it afterwards.

    Raises:
        NoBroker: none is installed, or it did not start.
    """
    port = free_port()
    mosquitto = find_mosquitto() if kind != "amqtt" else None
    amqtt = shutil.which("amqtt", path=str(Path(sys.executable).parent))
    if mosquitto is not None:
        conf = folder / "mosquitto.conf"
        # 0 would mean no bound; Mosquitto's default of 1000 loses messages for a slow subscriber without a word.
        conf.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 100000\n"
        )
        name, version, command = "mosquitto", "5", [mosquitto, "-c", str(conf)]
    elif kind != "mosquitto" and amqtt is not None:
        conf = folder / "amqtt.yaml"
        conf.write_text(
            f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
            "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
        )
        name, version, command = "amqtt", "3.1.1", [amqtt, "-c", str(conf)]
    else:
        raise NoBroker("no MQTT broker: install mosquitto (Debian: apt install mosquitto), or pip install amqtt")
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent
        )
    try:
        _await_port(port, process, folder / f"{name}.log")
        yield LocalBroker(name, port, "5" if version == "5" else "3.1.1", process)
    finally:
        end(process)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_LOOKS):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(LOOK_S)
    raise NoBroker(f"the broker did not start; it said: {log.read_text(errors='replace')[-400:].strip()}")


def end(process: subprocess.Popen[bytes], patience_s: float = 5.0) -> int:
    """Ask a process of ours to stop, kill it if it does not, and give its exit code."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, 9) if os.getpgid(process.pid) == process.pid else process.kill()
            process.wait()
    return process.returncode
