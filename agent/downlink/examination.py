"""What the utility sent, parsed in a process of its own: whatever a file does to a parser, it does it there.

It owns the child and its limits of time and memory. The child (`python -m agent.downlink.examination KIND FILE`) prints
one line of JSON; a child that says nothing (it was killed, it crashed, it ran out of its limits) is a refusal.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

CPU_S = 30  # a site of 1000 meters takes 3 s on the slowest gateway
WALL_S = 120.0
DATA_BYTES = 192 * 1024 * 1024  # what both processes may take is in the service's MemoryMax
ANSWER_BYTES = 64 * 1024

Kind = Literal["config", "model"]


class Verdict(msgspec.Struct, frozen=True):
    """What the child found: `errors` are empty if the file can be used. `site` is [site] as JSON, `store` its path."""

    errors: list[str]
    site: str = ""
    store: str = ""


class Examination:
    """One child at work. `verdict` looks, `close` ends it."""

    def __init__(self, kind: Kind, file: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._file = file
        self._deadline_s = monotonic() + WALL_S
        self._child = subprocess.Popen(
            [sys.executable, "-m", "agent.downlink.examination", kind, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                "OPENBLAS_NUM_THREADS": "1",
                "LANG": "C.UTF-8",
            },
        )

    def verdict(self) -> Verdict | None:
        """What it found; None while it is at work."""
        status = self._child.poll()
        if status is None:
            if self._monotonic() < self._deadline_s:
                return None
            self.close()
            return Verdict([f"it took longer than {WALL_S:.0f} s to read"])
        assert self._child.stdout is not None
        answer = self._child.stdout.read(ANSWER_BYTES)
        self.close()
        try:
            return msgspec.json.decode(answer, type=Verdict)
        except msgspec.DecodeError:
            return Verdict([f"reading it ended a process of its own (status {status}): too large, or harmful"])

    def wait(self) -> Verdict:
        """What it found, once it has."""
        while (verdict := self.verdict()) is None:
            time.sleep(0.02)
        return verdict

    def close(self) -> None:
        """End the child and remove its file."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._file.unlink(missing_ok=True)


def _limit() -> None:
    """Take from this process what a parser does not need."""
    os.nice(10)
    for what, soft in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_DATA, DATA_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (soft, soft))


def _examine(kind: str, file: Path) -> Verdict:
    if kind == "model":
        from agent import models
        from core.scoring.model import ModelRefused

        try:
            models.checked(file.read_bytes())
        except ModelRefused as error:
            return Verdict([str(error)])
        return Verdict([])
    from agent.site.errors import ConfigError
    from agent.site.load import load as load_site

    try:
        config = load_site(file, online=True)
    except ConfigError as error:
        return Verdict([line[:500].replace(str(file), "site file") for line in error.errors[:50]])
    return Verdict([], msgspec.json.encode(config.site).decode(), config.store.path)


def main() -> int:
    """The child."""
    _limit()
    try:
        verdict = _examine(sys.argv[1], Path(sys.argv[2]))
    except MemoryError:
        verdict = Verdict(["reading it takes too much memory"])
    sys.stdout.buffer.write(msgspec.json.encode(verdict))
    return 0


if __name__ == "__main__":
    sys.exit(main())
