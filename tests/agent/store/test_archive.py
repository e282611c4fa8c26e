"""Reading the store's history: whole rows as stored, and none that is damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.store.commit import Commit
from agent.store.database import APPLICATION_ID, MIGRATIONS
from agent.store.history import open_archive, read_history
from agent.store.store import Store
from core.registers.align import Flag
from core.registers.booked import HistoryRow

T0 = 1_767_225_600.0
METERS = ("main", "f1", "f2")


@pytest.mark.parametrize(
    "damage",
    ["wh = substr(wh, 1, 20)", "sd_wh = x''", "flags = x'01'", "wh = wh || x'00'", "meters = 99"],
)
def test_a_damaged_row_is_left_out_and_the_others_are_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkmeter.sqlite"
    wh = np.arange(30.0).reshape(10, 3)
    history = [HistoryRow(T0 + 900 * n, row, np.full(3, 0.5), np.full(3, n, np.uint8)) for n, row in enumerate(wh)]
    store = Store(path, T0)
    store.commit(Commit(meters=METERS, history=history), T0)
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE history SET {damage} WHERE time_s = ?", (T0 + 3600,))
        db.commit()
    with open_archive(path) as db:
        rows = read_history(db, T0, T0 + 9 * 900, METERS)
    whole = [0, 1, 2, 3, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(rows.times_s, T0 + 900 * np.array(whole))
    np.testing.assert_array_equal(rows.wh, wh[whole])
    np.testing.assert_array_equal(rows.sd_wh, np.full((9, 3), 0.5))
    np.testing.assert_array_equal(rows.flags, np.repeat(whole, 3).reshape(9, 3))


def test_a_history_of_the_first_schema_is_read_with_its_gaps(tmp_path: Path) -> None:
    """In version 1 a negative error meant not read, one beyond -1e5 a long gap, one beyond -1e6 never read."""
    path = tmp_path / "checkmeter.sqlite"
    packed = np.array([12.5, -(700.0 + 1e-3), -(1e5 + 900.0), -1e6, np.nan], "<f4")
    meters = ["main", "f1", "f2", "f3", "f4"]
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA application_id={APPLICATION_ID}; {MIGRATIONS[0]} PRAGMA user_version=1;")
        db.execute("INSERT INTO history_meters VALUES (1, ?)", (msgspec.json.encode(meters).decode(),))
        db.execute("INSERT INTO history VALUES (?, 1, ?, ?)", (T0, np.arange(5.0).tobytes(), packed.tobytes()))
        db.commit()
    Store(path, T0).close()
    with open_archive(path) as db:
        rows = read_history(db, T0, T0, meters)
    np.testing.assert_allclose(rows.sd_wh[0], [12.5, 700.0, 900.0, np.nan, np.nan], rtol=1e-4)
    never = Flag.MISSED | Flag.NEVER_READ
    assert rows.flags[0].tolist() == [0, Flag.MISSED, Flag.MISSED | Flag.LONG_GAP, never, never]
