"""The seam to a SQL server, and what can go wrong with one: each error answers "who acts next?".

`Sqlite` and `Mysql` are the two servers; `agent.utility.sql.store` is what uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from agent.utility.sql.statements import Dialect, Row
from agent.utility.sql.table import Table


class StoreError(Exception):
    """Base: the store did not do what it was asked."""


class StoreUnavailable(StoreError):
    """The server is gone, busy, full or in conflict: the same transaction may be tried again, after a while."""


class StoreRefused(StoreError):
    """The server refuses a row (too long, out of range, not its character set): find it, and put it aside."""


class StoreMisfit(StoreError):
    """The server's schema, rights or version do not fit: an operator acts next (`checkmeter utility migrate`)."""


class Server(Protocol):
    """One connection to a SQL server; used by one thread."""

    dialect: Dialect

    def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement, `?` standing for each value; returns its rows, if it has any."""

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Upsert the rows by the table's merge; for "first", returns how many of them were new."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commit at the end, or roll back if the block raises."""

    def patient(self, timeout_s: float) -> AbstractContextManager[None]:
        """Let single statements take so long while the block runs: changes of the schema."""

    def close(self) -> None:
        """Close the connection."""
