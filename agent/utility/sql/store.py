"""The fleet's store over one SQL server: migrations, batches that may be applied twice, partitions and retention.

Every transaction here is idempotent, because its message may come again: after a crash between COMMIT and PUBACK,
from a second replica, or because the answer to COMMIT was lost. Exactness of the day rollups rests on one thing: a
balance adds to its day in the transaction in which its row is new, and in no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent import wire
from agent.utility.sql import statements
from agent.utility.sql.batch import Letter, day_rows, merged
from agent.utility.sql.cases import EVIDENCE
from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S, MIGRATION, TABLES, VERSION
from agent.utility.sql.server import Server, StoreMisfit, StoreUnavailable
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table
from agent.utility.sql.tidb import tidb_statements
from agent.wire.values import utc

KEEP_DAYS = 90  # intervals; the days' rollups and the alerts stay
AHEAD_DAYS = 14  # partitions made in advance: so long may the maintenance fail
MIGRATION_TIMEOUT_S = 900.0  # for one statement: TiDB's SPLIT waits up to 300 s for its regions to be scattered
_TRIES = 16  # to insert balances that other replicas insert at the same time


class _SeenBefore(Exception):
    """Some of the batch's balances are in the store already."""


def open_store(dsn: str, *, make: bool = False) -> Store:
    """The store behind `sqlite:///file`, `sqlite:////absolute/file` or `mysql://user@host:port/database`.

    A file that is missing is made if `make` says so; else that is an error: a mistyped path makes no empty store.
    """
    url = urlsplit(dsn)
    if url.scheme == "sqlite":
        from agent.utility.sql.sqlite import Sqlite

        path = unquote(url.path).removeprefix("/")
        if url.netloc or not path:
            raise StoreMisfit(f"{dsn}: write sqlite:///file, or sqlite:////absolute/file")
        return Store(Sqlite(Path(path), make=make))
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
    """What the ingest writes to and the verbs ask; one thread. Retention is agent.utility.sql.upkeep's."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._tidb: bool | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    # -- schema ------------------------------------------------------------------------------------------------

    def migrate(self, now_s: float, keep_days: int = KEEP_DAYS, tiflash_replicas: int = 0) -> list[str]:
        """Bring tables and views up to date; returns the statements that it ran. May be run again at any time."""
        dialect = self.server.dialect
        today = int(now_s // DAY_S)
        version = self.version()
        if version > VERSION:
            raise StoreMisfit(f"the store is at version {version}, this program knows {VERSION}: update the program")
        done: list[str] = []
        with self.server.patient(MIGRATION_TIMEOUT_S):
            for table in TABLES:
                done.append(statements.create_table(table, dialect, today - keep_days, today + AHEAD_DAYS))
                self.server.run(done[-1])
                more = statements.create_indexes(table, dialect) + statements.add_columns(table, self._columns(table))
                for statement in more:
                    self.server.run(statement)
                done += more
            self._move_evidence()
            # SQLite drops and makes a view: no reader may see the moment between the two.
            with self.server.transaction() if dialect == "sqlite" else nullcontext():
                for statement in statements.create_views(dialect):
                    self.server.run(statement)
                    done.append(statement)
            if self.is_tidb() and not self._applied("tidb"):
                for statement in tidb_statements(tiflash_replicas, range(today, today + AHEAD_DAYS + 1)):
                    self.server.run(statement)
                    done.append(statement)
                self.write(MIGRATION, [(VERSION, "tidb", timestamp(now_s))])
            self.write(MIGRATION, [(VERSION, "tables", timestamp(now_s))])
        return done

    def _move_evidence(self) -> None:
        """Version 1 numbered the chunks of a case, so that those of two reports mixed: from now on they lie by time."""
        old = Table("evidence", (("alert_key", ""), ("chunk", ""), ("chunks", ""), ("body", "")), keys=2, merge="first")
        if not self._columns(old):
            return
        for key, body in self.rows("SELECT alert_key, body FROM evidence"):
            chunk = wire.decode(wire.EvidenceChunk, str(body).encode())
            start_s = round(chunk.start.timestamp())
            end_s = start_s + round(chunk.interval_s * max((len(s.kwh) for s in chunk.series), default=0))
            self.write(EVIDENCE, [(key, start_s, body, end_s)])
        self.server.run("DROP TABLE evidence")

    def _columns(self, table: Table) -> list[str]:
        """The columns that the server's table has."""
        if self.server.dialect == "sqlite":
            return [str(row[1]) for row in self.rows(f"PRAGMA table_info({table.name})")]
        query = "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?"
        return [str(row[0]).lower() for row in self.rows(query, (table.name,))]

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
        """Whether the server is TiDB. VERSION() does not tell: the setting `server-version` makes it say anything."""
        if self._tidb is None:
            try:
                self._tidb = self.server.dialect == "mysql" and bool(self.rows("SELECT tidb_version()"))
            except StoreMisfit:  # no such function
                self._tidb = False
        return self._tidb

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
