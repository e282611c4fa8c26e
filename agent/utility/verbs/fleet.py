"""`checkmeter utility losses`, `cases`, `suspects`, `gateways` and `trend`."""

from __future__ import annotations

import click

from agent.process.clock import SystemClock
from agent.utility.fleet import queries
from agent.utility.fleet.queries import Answer
from agent.utility.sql.store import open_store
from agent.utility.verbs.options import json_option, show, store_option, top_option


@click.command()
@store_option
@click.option(
    "--days", type=click.IntRange(1, 3660), default=30, show_default=True, help="Whole days, up to yesterday."
)
@click.option("--price", type=click.FloatRange(0.0), help="Money for a kWh: adds a column.")
@top_option
@json_option
def losses(dsn: str, days: int, price: float | None, top: int, as_json: bool) -> None:
    """Buildings by unexplained loss: main meter less sub-meters less technical loss."""
    with open_store(dsn) as store:
        store.check_version()
        _print(queries.losses(store, SystemClock().now(), days, top, price), as_json)


@click.command()
@store_option
@top_option
@json_option
def cases(dsn: str, top: int, as_json: bool) -> None:
    """Open cases with their age and confidence, those that lose most first."""
    with open_store(dsn) as store:
        store.check_version()
        _print(queries.cases(store, SystemClock().now(), top), as_json)


@click.command()
@store_option
@click.option("--signs", type=click.IntRange(1, 10), default=2, show_default=True, help="Different signs, at least.")
@click.option("--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="How far back.")
@top_option
@json_option
def suspects(dsn: str, signs: int, days: int, top: int, as_json: bool) -> None:
    """Meters that several signs speak against: energy balance, compact model, tamper events, reverse energy."""
    with open_store(dsn) as store:
        store.check_version()
        _print(queries.suspects(store, SystemClock().now(), signs, days, top), as_json)


@click.command()
@store_option
@click.option("--silent-hours", type=click.FloatRange(0.25), default=2.0, show_default=True, help="Without a balance.")
@top_option
@json_option
def gateways(dsn: str, silent_hours: float, top: int, as_json: bool) -> None:
    """Gateways that are offline, degraded or silent, those that are silent longest first."""
    with open_store(dsn) as store:
        store.check_version()
        _print(queries.gateways(store, SystemClock().now(), silent_hours, top), as_json)


@click.command()
@store_option
@click.option(
    "--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="Whole days, up to yesterday."
)
@json_option
def trend(dsn: str, days: int, as_json: bool) -> None:
    """The fleet's energy, technical loss and unexplained loss, day by day."""
    with open_store(dsn) as store:
        store.check_version()
        _print(queries.trend(store, SystemClock().now(), days), as_json)


def _print(answer: Answer, as_json: bool) -> None:
    show(answer.columns, answer.rows, as_json=as_json)
