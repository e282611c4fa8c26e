"""`checkmeter utility migrate`, `maintain` and `letters`."""

from __future__ import annotations

import textwrap

import click

from agent.process.clock import SystemClock
from agent.utility.fleet import realised
from agent.utility.sql import upkeep
from agent.utility.sql.schema import VERSION
from agent.utility.sql.store import KEEP_DAYS, open_store
from agent.utility.verbs.options import (
    WIDTH,
    Form,
    form_options,
    printable,
    short_time,
    show,
    store_option,
    top_option,
)

INDENT, TOPIC_WIDTH = " " * 14, 70

keep_option = click.option(
    "--keep-days", type=click.IntRange(2, 3660), default=KEEP_DAYS, show_default=True, help="Days of intervals kept."
)


@click.command()
@store_option
@keep_option
@click.option(
    "--tiflash-replicas", type=click.IntRange(0, 3), default=0, show_default=True, help="TiDB: columnar replicas."
)
@click.option("--verbose", is_flag=True, help="Print every statement.")
def migrate(dsn: str, keep_days: int, tiflash_replicas: int, verbose: bool) -> None:
    """Make or update tables, partitions and views. May be run at any time, and again."""
    with open_store(dsn, make=True) as store:
        done = store.migrate(SystemClock().now(), keep_days, tiflash_replicas)
    for statement in done if verbose else ():
        click.echo(statement + ";")
    click.echo(f"{len(done)} statements; the store is at version {VERSION}")


@click.command()
@store_option
@keep_option
def maintain(dsn: str, keep_days: int) -> None:
    """What every ingest does once a day: partitions ahead, old ones dropped, old dead letters forgotten."""
    with open_store(dsn) as store:
        store.check_version()
        now_s = SystemClock().now()
        for line in upkeep.maintain(store, now_s, keep_days):
            click.echo(line)
        click.echo(f"{realised.settle(store, now_s)} forecasts that are over were held against their loads")


@click.command()
@store_option
@top_option
@form_options
def letters(dsn: str, top: int, form: Form) -> None:
    """Messages that could not be read, newest first, with the reason."""
    with open_store(dsn) as store:
        store.check_version()
        rows = store.rows(
            "SELECT received_at, topic, reason, octets FROM dead_letter ORDER BY received_at DESC, letter_id LIMIT ?",
            (top,),
        )
    texts = [
        (at, topic.decode(errors="replace") if isinstance(topic, bytes) else topic, reason, octets)
        for at, topic, reason, octets in rows
    ]
    if form is Form.TABLE and texts:  # the reason is what it is about: it has lines of its own
        for at, topic, reason, octets in texts:
            click.echo(f"{short_time(str(at))}  {f'{octets} octets':>14}  {printable(str(topic))[:TOPIC_WIDTH]}")
            click.echo(textwrap.fill(printable(str(reason)), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT))
        return
    show(("received", "topic", "reason", "octets"), texts, form, "no dead letter: everything that came could be read")
