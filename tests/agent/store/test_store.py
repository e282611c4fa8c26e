"""The store: one transaction, priorities and cap, restarts, and every way in which a disk lets one down."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.store.commit import Commit
from agent.store.database import StoreBusy
from agent.store.held import HELD_MAX
from agent.store.messages import Message, Priority
from agent.store.schema import APPLICATION_ID, MIGRATIONS
from agent.store.store import Store
from core.registers.booked import HistoryRow

T0 = 1_767_225_600.0
ALL = tuple(Priority)


def message(key: str, priority: Priority = Priority.ALERT, time_s: float = T0, size: int = 100) -> Message:
    suffix = {Priority.ALERT: "event/alert", Priority.TAMPER: "event/tamper"}.get(priority, "balance/b")
    return Message(suffix, key.encode().ljust(size, b"."), "checkmeter.alert.v1", priority, key, time_s)


def keys(store: Store, limit: int = 10_000, priorities: tuple[Priority, ...] = ALL) -> list[str]:
    return [o.message.key for o in store.pending(limit, priorities)]


@contextlib.contextmanager
def opened(path: Path, **options: float) -> Iterator[Store]:
    store = Store(path, T0, **options)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkmeter.sqlite"


def row(time_s: float, *wh: float) -> HistoryRow:
    return HistoryRow(time_s, np.array(wh), np.full(len(wh), 0.5), np.zeros(len(wh), np.uint8))


# -- one transaction ------------------------------------------------------------------------------------------------


def test_alert_and_checkpoint_come_back_together(path: Path) -> None:
    with opened(path) as store:
        assert store.commit(Commit([message("a")], {"detector": b"state 1"}), T0)
    with opened(path) as store:
        assert keys(store) == ["a"]
        assert store.checkpoint("detector") == b"state 1"
        assert store.checkpoint("none") is None
        assert (store.counters.messages, store.counters.bytes) == (1, 100)


class Killed(BaseException):
    """Stands for the end of the process at a probe."""


def test_a_state_that_has_not_changed_is_not_written_again_and_one_that_the_file_has_lost_is(path: Path) -> None:
    large = bytes(range(256)) * 1000

    def log_octets(store: Store, n: int, state: bytes) -> int:
        wal = path.with_name(path.name + "-wal")
        before = wal.stat().st_size
        store._database.connection.execute("PRAGMA wal_autocheckpoint=0")
        assert store.commit(Commit([], {"pipeline": b"head %d" % n, "pipeline.model-0": state}), T0)
        return wal.stat().st_size - before

    with opened(path) as store:
        assert log_octets(store, 1, large) > len(large)
        assert log_octets(store, 2, large) < 20_000
        assert log_octets(store, 3, large[::-1]) > len(large)
        assert store.checkpoints("pipeline") == {"pipeline": b"head 3", "pipeline.model-0": large[::-1]}
        assert store.drop_history_after(T0) == 0  # a wrong clock: the checkpoint is given up
        assert store.checkpoints("pipeline") == {}
        assert log_octets(store, 4, large[::-1]) > len(large)
    with opened(path) as store:
        path.unlink()
        store.tick(T0 + 60.0)  # written again from memory
        assert store.commit(Commit([], {"pipeline": b"head 5", "pipeline.model-0": large[::-1]}), T0 + 60.0)
    with opened(path) as store:
        assert store.checkpoints("pipeline") == {"pipeline": b"head 5", "pipeline.model-0": large[::-1]}
        store.commit(Commit([], {"pipelines": b"of another name", "pipeline.x": b"y"}), T0)
        assert set(store.checkpoints("pipeline")) == {"pipeline", "pipeline.model-0", "pipeline.x"}


@pytest.mark.parametrize("step", ["store.begin", "store.inserted", "store.before-commit"])
def test_a_state_of_a_commit_that_failed_is_written_by_the_next(path: Path, step: str) -> None:
    def probe(here: str) -> None:
        if here == step and armed:
            armed.clear()
            raise sqlite3.OperationalError("the disk hiccups") if here != "store.begin" else KeyboardInterrupt

    armed: list[int] = []
    store = Store(path, T0, probe=probe)
    store.commit(Commit([], {"pipeline": b"one"}), T0)
    armed.append(1)
    with contextlib.suppress(KeyboardInterrupt):
        store.commit(Commit([], {"pipeline": b"two"}), T0)
    store.commit(Commit([], {"pipeline": b"two"}), T0)
    store.close()
    with opened(path) as store:
        assert store.checkpoint("pipeline") == b"two"


@pytest.mark.parametrize("step", ["store.begin", "store.inserted", "store.before-commit"])
def test_an_end_before_the_commit_leaves_neither_alert_nor_checkpoint(path: Path, step: str) -> None:
    def probe(name: str) -> None:
        if armed and name == step:
            raise Killed

    armed = False
    store = Store(path, T0, probe=probe)
    store.commit(Commit([message("a")], {"detector": b"1"}), T0)
    armed = True
    with pytest.raises(Killed):
        store.commit(Commit([message("b")], {"detector": b"2"}), T0)
    armed = False
    assert keys(store) == ["a"]
    assert store.checkpoint("detector") == b"1"
    store.close()


def test_an_alert_waits_for_the_disk_and_a_balance_does_not(path: Path) -> None:
    with opened(path) as store:
        statements: list[str] = []
        store._database.connection.set_trace_callback(statements.append)
        store.commit(Commit([message("b", Priority.BALANCE)]), T0)
        store.commit(Commit([message("a")]), T0)
        assert [s for s in statements if s.startswith("PRAGMA")] == [
            "PRAGMA synchronous=NORMAL",
            "PRAGMA synchronous=FULL",
        ]


def test_an_event_is_queued_once_even_after_it_was_delivered_and_the_agent_restarted(path: Path) -> None:
    with opened(path) as store:
        store.commit(Commit([message("a"), message("a")]), T0)
        assert store.delete([o.id for o in store.pending(10, ALL)])
        store.commit(Commit([message("a")]), T0)
        assert keys(store) == []
    with opened(path) as store:
        store.commit(Commit([message("a")]), T0)
        assert keys(store) == []
        assert store.resend(T0 - 1, T0 + 1, 10) == 1
        assert keys(store) == ["a"]
        assert store.resend(T0 - 1, T0 + 1, 10) == 0


# -- order and cap --------------------------------------------------------------------------------------------------


def test_alerts_go_first_and_newest_first_then_tamper_balance_evidence(path: Path) -> None:
    with opened(path) as store:
        for i, priority in enumerate([Priority.EVIDENCE, Priority.BALANCE, Priority.TAMPER, Priority.ALERT] * 2):
            store.commit(Commit([message(f"{priority.name}-{i}", priority, T0 + i)]), T0)
        assert keys(store) == [
            "ALERT-7", "ALERT-3", "TAMPER-6", "TAMPER-2", "BALANCE-5", "BALANCE-1", "EVIDENCE-4", "EVIDENCE-0",
        ]  # fmt: skip
        first = store.pending(1, ALL)[0]
        assert keys(store, 1, (Priority.BALANCE,)) == ["BALANCE-5"]
        assert [o.message.key for o in store.pending(1, ALL, {first.id})] == ["ALERT-3"]
        store.refused(first.id)
        assert keys(store, 2) == ["ALERT-3", "ALERT-7"]


def test_the_cap_evicts_the_oldest_of_the_lowest_priority_only_and_never_alerts(path: Path) -> None:
    with opened(path, outbox_bytes=1000) as store:
        for i in range(5):
            store.commit(Commit([message(f"e{i}", Priority.EVIDENCE, T0 + i)]), T0)
        for i in range(5):
            store.commit(Commit([message(f"b{i}", Priority.BALANCE, T0 + i)]), T0)
        store.commit(Commit([message("a0"), message("a1", time_s=T0 + 1)]), T0)
        assert keys(store) == ["a1", "a0", "b4", "b3", "b2", "b1", "b0", "e4", "e3", "e2"]
        for i in range(2, 30):
            store.commit(Commit([message(f"a{i}", time_s=T0 + i)]), T0)
        assert keys(store) == [f"a{i}" for i in reversed(range(30))]
        assert store.counters.evicted == 10
        assert (store.counters.messages, store.counters.bytes) == (30, 3000)


def test_counters_follow_deletion(path: Path) -> None:
    with opened(path) as store:
        store.commit(Commit([message(str(i), Priority.BALANCE, T0 + i) for i in range(50)]), T0)
        ids = [o.id for o in store.pending(20, ALL)]
        store.delete(ids)
        store.delete(ids)  # again: nothing more is taken off
        assert (store.counters.messages, store.counters.bytes) == (30, 3000)
        assert store.oldest_s() == T0
        assert store.delete_keys(["3", "nobody"]) == 1


# -- history --------------------------------------------------------------------------------------------------------


def test_history_comes_back_in_the_order_asked_for_also_after_a_meter_was_added(path: Path) -> None:
    with opened(path) as store:
        store.commit(Commit(meters=("main", "f1"), history=[row(T0, 5.0, 1.0), row(T0 + 900, 6.0, np.nan)]), T0)
        store.commit(Commit(meters=("main", "f1", "f2"), history=[row(T0 + 1800, 7.0, 2.0, 3.0)]), T0)
        rows = store.history(T0, T0 + 1800, ("f2", "main"))
        assert rows.times_s.tolist() == [T0, T0 + 900, T0 + 1800]
        np.testing.assert_array_equal(rows.wh, [[np.nan, 5.0], [np.nan, 6.0], [3.0, 7.0]])
        np.testing.assert_array_equal(rows.sd_wh, [[np.nan, 0.5], [np.nan, 0.5], [0.5, 0.5]])
        np.testing.assert_array_equal(store.history(T0 + 900, T0 + 901, ("main", "f1")).wh, [[6.0, np.nan]])


def test_history_and_sent_events_past_their_time_go(path: Path) -> None:
    with opened(path, history_days=1) as store:
        store.commit(Commit([message("old")], meters=("m",), history=[row(T0, 1.0)]), T0)
        store.commit(Commit(meters=("m",), history=[row(T0 + 86400 + 1, 2.0)]), T0)
        assert store.history(0, 1e12, ("m",)).times_s.tolist() == [T0 + 86401]
        assert store.resend(0, 1e12, 10) == 0
        assert keys(store) == ["old"]  # what waits is not touched


# -- bad files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"\x00" * 8192, b"SQLite format 3\x00" + b"\xff" * 4000]
)
def test_a_file_that_is_no_database_is_put_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with opened(path) as store:
        assert store.replaced is not None
        store.commit(Commit([message("a")]), T0)
        assert keys(store) == ["a"]
    (aside,) = path.parent.glob("*.aside-20260101T000000Z")
    assert aside.read_bytes() == content


def test_an_empty_file_is_a_fresh_start(path: Path) -> None:
    path.touch()
    with opened(path) as store:
        assert store.replaced is None


def test_a_file_of_another_program_and_one_of_a_newer_agent_are_put_aside(path: Path) -> None:
    for statement in ("CREATE TABLE other (x)", f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=99"):
        with contextlib.closing(sqlite3.connect(path)) as foreign:
            foreign.executescript(statement + "; CREATE TABLE IF NOT EXISTS y (z);")
        with opened(path) as store:
            assert store.replaced is not None
        path.unlink()


def test_a_torn_file_is_put_aside_and_what_can_be_read_is_carried_over(path: Path) -> None:
    with opened(path) as store:
        store.commit(Commit([message(f"k{i}", time_s=T0 + i, size=900) for i in range(200)], {"detector": b"x"}), T0)
    whole = path.read_bytes()
    page = 4096
    for cut in (len(whole) - 3 * page, len(whole) - page - 100, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with opened(path) as store:
            assert store.replaced is not None
            found = keys(store)
            assert set(found) <= {f"k{i}" for i in range(200)}
            assert len(found) >= (190 if cut > len(whole) - 4 * page else 20)
            assert all(o.message.body.startswith(o.message.key.encode() + b".") for o in store.pending(300, ALL))
            store.commit(Commit([message("new")]), T0)
            assert "new" in keys(store)
        path.unlink()


def test_only_the_latest_few_files_put_aside_are_kept(path: Path) -> None:
    for i in range(6):
        path.write_bytes(f"torn {i}".encode() * 100)
        with opened(path):
            pass
        path.unlink()
    kept = [p for p in path.parent.glob("*.aside-*") if not p.name.endswith(("-wal", "-shm"))]
    assert sorted(p.read_bytes()[:6] for p in kept) == [b"torn 3", b"torn 4", b"torn 5"]


def test_a_damaged_page_in_the_middle_costs_at_most_what_stood_on_it(path: Path) -> None:
    with opened(path) as store:
        store.commit(Commit([message(f"k{i}", time_s=T0 + i, size=900) for i in range(200)]), T0)
    whole = bytearray(path.read_bytes())
    at = whole.find(b"k100.") // 4096 * 4096
    whole[at : at + 4096] = b"\xa5" * 4096
    path.write_bytes(whole)
    with opened(path) as store:
        assert store.replaced is not None
        assert len(keys(store)) >= 190


def test_a_torn_write_ahead_log_keeps_every_whole_transaction(path: Path, tmp_path: Path) -> None:
    store = Store(path, T0)
    sizes = []
    for i in range(12):
        store.commit(Commit([message(f"k{i}", time_s=T0 + i)], {"detector": str(i).encode()}), T0)
        sizes.append(Path(f"{path}-wal").stat().st_size)
    rng = np.random.default_rng(7)
    wal = Path(f"{path}-wal").read_bytes()
    for trial, cut in enumerate([0, 31, *rng.integers(32, len(wal), 20).tolist(), len(wal)]):
        copy = tmp_path / f"copy{trial}" / "checkmeter.sqlite"
        copy.parent.mkdir()
        shutil.copy(path, copy)
        Path(f"{copy}-wal").write_bytes(wal[:cut] + b"\x5a" * (trial % 3 * 100))
        whole = sum(size <= cut for size in sizes)
        with opened(copy) as again:
            assert again.replaced is None
            assert keys(again) == [f"k{i}" for i in reversed(range(whole))]
            assert again.checkpoint("detector") == (str(whole - 1).encode() if whole else None)
    store.close()


def test_a_file_that_breaks_in_use_is_replaced_and_the_step_is_not_lost(path: Path) -> None:
    store = Store(path, T0)
    store.commit(Commit([message(f"k{i}", size=3000) for i in range(50)]), T0)
    store._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store._database.connection.execute("PRAGMA cache_size=0")
    path.write_bytes(b"\xa5" * path.stat().st_size)
    assert store.commit(Commit([message("after")], {"detector": b"after"}), T0)
    assert store.replaced is not None
    assert "after" in keys(store)
    store.close()
    with opened(path) as again:
        assert again.checkpoint("detector") == b"after"


def test_a_file_that_breaks_before_the_checkpoint_is_read_leaves_an_agent_that_starts(path: Path) -> None:
    with opened(path) as store:
        store.commit(Commit([message(f"k{i}", size=3000) for i in range(50)], {"detector": b"1"}), T0)
    store = Store(path, T0)
    store._database.connection.execute("PRAGMA cache_size=0")
    path.write_bytes(b"\xa5" * path.stat().st_size)
    assert store.checkpoint("detector") is None
    assert store.replaced is not None
    assert store.commit(Commit([message("after")]), T0)
    store.close()


def test_an_older_schema_is_brought_up_to_date_and_migrating_twice_changes_nothing(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(
            f"PRAGMA application_id={APPLICATION_ID}; BEGIN; {MIGRATIONS[0]} PRAGMA user_version=1; COMMIT;"
        )
        old.execute("INSERT INTO checkpoint VALUES ('x', 'y', 0)")
        old.commit()
    for _ in range(2):
        with opened(path) as store:
            assert store.replaced is None
            (version,) = store._database.connection.execute("PRAGMA user_version").fetchone()
            assert version == len(MIGRATIONS)


# -- a bad moment ---------------------------------------------------------------------------------------------------


def test_two_agents_never_share_a_store(path: Path) -> None:
    with opened(path), pytest.raises(StoreBusy, match="another checkmeter"):
        Store(path, T0)
    with opened(path):
        pass


def test_a_locked_file_holds_the_step_in_memory_and_sends_it_from_there(path: Path) -> None:
    with opened(path) as store:
        store._database.connection.execute("PRAGMA busy_timeout=10")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert not store.commit(Commit([message("a")], {"detector": b"1"}), T0)
            assert keys(store) == ["a"]
            other.execute("ROLLBACK")
        assert store.commit(Commit([message("b", time_s=T0 + 1)]), T0)
        assert keys(store) == ["b", "a"]
        assert store.checkpoint("detector") == b"1"
        assert all(o.id > 0 for o in store.pending(10, ALL))


def test_what_is_held_was_delivered_and_is_not_written_again(path: Path) -> None:
    with opened(path) as store:
        store._database.connection.execute("PRAGMA busy_timeout=10")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            store.commit(Commit([message("a")]), T0)
            store.delete([o.id for o in store.pending(10, ALL)])
            other.execute("ROLLBACK")
        store.commit(Commit(), T0)
        assert keys(store) == []


def test_memory_held_is_bounded_and_alerts_are_the_last_to_go(path: Path) -> None:
    with opened(path) as store:
        store._database.connection.execute("PRAGMA busy_timeout=1")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            store.commit(Commit([message("alert")]), T0)
            store.commit(Commit([message(f"b{i}", Priority.BALANCE, T0 + i) for i in range(HELD_MAX + 50)]), T0)
            assert len(keys(store)) == HELD_MAX
            assert keys(store, 1) == ["alert"]
            other.execute("ROLLBACK")


def test_a_full_disk_stops_nothing_but_history(path: Path) -> None:
    with opened(path) as store:
        connection = store._database.connection
        for i in range(300):
            store.commit(Commit(meters=("m",) * 60, history=[row(T0 + 900 * i, *range(60))]), T0)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
        for i in range(300, 400):
            history = [row(T0 + 900 * i, *range(60))]
            assert store.commit(
                Commit([message(f"a{i}", time_s=T0 + i)], {"detector": str(i).encode()}, ("m",) * 60, history), T0
            )
        assert len(keys(store)) == 100
        assert store.checkpoint("detector") == b"399"
        assert store.counters.dropped_history > 0


def test_a_disk_that_turns_read_only_holds_the_step_in_memory(path: Path) -> None:
    with opened(path) as store:
        store._database.connection.execute("PRAGMA query_only=1")
        ballast = path.with_name(f"{path.name}.ballast")
        ballast.unlink()
        ballast.mkdir()  # it cannot be unlinked now, as on such a disk
        assert not store.commit(Commit([message("a")]), T0)
        assert keys(store) == ["a"]


def test_a_read_only_folder_leaves_a_store_in_memory_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with opened(tmp_path / "file" / "checkmeter.sqlite") as store:  # its parent is no folder
        assert store.volatile is not None
        store.commit(Commit([message("a")], {"detector": b"1"}), T0)
        assert keys(store) == ["a"]


# -- commands -------------------------------------------------------------------------------------------------------


def test_commands_are_remembered_over_restarts_and_a_clock_that_jumped(path: Path) -> None:
    with opened(path) as store:
        store.note_command("c1", T0 + 60, b"done", T0)
        store.note_command("c2", T0 + 60, b"done", T0 + 20 * 365 * 86400)
    with opened(path) as store:
        assert store.answer_of("c1") == b"done"
        assert store.answer_of("c3") is None
