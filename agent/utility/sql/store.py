"""The fleet's store over one SQL server: migrations, batches that may be applied twice, partitions and retention.

Every transaction here is idempotent, because its message may come again: after a crash between COMMIT and PUBACK,
from a second replica, or because the answer to COMMIT was lost. Exactness of the day rollups rests on one thing: a
balance adds to its day in the transaction in which its row is new, and in no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.utility.sql import statements
from agent.utility.sql.batch import Letter, day_rows, merged
from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S, DEAD_LETTER, MIGRATION, TABLES, VERSION, Table
from agent.utility.sql.server import Server, StoreMisfit, StoreUnavailable
from agent.utility.sql.statements import Row
from agent.utility.sql.tidb import after_new_partition, tidb_statements
from agent.wire.values import utc

KEEP_DAYS = 90  # intervals; the days' rollups and the alerts stay
AHEAD_DAYS = 14  # partitions made in advance: so long may the maintenance fail
_TRIES = 16  # to insert balances that other replicas insert at the same time


class _SeenBefore(Exception):
    """Some of the batch's balances are in the store already."""


def open_store(dsn: str) -> Store:
    """The store behind `sqlite:///file`, `sqlite:////absolute/file` or `mysql://user@host:port/database`."""
    url = urlsplit(dsn)
    if url.scheme == "sqlite":
        from agent.utility.sql.sqlite import Sqlite

        path = unquote(url.path).removeprefix("/")
        if url.netloc or not path:
            raise StoreMisfit(f"{dsn}: write sqlite:///file, or sqlite:////absolute/file")
        return Store(Sqlite(Path(path)))
    if url.scheme == "mysql":
        try:
            from agent.utility.sql.mysql import Mysql
        except ModuleNotFoundError as error:
            raise StoreMisfit("mysql:// needs PyMySQL: pip install 'checkmeter[utility]'") from error
        return Store(Mysql(url))
    raise StoreMisfit(f"{url.scheme or dsn}: a store is sqlite:///file or mysql://user@host:port/database")


def timestamp(seconds: float) -> str:
    """A DATETIME in UTC."""
    return utc(seconds).strftime("%Y-%m-%d %H:%M:%S")


