"""Reading what the store keeps: sent events and interval history, for the store itself and for other processes.

It only reads, and never creates, migrates or mends a file: a running service owns that.
"""

from __future__ import annotations

import logging
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from agent.store.schema import text
from core.registers.align import Flag
from core.registers.booked import StoredHistory

log = logging.getLogger(__name__)

BUSY_S = 5.0
ON_GRID_S = 0.5
NOT_THERE = np.uint8(Flag.MISSED | Flag.NEVER_READ)


class ArchiveError(Exception):
    """The file cannot be read; the text names it and says what to do."""


@contextmanager
def open_archive(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the store's file, beside a running service or without one.

    Raises:
        ArchiveError: no such file, no right to read it, or no store of checkmeter.
    """
    if not Path(path).is_file():
        raise ArchiveError(f"{path}: there is no store; has the service run with this site file?")
    try:
        connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
    except sqlite3.Error as error:
        raise ArchiveError(f"{path}: {error}; read it as the service's user or as root") from error
    connection.text_factory = text
    try:
        yield connection
    except sqlite3.Error as error:
        raise ArchiveError(f"{path}: {error}; is it a store of checkmeter, and may this user read it?") from error
    finally:
        connection.close()


def read_events(db: sqlite3.Connection, suffix: str, since_s: float, until_s: float) -> list[bytes]:
    """The bodies of the events of `suffix` (`event/alert`, `event/tamper`) in [since_s, until_s], oldest first."""
    rows = db.execute(
        "SELECT body FROM event WHERE suffix = ? AND time_s BETWEEN ? AND ? ORDER BY time_s", (suffix, since_s, until_s)
    )
    return [bytes(row[0]) for row in rows]


def _names(column: object) -> list[str]:
    """The meters of a row's columns; none if the text is damaged, so that rows of theirs are left out."""
    try:
        return msgspec.json.decode(column if isinstance(column, str | bytes) else b"", type=list[str])
    except msgspec.DecodeError:
        return []


def read_history(
    db: sqlite3.Connection, since_s: float, until_s: float, meters: Sequence[str], every_s: float | None = None
) -> StoredHistory:
    """The rows of [since_s, until_s], oldest first, in the order of `meters`; a meter not in a row was never read.

    `every_s`: only the rows at its multiples.

    Rows go straight into one block each for energies and errors: months of them as objects would be three times that.
    A row that is damaged is left out.
    """
    columns = {key: _names(names) for key, names in db.execute("SELECT id, meters FROM history_meters")}
    wanted = list(meters)
    times_s, booked, errors, states = array("d"), bytearray(), bytearray(), bytearray()
    for time_s, key, wh, sd_wh, flags in db.execute(
        "SELECT time_s, meters, wh, sd_wh, flags FROM history WHERE time_s BETWEEN ? AND ? ORDER BY time_s",
        (since_s, until_s),
    ):
        if every_s is not None and abs(time_s - round(time_s / every_s) * every_s) > ON_GRID_S:
            continue
        there = columns.get(key)
        sizes = [len(blob) if isinstance(blob, bytes) else -1 for blob in (wh, sd_wh, flags)]
        if there is None or sizes != [8 * len(there), 4 * len(there), len(there)]:
            log.warning("history: the row of %.0f is damaged and left out", time_s)
            continue
        if there != wanted:
            place = {meter: i for i, meter in enumerate(there)}
            take = [place.get(meter, -1) for meter in wanted]  # the last: not there
            wh = np.append(np.frombuffer(wh, "<f8"), np.nan)[take].tobytes()
            sd_wh = np.append(np.frombuffer(sd_wh, "<f4"), np.float32(np.nan))[take].tobytes()
            flags = np.append(np.frombuffer(flags, np.uint8), NOT_THERE)[take].tobytes()
        times_s.append(time_s)
        booked += wh
        errors += sd_wh
        states += flags
    shape = (len(times_s), len(wanted))
    return StoredHistory(
        np.array(times_s),
        np.frombuffer(booked, "<f8").astype(np.float64, copy=False).reshape(shape),
        np.frombuffer(errors, "<f4").astype(np.float32, copy=False).reshape(shape),
        np.frombuffer(states, np.uint8).reshape(shape),
    )
