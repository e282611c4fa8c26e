"""The SQLite file: opened, checked, migrated; put aside and salvaged when it is torn or foreign; its ballast.

It owns the file and its schema; what the tables mean is `agent.store.store`'s. A file that cannot be used never keeps
the agent from starting: a torn or foreign one is renamed with the time behind its name, what can still be read of the
outbox and the checkpoints is carried over, and the caller is told. Where no file can be had at all (a full disk, a
read-only one), the tables live in memory until the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.wire.values import utc
from core.registers.align import Flag

log = logging.getLogger(__name__)

APPLICATION_ID = 0x434D5452  # "CMTR", in the file's header: tells our file from any other SQLite file
BALLAST_BYTES = 2 * 1024 * 1024
ASIDES_KEPT = 3  # files put aside; more would let a dying disk fill itself with its own wreckage
BUSY_S = 2.0
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}

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
)
_PACKED_LONG_GAP_WH, _PACKED_NEVER_READ_WH = 1e5, 1e6  # offsets of the packed standard errors of schema version 1


class StoreError(Exception):
    """The store cannot be used now; the text says which file and what to do."""


class StoreBusy(StoreError):
    """Another process has the store open as its owner."""


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault (put it aside) rather than the moment (try again)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _CORRUPT


class Database:
    """One connection to one file, and the lock that keeps a second agent away. Not thread-safe: the store locks.

    `replaced` says why an earlier file was put aside at the last (re)opening, `volatile` why there is no file.
    """

    def __init__(self, path: str | Path, now_s: float) -> None:
        self.path = Path(path)
        self.replaced: str | None = None
        self.volatile: str | None = None
        self.salvaged = 0
        self._aside: Path | None = None
        self._lock_file: int | None = None
        self._own()
        try:
            self.connection = self._open(now_s)
        except BaseException:
            self.close_lock()
            raise

    # -- opening ----------------------------------------------------------------------------------------------------

    def _own(self) -> None:
        """Take the lock file, so that two agents never share a store."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._beside("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            log.warning("store %s cannot be locked (%s): make sure that no second agent uses it", self.path, error)
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StoreBusy(f"{self.path}: another checkmeter owns this store; stop it or set another path") from None
        self._lock_file = fd

    def _open(self, now_s: float) -> sqlite3.Connection:
        for attempt in range(2):
            try:
                connection = self._open_file()
            except sqlite3.DatabaseError as error:
                if is_corrupt(error) and attempt == 0:
                    self._put_aside(str(error), now_s)
                    continue
                if is_locked(error):
                    raise StoreBusy(f"{self.path}: {error}; another process holds it") from error
                self.volatile = f"{self.path}: {error}"
            except OSError as error:
                self.volatile = f"{self.path}: {error}"
            else:
                self.fill_ballast()
                return connection
            break
        log.error(
            "no store on disk, alerts live in memory until the next start: %s; free or mend the disk", self.volatile
        )
        connection = self._connect(":memory:")
        _migrate(connection)
        return connection

    def _open_file(self) -> sqlite3.Connection:
        fresh = not self.path.exists() or self.path.stat().st_size == 0
        connection = self._connect(str(self.path))
        try:
            if not fresh:
                self._check(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_autocheckpoint=256")  # 1 MB: half of what the ballast gives back
            _migrate(connection)
            if self._aside is not None:
                self.salvaged = _salvage(self._aside, connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _connect(name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(name, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA cache_size=-2048")  # KiB: bounds the process's memory, not the file
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Refuse a foreign, newer or damaged file.

        Raises:
            sqlite3.DatabaseError: with a code that `is_corrupt` knows.
        """
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (application or tables):
            raise _corrupt("it is an SQLite file of another program")
        if version > len(MIGRATIONS):
            raise _corrupt(f"its schema version {version} is newer than this agent's {len(MIGRATIONS)}")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _corrupt(verdict)

    # -- a file that cannot be used ----------------------------------------------------------------------------------

    def _put_aside(self, reason: str, now_s: float) -> None:
        """Rename the file and its write-ahead log; keep the latest few such files."""
        stamp = utc(now_s).strftime("%Y%m%dT%H%M%SZ")
        aside = self._beside(f"aside-{stamp}")
        while aside.exists():
            aside = aside.with_name(aside.name + "x")
        os.replace(self.path, aside)
        for tail in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{tail}", f"{aside}{tail}")
        self._aside, self.replaced = aside, f"{reason}; the file was put aside as {aside.name}"
        log.error("store %s cannot be used: %s", self.path, self.replaced)
        kept = sorted(self.path.parent.glob(f"{self.path.name}.aside-*Z*"), key=lambda p: p.stat().st_mtime)
        stale = [p for p in kept if not p.name.endswith(("-wal", "-shm"))][:-ASIDES_KEPT]
        for path in stale:
            for tail in ("", "-wal", "-shm"):
                Path(f"{path}{tail}").unlink(missing_ok=True)

    def replace(self, reason: str, now_s: float) -> None:
        """The file turned out corrupt in use: put it aside and go on with a fresh one, salvaging what can be read."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        if self.volatile is None and self.path.exists():
            self._put_aside(reason, now_s)
        self.connection = self._open(now_s)

    def close(self) -> None:
        """Close the file and give up the lock."""
        self.connection.close()
        self.close_lock()

    def close_lock(self) -> None:
        """Give up the lock."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    # -- ballast ------------------------------------------------------------------------------------------------------

    def fill_ballast(self) -> bool:
        """Set space aside that a full disk can be relieved with, so that alerts still find room. True: it is there.

        Only where as much again is free: else it would be filled and dropped by turns.
        """
        ballast = self._beside("ballast")
        if self.volatile is not None:
            return False
        try:
            if ballast.exists() and ballast.stat().st_size == BALLAST_BYTES:
                return True
            disk = os.statvfs(self.path.parent)
            if disk.f_bavail * disk.f_frsize < 2 * BALLAST_BYTES:
                return False
            fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(fd, 0, BALLAST_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            self._drop_ballast()
            log.debug("no ballast beside %s: %s", self.path, error)
            return False
        return True

    def make_room(self) -> None:
        """The disk is full: give it the ballast back, and write the log back into the file.

        Then the log is written from its beginning again, within the room that it has already; without this a log that
        cannot grow would stop every further commit.
        """
        self._drop_ballast()
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(RESTART)")

    def _drop_ballast(self) -> None:
        with contextlib.suppress(OSError):  # a disk that has turned read-only: the step is held in memory
            self._beside("ballast").unlink(missing_ok=True)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{suffix}")

    # -- transactions -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, *, full: bool) -> Iterator[sqlite3.Connection]:
        """One write transaction; `full` waits for the disk (PRAGMA synchronous=FULL) before it is over."""
        connection = self.connection
        connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled it back by itself
                connection.execute("ROLLBACK")
            raise


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another process holds the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def checksum(*parts: object) -> int:
    """CRC-32 of texts and octets, by which a salvaged row is told from garbage on a torn page."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part if isinstance(part, bytes) else str(part).encode(), crc)
    return crc


def _corrupt(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to the newest version, each step in a transaction of its own."""
    connection.create_function("flags_of_packed", 1, _flags_of_packed, deterministic=True)
    connection.create_function("sd_of_packed", 1, _sd_of_packed, deterministic=True)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id={APPLICATION_ID}; {script} PRAGMA user_version={number}; COMMIT;"
        )


def _packed(sd_wh: bytes) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Standard errors [meters] of schema version 1 as they are now: NaN where never read, with the flags beside."""
    error = np.frombuffer(sd_wh[: len(sd_wh) // 4 * 4], "<f4").astype(np.float64)
    missed, never = error < 0, (error <= -0.5 * _PACKED_NEVER_READ_WH) | np.isnan(error)
    long_gap = missed & ~never & (error < -0.5 * _PACKED_LONG_GAP_WH)
    sd = np.abs(error) - np.where(long_gap, _PACKED_LONG_GAP_WH, 0.0)
    flags = np.where(missed | never, Flag.MISSED, 0) | np.where(long_gap, Flag.LONG_GAP, 0)
    return np.where(never, np.nan, sd), (flags | np.where(never, Flag.NEVER_READ, 0)).astype(np.uint8)


def _sd_of_packed(sd_wh: bytes) -> bytes:
    return _packed(sd_wh)[0].astype("<f4").tobytes()


def _flags_of_packed(sd_wh: bytes) -> bytes:
    return _packed(sd_wh)[1].tobytes()


def _salvage(aside: Path, into: sqlite3.Connection) -> int:
    """Carry over what can be read of a file put aside and whose checksum is right; the number of rows."""
    rows = 0
    try:
        wreck = sqlite3.connect(f"file:{aside}?mode=rw", uri=True, timeout=BUSY_S)
    except sqlite3.Error:
        return 0
    with contextlib.closing(wreck):
        wreck.execute("PRAGMA writable_schema=ON")  # else a file shorter than its header says is not opened at all
        columns = "id, priority, attempts, time_s, expires_s, suffix, schema, key, body, crc"
        for table, names, order, sealed in (
            ("outbox", columns, "id", 4),
            ("outbox", columns, "id DESC", 4),  # from both ends: what lies behind the tear is read backwards
            ("checkpoint", "name, state, crc", "name", 2),
        ):
            marks = ", ".join("?" * (names.count(",") + 1))
            with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
                for row in wreck.execute(f"SELECT {names} FROM {table} ORDER BY {order}"):
                    if checksum(*row[-1 - sealed : -1]) == row[-1]:
                        rows += into.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row).rowcount
    return rows
