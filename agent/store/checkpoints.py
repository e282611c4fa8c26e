"""States by name, sealed: what is written of them, and what is not because the file has it already.

It owns which state of each name is known to be in the file. It refuses to know what a state means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from agent.store.schema import checksum

Read = Callable[[str, tuple[object, ...]], list[Any]]  # the rows of a query; none where the file cannot be read


class Checkpoints:
    """The table of checkpoints. Not thread-safe: the store locks."""

    def __init__(self) -> None:
        self._in_file: dict[str, int] = {}  # name -> checksum

    def write(self, db: sqlite3.Connection, states: Mapping[str, bytes]) -> dict[str, int]:
        """Put what has changed into the transaction; to be handed to `committed` once it is over."""
        sums = {name: checksum(name, state) for name, state in states.items()}
        for name, crc in sums.items():
            if self._in_file.get(name) != crc:
                db.execute("REPLACE INTO checkpoint VALUES (?, ?, ?)", (name, states[name], crc))
        return sums

    def committed(self, sums: Mapping[str, int]) -> None:
        """The transaction is in the file."""
        self._in_file |= sums

    def forget(self) -> None:
        """It is another file now, or one that has lost some: everything is written again."""
        self._in_file.clear()


def read(query: Read, name: str) -> bytes | None:
    """The last committed state under `name`; None where there is none, or its checksum is wrong."""
    for state, crc in query("SELECT state, crc FROM checkpoint WHERE name = ?", (name,)):
        if isinstance(state, bytes) and checksum(name, state) == crc:
            return state
    return None


def read_parts(query: Read, name: str) -> dict[str, bytes]:
    """The last committed states under `name` and `name.*`; without those whose checksum is wrong."""
    rows = query("SELECT name FROM checkpoint WHERE name = ? OR name GLOB ?", (name, f"{name}.*"))
    found = {str(part): read(query, str(part)) for (part,) in rows}
    return {part: state for part, state in found.items() if state is not None}
