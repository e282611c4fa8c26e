"""The form of one table: its columns and their types, its key, and what a second row of the same key does.

It knows no table of the fleet's store (agent.utility.sql.schema) and no statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NAME = "VARCHAR(64)"
REQUIRED_NAME = "VARCHAR(64) NOT NULL"
KEY = "BIGINT NOT NULL"
INTEGER = "BIGINT NOT NULL"
EVENT = "BINARY(16) NOT NULL"
SHA256 = "CHAR(64)"

# What a second row of the same key does: nothing; replace, if its guard column is higher; add to the first.
Merge = Literal["first", "newest", "add"]


@dataclass(frozen=True, eq=False)
class Table:
    """One table: `columns` are (name, type); the first `keys` of them are the clustered primary key.

    `merge` says what a repeated key does; "newest" compares the column `guard`, which must come last; "add" refuses a
    row whose `guard` differs from that of the row that is there, and without a guard takes the new one's. `numbers`
    holds if every column is an integer: such rows need no quoting. `by_time` names the key's column of time: on one
    node (SQLite) rows lie by it, so that the fleet's next interval fills a few pages instead of touching one page
    for each building (8 times fewer octets written); on a distributed store it must not come first. `partitioned`
    by day of that column, where the server can. Each table is one object, compared by identity.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    keys: int
    merge: Merge
    guard: str = ""
    numbers: bool = False
    by_time: str = ""
    partitioned: bool = False
    index: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _ in self.columns)

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the primary key's columns."""
        return self.names[: self.keys]
