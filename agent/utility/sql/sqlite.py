"""SQLite as the store: one file, durable at every commit, several processes at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.utility.sql.server import StoreMisfit, StoreRefused, StoreUnavailable
from agent.utility.sql.statements import Dialect, Row, insert
from agent.utility.sql.table import Table

# Primary result codes (sqlite.org/rescode.html) after which the same transaction may succeed later.
_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_READONLY,
}
_REFUSED = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}


class Sqlite:
    """A connection to one SQLite file, which is made if it is missing and `make` says so."""

    dialect: Dialect = "sqlite"

    def __init__(self, path: Path, timeout_s: float = 5.0, *, make: bool = False) -> None:
        self.path = path
        if not make and not path.exists():
            raise StoreMisfit(f"{path}: there is no such file; checkmeter utility migrate makes a store")
        if make and not path.parent.is_dir():
            raise StoreMisfit(f"{path}: there is no folder {path.parent}")
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
            if make:  # what the file itself remembers: somebody else's file is not to be changed by a look at it
                self._connection.execute("PRAGMA page_size = 1024")
                self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: an acknowledged message is gone from the broker, so a commit must survive a power cut.
            for pragma in (
                "synchronous = FULL",
                "temp_store = MEMORY",
                "cache_size = -65536",
                "wal_autocheckpoint = 16384",
            ):
                self._connection.execute(f"PRAGMA {pragma}")

    def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement; returns its rows."""
        with self._errors():
            return self._connection.execute(statement, values).fetchall()

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Upsert the rows; returns how many were written or changed."""
        head, tail = insert(table, "sqlite")
        statement = f"{head}({', '.join('?' * len(table.columns))}){tail}"
        with self._errors(rows=True):
            return self._connection.executemany(statement, rows).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One writer at a time: the lock is taken at once, so that two replicas wait instead of failing."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def patient(self, timeout_s: float) -> Iterator[None]:
        """Nothing to do: a statement here takes as long as it takes."""
        yield

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _errors(self, *, rows: bool = False) -> Iterator[None]:
        """`rows`: it is about rows; then an error without a code is about a value that has no place in SQLite."""
        try:
            yield
        except (OverflowError, UnicodeEncodeError) as error:
            raise StoreRefused(f"{self.path}: {error}") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _TRANSIENT:
                raise StoreUnavailable(f"{self.path}: {error}") from error
            if code in _REFUSED or (rows and not code):
                raise StoreRefused(f"{self.path}: {error}") from error
            raise StoreMisfit(
                f"{self.path}: {error}; is the schema up to date (checkmeter utility migrate)?"
            ) from error
