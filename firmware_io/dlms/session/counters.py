"""Our invocation counters: strictly increasing for each key, over restarts, kills and several processes.

A key whose counter nobody knows begins at the seconds since 2020, not at 1: a lost file or a second machine with the
same key must not begin again where somebody began before (NIST SP 800-38D, 8.2). No meter is asked once a second for
years, so the seconds are ahead of every counter that was counted up from them.

A counter that comes twice under one key breaks AES-GCM, and a meter refuses one that goes back. So the file says
up to where counters are *reserved*; a block is written and synced before its first counter is handed out, and a
killed process leaves a gap, never a repetition. It knows no meters and no ciphers.

A file that is damaged is begun again. From then on a counter that is not in the new file is *unknown*, not new: it is
handed out only after the meter has told where it stands (`advance`). A full disk is relieved by a spare file beside.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from firmware_io.errors import LocalProtocolError

log = logging.getLogger(__name__)

BLOCK = 1024
LOST = "lost"  # in the file: an earlier one was lost; ids are hexadecimal, so none is called so
SPARE_BYTES = 64 * 1024  # what a full disk is relieved of, so that a block can be reserved all the same
FIRST = 1
EPOCH_S = 1_577_836_800  # 2020-01-01 UTC


class CounterUnknown(LocalProtocolError):
    """The counters' file was lost: ask the meter for its counter and `advance` before one is used."""


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
    """Counters in a small JSON file: id -> first counter that is not reserved yet. Making one never fails."""

    def __init__(self, path: Path, block: int = BLOCK, first: Callable[[], int] = seconds_since_2020) -> None:
        self._first = first
        self._path = path
        self._block = block
        self._lock = threading.Lock()
        self._ours: dict[str, tuple[int, int]] = {}  # id -> next, end of our block
        try:
            self._read()
        except LocalProtocolError as error:  # told again where a counter is needed: other meters can be read
            log.error("%s", error)
        self._keep_spare()

    def next(self, counter: str) -> int:
        """The next counter of that id; writes and syncs once for each block.

        Raises:
            CounterUnknown: the file was lost, and the meter has not been asked yet.
            LocalProtocolError: the file cannot be read or written.
        """
        with self._lock:
            value, end = self._ours.get(counter, (0, 0))
            if value >= end:
                value, end = self._reserve(counter, None)
            self._ours[counter] = (value + 1, end)
            return value

    def advance(self, counter: str, at_least: int) -> None:
        """Never hand out less than `at_least` from now on."""
        with self._lock:
            value, end = self._ours.get(counter, (0, 0))
            if value >= at_least:
                return
            self._ours[counter] = (at_least, end) if at_least < end else self._reserve(counter, at_least)

    def _reserve(self, counter: str, at_least: int | None) -> tuple[int, int]:
        """Take a block that no other process has, on disk before it is used. `at_least` is what a meter told."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                reserved = self._read()
                known = reserved.get(counter)
                if known is None and LOST in reserved:
                    if at_least is None:
                        raise CounterUnknown(f"the counters in {self._path} were lost; the meter has not told its own")
                    known = at_least
                start = max(self._first() if known is None else known, at_least or FIRST)
                reserved[counter] = start + self._block
                self._write_somehow(reserved)
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
        except OSError as error:
            raise LocalProtocolError(f"the invocation counters in {self._path} cannot be read: {error}") from error
        except (ValueError, RecursionError) as error:
            return self._give_up(error)
        return reserved

    def _give_up(self, error: Exception) -> dict[str, int]:
        """The file is damaged: begin another, and from now on ask each meter where its counter stands."""
        log.error("%s is damaged (%s): begun anew; each meter is asked for its counter", self._path, error)
        try:
            self._write_somehow({LOST: 1})
        except OSError as failed:
            raise LocalProtocolError(f"the invocation counters in {self._path} are damaged: {failed}") from failed
        return {LOST: 1}

    def _write_somehow(self, reserved: dict[str, int]) -> None:
        """Write, on a full disk in the room of the spare file."""
        try:
            self._write(reserved)
        except OSError:
            self._path.with_suffix(".spare").unlink(missing_ok=True)
            self._write(reserved)
        self._keep_spare()

    def _keep_spare(self) -> None:
        """Set a little space aside, as far as there is room."""
        spare = self._path.with_suffix(".spare")
        with contextlib.suppress(OSError):
            if spare.exists() and spare.stat().st_size == SPARE_BYTES:
                return
            try:
                with spare.open("wb") as file:
                    file.write(bytes(SPARE_BYTES))
            except OSError:
                spare.unlink(missing_ok=True)

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
