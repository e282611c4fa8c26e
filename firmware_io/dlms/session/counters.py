"""Our invocation counters: strictly increasing for each key, over restarts, kills and several processes.

A key whose counter nobody knows begins at the seconds since 2020, not at 1: a lost file or a second machine with the
same key must not begin again where somebody began before (NIST SP 800-38D, 8.2). No meter is asked once a second for
years, so the seconds are ahead of every counter that was counted up from them.

A counter that comes twice under one key breaks AES-GCM, and a meter refuses one that goes back. So the file says
up to where counters are *reserved*; a block is written and synced before its first counter is handed out, and a
killed process leaves a gap, never a repetition. It knows no meters and no ciphers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from firmware_io.errors import LocalProtocolError

BLOCK = 1024
FIRST = 1
EPOCH_S = 1_577_836_800  # 2020-01-01 UTC


def counter_id(encryption_key: bytes, system_title: bytes) -> str:
    """What a counter belongs to: the key and our title, as a digest that gives neither away."""
    return hashlib.sha256(b"checkmeter counter" + system_title + encryption_key).hexdigest()[:32]


class InvocationCounters(Protocol):
    """The seam to where counters are kept; called from every bus thread."""

    def next(self, counter: str) -> int:
        """The next counter of that id, never the same twice.

        Raises:
            LocalProtocolError: the store cannot be read or written.
        """

    def advance(self, counter: str, at_least: int) -> None:
        """Never hand out less than `at_least` from now on.

        Raises:
            LocalProtocolError: the store cannot be read or written.
        """


def seconds_since_2020() -> int:
    """Where the counter of a key begins that is not known here; 1 on a machine whose clock was never set."""
    return max(FIRST, int(time.time()) - EPOCH_S)


class MemoryCounters:
    """Counters that die with the process: for tests, and for meters without ciphering."""

    def __init__(self, first: Callable[[], int] = lambda: FIRST) -> None:
        self._first = first
        self._lock = threading.Lock()
        self._next: dict[str, int] = {}

    def next(self, counter: str) -> int:
        """The next counter of that id."""
        with self._lock:
            value = self._next.get(counter) or self._first()
            self._next[counter] = value + 1
            return value

    def advance(self, counter: str, at_least: int) -> None:
        """Never hand out less than `at_least` from now on."""
        with self._lock:
            self._next[counter] = max(self._next.get(counter) or self._first(), at_least)


class FileCounters:
    """Counters in a small JSON file: id -> first counter that is not reserved yet.

    Raises:
        LocalProtocolError: the file is damaged. It is never replaced in silence, because that could repeat counters.
    """

    def __init__(self, path: Path, block: int = BLOCK, first: Callable[[], int] = seconds_since_2020) -> None:
        self._first = first
        self._path = path
        self._block = block
        self._lock = threading.Lock()
        self._ours: dict[str, tuple[int, int]] = {}  # id -> next, end of our block
        self._read()

    def next(self, counter: str) -> int:
        """The next counter of that id; writes and syncs once for each block."""
        with self._lock:
            value, end = self._ours.get(counter, (0, 0))
            if value >= end:
                value, end = self._reserve(counter, FIRST)
            self._ours[counter] = (value + 1, end)
            return value

    def advance(self, counter: str, at_least: int) -> None:
        """Never hand out less than `at_least` from now on."""
        with self._lock:
            value, end = self._ours.get(counter, (0, 0))
            if value >= at_least:
                return
            self._ours[counter] = (at_least, end) if at_least < end else self._reserve(counter, at_least)

    def _reserve(self, counter: str, at_least: int) -> tuple[int, int]:
        """Take a block that no other process has, on disk before it is used."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                reserved = self._read()
                start = max(reserved[counter] if counter in reserved else self._first(), at_least)
                reserved[counter] = start + self._block
                self._write(reserved)
        except OSError as error:
            raise LocalProtocolError(f"cannot reserve invocation counters in {self._path}: {error}") from error
        return start, start + self._block

    def _read(self) -> dict[str, int]:
        try:
            reserved = json.loads(self._path.read_text())
            if not isinstance(reserved, dict) or not all(type(v) is int and v >= 0 for v in reserved.values()):
                raise ValueError("expected a table of counters")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise LocalProtocolError(
                f"the invocation counters in {self._path} cannot be read: {error}. Restore the file; if it is lost, "
                "delete it, and each meter is asked for its counter"
            ) from error
        return reserved

    def _write(self, reserved: dict[str, int]) -> None:
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as file:
            json.dump(reserved, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the new name must be on disk too
        finally:
            os.close(directory)
