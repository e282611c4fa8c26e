"""Options that several verbs share, and how they print: a table for people, JSON lines for programs."""

from __future__ import annotations

import functools
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
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
top_option = click.option(
    "--top", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Rows at most."
)
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


def show(columns: Sequence[str], rows: Iterable[Sequence[object]], *, as_json: bool) -> None:
    """Print rows under their column names."""
    listed = [list(row) for row in rows]
    if as_json:
        for row in listed:
            click.echo(json.dumps(dict(zip(columns, row, strict=True)), default=str))
        return
    texts = [list(columns), *([_cell(value) for value in row] for row in listed)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = [all(isinstance(row[n], int | float | None) for row in listed) for n in range(len(columns))]
    for line in texts:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return str(value)