class Store:
    """What the ingest writes to and the verbs ask; one thread."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    # -- schema ------------------------------------------------------------------------------------------------

    def migrate(self, now_s: float, keep_days: int = KEEP_DAYS, tiflash_replicas: int = 0) -> list[str]:
        """Bring tables and views up to date; returns the statements that it ran. May be run again at any time."""
        done: list[str] = []
        dialect = self.server.dialect
        today = int(now_s // DAY_S)
        version = self.version()
        if version > VERSION:
            raise StoreMisfit(f"the store is at version {version}, this program knows {VERSION}: update the program")
        for table in TABLES:
            done.append(statements.create_table(table, dialect, today - keep_days, today + AHEAD_DAYS))
            done += statements.create_indexes(table, dialect)
        done += statements.create_views()
        for statement in done:
            self.server.run(statement)
        if self.is_tidb() and not self._applied("tidb"):
            for statement in tidb_statements(tiflash_replicas):
                self.server.run(statement)
                done.append(statement)
            self.write(MIGRATION, [(VERSION, "tidb", timestamp(now_s))])
        self.write(MIGRATION, [(VERSION, "tables", timestamp(now_s))])
        return done

    def version(self) -> int:
        """The schema's version; 0 if there is none yet."""
        if self.server.dialect == "sqlite":
            query = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'migration'"
        else:
            query = (
                "SELECT COUNT(*) FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = 'migration'"
            )
        if self.rows(query)[0][0] == 0:
            return 0
        found = self.rows("SELECT MAX(version) FROM migration WHERE part = 'tables'")[0][0]
        return found if isinstance(found, int) else 0

    def check_version(self) -> None:
        """Refuse a store whose schema is not this program's."""
        if (version := self.version()) != VERSION:
            raise StoreMisfit(f"the store's schema is version {version}, not {VERSION}: run checkmeter utility migrate")

    def is_tidb(self) -> bool:
        """Whether the server is TiDB."""
        return self.server.dialect == "mysql" and "tidb" in str(self.rows("SELECT VERSION()")[0][0]).lower()

    def _applied(self, part: str) -> bool:
        return bool(self.rows("SELECT version FROM migration WHERE version = ? AND part = ?", (VERSION, part)))

    # -- writing -----------------------------------------------------------------------------------------------

    def apply(self, letters: Sequence[Letter]) -> int:
        """Write the letters' rows in one transaction; returns how many balances were new.

        Raises StoreUnavailable (try again) or StoreRefused (one of them cannot be written: halve the batch).
        """
        tables = merged(letters)
        balances = tables.pop(BALANCE, [])
        for _ in range(_TRIES):
            try:
                with self.server.transaction():
                    if balances:
                        if self.server.insert(BALANCE, balances) != len(balances):
                            raise _SeenBefore
                        self.server.insert(BALANCE_DAY, day_rows(balances))
                    for table in TABLES:
                        if rows := tables.get(table):
                            self.server.insert(table, rows)
                return len(balances)
            except _SeenBefore:
                known = set(self.rows(statements.existing(BALANCE, self.server.dialect, [row[:2] for row in balances])))  # type: ignore[misc]
                balances = [row for row in balances if row[:2] not in known]
        raise StoreUnavailable(f"{_TRIES} times another writer was faster with some of these {len(balances)} balances")

    def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Upsert rows of one table in a transaction of their own."""
        with self.server.transaction():
            self.server.insert(table, rows)

    # -- reading -----------------------------------------------------------------------------------------------

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows that a query returns."""
        return self.server.run(query, values)

    # -- retention ---------------------------------------------------------------------------------------------

    def maintain(self, now_s: float, keep_days: int = KEEP_DAYS, keep_letters_days: int = 30) -> list[str]:
        """Make the coming days' partitions, drop those past `keep_days`, and forget old dead letters.

        SQLite has no partitions: there old intervals are deleted hour by hour, along the primary key. Returns what
        was done. Safe beside other replicas that do the same.
        """
        today = int(now_s // DAY_S)
        if self.server.dialect == "sqlite":
            done = self._delete_intervals(today - keep_days)
        else:
            done = self._move_partitions(today - keep_days, today + AHEAD_DAYS)
        limit = timestamp(now_s - keep_letters_days * DAY_S)
        if letters := self.rows(f"SELECT COUNT(*) FROM {DEAD_LETTER.name} WHERE received_at < ?", (limit,))[0][0]:
            self.server.run(f"DELETE FROM {DEAD_LETTER.name} WHERE received_at < ?", (limit,))
            done.append(f"forgot {letters} dead letters from before {limit}")
        return done

    def _delete_intervals(self, first_day: int) -> list[str]:
        first_s = first_day * DAY_S
        deleted = 0
        while (oldest := self.rows("SELECT MIN(start_s) FROM balance WHERE start_s < ?", (first_s,))[0][0]) is not None:
            # An hour at a time: the ingest beside us waits for milliseconds, not for minutes.
            assert isinstance(oldest, int)
            self.server.run("DELETE FROM balance WHERE start_s < ?", (min(first_s, oldest + 3600),))
            deleted += int(str(self.rows("SELECT changes()")[0][0]))
        return [f"deleted {deleted} intervals from before day {first_day}"] if deleted else []

    def partitions(self) -> list[int]:
        """The days that have a partition, in order."""
        found = self.rows(
            "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE() "
            "AND table_name = ? AND partition_name IS NOT NULL ORDER BY partition_ordinal_position",
            (BALANCE.name,),
        )
        return [int(str(name)[1:]) for (name,) in found]

    def _move_partitions(self, first_day: int, last_day: int) -> list[str]:
        done = []
        tidb = self.is_tidb()
        held = self.partitions()
        for day in range(held[-1] + 1, last_day + 1):
            alter = [f"ALTER TABLE {BALANCE.name} ADD PARTITION ({statements.partition(day)})"]
            alter += after_new_partition(day) if tidb else []
            done += self._alter(alter)
        for day in held:
            if day < first_day:
                done += self._alter([f"ALTER TABLE {BALANCE.name} DROP PARTITION p{day}"])
        return done

    def _alter(self, statements: list[str]) -> list[str]:
        """Run what another replica may have run a moment ago; then its partitions are as we wanted them."""
        before = self.partitions()
        try:
            for statement in statements:
                self.server.run(statement)
        except StoreMisfit:
            if self.partitions() == before:
                raise
        return statements
