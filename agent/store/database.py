"""The SQLite file: opened, checked, migrated; put aside and salvaged when it is torn or foreign; its ballast.

It owns the file; what the tables mean is `agent.store.store`'s. A file that cannot be used never keeps the agent from
starting: a torn or foreign one is renamed with the time behind its name, what can still be read of it is carried over
(agent.store.salvage), and the caller is told. Where no file can be had at all (a full disk, a
read-only one), the tables live in memory until one can. A file that is deleted or exchanged while it is in use is
written again from the connection that still has all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agent.store.salvage import BUSY_S, carry_over, salvage
from agent.store.schema import APPLICATION_ID, MIGRATIONS, migrate, text
from agent.wire.values import utc

log = logging.getLogger(__name__)

BALLAST_BYTES = 2 * 1024 * 1024
ASIDES_KEPT = 3  # files put aside; more would let a dying disk fill itself with its own wreckage
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


class StoreError(Exception):
    """The store cannot be used now; the text says which file and what to do."""


class StoreBusy(StoreError):
    """Another process has the store open as its owner."""


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault (put it aside) rather than the moment (try again)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _CORRUPT


def is_misshapen(error: sqlite3.Error) -> bool:
    """Whether a file that opens does not have the tables that it should have."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_ERROR


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
        self._file: tuple[int, int] | None = None  # which file was opened
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
        self.volatile = None
        for attempt in range(2):
            try:
                connection = self._open_file()
            except StoreBusy:
                raise
            except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:  # whatever stands in the file
                if attempt == 0 and (not isinstance(error, sqlite3.Error) or is_corrupt(error) or is_misshapen(error)):
                    try:
                        self._put_aside(str(error), now_s)
                    except OSError as failed:
                        self.volatile = f"{self.path}: {error}, and it cannot be put aside: {failed}"
                        break
                    continue
                if isinstance(error, sqlite3.Error) and is_locked(error):
                    raise StoreBusy(f"{self.path}: {error}; another process holds it") from error
                self.volatile = f"{self.path}: {error}"
            except OSError as error:
                self.volatile = f"{self.path}: {error}"
            else:
                self.fill_ballast()
                self._file = self._identity()
                return connection
            break
        log.error(
            "no store on disk, alerts live in memory until there is one: %s; free or mend the disk", self.volatile
        )
        connection = self._connect(":memory:")
        migrate(connection)
        return connection

    def _open_file(self) -> sqlite3.Connection:
        fresh = not self.path.exists() or self.path.stat().st_size == 0
        connection = self._connect(str(self.path))
        try:
            if not fresh:
                self._check(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_autocheckpoint=256")  # 1 MB: half of what the ballast gives back
            migrate(connection)
            if self._aside is not None:
                self.salvaged = salvage(self._aside, connection)
                self._aside = None
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _connect(name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(name, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.text_factory = text
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
            raise corrupt("it is an SQLite file of another program")
        if version > len(MIGRATIONS):
            raise corrupt(f"its schema version {version} is newer than this agent's {len(MIGRATIONS)}")
        if not tables:
            return  # a first start that came no further
        # The index of the outbox decides what is sent: one that lacks a row would hide an alert from us for ever.
        for check in ("quick_check(1)", "integrity_check(outbox)", "integrity_check(event)"):
            (verdict,) = connection.execute(f"PRAGMA {check}").fetchone()
            if verdict != "ok":
                raise corrupt(verdict)

    # -- a file that cannot be used ----------------------------------------------------------------------------------

    def _put_aside(self, reason: str, now_s: float, *, salvaging: bool = True) -> None:
        """Rename the file and its write-ahead log; keep the latest few such files."""
        stamp = utc(now_s).strftime("%Y%m%dT%H%M%SZ")
        aside = self._beside(f"aside-{stamp}")
        while aside.exists():
            aside = aside.with_name(aside.name + "x")
        os.replace(self.path, aside)
        for tail in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{tail}", f"{aside}{tail}")
        self._aside = aside if salvaging else None
        self.replaced = f"{reason}; the file was put aside as {aside.name}"
        log.error("store %s cannot be used: %s", self.path, self.replaced)
        kept = sorted(self.path.parent.glob(f"{self.path.name}.aside-*Z*"), key=lambda p: p.stat().st_mtime)
        stale = [p for p in kept if not p.name.endswith(("-wal", "-shm"))][:-ASIDES_KEPT]
        for path in stale:
            for tail in ("", "-wal", "-shm"):
                Path(f"{path}{tail}").unlink(missing_ok=True)

    def replace(self, reason: str, now_s: float) -> None:
        """The file turned out corrupt in use: put it aside and go on with a fresh one, salvaging what can be read.

        Never raises for the file's sake: where it cannot even be renamed, the tables live in memory.
        """
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        try:
            if self.volatile is None and self.path.exists():
                self._put_aside(reason, now_s)
            self.connection = self._open(now_s)
        except (OSError, StoreError) as error:
            self.volatile = f"{self.path}: {reason}; {error}"
            log.error("store: %s", self.volatile)
            self.connection = self._connect(":memory:")
            migrate(self.connection)

    # -- a file that is gone -----------------------------------------------------------------------------------------

    def look_after_file(self, now_s: float) -> bool:
        """Whether the file is where it belongs; if not, write it again from what the connection still has.

        A store that lives in memory gets its file as soon as there can be one. True: something was mended just now.
        """
        if self.volatile is not None:
            return self._leave_memory(now_s)
        if self._file is None or self._identity() == self._file:
            return False
        beside = self._beside("rebuilt")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as rebuilt:
                self.connection.backup(rebuilt)
                rebuilt.execute("PRAGMA journal_mode=DELETE")  # one whole file, which can be renamed
            if self.path.exists():
                self._put_aside("another file was put in the place of the store", now_s, salvaging=False)
            for tail in ("-wal", "-shm"):
                Path(f"{self.path}{tail}").unlink(missing_ok=True)
            os.replace(beside, self.path)
        except (OSError, sqlite3.Error) as error:
            log.error("store %s is gone, and cannot be written again: %s", self.path, error)
            return False
        self.replaced = "the file was deleted or exchanged while it was in use; it was written again from memory"
        log.error("store %s: %s", self.path, self.replaced)
        # Closed before the new one is opened: closing removes the write-ahead log by its name.
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self.close_lock()
        with contextlib.suppress(StoreBusy):
            self._own()
        self.connection = self._open(now_s)
        return True

    def _leave_memory(self, now_s: float) -> bool:
        """Try again to have a file, and carry over what waits in memory."""
        memory, reason = self.connection, self.volatile
        with contextlib.suppress(StoreBusy):
            if self._lock_file is None:
                self._own()
            self.connection = self._open(now_s)
        if self.volatile is not None:
            self.connection, self.volatile = memory, reason
            return False
        try:
            carry_over(memory, self.connection)
        except sqlite3.Error as error:
            log.error("store %s: what waits in memory cannot be written: %s", self.path, error)
            self.connection.close()
            self.connection, self.volatile = memory, reason
            return False
        memory.close()
        log.warning("store %s: there is a file again", self.path)
        return True

    def _identity(self) -> tuple[int, int] | None:
        """Device and inode of what is at the path."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

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


def corrupt(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
