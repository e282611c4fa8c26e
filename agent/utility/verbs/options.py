"""Options that several verbs share, and how they print: a table for people, JSON lines or CSV for programs."""

from __future__ import annotations

import csv
import enum
import functools
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.utility.fleet.spreadsheet import cell
from agent.utility.mqtt.connection import Broker

F = TypeVar("F", bound=Callable[..., Any])

store_option = click.option(
    "--store",
    "dsn",
    required=True,
    envvar="CHECKMETER_STORE",
    metavar="DSN",
    help="sqlite:///file, or mysql://user@host:port/database?password_file=PATH&ssl_ca=PATH (TiDB, MariaDB, MySQL).",
)
top_option = click.option(
    "--top", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Rows at most."
)
WIDTH, NARROWEST = 100, 6  # columns of a table, and of a text that is cut
# What a text keeps at least where it says who or why.
FLOORS = {"site": 16, "zone": 12, "suspect": 16, "meter": 16, "gateway": 12, "kind": 12, "reason": 20, "obstacle": 30}
LEAST = (  # the first to go without room
    "unexplained_probability", "tenant", "gateway", "trough_about", "trough_kw", "severity", "outcome",
)  # fmt: skip
HEADS = {"age_days": "age", "over_probability": "over", "peak_probability": "peak", "unread_meters": "unread",
         "unexplained_probability": "none of these"}  # fmt: skip
PERCENT = {"probability", "confidence", "over_probability", "peak_probability", "unexplained_probability"}
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
SHORT_ID = 8  # characters of an alert's id: what a person types
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def broker_options(function: F) -> F:
    """--broker and its credentials, as one argument `broker`."""

    @functools.wraps(function)
    def build(
        *args: Any,
        broker_url: str,
        password_file: Path | None,
        ca: Path | None,
        certificate: Path | None,
        key: Path | None,
        **rest: Any,
    ) -> Any:
        try:
            broker = Broker(broker_url, password_file, ca, certificate, key)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return function(*args, broker=broker, **rest)

    for option in (
        click.option("--key", type=_FILE, help="Its private key (PEM)."),
        click.option("--certificate", type=_FILE, help="Our client certificate (PEM)."),
        click.option("--ca", type=_FILE, help="Certificate authority of the broker, if not the system's (PEM)."),
        click.option("--password-file", type=_FILE, help="Password of the user in the address."),
        click.option(
            "--broker",
            "broker_url",
            required=True,
            envvar="CHECKMETER_BROKER",
            metavar="URL",
            help="mqtt://host:1883 or mqtts://user@host:8883.",
        ),
    ):
        build = option(build)
    return build  # type: ignore[return-value]  # the same parameters but for the broker's


class Form(enum.Enum):
    """How an answer is printed."""

    TABLE = enum.auto()
    JSON = enum.auto()
    CSV = enum.auto()


def form_options(function: F) -> F:
    """--json and --csv, as one argument `form`."""

    @functools.wraps(function)
    def build(*args: Any, as_json: bool, as_csv: bool, **rest: Any) -> Any:
        if as_json and as_csv:
            raise click.UsageError("--json or --csv, not both")
        return function(*args, form=Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE, **rest)

    for option in (
        click.option("--csv", "as_csv", is_flag=True, help="CSV with a line of names."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
    ):
        build = option(build)
    return build  # type: ignore[return-value]  # the same parameters but for the two flags


def show(
    columns: Sequence[str], rows: Iterable[Sequence[object]], form: Form, empty: str = "", least: Sequence[str] = LEAST
) -> None:
    """Print rows under their column names. A table is for people: ages in words, ids short, at most WIDTH columns wide.

    Where that is not enough room, the columns of `least` are left out one after the other, and said to be; then texts
    are cut where they are longest. A number or a time never is. `empty` says why there is no row; programs get nothing
    then.
    """
    listed = [list(row) for row in rows]
    if form is Form.JSON:
        for row in listed:
            click.echo(json.dumps(dict(zip(columns, row, strict=True)), default=str))
        return
    if form is Form.CSV:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([cell(value) for value in row] for row in listed)
        click.echo(out.getvalue(), nl=False)
        return
    if not listed:
        click.echo(empty or "none")
        return
    kept = [_Column(name, [row[n] for row in listed]) for n, name in enumerate(columns)]
    left_out = []
    for name in least:
        if _over(kept) <= 0:
            break
        left_out += [column.name for column in kept if column.name == name]
        kept = [column for column in kept if column.name != name]
    while _over(kept) > 0:
        widest = max(kept, key=lambda column: column.width - column.floor)
        if widest.width <= widest.floor:
            break  # what is left are numbers and names: better a long line than none of them
        widest.width -= 1
    for n in range(-1, len(listed)):
        click.echo("  ".join(column.line(n) for column in kept).rstrip())
    if left_out:
        click.echo(f"(no room for {', '.join(left_out)}: --csv and --json have them)", err=True)


class _Column:
    """One column of a table: its texts, how wide it is, and how narrow it may become."""

    def __init__(self, name: str, values: Sequence[object]) -> None:
        self.name = name
        self._head = HEADS.get(name) or name.removesuffix("_s").removesuffix("_days").removesuffix("_days_ago")
        self._texts = [_cell(name, value) for value in values]
        self._right = all(isinstance(value, int | float | None) for value in values)
        self.width = max(map(len, (self._head, *self._texts)))
        fixed = name == "alert_id" or any(isinstance(v, int | float) or _is_time(v) for v in values)
        self.floor = self.width if fixed or self._right else min(self.width, FLOORS.get(name, NARROWEST))

    def line(self, n: int) -> str:
        """The cell of a row; the column's name for -1."""
        text = _cut(self._head if n < 0 else self._texts[n], self.width)
        return text.rjust(self.width) if self._right else text.ljust(self.width)


def _over(columns: Sequence[_Column]) -> int:
    return sum(column.width + 2 for column in columns) - 2 - WIDTH


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _is_time(value: object) -> bool:
    return isinstance(value, str) and _TIME.match(value) is not None


def short_time(text: str) -> str:
    """A store's time as people read it: "20 Mar 14:00"."""
    return datetime.fromisoformat(text[:19]).strftime("%d %b %H:%M")


def _cell(column: str, value: object) -> str:
    if value is None:
        return "-"
    if column.endswith(("_days", "_days_ago")) and isinstance(value, int | float):
        return age(float(value) * 86_400)
    if column == "alert_id":
        return str(value)[:SHORT_ID]
    if _is_time(value):
        return short_time(str(value))
    if column in PERCENT and isinstance(value, float):
        return f"{100 * value:.0f} %"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return printable(str(value))


def printable(text: str) -> str:
    """What came over the wire may hold what steers a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def age(seconds: float) -> str:
    """How long, in one unit: "11 h"."""
    for limit_s, unit_s, name in ((5400.0, 60.0, "min"), (48 * 3600.0, 3600.0, "h")):
        if abs(seconds) < limit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"
