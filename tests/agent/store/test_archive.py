"""Reading the store's history: whole rows as stored, and none that is damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from agent.store.commit import Commit
from agent.store.history import open_archive, read_history
from agent.store.store import Store
from core.registers.booked import HistoryRow

T0 = 1_767_225_600.0
METERS = ("main", "f1", "f2")


@pytest.mark.parametrize(
    "damage",
    ["wh = substr(wh, 1, 20)", "sd_wh = x''", "wh = wh || x'00'", "meters = 99"],
)
def test_a_damaged_row_is_left_out_and_the_others_are_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkmeter.sqlite"
    wh = np.arange(30.0).reshape(10, 3)
    history = [HistoryRow(T0 + 900 * n, row, np.full(3, -0.5)) for n, row in enumerate(wh)]
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
    np.testing.assert_array_equal(rows.sd_wh, np.full((9, 3), -0.5))
