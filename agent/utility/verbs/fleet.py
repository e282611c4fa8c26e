"""`checkmeter utility losses`, `cases`, `suspects`, `gateways` and `trend`."""

from __future__ import annotations

import click

from agent.process.clock import SystemClock
from agent.utility.fleet import queries
from agent.utility.fleet.queries import Answer
from agent.utility.sql.store import open_store
from agent.utility.verbs.options import Form, form_options, show, store_option, top_option

NO_DAYS = "no whole day yet: days are UTC days up to yesterday, and no balance of one has come"
ANY = "SELECT gateway_key FROM gateway LIMIT 1"


@click.command()
@store_option
@click.option(
    "--days", type=click.IntRange(1, 3660), default=30, show_default=True, help="Whole days, up to yesterday."
)
@click.option("--price", type=click.FloatRange(0.0), help="Money for a kWh: adds a column.")
@top_option
@form_options
def losses(dsn: str, days: int, price: float | None, top: int, form: Form) -> None:
    """Buildings by unexplained loss: main meter less sub-meters less technical loss."""
    with open_store(dsn) as store:
        store.check_version()
        _print(queries.losses(store, SystemClock().now(), days, top, price), form, NO_DAYS)


@click.command()
@store_option
@top_option
@form_options
def cases(dsn: str, top: int, form: Form) -> None:
    """Open cases with their age and confidence, those that lose most first."""
    with open_store(dsn) as store:
        store.check_version()
        answer = queries.cases(store, SystemClock().now(), top)
    if form is Form.TABLE:
        answer = _with_doubts(answer)
    show(answer.columns, answer.rows, form, "no open case", least=("unexplained_probability", "tenant", "severity"))


@click.command()
@store_option
@click.option("--signs", type=click.IntRange(1, 10), default=2, show_default=True, help="Different signs, at least.")
@click.option("--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="How far back.")
@top_option
@form_options
def suspects(dsn: str, signs: int, days: int, top: int, form: Form) -> None:
    """Meters that several signs speak against: energy balance, compact model, tamper events, reverse energy."""
    with open_store(dsn) as store:
        store.check_version()
        none = f"no meter that {signs} different signs speak against within {days} days"
        answer = queries.suspects(store, SystemClock().now(), signs, days, top)
        show(answer.columns, answer.rows, form, none, least=("tenant", "gateway"))


@click.command()
@store_option
@click.option("--silent-hours", type=click.FloatRange(0.25), default=2.0, show_default=True, help="Without a balance.")
@top_option
@form_options
def gateways(dsn: str, silent_hours: float, top: int, form: Form) -> None:
    """Gateways that are offline, degraded or silent, those that are silent longest first."""
    with open_store(dsn) as store:
        store.check_version()
        none = "all gateways are online and send balances" if store.rows(ANY) else "no gateway has sent anything yet"
        answer = queries.gateways(store, SystemClock().now(), silent_hours, top)
        show(answer.columns, answer.rows, form, none, least=("tenant", "software"))


@click.command()
@store_option
@click.option(
    "--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="Whole days, up to yesterday."
)
@form_options
def trend(dsn: str, days: int, form: Form) -> None:
    """The fleet's energy, technical loss and unexplained loss, day by day."""
    with open_store(dsn) as store:
        store.check_version()
        _print(queries.trend(store, SystemClock().now(), days), form, NO_DAYS)


def _with_doubts(answer: Answer) -> Answer:
    """For people: one column tells what was found, with a question mark until somebody else has confirmed it."""
    found, waiting = answer.columns.index("outcome"), answer.columns.index("unconfirmed")
    rows = [
        (*row[:found], row[found] or (f"{row[waiting]}?" if row[waiting] else None), *row[waiting + 1 :])
        for row in answer.rows
    ]
    return Answer((*answer.columns[:waiting], *answer.columns[waiting + 1 :]), rows)


def _print(answer: Answer, form: Form, empty: str) -> None:
    show(answer.columns, answer.rows, form, empty)
