"""What TiDB refuses: the list sees it, and no statement of the package is on it. What only a TiDB can show is asked of
one where CHECKMETER_TIDB says where it is; every other test of a store runs on it then, too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from agent import wire
from agent.utility.fleet import forecasts, four_eyes, outcomes, queries, realised, rollout, statement
from agent.utility.fleet.groups import set_capacity
from agent.utility.ingest.decode import Reader
from agent.utility.load_test.building import Building
from agent.utility.mqtt.packets import Publish
from agent.utility.sql import statements
from agent.utility.sql.batch import Letter
from agent.utility.sql.schema import BALANCE, DAY_S, TABLES
from agent.utility.sql.store import MIGRATION_TIMEOUT_S, Store, open_store
from agent.utility.sql.tidb import REFUSALS, after_the_day, new_partitions, refusals, tidb_statements
from agent.utility.sql.upkeep import maintain, partitions


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE a (b INT, FOREIGN KEY (b) REFERENCES c (d))",
        "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.b = 1",
        "CREATE PROCEDURE p() SELECT 1",
        "CALL p()",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM a",
        "SAVEPOINT s",
        "SELECT GET_LOCK('a', 1)",
        "LOCK TABLES a WRITE",
        "SELECT * FROM a LOCK IN SHARE MODE",
        "SELECT * FROM a FOR UPDATE SKIP LOCKED",
        "INSERT INTO a (b) VALUES (1) AS new ON DUPLICATE KEY UPDATE b = new.b",
        "INSERT INTO a (b) VALUES (1) AS n ON DUPLICATE KEY UPDATE b = n.b",
        "INSERT INTO a (b) VALUES (1) RETURNING b",
        "INSERT INTO a (b) VALUES (1) ON CONFLICT (b) DO NOTHING",
        "REPLACE INTO a VALUES (1)",
        "INSERT IGNORE INTO a VALUES (1)",
        "CREATE TABLE a (b BIGINT AUTO_INCREMENT PRIMARY KEY)",
        "CREATE TABLE a (b TEXT, FULLTEXT KEY (b))",
        "CREATE TABLE a (b INT PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE a AS SELECT 1",
        "XA START 'x'",
        "SELECT SQL_CALC_FOUND_ROWS 1",
        "SELECT 1 FROM a WHERE (b, c) IN (VALUES (1, 2))",
        "UPDATE a SET b = 1 ORDER BY c",
        "ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b",
        "CREATE TABLE a (b VARCHAR(9) CHARACTER SET ucs2)",
        "CREATE TABLE a (b INT) COLLATE utf8mb4_uca1400_ai_ci",
        "CREATE TABLE a (start_s BIGINT, z BIGINT, PRIMARY KEY (start_s, z))",
        "CREATE TABLE a (z BIGINT, received_at DATETIME, KEY by_time (received_at))",
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
        "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "OPTIMIZE TABLE a",
    ],
)
def test_the_list_sees(statement: str) -> None:
    assert refusals(statement)


def test_every_line_of_the_list_is_seen_by_a_statement_above() -> None:
    (marker,) = [mark for mark in test_the_list_sees.pytestmark if mark.name == "parametrize"]
    statements = marker.args[1]
    for refusal in REFUSALS:
        assert any(re.search(refusal.pattern, s, re.IGNORECASE | re.DOTALL) for s in statements), refusal


def test_words_inside_literals_are_no_statements() -> None:
    assert refusals("INSERT INTO dead_letter (reason) VALUES ('SAVEPOINT, CREATE TRIGGER, it''s RETURNING')") == []
    assert refusals("SELECT kind FROM alert_event WHERE kind = 'x'") == []


def test_what_is_generated_for_the_mysql_family() -> None:
    made = [statements.create_table(table, "mysql", 20_000, 20_003) for table in TABLES]
    made += ["(0)".join(statements.insert(table, "mysql")) for table in TABLES]
    made += [*statements.create_views("mysql"), statements.existing(BALANCE, "mysql", [(1, 2)])]
    made += [*tidb_statements(2, [20_000]), *new_partitions([20_000, 20_001]), *after_the_day([1, 2])]
    assert {s: r for s in made if (r := refusals(s))} == {}
    assert refused_by_the_parser(made) == []


def refused_by_the_parser(made: Sequence[str]) -> list[str]:
    """What TiDB's own parser refuses, with why; nothing where it is not built (`make tidb-parser`)."""
    program = os.environ.get("CHECKMETER_TIDB_PARSER")
    if not program:
        return []
    lines = "".join(json.dumps(statement) + "\n" for statement in made)
    done = subprocess.run([program], input=lines, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.mark.skipif(not os.environ.get("CHECKMETER_TIDB_PARSER"), reason="CHECKMETER_TIDB_PARSER is not set")
def test_the_parser_itself_refuses_something() -> None:
    assert len(refused_by_the_parser(["SELECT 1", "SELECT 1 RETURNING x", "CREATE VIEW"])) == 2


def test_rows_of_each_table_lie_by_a_hash_or_a_random_id() -> None:
    for table in TABLES:
        if table.name not in {"migration", "rollout"}:  # a handful of rows
            first = dict(table.columns)[table.key[0]]
            assert table.key[0].endswith(("_key", "_id")), table.name
            assert first.startswith(("BIGINT", "BINARY(16)"))
        assert "CLUSTERED" in statements.create_table(table, "mysql", 0, 0)


@pytest.mark.mariadb
@pytest.mark.xdist_group("mariadb")
def test_every_statement_that_reaches_the_server(mariadb: Any, balances: Any) -> None:
    """The server's own log of statements, after everything that the package can do was done once."""
    now_s = time.time()
    with open_store(mariadb.database()) as store:
        log_from = mariadb.log.stat().st_size
        store.migrate(now_s, keep_days=5)
        store.check_version()
        reader = Reader(lambda: now_s)
        letters = [reader.read(Publish(topic.encode(), 1, body, False)) for topic, body in balances(3, 5)]
        assert store.apply(letters[:10]).new == 10
        assert store.apply(letters).new == 5
        store.apply([Letter(1, b"", b"", ((table, _row(table)),)) for table in TABLES if table is not BALANCE])
        maintain(store, now_s + 86_400, keep_days=5)
        for answer in (
            queries.losses(store, now_s, 30, 5, 0.3),
            queries.cases(store, now_s, 5),
            queries.suspects(store, now_s, 1, 30, 5),
            queries.gateways(store, now_s, 2.0, 5),
            queries.trend(store, now_s, 30),
            queries.precision(store),
        ):
            assert all(len(row) == len(answer.columns) for row in answer.rows)
        four_eyes.decide(store, True, "chief", "shell", now_s)
        outcomes.record(store, "x", None, outcomes.Found("nothing", None, 1, None, "ana"), now_s)
        outcomes.confirm(store, "x", None, "ben", now_s)
        outcomes.training_rows(store)
        month = time.strftime("%Y-%m", time.gmtime(now_s))
        assert statement.months(store, *statement.bounds(month, "Asia/Kolkata"))
        _look_ahead_and_back(store, now_s)
        rollout.targets(store, 1, 1.0)
        rollout.progress(store, 1)
        rollout.failures(store, 1, 5)
        rollout.latest(store)
    with mariadb.log.open(errors="replace") as log:
        log.seek(log_from)
        lines = log.read()
    # "<time> <thread> Query <statement>", a statement's further lines without the head
    logged = re.split(r"^.*?\d+ (?:Query|Connect|Quit|Init DB)\t", lines, flags=re.MULTILINE)[1:]
    assert len(logged) > 60
    statements_only = [s.strip() for s in logged if s.strip() and not s.startswith("root@")]
    assert refused_by_the_parser(statements_only) == []
    assert {s: reasons for s in logged if (reasons := refusals(s))} == {}


def _look_ahead_and_back(store: Store, now_s: float) -> None:
    """Forecasts of a simulated fleet: added up by feeder, and those that are over held against their loads."""
    reader, first_s = Reader(lambda: now_s, keep_days=10), (int(now_s) // DAY_S - 3) * DAY_S
    for number in (1, 2, 3):
        house = Building(1, number, first_s, int(now_s))
        said: list[tuple[str, msgspec.Struct]] = [("info", house.info(now_s))]
        said += [("forecast/building", house.forecast(at)) for at in (first_s, int(now_s) // 3600 * 3600)]
        said += [("balance/building", house.balance(at)) for at in range(first_s, first_s + DAY_S, 900)]
        store.apply([reader.read(Publish(house.address.topic(s).encode(), 1, wire.encode(m), False)) for s, m in said])
    assert realised.settle(store, now_s) == 3
    assert realised.skill(store, now_s, 5).rows
    assert realised.peak_days(store, now_s, "fleet", "fleet", 5).rows
    set_capacity(store, "feeder", "Feeder 1", 1e5, now_s)
    assert [row[:2] for row in forecasts.group_peaks(store, now_s, "feeder").rows] == [("Feeder 1", 3)]
    assert forecasts.coincident(store, now_s)[0].forecast.zones == 3
    for view in ("zone_peak", "forecast_skill_day", "group_peak_day"):
        assert store.rows(f"SELECT * FROM {view}")


def test_only_today_and_what_comes_is_split_and_kept_split() -> None:
    made = tidb_statements(1, range(20_000, 20_003))
    (split,) = [s for s in made if s.startswith("SPLIT PARTITION")]
    assert "PARTITION (p20000, p20001, p20002)" in split
    for day in range(20_000, 20_003):
        # PD merges empty regions an hour after the split: without this, midnight falls on one region.
        assert f"ALTER TABLE balance PARTITION p{day} ATTRIBUTES 'merge_option=deny'" in made
        assert made.index(f"ALTER TABLE balance PARTITION p{day} ATTRIBUTES 'merge_option=deny'") < made.index(split)
    for table in ("balance_day", "alert", "alert_event", "tamper"):
        assert f"ALTER TABLE {table} ATTRIBUTES 'merge_option=deny'" in made
    assert [s for s in made if "TIFLASH" in s] == ["ALTER TABLE balance_day SET TIFLASH REPLICA 1"]
    assert after_the_day([19_999]) == ["ALTER TABLE balance PARTITION p19999 ATTRIBUTES DEFAULT"]


class SaysItIsTidb:
    """A MariaDB that takes TiDB's own statements without doing them, and notes what came."""

    def __init__(self, server: Any) -> None:
        self.server, self.dialect, self.heard = server, server.dialect, []
        self.insert, self.transaction, self.close = server.insert, server.transaction, server.close

    @contextmanager
    def patient(self, timeout_s: float) -> Iterator[None]:
        self.heard.append(f"patient {timeout_s:g} s")
        with self.server.patient(timeout_s):
            yield
        self.heard.append("as usual")

    def run(self, statement: str, values: Any = ()) -> Any:
        self.heard.append(statement)
        if statement == "SELECT tidb_version()":
            return [("Release Version: v8",)]
        if re.search(r"ATTRIBUTES|^SPLIT|TIFLASH|TTL =|tidb_", statement):
            return []
        return self.server.run(statement, values)


@pytest.mark.mariadb
@pytest.mark.xdist_group("mariadb")
def test_the_days_on_tidb_from_the_first_to_the_last(mariadb: Any) -> None:
    now_s = time.time()
    today = int(now_s // DAY_S)
    with open_store(mariadb.database()) as plain:
        server = SaysItIsTidb(plain.server)
        store = Store(server)
        store.migrate(now_s, keep_days=5)
        (split,) = [s for s in server.heard if s.startswith("SPLIT PARTITION")]
        assert re.findall(r"p(\d+)", split) == [str(day) for day in range(today, today + 15)]
        at = server.heard.index(split)
        patient = server.heard.index(f"patient {MIGRATION_TIMEOUT_S:g} s")
        assert patient < at < server.heard.index("as usual", at), "SPLIT waits longer than a question may"
        server.heard.clear()
        assert maintain(store, now_s, keep_days=5, replica="a")
        assert maintain(store, now_s, keep_days=5, replica="b") == [], "one replica a day"
        server.heard.clear()
        maintain(store, now_s + 3 * DAY_S, keep_days=5, replica="b")
        alters = [s for s in server.heard if s.startswith("ALTER TABLE balance")]
        assert sum("ADD PARTITION" in s for s in alters) == 1, "one ALTER for all new days"
        assert sum("DROP PARTITION" in s for s in alters) == 1
        assert [s for s in alters if "DEFAULT" in s] == after_the_day(range(today, today + 3))
        assert not any("DELETE FROM dead_letter" in s for s in server.heard), "TTL does it"
        assert partitions(plain) == list(range(today - 2, today + 18))


@pytest.mark.skipif(not os.environ.get("CHECKMETER_TIDB"), reason="CHECKMETER_TIDB is not set")
@pytest.mark.xdist_group("tidb")
class TestTheServer:
    """What TiDB alone can show."""

    def test_migrate_with_all_that_is_tidbs_own(self, tidb: Any) -> None:
        with open_store(tidb.database()) as store:
            store.migrate(time.time(), keep_days=5)
            regions = store.rows("SHOW TABLE balance REGIONS")
            days = len(partitions(store))
            assert len(regions) >= 15 * 16 + days - 15
            maintain(store, time.time() + 2 * DAY_S, keep_days=5)

    def test_a_repeated_balance_counts_no_row(self, tidb: Any, balances: Any) -> None:
        from agent.utility.ingest.decode import Reader
        from agent.utility.mqtt.packets import Publish

        with open_store(tidb.emptied()) as store:
            reader = Reader(time.time)
            letters = [reader.read(Publish(topic.encode(), 1, body, False)) for topic, body in balances(3, 5)]
            assert store.apply(letters).new == 15
            assert store.apply(letters).new == 0
            assert store.rows("SELECT SUM(intervals) FROM balance_day") == [(15,)]

    def test_the_plans(self, tidb: Any) -> None:
        today = int(time.time() // DAY_S)
        with open_store(tidb.emptied()) as store:
            keys = [(1, today * DAY_S), (2, today * DAY_S + 900)]
            plan = str(store.rows("EXPLAIN " + statements.existing(BALANCE, "mysql", keys)))
            assert "Batch_Point_Get" in plan
            assert f"p{today}" in plan
            assert "partition:all" not in plan


def _row(table: Any) -> tuple[object, ...]:
    """Some row that the table takes."""
    values: list[object] = []
    for name, kind in table.columns:
        if kind.startswith(("BIGINT", "INT", "DOUBLE")):
            values.append(1)
        elif kind.startswith("BINARY"):
            values.append(b"\x01" * 16)
        elif kind.startswith("DATETIME"):
            values.append("2026-01-01 00:00:00")
        elif name == "body":
            values.append('{"specversion": "1.0"}' if table.name != "alert_event" else _EVENT)
        else:
            values.append("x")
    return tuple(values)


_EVENT = """{"specversion":"1.0","id":"1","type":"checkmeter.alert.v1","source":"/","subject":"z",
"time":"2026-01-01T00:00:00Z","data":{"alert_id":"x","revision":1,"state":"raised","kind":"bypass",
"severity":"info","onset":"2026-01-01T00:00:00Z"}}"""
