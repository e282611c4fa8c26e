"""The store on SQLite and on MariaDB: whatever comes again, out of order or from two sides leaves the same rows."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from contextlib import closing
from itertools import permutations
from typing import Any

import pytest

from agent.utility.sql import statements
from agent.utility.sql.batch import Letter, day_rows
from agent.utility.sql.cases import ALERT, SUSPECT
from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S, DEAD_LETTER, GATEWAY, GATEWAY_STATUS, TABLES
from agent.utility.sql.server import Server, StoreMisfit, StoreRefused, StoreUnavailable
from agent.utility.sql.store import Store, open_store, timestamp
from agent.utility.sql.table import Table
from agent.utility.sql.upkeep import DELETE_ROWS, maintain, partitions
from agent.utility.sql.views import VIEWS

NOW_S = int(time.time())
TODAY = NOW_S // DAY_S


def letter(*rows: tuple[Table, tuple[object, ...]]) -> Letter:
    return Letter(1, b"topic", b"payload", rows)


def balance(zone: int, interval: int, joules: int | None = 1000) -> Letter:
    """An interval of two days ago."""
    start_s = (TODAY - 2) * DAY_S + 900 * interval
    return letter(
        (BALANCE, (zone, start_s, 900, joules, 500, 100, None if joules is None else joules - 600, 10, 990_000))
    )


def alert(revision: int, state: str = "updated", suspects: tuple[str, ...] = ("flat-1",)) -> Letter:
    row = (
        -5, "a-1", 1, 2, None, state, "bypass", "warning", NOW_S - 1000, NOW_S, 1.5 * revision, None,
        suspects[0], 0.9, 0.05, 0.02, "ab" * 32, 0.9, 0.6, revision,
    )  # fmt: skip
    return letter((ALERT, row), *((SUSPECT, (-5, name, 0.9, None, revision)) for name in suspects))


def days(store: Store) -> list[Any]:
    return store.rows(f"SELECT {', '.join(BALANCE_DAY.names)} FROM balance_day ORDER BY zone_key, day")


class TestBalances:
    def test_a_batch_twice_counts_once(self, store: Store) -> None:
        batch = [balance(zone, n) for zone in (-3, 7) for n in range(120)]
        assert store.apply(batch).new == 240
        once = days(store)
        assert store.apply(batch).new == 0
        assert days(store) == once
        assert once[0] == (-3, TODAY - 2, 96, 86_400, 96_000, 48_000, 9_600, 38_400, (TODAY - 1) * DAY_S, 900)

    def test_batches_that_overlap(self, store: Store) -> None:
        rng = random.Random(3)
        whole = [balance(zone, n, rng.randrange(10**6)) for zone in range(8) for n in range(50)]
        new = 0
        for _ in range(20):
            new += store.apply(rng.sample(whole, 100)).new
        new += store.apply(whole).new
        assert new == len(whole)
        assert days(store) == day_rows([row for item in whole for _, row in item.rows])

    def test_the_same_interval_twice_in_one_batch(self, store: Store) -> None:
        assert store.apply([balance(1, 1), balance(1, 1), balance(1, 2)]).new == 2
        assert days(store)[0][2] == 2

    def test_the_first_value_of_an_interval_stays(self, store: Store) -> None:
        store.apply([balance(1, 1, 1000)])
        store.apply([balance(1, 1, 9999), balance(1, 2, 1)])
        assert store.rows("SELECT main_j FROM balance ORDER BY start_s") == [(1000,), (1,)]
        assert days(store)[0][4] == 1001

    def test_an_unknown_interval_counts_but_adds_no_energy(self, store: Store) -> None:
        store.apply([balance(1, 1), balance(1, 2, None)])
        assert days(store)[0][2:5] == (2, 900, 1000)

    def test_two_writers_at_the_same_time(self, store: Store, dsn: str) -> None:
        """Both write the same intervals, in different orders and batches."""
        rng = random.Random(6)
        whole = [balance(zone, n, rng.randrange(10**6)) for zone in range(40) for n in range(40)]
        new: list[int] = []

        def write(seed: int) -> None:
            order = whole.copy()
            random.Random(seed).shuffle(order)
            with open_store(dsn) as other:
                for at in range(0, len(order), 40):
                    while True:
                        try:
                            new.append(other.apply(order[at : at + 40]).new)
                            break
                        except StoreUnavailable:
                            continue  # a deadlock or a lock wait: the ingest tries again too

        writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert sum(new) == len(whole)
        assert days(store) == day_rows([row for item in whole for _, row in item.rows])


class TestRevisions:
    @pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
    def test_in_any_order_the_highest_stays(self, store: Store, order: tuple[int, ...]) -> None:
        by_revision = {
            1: alert(1, "raised", ("flat-1", "flat-2")),
            2: alert(2, suspects=("flat-2",)),
            3: alert(3, "cleared", ("flat-3",)),
        }
        for revision in order:
            store.apply([by_revision[revision]])
            store.apply([by_revision[revision]])
        assert store.rows("SELECT state, loss_w, suspect, revision FROM alert") == [("cleared", 4.5, "flat-3", 3)]
        current = store.rows(
            "SELECT s.meter FROM suspect s JOIN alert a ON a.alert_key = s.alert_key AND a.revision = s.revision"
        )
        assert current == [("flat-3",)]

    def test_several_revisions_in_one_batch(self, store: Store) -> None:
        store.apply([alert(2), alert(3, "cleared"), alert(1, "raised")])
        assert store.rows("SELECT state, revision FROM alert") == [("cleared", 3)]

    def test_the_guard_takes_every_column_along(self, store: Store) -> None:
        old = (1, "offline", 5, "gone", 0, "1.0", 10)
        new = (1, "online", None, None, 2, None, 11)
        for row in (old, new, old):
            store.apply([letter((GATEWAY_STATUS, row))])
        assert store.rows(f"SELECT {', '.join(GATEWAY_STATUS.names)} FROM gateway_status") == [new]


class TestRefusedRows:
    def test_a_row_that_the_server_refuses_takes_its_transaction_along(self, store: Store) -> None:
        row = (1, None, "site", "gateway")  # NOT NULL
        with pytest.raises(StoreRefused):
            store.apply([balance(1, 1), letter((GATEWAY, row))])
        assert store.rows("SELECT COUNT(*) FROM balance") == [(0,)]
        assert days(store) == []

    @pytest.mark.mariadb
    @pytest.mark.xdist_group("mariadb")
    def test_a_text_that_is_too_long_is_refused_not_cut(self, mariadb: Any) -> None:
        with open_store(mariadb.database()) as store:
            store.migrate(NOW_S, keep_days=5)
            with pytest.raises(StoreRefused, match="too long"):
                store.apply([letter((GATEWAY, (1, "t", "s" * 65, "g")))])

    def test_any_text_and_octets_come_back_as_they_were(self, store: Store) -> None:
        text, octets = 'it\'s \\ "quoted" %s ? \u2603 \U0001f50c\n', bytes(range(256))
        store.apply([letter((DEAD_LETTER, (b"\x00'\\" * 5 + b"\xff", octets, text, 256, octets, timestamp(NOW_S))))])
        assert store.rows(
            "SELECT letter_id, topic, reason, payload, received_at FROM dead_letter WHERE reason = ?", (text,)
        ) == [(b"\x00'\\" * 5 + b"\xff", octets, text, octets, timestamp(NOW_S))]


class LostAnswer:
    """A server whose answer to some COMMITs is lost on the way: they were done, but we do not know."""

    def __init__(self, server: Server, lose: int) -> None:
        self._server = server
        self._lose = lose
        self.dialect = server.dialect
        self.run, self.insert, self.close = server.run, server.insert, server.close

    def transaction(self) -> Any:
        outer = self

        class Transaction:
            def __enter__(self) -> None:
                self._inner = outer._server.transaction()
                self._inner.__enter__()

            def __exit__(self, *error: Any) -> None:
                self._inner.__exit__(*error)
                if error[0] is None and outer._lose:
                    outer._lose -= 1
                    raise StoreUnavailable("the connection was lost")

        return Transaction()


def test_a_commit_whose_answer_is_lost_is_done_once(store: Store) -> None:
    batch = [balance(1, n) for n in range(50)]
    unsure = Store(LostAnswer(store.server, lose=1))
    with pytest.raises(StoreUnavailable):
        unsure.apply(batch)
    assert unsure.apply(batch).new == 0
    assert days(store)[0][2] == 50


class TestSchema:
    def test_migrate_may_be_run_again(self, empty_dsn: str) -> None:
        with open_store(empty_dsn, make=True) as store:
            store.migrate(NOW_S, keep_days=5)
            store.apply([balance(1, 1)])
            store.migrate(NOW_S, keep_days=5)
            store.check_version()
            assert store.rows("SELECT COUNT(*) FROM balance") == [(1,)]

    def test_a_store_of_version_1_is_brought_up_to_date_with_its_rows(self, empty_dsn: str) -> None:
        with open_store(empty_dsn, make=True) as store:
            store.migrate(NOW_S, keep_days=5)
            for view in VIEWS:  # SQLite looks at each while tables change
                store.rows(f"DROP VIEW {view}")
            store.rows("DROP TABLE audit")
            store.rows("DROP TABLE outcome")
            store.rows(
                "CREATE TABLE outcome (alert_key BIGINT NOT NULL, outcome VARCHAR(8) NOT NULL, meter VARCHAR(64), "
                "inspected_s BIGINT NOT NULL, note VARCHAR(255), recorded_ms BIGINT NOT NULL, PRIMARY KEY (alert_key))"
            )
            store.rows("INSERT INTO outcome VALUES (7, 'theft', 'flat-1', 5, 'seal broken', 6)")
            store.rows("DROP TABLE setting")
            store.rows("ALTER TABLE alert DROP COLUMN unexplained_probability")
            for table in ("forecast_error", "group_day", "group_capacity"):
                store.rows(f"DROP TABLE {table}")
            for column in ("feeder", "district"):
                store.rows(f"ALTER TABLE gateway_info DROP COLUMN {column}")
            store.rows("UPDATE migration SET version = 1")
            with pytest.raises(StoreMisfit, match="version 1"):
                store.check_version()
            store.migrate(NOW_S, keep_days=5)
            store.check_version()
            assert store.rows("SELECT alert_key, meter, inspector, confirmed_by FROM outcome") == [
                (7, "flat-1", None, None)
            ]
            assert store.rows("SELECT COUNT(*) FROM audit") == [(0,)]
            store.rows("SELECT * FROM inspected_case")
            for view in ("zone_peak", "forecast_skill_day", "group_peak_day"):
                assert store.rows(f"SELECT * FROM {view}") == []
            assert store.rows("SELECT feeder, district FROM gateway_info") == []
            store.apply([alert(1)])
            assert store.rows("SELECT unexplained_probability FROM open_case") == []  # its gateway has no name
            assert store.rows("SELECT unexplained_probability, revision FROM alert") == [(0.02, 1)]

    def test_an_empty_store_is_refused_with_what_to_do(self, empty_dsn: str) -> None:
        with open_store(empty_dsn, make=True) as empty, pytest.raises(StoreMisfit, match="checkmeter utility migrate"):
            empty.check_version()

    def test_a_mistyped_path_makes_no_empty_store(self, tmp_path: Any) -> None:
        with pytest.raises(StoreMisfit, match=r"no such file; checkmeter utility migrate makes"):
            open_store(f"sqlite:///{tmp_path / 'flet.sqlite'}")
        with pytest.raises(StoreMisfit, match="there is no folder"):
            open_store(f"sqlite:///{tmp_path / 'nowhere' / 'fleet.sqlite'}", make=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_look_at_somebody_elses_file_does_not_change_it(self, tmp_path: Any) -> None:
        path = tmp_path / "other.sqlite"
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE t (a)")
            other.commit()
        before = path.read_bytes()
        with open_store(f"sqlite:///{path}") as store, pytest.raises(StoreMisfit, match="utility migrate"):
            store.check_version()
        assert path.read_bytes() == before

    def test_a_store_of_a_later_program_is_refused(self, store: Store) -> None:
        store.rows("UPDATE migration SET version = 99")
        with pytest.raises(StoreMisfit, match="update the program"):
            store.migrate(NOW_S)

    @pytest.mark.parametrize("dsn", ["sqlite://", "mysql://host", "mysql://u@h/db?what=1", "oracle://x", "nothing"])
    def test_addresses_that_are_none(self, dsn: str) -> None:
        with pytest.raises(StoreMisfit):
            open_store(dsn)

    def test_a_file_that_is_no_database(self, tmp_path: Any) -> None:
        path = tmp_path / "x.sqlite"
        path.write_bytes(b"not a database, but long enough to look like one" * 100)
        with pytest.raises(StoreMisfit, match="not a database"):
            open_store(f"sqlite:///{path}")

    def test_the_batch_is_found_through_the_key(self, tmp_path: Any) -> None:
        with open_store(f"sqlite:///{tmp_path / 'f.sqlite'}", make=True) as store:
            store.migrate(NOW_S)
            plan = store.rows("EXPLAIN QUERY PLAN " + statements.existing(BALANCE, "sqlite", [(1, 2), (3, 4)]))
        assert any("SEARCH t USING PRIMARY KEY" in str(step[-1]) for step in plan)

    def test_a_zones_history_is_its_own_and_in_order(self, store: Store) -> None:
        store.apply([balance(zone, n) for zone in (1, 2, 3) for n in (5, 1, 3, 2)])
        everything = store.rows("SELECT start_s FROM balance WHERE zone_key = 2 ORDER BY start_s")
        first_s, last_s = int(str(everything[0][0])), int(str(everything[-1][0]))
        query = statements.history(store.server.dialect)
        assert [row[:1] for row in store.rows(query, (first_s, last_s, 2))] == everything
        assert [row[:1] for row in store.rows(query, (first_s + 1, last_s - 1, 2))] == everything[1:-1]
        assert store.rows(query, (first_s, last_s, 99)) == []
        assert store.rows(query, (last_s + 1, last_s + 900, 2)) == []

    def test_a_zones_history_does_not_read_the_fleets(self, tmp_path: Any) -> None:
        with open_store(f"sqlite:///{tmp_path / 'f.sqlite'}", make=True) as store:
            store.migrate(NOW_S)
            plan = str(store.rows("EXPLAIN QUERY PLAN " + statements.history("sqlite"), (0, 1, 2)))
        assert "start_s=? AND zone_key=?" in plan
        assert "SCAN b" not in plan

    def test_every_guard_is_the_last_column(self) -> None:
        guarded = [table for table in TABLES if table.merge == "newest"]
        assert guarded
        assert all(table.names[-1] == table.guard for table in guarded)


class TestRetention:
    def test_old_intervals_go_and_their_days_stay(self, empty_dsn: str) -> None:
        rows = [
            letter((BALANCE, (zone, day * DAY_S + 900 * n, 900, 1, 1, 0, 0, 0, 0)))
            for zone in (1, 2) for day in range(TODAY - 4, TODAY + 1) for n in range(4)
        ]  # fmt: skip
        with open_store(empty_dsn, make=True) as store:
            store.migrate(NOW_S, keep_days=5)
            store.apply(rows)
            before = days(store)
            assert maintain(store, NOW_S, keep_days=2)
            assert store.rows("SELECT MIN(start_s), COUNT(*) FROM balance") == [((TODAY - 2) * DAY_S, 24)]
            assert days(store) == before
            assert maintain(store, NOW_S, keep_days=2) == []

    def test_old_dead_letters_go(self, store: Store) -> None:
        for n, age_days in enumerate((1, 29, 31)):
            row = (bytes([n]) * 16, b"t", "r", 0, b"", timestamp(NOW_S - age_days * DAY_S))
            store.apply([letter((DEAD_LETTER, row))])
        assert any("1 dead letters" in line for line in maintain(store, NOW_S, keep_days=5))
        assert store.rows("SELECT COUNT(*) FROM dead_letter") == [(2,)]

    def test_many_old_dead_letters_go_in_bounded_pieces(self, store: Store) -> None:
        old = timestamp(NOW_S - 40 * DAY_S)
        rows = [(n.to_bytes(16, "big"), b"t", "r", 0, b"", old) for n in range(2 * DELETE_ROWS + 5)]
        store.apply([letter((DEAD_LETTER, row)) for row in rows])
        assert maintain(store, NOW_S, keep_days=5)[-1].startswith(f"deleted {2 * DELETE_ROWS + 5} dead letters")
        assert store.rows("SELECT COUNT(*) FROM dead_letter") == [(0,)]

    def test_one_replica_a_day_does_it_and_another_if_that_one_fails(self, store: Store) -> None:
        class Failing:
            def __init__(self, server: Server) -> None:
                self.server, self.dialect = server, server.dialect
                self.insert, self.transaction, self.patient = server.insert, server.transaction, server.patient

            def run(self, statement: str, values: Any = ()) -> Any:
                if "information_schema.partitions" in statement or "MIN(start_s)" in statement:
                    raise StoreUnavailable("gone")
                return self.server.run(statement, values)

        with pytest.raises(StoreUnavailable):
            maintain(Store(Failing(store.server)), NOW_S, keep_days=5, replica="a")  # type: ignore[arg-type]
        day = store.rows("SELECT COUNT(*) FROM maintenance")
        assert day == [(0,)], "its turn is given back"
        maintain(store, NOW_S, keep_days=5, replica="b")
        assert store.rows("SELECT replica FROM maintenance") == [("b",)]
        maintain(store, NOW_S, keep_days=5, replica="a")
        assert store.rows("SELECT replica FROM maintenance") == [("b",)]

    @pytest.mark.mariadb
    @pytest.mark.xdist_group("mariadb")
    def test_partitions_move_with_the_days(self, mariadb: Any) -> None:
        with open_store(mariadb.database()) as store:
            store.migrate(NOW_S, keep_days=5)
            assert partitions(store) == list(range(TODAY - 5, TODAY + 15))
            maintain(store, NOW_S + 3 * DAY_S, keep_days=5)
            assert partitions(store) == list(range(TODAY - 2, TODAY + 18))

    @pytest.mark.mariadb
    @pytest.mark.xdist_group("mariadb")
    def test_a_row_without_a_partition_is_refused_loudly(self, mariadb: Any) -> None:
        with open_store(mariadb.database()) as store:
            store.migrate(NOW_S, keep_days=5)
            late = (1, (TODAY + 30) * DAY_S, 900, 1, 1, 0, 0, 0, 0)
            with pytest.raises(StoreRefused, match="no partition"):
                store.apply([letter((BALANCE, late))])
