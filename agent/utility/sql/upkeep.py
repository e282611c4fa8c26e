"""What a store needs once a day: partitions ahead, old ones dropped, old dead letters deleted; by one replica.

The replicas share a table with one row for each day: whose insert was new does the day's work. If that fails the row is
taken back, so that another may; if the process dies with it, the next day makes up for it, and partitions are made two
weeks ahead. Every delete is bounded: no transaction grows with what was stored.
"""

from __future__ import annotations

from agent.utility.sql import statements
from agent.utility.sql.keys import name_key
from agent.utility.sql.schema import BALANCE, DAY_S, DEAD_LETTER, FORECAST_DAY, FORECAST_ERROR, GROUP_DAY, MAINTENANCE
from agent.utility.sql.server import StoreError, StoreMisfit
from agent.utility.sql.store import AHEAD_DAYS, KEEP_DAYS, MIGRATION_TIMEOUT_S, Store, timestamp
from agent.utility.sql.tidb import after_the_day, new_partitions

KEEP_LETTERS_DAYS = 30
DELETE_ROWS = 1000  # of one transaction
MOST_DELETES = 10_000  # of one run: ten million letters


def maintain(
    store: Store,
    now_s: float,
    keep_days: int = KEEP_DAYS,
    keep_letters_days: int = KEEP_LETTERS_DAYS,
    replica: str | None = None,
) -> list[str]:
    """Make the coming days' partitions, drop those past `keep_days`, delete old dead letters; what was done.

    With `replica`, only if no other has begun with this day. SQLite has no partitions: there old intervals are deleted
    hour by hour, along the primary key. Safe beside writers.
    """
    today = int(now_s // DAY_S)
    since = _latest(store)
    duty = name_key("maintenance", str(today))
    if replica is not None:
        with store.server.transaction():
            if not store.server.insert(MAINTENANCE, [(duty, today, replica)]):
                return []
    try:
        if store.server.dialect == "sqlite":
            done = _delete_intervals(store, today - keep_days)
        else:
            with store.server.patient(MIGRATION_TIMEOUT_S):
                done = _move_partitions(store, today - keep_days, today, since)
        for table in (FORECAST_DAY, FORECAST_ERROR, GROUP_DAY):
            store.rows(f"DELETE FROM {table.name} WHERE day < ?", (today - keep_days,))
        done += _delete_letters(store, timestamp(now_s - keep_letters_days * DAY_S))
        store.rows("DELETE FROM maintenance WHERE day < ?", (today - 30,))
    except StoreError:
        if replica is not None:
            store.rows("DELETE FROM maintenance WHERE duty_key = ?", (duty,))
        raise
    return done


def _latest(store: Store) -> int | None:
    """The day that was maintained last."""
    found = store.rows("SELECT MAX(day) FROM maintenance")[0][0]
    return None if found is None else int(str(found))


def _changed(store: Store) -> int:
    """The rows that the statement before this one deleted."""
    query = "SELECT changes()" if store.server.dialect == "sqlite" else "SELECT ROW_COUNT()"
    return int(str(store.rows(query)[0][0]))


def _delete_letters(store: Store, limit: str) -> list[str]:
    """Dead letters from before `limit`, a thousand at a time; on TiDB that is TTL's matter."""
    if store.is_tidb():
        return []
    statement = f"DELETE FROM {DEAD_LETTER.name} WHERE received_at < ? LIMIT {DELETE_ROWS}"
    if store.server.dialect == "sqlite":
        statement = (
            f"DELETE FROM {DEAD_LETTER.name} WHERE letter_id IN "
            f"(SELECT letter_id FROM {DEAD_LETTER.name} WHERE received_at < ? LIMIT {DELETE_ROWS})"
        )
    deleted = 0
    for _ in range(MOST_DELETES):
        store.rows(statement, (limit,))
        changed = _changed(store)
        deleted += changed
        if changed < DELETE_ROWS:
            break
    return [f"deleted {deleted} dead letters from before {limit}"] if deleted else []


def _delete_intervals(store: Store, first_day: int) -> list[str]:
    first_s = first_day * DAY_S
    deleted = 0
    while (oldest := store.rows("SELECT MIN(start_s) FROM balance WHERE start_s < ?", (first_s,))[0][0]) is not None:
        # An hour at a time: the ingest beside us waits for milliseconds, not for minutes.
        assert isinstance(oldest, int)
        store.rows("DELETE FROM balance WHERE start_s < ?", (min(first_s, oldest + 3600),))
        deleted += _changed(store)
    return [f"deleted {deleted} intervals from before day {first_day}"] if deleted else []


def partitions(store: Store) -> list[int]:
    """The days that have a partition, in order."""
    found = store.rows(
        "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE() "
        "AND table_name = ? AND partition_name IS NOT NULL ORDER BY partition_ordinal_position",
        (BALANCE.name,),
    )
    return [int(str(name)[1:]) for (name,) in found]


def _move_partitions(store: Store, first_day: int, today: int, since: int | None) -> list[str]:
    done = []
    held = partitions(store)
    if new := range(held[-1] + 1, today + AHEAD_DAYS + 1):
        wanted = ", ".join(statements.partition(day) for day in new)
        done += _alter(store, f"ALTER TABLE {BALANCE.name} ADD PARTITION ({wanted})")
    if old := [day for day in held if day < first_day]:
        names = ", ".join(f"p{day}" for day in old)
        done += _alter(store, f"ALTER TABLE {BALANCE.name} DROP PARTITION {names}")
    if store.is_tidb():
        closed = range(max(first_day, today - 7 if since is None else since), today)
        for statement in [*(new_partitions(new) if new else []), *after_the_day(closed)]:
            store.rows(statement)
            done.append(statement)
    return done


def _alter(store: Store, statement: str) -> list[str]:
    """Run what an operator may have run a moment ago; then the partitions are as we wanted them."""
    before = partitions(store)
    try:
        store.rows(statement)
    except StoreMisfit:
        if partitions(store) == before:
            raise
    return [statement]
