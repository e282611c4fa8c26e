"""Statements made from the tables: SQLite and the MySQL family differ in five places, and all of them are here.

It knows the two dialects' words, not the servers: it runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from agent.utility.sql.schema import DAY_S
from agent.utility.sql.table import Table
from agent.utility.sql.views import VIEWS

Dialect = Literal["sqlite", "mysql"]
Row = tuple[object, ...]


def create_table(table: Table, dialect: Dialect, first_day: int = 0, last_day: int = 0) -> str:
    """CREATE TABLE with a clustered primary key, and with daily partitions where the server has them."""
    columns = ", ".join(f"{name} {kind}" for name, kind in table.columns)
    if dialect == "sqlite":
        # Stable: the column of time first, the others as they are.
        key = f"PRIMARY KEY ({', '.join(sorted(table.key, key=lambda name: name != table.by_time))})"
        return f"CREATE TABLE IF NOT EXISTS {table.name} ({columns}, {key}) WITHOUT ROWID"
    key = f"PRIMARY KEY ({', '.join(table.key)})"
    index = f", KEY by_{'_'.join(table.index)} ({', '.join(table.index)})" if table.index else ""
    # TiDB reads the comment; to the others InnoDB is clustered anyway.
    statement = (
        f"CREATE TABLE IF NOT EXISTS {table.name} ({columns}, {key} /*T![clustered_index] CLUSTERED */{index}) "
        "DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )
    if table.partitioned:
        days = ", ".join(partition(day) for day in range(first_day, last_day + 1))
        statement += f" PARTITION BY RANGE ({table.by_time}) ({days})"
    return statement


def create_indexes(table: Table, dialect: Dialect) -> list[str]:
    """The secondary index, where CREATE TABLE could not say it."""
    if not table.index or dialect == "mysql":
        return []
    name = f"{table.name}_by_{'_'.join(table.index)}"
    return [f"CREATE INDEX IF NOT EXISTS {name} ON {table.name} ({', '.join(table.index)})"]


def create_views(dialect: Dialect) -> list[str]:
    """The fleet's questions as views. In the MySQL family one is replaced in one step: readers see no gap."""
    statements = []
    for name, select in VIEWS.items():
        words = " ".join(select.split())
        if dialect == "sqlite":
            words = words.replace(" AS SIGNED", " AS INTEGER")
            statements += [f"DROP VIEW IF EXISTS {name}", f"CREATE VIEW {name} AS {words}"]
        else:
            statements.append(f"CREATE OR REPLACE VIEW {name} AS {words}")
    return statements


def add_columns(table: Table, present: Iterable[str]) -> list[str]:
    """ALTER TABLE for the columns that an older program did not know; they may be empty, in rows that it wrote."""
    known = set(present)
    kinds = {name: kind for name, kind in table.columns if name not in known}
    return [f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}" for name, kind in kinds.items()]


def partition(day: int) -> str:
    """The definition of the partition that holds UTC day `day` (since the epoch)."""
    return f"PARTITION p{day} VALUES LESS THAN ({(day + 1) * DAY_S})"


def insert(table: Table, dialect: Dialect) -> tuple[str, str]:
    """What stands before and after the VALUES rows of an upsert."""
    head = f"INSERT INTO {table.name} ({', '.join(table.names)}) VALUES "
    others = table.names[table.keys :]
    if dialect == "sqlite":
        tail = f" ON CONFLICT ({', '.join(table.key)}) DO "
        match table.merge:
            case "first":
                return head, tail + "NOTHING"
            case "newest":
                sets = ", ".join(f"{name} = excluded.{name}" for name in others)
                return head, f"{tail}UPDATE SET {sets} WHERE excluded.{table.guard} > {table.name}.{table.guard}"
            case "add":
                sets = ", ".join(_added(table, name, f"excluded.{name}", "MAX") for name in others)
                return head, f"{tail}UPDATE SET {sets}"
    tail = " ON DUPLICATE KEY UPDATE "
    match table.merge:
        case "first":
            # Not INSERT IGNORE: that would also turn "no partition for this row" into a warning, and lose the row.
            return head, f"{tail}{table.key[0]} = {table.name}.{table.key[0]}"
        case "newest":
            # Assignments may see those before them (MySQL) or not: the guard comes last, so both give the same.
            newer = f"VALUES({table.guard}) > {table.guard}"
            return head, tail + ", ".join(f"{name} = IF({newer}, VALUES({name}), {name})" for name in others)
        case "add":
            return head, tail + ", ".join(_added(table, name, f"VALUES({name})", "GREATEST") for name in others)


def _added(table: Table, name: str, new: str, greatest: str) -> str:
    """What becomes of one column when a row is added to the one that is there."""
    if name == table.guard:  # NOT NULL: where they differ the server refuses the row, and the transaction ends
        return f"{name} = CASE WHEN {name} = {new} THEN {name} END"
    if name.startswith("step_"):
        return f"{name} = {new}"
    return f"{name} = {greatest}({name}, {new})" if name.startswith("last_") else f"{name} = {name} + {new}"


