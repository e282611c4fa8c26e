"""Options that several verbs share, and how they print: a table for people, JSON lines or CSV for programs."""

from __future__ import annotations

import csv
import enum
import functools
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

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
WIDTH, NARROWEST = 100, 6  # columns of a table, and of a cell that is cut
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


def show(columns: Sequence[str], rows: Iterable[Sequence[object]], form: Form, empty: str = "") -> None:
    """Print rows under their column names. A table is for people: ages in words, ids short, at most WIDTH columns wide.

    `empty` says why there is none; programs get nothing then.
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
        writer.writerows([["" if value is None else value for value in row] for row in listed])
        click.echo(out.getvalue(), nl=False)
        return
    if not listed:
        click.echo(empty or "none")
        return
    names = [name.removesuffix("_s").removesuffix("_days").removesuffix("_days_ago") for name in columns]
    names = ["age" if name == "age_days" else name for name in names]
    texts = [names, *([_cell(name, value) for name, value in zip(columns, row, strict=True)] for row in listed)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    # What does not fit is cut where it is longest: programs have --json and --csv for the whole of it.
    wide = [n for n, name in enumerate(columns) if name != "alert_id"]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widest = max(wide, key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    numeric = [all(isinstance(row[n], int | float | None) for row in listed) for n in range(len(columns))]
    for line in texts:
        cells = [
            _cut(text, width).rjust(width) if right else _cut(text, width).ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _cell(column: str, value: object) -> str:
    if value is None:
        return "-"
    if column.endswith(("_days", "_days_ago")) and isinstance(value, int | float):
        return age(float(value) * 86_400)
    if column == "alert_id":
        return str(value)[:SHORT_ID]
    if column in {"probability", "confidence"} and isinstance(value, float):
        return f"{100 * value:.0f} %"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"
    # What came over the wire may hold what steers a terminal.
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))


def age(seconds: float) -> str:
    """How long, in one unit: "11 h"."""
    for limit_s, unit_s, name in ((5400.0, 60.0, "min"), (48 * 3600.0, 3600.0, "h")):
        if abs(seconds) < limit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"
