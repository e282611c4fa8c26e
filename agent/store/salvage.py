"""From one file, which may be torn, into another: the rows that can be read and whose checksum is right.

It owns what is carried over when a file is put aside, and when a store that had to live in memory gets its file back:
what waits, what was sent (so that nothing is sent under a second id), checkpoints, and the commands that were carried
out (so that none is carried out twice).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from agent.store.schema import checksum, text

BUSY_S = 2.0
Row = tuple[object, ...]


def _sealed(first: int) -> Callable[[Row], bool]:
    """The last column is the checksum of those from `first` on."""
    return lambda row: checksum(*row[first:-1]) == row[-1]


def _sealed_event(row: Row) -> bool:
    key, _, suffix, schema, body, crc = row
    return crc is None or checksum(suffix, schema, key, body) == crc


def _command(row: Row) -> bool:
    name, expires_s, answer = row
    return isinstance(name, str) and name.isprintable() and isinstance(expires_s, float) and isinstance(answer, bytes)


_OUTBOX = "id, priority, attempts, time_s, expires_s, suffix, schema, key, body, crc"
# Each table from both ends: what lies behind a tear is read backwards.
_PARTS: tuple[tuple[str, str, str, Callable[[Row], bool]], ...] = (
    ("outbox", _OUTBOX, "id", _sealed(5)),
    ("outbox", _OUTBOX, "id DESC", _sealed(5)),
    ("checkpoint", "name, state, crc", "name", _sealed(0)),
    ("checkpoint", "name, state, crc", "name DESC", _sealed(0)),
    ("command", "id, expires_s, answer", "id", _command),
    ("command", "id, expires_s, answer", "id DESC", _command),
    ("event", "key, time_s, suffix, schema, body, crc", "key", _sealed_event),
    ("event", "key, time_s, suffix, schema, body, crc", "key DESC", _sealed_event),
    ("event", "key, time_s, suffix, schema, body, NULL", "key", _sealed_event),  # of a version without the column
    ("event", "key, time_s, suffix, schema, body, NULL", "key DESC", _sealed_event),
)


def salvage(aside: Path, into: sqlite3.Connection) -> int:
    """Carry over what can be read of a file put aside; the number of rows."""
    try:
        wreck = sqlite3.connect(f"file:{aside}?mode=rw", uri=True, timeout=BUSY_S)
    except sqlite3.Error:
        return 0
    with contextlib.closing(wreck):
        return carry_over(wreck, into)


def carry_over(source: sqlite3.Connection, into: sqlite3.Connection) -> int:
    """Insert what `source` has and `into` has not; the number of rows."""
    source.text_factory = text
    with contextlib.suppress(sqlite3.Error):
        source.execute("PRAGMA writable_schema=ON")  # else a file shorter than its header says is not opened at all
    rows = 0
    into.execute("BEGIN IMMEDIATE")
    try:
        for table, names, order, right in _PARTS:
            target = names.replace("NULL", "crc")
            marks = ", ".join("?" * (names.count(",") + 1))
            with contextlib.suppress(sqlite3.Error):
                for row in source.execute(f"SELECT {names} FROM {table} ORDER BY {order}"):
                    if right(row):
                        rows += into.execute(f"INSERT OR IGNORE INTO {table} ({target}) VALUES ({marks})", row).rowcount
        into.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            into.execute("ROLLBACK")
        raise
    return rows