def existing(table: Table, dialect: Dialect, keys: Iterable[Sequence[int]], more: Sequence[str] = ()) -> str:
    """Which of these integer keys are there already, with the columns `more`."""
    listed = ", ".join("(" + ", ".join(str(int(part)) for part in key) + ")" for key in keys)
    if dialect == "mysql":
        names = ", ".join((*table.key, *more))
        return f"SELECT {names} FROM {table.name} WHERE ({', '.join(table.key)}) IN ({listed})"
    # SQLite would scan the table for a list of row values; a join over the list goes through the key.
    names = ", ".join(f"t.{name}" for name in (*table.key, *more))
    same = " AND ".join(f"t.{name} = k.column{n}" for n, name in enumerate(table.key, 1))
    return f"SELECT {names} FROM (VALUES {listed}) k CROSS JOIN {table.name} t WHERE {same}"


HISTORY = ("start_s", "seconds", "main_j", "sum_j", "residual_j", "uncertainty_j")
_MOST_STARTS = 10_000  # of different intervals' starts that one question goes through


LOADS = ("zone_key", "start_s", "seconds", "main_j")


def history(dialect: Dialect) -> str:
    """One zone's intervals (HISTORY) in a stretch of time; values: from, to, zone_key."""
    return _stretch(dialect, HISTORY, 1) + " ORDER BY start_s"


def loads(dialect: Dialect, zones: int) -> str:
    """The main meter's intervals (LOADS) of so many zones in a stretch of time; values: from, to, the zone_keys."""
    return _stretch(dialect, LOADS, zones)


def _stretch(dialect: Dialect, columns: Sequence[str], zones: int) -> str:
    """Intervals of some zones.

    In SQLite the rows lie by time, and there are as many in a stretch as the fleet has zones: it goes from one start to
    the next through the key (a loose index scan) and looks up the zones at each.
    """
    listed, marks = ", ".join(f"b.{name} AS {name}" for name in columns), ", ".join("?" * zones)
    if dialect == "mysql":
        return f"SELECT {listed} FROM balance b WHERE b.start_s >= ? AND b.start_s <= ? AND b.zone_key IN ({marks})"
    return (
        "WITH RECURSIVE span(since_s, until_s) AS (VALUES (?, ?)), starts(start_s) AS ("
        "SELECT MIN(start_s) FROM balance WHERE start_s >= (SELECT since_s FROM span) "
        "UNION ALL SELECT (SELECT MIN(n.start_s) FROM balance n WHERE n.start_s > starts.start_s) FROM starts "
        f"WHERE starts.start_s < (SELECT until_s FROM span) LIMIT {_MOST_STARTS}) "
        f"SELECT {listed} FROM starts CROSS JOIN balance b ON b.start_s = starts.start_s "
        f"WHERE b.zone_key IN ({marks}) AND b.start_s <= (SELECT until_s FROM span)"
    )


def spans(dialect: Dialect, day: int, zone_keys: Iterable[int]) -> str:
    """Every interval (zone_key, start_s, seconds) of these zones on one UTC day; along the key, as `history`."""
    since_s, until_s = day * DAY_S, (day + 1) * DAY_S
    keys = [str(int(key)) for key in zone_keys]
    if dialect == "mysql":
        return (
            f"SELECT zone_key, start_s, seconds FROM balance WHERE start_s >= {since_s} AND start_s < {until_s} "
            f"AND zone_key IN ({', '.join(keys)})"
        )
    return (
        f"WITH RECURSIVE starts(start_s) AS (SELECT MIN(start_s) FROM balance WHERE start_s >= {since_s} "
        "UNION ALL SELECT (SELECT MIN(n.start_s) FROM balance n WHERE n.start_s > starts.start_s) FROM starts "
        f"WHERE starts.start_s < {until_s} LIMIT {DAY_S + 2}) SELECT b.zone_key, b.start_s, b.seconds FROM starts "
        f"CROSS JOIN (VALUES {', '.join(f'({key})' for key in keys)}) k CROSS JOIN balance b "
        f"WHERE starts.start_s < {until_s} AND b.start_s = starts.start_s AND b.zone_key = k.column1"
    )


def literals(rows: Sequence[Row], table: Table) -> str:
    """Rows as they stand behind VALUES in the MySQL family; what quotes the text is the connection's matter.

    Only for tables of integers: str() of a list of integer tuples is valid SQL but for its NULLs, and forty times as
    fast as quoting value by value.
    """
    if not table.numbers:
        raise ValueError(f"{table.name} has columns that need quoting")
    return str(list(rows))[1:-1].replace("None", "NULL")
