"""The fleet's store over one SQL server: migrations, batches that may be applied twice, partitions and retention.

Every transaction here is idempotent, because its message may come again: after a crash between COMMIT and PUBACK,
from a second replica, or because the answer to COMMIT was lost. Exactness of the day rollups rests on one thing: a
balance adds to its day in the transaction in which its row is new, and in no other.

No moment of a zone counts twice. Intervals of one length lie on one grid and cannot overlap, so a day remembers its
length, and its upsert refuses another one. Only then are the day's intervals looked up, under the lock of the day's
row: what overlaps one of them is not written, and `apply` tells which it was. The usual case costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import unquote, urlsplit

from agent import wire
from agent.utility.sql import statements
from agent.utility.sql.batch import LOOKED_AT_DAY, Day, Letter, Span, apart, day_of, day_rows, merged
from agent.utility.sql.cases import EVIDENCE
from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S, MIGRATION, TABLES, VERSION
from agent.utility.sql.server import Server, StoreMisfit, StoreRefused, StoreUnavailable
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table
from agent.utility.sql.tidb import tidb_statements
from agent.wire.values import utc

KEEP_DAYS = 90  # intervals; the days' rollups and the alerts stay
AHEAD_DAYS = 14  # partitions made in advance: so long may the maintenance fail
MIGRATION_TIMEOUT_S = 900.0  # for one statement: TiDB's SPLIT waits up to 300 s for its regions to be scattered
_TRIES = 16  # to insert balances that other replicas insert at the same time


MAX_MIXED = 100_000  # zones' days known to hold intervals of several lengths; a hint, so it may be forgotten
_NEW_DAY = replace(BALANCE_DAY, merge="first")


class Applied(NamedTuple):
    """What became of a batch: how many balances were new, and the letters whose interval overlaps another one."""

    new: int
    overlapping: tuple[Letter, ...]


class _SeenBefore(Exception):
    """Some of the batch's balances are in the store already."""


class _OtherLength(Exception):
    """A zone's day holds intervals of another length than the batch's."""


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
        self._mixed: set[Day] = set()

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

    def apply(self, letters: Sequence[Letter]) -> Applied:
        """Write the letters' rows in one transaction, but for balances that overlap others of their zone.

        Raises StoreUnavailable (try again) or StoreRefused (one of them cannot be written: halve the batch).
        """
        tables = merged(letters)
        balances = tables.pop(BALANCE, [])
        looked_at = {day for day in map(day_of, balances) if day in self._mixed} if self._mixed else set()
        overlapping: list[Row] = []  # nothing changes that any more: what they overlap is committed
        for _ in range(_TRIES):
            try:
                with self.server.transaction():
                    new, refused = self._insert_balances(balances, looked_at) if balances else (0, [])
                    for table in TABLES:
                        if rows := tables.get(table):
                            self.server.insert(table, rows)
                return Applied(new, _letters_of(letters, overlapping + refused))
            except _SeenBefore:
                query = statements.existing(
                    BALANCE,
                    self.server.dialect,
                    [cast(Day, row[:2]) for row in balances],
                    ("seconds",),
                )
                known = {row[:2]: row[2] for row in self.rows(query)}
                overlapping += [row for row in balances if known.get(row[:2], row[2]) != row[2]]
                balances = [row for row in balances if row[:2] not in known]
            except _OtherLength:
                looked_at = set(map(day_of, balances))
        raise StoreUnavailable(f"{_TRIES} times another writer was faster with some of these {len(balances)} balances")

    def _insert_balances(self, balances: list[Row], looked_at: set[Day]) -> tuple[int, list[Row]]:
        """Inside a transaction: how many are new, and those that overlap. `looked_at`: days whose intervals it reads.

        Raises: _SeenBefore, _OtherLength: roll back, and try again with less to write, or with more to look at.
        """
        refused: list[Row] = []
        steps: dict[Day, int] = {}
        if looked_at:
            balances, refused, steps = apart(balances, self._spans(sorted(looked_at)))
        days = day_rows(balances)
        if any(row[-1] == 0 and row[:2] not in looked_at for row in days):
            raise _OtherLength
        if balances and self.server.insert(BALANCE, balances) != len(balances):
            raise _SeenBefore
        try:
            if of_one_length := [row for row in days if row[:2] not in looked_at]:
                self.server.insert(BALANCE_DAY, of_one_length)
        except StoreRefused as error:
            raise _OtherLength from error
        if others := [(*row[:-1], steps[cast(Day, row[:2])]) for row in days if row[:2] in looked_at]:
            self.server.insert(LOOKED_AT_DAY, others)
        if len(self._mixed) > MAX_MIXED:
            self._mixed.clear()
        self._mixed.update(day for day, step_s in steps.items() if not step_s)
        return len(balances), refused

    def _spans(self, days: Sequence[Day]) -> dict[Day, list[Span]]:
        """Every interval of these zones' days, which nobody adds to until the transaction ends."""
        self.server.insert(_NEW_DAY, [(*day, *(0,) * (len(BALANCE_DAY.columns) - 2)) for day in days])
        if self.server.dialect == "mysql":  # SQLite has one writer at a time
            self.server.run(statements.existing(BALANCE_DAY, "mysql", days) + " FOR UPDATE")
        found: dict[Day, list[Span]] = {day: [] for day in days}
        for day in sorted({day for _, day in days}):
            zone_keys = [zone_key for zone_key, other in days if other == day]
            for row in self.rows(statements.spans(self.server.dialect, day, zone_keys)):
                zone_key, start_s, seconds = cast(tuple[int, int, int], row)
                found[zone_key, day].append((start_s, seconds))
        return found

    def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Upsert rows of one table in a transaction of their own."""
        with self.server.transaction():
            self.server.insert(table, rows)

    # -- reading -----------------------------------------------------------------------------------------------

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows that a query returns."""
        return self.server.run(query, values)


def _letters_of(letters: Sequence[Letter], balances: Sequence[Row]) -> tuple[Letter, ...]:
    """The letters that these rows come from."""
    if not balances:
        return ()
    spans = {row[:3] for row in balances}
    return tuple(
        letter for letter in letters if any(table is BALANCE and row[:3] in spans for table, row in letter.rows)
    )
