"""The tables of the store's file, version by version, and the checksum that seals a row.

It owns names, columns and migrations; when a file is opened or given up is `agent.store.database`'s.
"""

from __future__ import annotations

import sqlite3
import zlib

import numpy as np
from numpy.typing import NDArray

from core.registers.align import Flag

APPLICATION_ID = 0x434D5452  # "CMTR", in the file's header: tells our file from any other SQLite file

# One entry per version: the script that leads there from the version before. Never edit one that was released.
MIGRATIONS = (
    """
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        time_s REAL NOT NULL,
        expires_s REAL,
        suffix TEXT NOT NULL,
        schema TEXT NOT NULL,
        key TEXT NOT NULL UNIQUE,
        body BLOB NOT NULL,
        crc INTEGER NOT NULL
    );
    CREATE INDEX outbox_turn ON outbox (priority, attempts, time_s DESC, id DESC);
    CREATE TABLE checkpoint (name TEXT PRIMARY KEY, state BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE event (key TEXT PRIMARY KEY, time_s REAL NOT NULL, suffix TEXT NOT NULL, schema TEXT NOT NULL,
        body BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX event_time ON event (time_s);
    CREATE TABLE history_meters (id INTEGER PRIMARY KEY, meters TEXT NOT NULL UNIQUE);
    CREATE TABLE history (time_s REAL PRIMARY KEY, meters INTEGER NOT NULL, wh BLOB NOT NULL, sd_wh BLOB NOT NULL)
        WITHOUT ROWID;
    CREATE TABLE command (id TEXT PRIMARY KEY, expires_s REAL NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID;
    """,
    # Before, one number carried whether a meter was read (its sign) and how long it was not (an offset).
    """
    ALTER TABLE history ADD COLUMN flags BLOB NOT NULL DEFAULT x'';
    UPDATE history SET flags = flags_of_packed(sd_wh), sd_wh = sd_of_packed(sd_wh);
    """,
    # Sent events are sealed as those that wait are (NULL: from before), and damaged rows have a place of their own.
    """
    ALTER TABLE event ADD COLUMN crc INTEGER;
    CREATE TABLE damaged (id INTEGER PRIMARY KEY, suffix BLOB, key BLOB, body BLOB);
    """,
)
_PACKED_LONG_GAP_WH, _PACKED_NEVER_READ_WH = 1e5, 1e6  # offsets of the packed standard errors of schema version 1


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to the newest version, each step in a transaction of its own."""
    connection.create_function("flags_of_packed", 1, _flags_of_packed, deterministic=True)
    connection.create_function("sd_of_packed", 1, _sd_of_packed, deterministic=True)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id={APPLICATION_ID}; {script} PRAGMA user_version={number}; COMMIT;"
        )


def checksum(*parts: object) -> int:
    """CRC-32 of texts and octets, by which a row is told from garbage on a torn page."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part if isinstance(part, bytes) else str(part).encode("utf-8", "replace"), crc)
    return crc


def text(octets: bytes) -> str:
    """A text column of a file that may be damaged: octets that are not UTF-8 are no reason to stop reading."""
    return octets.decode("utf-8", "replace")


def _packed(sd_wh: object) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Standard errors [meters] of schema version 1 as they are now: NaN where never read, with the flags beside."""
    octets = sd_wh if isinstance(sd_wh, bytes) else b""  # of a damaged row
    error = np.frombuffer(octets[: len(octets) // 4 * 4], "<f4").astype(np.float64)
    missed, never = error < 0, (error <= -0.5 * _PACKED_NEVER_READ_WH) | np.isnan(error)
    long_gap = missed & ~never & (error < -0.5 * _PACKED_LONG_GAP_WH)
    sd = np.abs(error) - np.where(long_gap, _PACKED_LONG_GAP_WH, 0.0)
    flags = np.where(missed | never, Flag.MISSED, 0) | np.where(long_gap, Flag.LONG_GAP, 0)
    return np.where(never, np.nan, sd), (flags | np.where(never, Flag.NEVER_READ, 0)).astype(np.uint8)


def _sd_of_packed(sd_wh: object) -> bytes:
    return _packed(sd_wh)[0].astype("<f4").tobytes()


def _flags_of_packed(sd_wh: object) -> bytes:
    return _packed(sd_wh)[1].tobytes()
