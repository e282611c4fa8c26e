"""A store whose octets changed by themselves: it opens, sends nothing that was not queued, and hides no new alert."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from agent.store.commit import Answered, Commit
from agent.store.messages import Message, Priority
from agent.store.store import Store
from core.registers.booked import HistoryRow

T0 = 1_767_225_600.0
FLIPS = int(os.environ.get("CHECKMETER_FLIPS", "150"))  # 2000 for the proof
ALL = tuple(Priority)
SUFFIX = {
    Priority.ALERT: "event/alert",
    Priority.TAMPER: "event/tamper",
    Priority.ANSWER: "cmd/res",
    Priority.BALANCE: "balance/b",
    Priority.EVIDENCE: "evidence/a/1-1",
}


def message(key: str, priority: Priority = Priority.ALERT) -> Message:
    body = f'{{"id":"{key}","data":"{"x" * 300}"}}'.encode()
    return Message(SUFFIX[priority], body, "checkmeter.alert.v1", priority, key, T0 + len(key))


QUEUED = {m.key: m for priority in ALL for m in (message(f"{priority.name}-{n}", priority) for n in range(60))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with messages of all priorities, history, a checkpoint and a command."""
    path = tmp_path_factory.mktemp("whole") / "store.sqlite"
    store = Store(path, T0)
    history = [HistoryRow(T0 + 900 * n, np.full(20, 1.0 * n), np.zeros(20), np.zeros(20, np.uint8)) for n in range(100)]
    meters = [f"m{n}" for n in range(20)]
    answers = [Answered("c-1", T0 + 600, b'{"status":"done"}')]
    assert store.commit(Commit([*QUEUED.values()], {"alerts": b"open" * 500}, meters, history, answers), T0)
    store.close()
    return path


def survives(path: Path) -> tuple[int, int]:
    """Open, send, commit a new alert, read it back: what is left of the alerts, and how many were put aside."""
    store = Store(path, T0)
    try:
        sent: dict[str, Message] = {}
        for _ in range(20):
            batch = store.pending(100, ALL)
            if not batch:
                break
            for out in batch:
                known = QUEUED.get(out.message.key)
                assert known is not None, f"a message that nobody queued: {out.message.key!r}"
                assert out.message.body == known.body, "a damaged body was handed out for sending"
                assert out.message.suffix == known.suffix
                assert out.message.priority > Priority.TAMPER or out.message.expires_s is None
                sent[out.message.key] = out.message
            store.delete([out.id for out in batch])
        assert store.commit(Commit([message("new")], {"alerts": b"new"}), T0)
        assert "new" in {out.message.key for out in store.pending(1000, ALL)}, "a new alert is hidden"
        assert store.checkpoint("alerts") == b"new"
        store.history(-1e18, 1e18, ["m0", "m19"])
        store.resend(T0 - 1e6, T0 + 1e6, 1000)
        return sum(key.startswith("ALERT") for key in sent), store.counters.damaged
    finally:
        store.close()


@pytest.mark.timeout(900)
def test_flipped_octets(whole: Path, tmp_path: Path) -> None:
    rng = random.Random(20261124)
    octets, kept = whole.read_bytes(), []
    for n in range(FLIPS):
        path = tmp_path / f"{n}.sqlite"
        changed = bytearray(octets)
        # A third within the first pages, where the schema and the roots of the tables stand.
        top = 11 * 4096 if n % 3 == 0 else len(changed)
        for _ in range(rng.choice((1, 1, 1, 5, 50, 500))):
            changed[rng.randrange(min(top, len(changed)))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        kept.append(survives(path)[0])
        for left in tmp_path.iterdir():
            left.unlink()
    print(f"{FLIPS} files with flipped octets: all opened; alerts kept: median {sorted(kept)[len(kept) // 2]} of 60")
    assert sorted(kept)[len(kept) // 2] >= 55


@pytest.mark.parametrize("column", ["suffix", "schema", "key", "body", "priority", "time_s", "expires_s", "crc"])
@pytest.mark.parametrize("value", ["X'6576656e742fff'", "NULL", "'text'", "-116", "1e308", "X''"])
def test_one_row_that_is_not_what_was_queued_stops_no_other(
    whole: Path, tmp_path: Path, column: str, value: str
) -> None:
    path = tmp_path / "store.sqlite"
    shutil.copy(whole, path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA ignore_check_constraints=ON")
    db.execute("PRAGMA writable_schema=ON")
    (schema,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'outbox'").fetchone()
    loose = schema.replace("NOT NULL", "").replace("REAL", "").replace("priority INTEGER", "priority")
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'outbox'", (loose,))
    db.close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(
        f"UPDATE outbox SET {column} = CAST({value} AS TEXT) WHERE key = 'ALERT-30'"
        if value.startswith("X'6")
        else f"UPDATE outbox SET {column} = {value} WHERE key = 'ALERT-30'"
    )
    db.close()
    alerts, damaged = survives(path)
    assert alerts >= 59
    assert damaged <= 1


def test_what_was_commanded_and_sent_is_remembered_when_the_file_is_put_aside(whole: Path, tmp_path: Path) -> None:
    """Or a command that comes again would be carried out again, and an event sent under a second id."""
    path = tmp_path / "store.sqlite"
    octets = whole.read_bytes()
    path.write_bytes(octets[:-5000])
    store = Store(path, T0)
    assert store.replaced is not None
    assert store.answer_of("c-1") == b'{"status":"done"}'
    before = store.counters.messages
    store.commit(Commit([message("ALERT-1")]), T0)  # it was sent before
    assert store.counters.messages == before
    store.close()


def test_a_file_that_is_deleted_in_use_is_written_again_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "store.sqlite"
    store = Store(path, T0)
    store.commit(Commit([message(f"ALERT-{n}") for n in range(20)], {"alerts": b"open"}), T0)
    shutil.rmtree(path.parent)
    store.commit(Commit([message("ALERT-20")]), T0 + 6)
    assert store.replaced is not None
    store.commit(Commit([message("ALERT-21")]), T0 + 7)
    shutil.copytree(path.parent, tmp_path / "disk")  # as after kill -9: nothing is closed in order
    store.close()
    again = Store(tmp_path / "disk" / path.name, T0)
    assert {o.message.key for o in again.pending(100, ALL)} == {f"ALERT-{n}" for n in range(22)}
    assert again.checkpoint("alerts") == b"open"
    again.close()


def test_another_file_in_its_place_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = Store(path, T0)
    store.commit(Commit([message("ALERT-1")]), T0)
    path.unlink()
    path.write_bytes(b"not a database")
    store.tick(T0 + 6)
    assert [o.message.key for o in store.pending(10, ALL)] == ["ALERT-1"]
    store.close()
    assert len([p for p in tmp_path.glob("*.aside-*") if not p.name.endswith(("-wal", "-shm"))]) == 1
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM outbox").fetchone() == (1,)


def test_a_store_in_memory_moves_into_a_file_as_soon_as_there_can_be_one(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.write_text("in the way")
    store = Store(folder / "store.sqlite", T0)
    assert store.volatile is not None
    store.commit(Commit([message("ALERT-1")], {"alerts": b"open"}), T0)
    folder.unlink()
    store.tick(T0 + 6)
    assert store.volatile is None
    store.commit(Commit([message("ALERT-2")]), T0 + 7)
    store.close()
    again = Store(folder / "store.sqlite", T0)
    assert {o.message.key for o in again.pending(10, ALL)} == {"ALERT-1", "ALERT-2"}
    assert again.checkpoint("alerts") == b"open"
    again.close()
