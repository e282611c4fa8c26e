"""TiDB, MariaDB or MySQL as the store, through PyMySQL (pure Python, MIT).

A connection that fails is thrown away, and the next statement opens another one. What a commit did whose answer was
lost is unknown; every transaction here may be run twice, so nobody needs to know.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote

import pymysql
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions, escape_string

from agent.utility.sql.server import StoreMisfit, StoreRefused, StoreUnavailable
from agent.utility.sql.statements import Dialect, Row, insert, literals
from agent.utility.sql.table import Table

# Server error numbers after which the same transaction may succeed: connection and shutdown, lock wait and
# deadlock; 8000 and 9000 are TiDB's (write conflict, region moved, schema changed while we wrote, TiKV busy or away).
_TRANSIENT = {
    1020, 1021, 1037, 1040, 1041, 1042, 1043, 1053, 1077, 1078, 1079, 1105, 1114, 1129, 1152, 1158, 1159, 1160, 1161,
    1180, 1184, 1192, 1203, 1205, 1213, 1226, 1290, 1317, 1836, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 3024, 4031,
    8002, 8004, 8005, 8018, 8022, 8024, 8027, 8028, 8229, 9001, 9002, 9003, 9004, 9005, 9006, 9007, 9010, 9013,
}  # fmt: skip
# Schema, rights, database: whatever the rows, an operator acts next.
_MISFIT = {1044, 1045, 1046, 1049, 1054, 1064, 1142, 1143, 1146, 1227, 1286, 1356, 1698, 1820, 2026, 2059, 2061}
_REFUSED = {1048, 1153, 1264, 1265, 1292, 1366, 1406, 1441, 1526, 3988, 8025, 8141}


class Mysql:
    """A connection to a server of the MySQL family, opened at its first use."""

    dialect: Dialect = "mysql"

    def __init__(self, url: SplitResult, timeout_s: float = 10.0) -> None:
        options = {name: values[-1] for name, values in parse_qs(url.query).items()}
        unknown = options.keys() - {"password_file", "ssl_ca"}
        database = url.path.lstrip("/")
        if unknown or not database or not url.hostname:
            raise StoreMisfit(
                f"the store's address is mysql://user@host:port/database?password_file=PATH&ssl_ca=PATH; "
                f"{f'unknown: {sorted(unknown)}' if unknown else 'host or database is missing'}"
            )
        password = unquote(url.password or "")
        if "password_file" in options:
            password = Path(options["password_file"]).read_text().strip()
        self._settings: dict[str, Any] = {
            "host": url.hostname,
            "port": url.port or 4000,  # TiDB's
            "user": unquote(url.username or ""),
            "password": password,
            "database": database,
            "charset": "utf8mb4",
            "autocommit": True,
            # Plain numbers and texts, as SQLite gives them: sums of BIGINT come as DECIMAL otherwise.
            "conv": {**conversions, FIELD_TYPE.DECIMAL: float, FIELD_TYPE.NEWDECIMAL: float, FIELD_TYPE.DATETIME: str},
            "connect_timeout": timeout_s,
            "read_timeout": max(60.0, timeout_s),  # a migration or a question over a fleet may take its time
            "write_timeout": max(60.0, timeout_s),
            "init_command": "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00'",
            "ssl": ssl.create_default_context(cafile=options["ssl_ca"]) if "ssl_ca" in options else None,
        }
        self._where = f"{url.hostname}:{self._settings['port']}/{database}"
        self._connection: Any = None
        self._in_transaction = False

    def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement; returns its rows."""
        with self._errors():
            connection = self._open()
            text = statement
            if values:
                parts = statement.split("?")
                if len(parts) != len(values) + 1:
                    raise ValueError(f"{len(values)} values for {len(parts) - 1} places: {statement}")
                text = parts[0] + "".join(
                    self._literal(value) + part for value, part in zip(values, parts[1:], strict=True)
                )
            with connection.cursor() as cursor:
                cursor.execute(text)
                return list(cursor.fetchall())

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Upsert the rows in one statement; for "first", returns how many were new."""
        head, tail = insert(table, "mysql")
        with self._errors(rows=True):
            connection = self._open()
            if table.numbers:
                values = literals(rows, table)
            else:
                values = ", ".join("(" + ", ".join(map(self._literal, row)) + ")" for row in rows)
            with connection.cursor() as cursor:
                # Without the client flag FOUND_ROWS (PyMySQL leaves it off) a row that stays as it is counts 0.
                return int(cursor.execute(head + values + tail))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN to COMMIT; a failure rolls back, and a lost connection has rolled back already."""
        self.run("BEGIN")
        self._in_transaction = True
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection is not None:
                try:
                    self.run("ROLLBACK")
                except StoreUnavailable:
                    self.close()
            raise
        finally:
            self._in_transaction = False

    @contextmanager
    def patient(self, timeout_s: float) -> Iterator[None]:
        """Another connection for what takes long: the read time-out is settled when one is made."""
        usual = self._settings["read_timeout"]
        self.close()
        self._settings["read_timeout"] = max(usual, timeout_s)
        try:
            yield
        finally:
            self._settings["read_timeout"] = usual
            self.close()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except pymysql.Error:
                connection._force_close()

    def _open(self) -> Any:
        if self._connection is None:
            if self._in_transaction:
                raise StoreUnavailable(f"{self._where}: the connection was lost inside a transaction")
            self._connection = pymysql.connect(**self._settings)
            # A retry must see what the other replica has committed meanwhile, and gap locks would only cost deadlocks.
            with self._connection.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return self._connection

    def _literal(self, value: object) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, bytes):
            return f"X'{value.hex()}'"
        if isinstance(value, str):
            return f"'{escape_string(value)}'"  # our sql_mode leaves the backslash its meaning
        return repr(value)

    @contextmanager
    def _errors(self, *, rows: bool = False) -> Iterator[None]:
        """`rows`: it is about rows; then an error that nobody foresaw is taken to be about one of them."""
        try:
            yield
        except (pymysql.Error, OSError) as error:
            code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            message = f"{self._where}: {error}"
            if code in _REFUSED or isinstance(error, pymysql.err.DataError):
                raise StoreRefused(message) from error
            if isinstance(error, OSError | pymysql.err.InterfaceError) or code in _TRANSIENT:
                if code not in {1205, 1213, 8002, 8022, 9007}:  # these left the connection whole
                    self.close()
                raise StoreUnavailable(message) from error
            if rows and code not in _MISFIT:
                raise StoreRefused(message) from error
            hint = "; run checkmeter utility migrate" if code in {1054, 1146} else ""
            raise StoreMisfit(message + hint) from error
