"""`checkmeter utility outcome`, `precision` and `export-features`."""

from __future__ import annotations

import csv
import getpass
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.process.clock import SystemClock
from agent.process.exit_codes import NEGATIVE
from agent.utility.fleet import outcomes, queries
from agent.utility.sql.store import open_store
from agent.utility.verbs.options import Form, form_options, show, store_option
from core.scoring.features import FEATURES


@click.command()
@store_option
@click.argument("alert_id")
@click.argument("found", type=click.Choice(["theft", "fault", "nothing"]))
@click.option("--meter", help="The meter that was passed by or tampered with: needed to train on a theft.")
@click.option("--gateway", metavar="TENANT/SITE/GATEWAY", help="If several gateways have an alert of this id.")
@click.option("--on", "day", type=click.DateTime(["%Y-%m-%d"]), help="Day of the inspection [default: today].")
@click.option("--by", "inspector", default=getpass.getuser, show_default="your user name", help="Who says so.")
@click.option("--note", help="What the inspector saw, in at most 255 characters.")
def outcome(
    dsn: str,
    alert_id: str,
    found: str,
    meter: str | None,
    gateway: str | None,
    day: datetime | None,
    inspector: str,
    note: str | None,
) -> None:
    """Record what the inspection of ALERT_ID found. A later outcome replaces it; a theft's meter stays unless named."""
    if meter is not None and found != "theft":
        raise click.UsageError("--meter names the thief's meter: it goes with theft only")
    if note is not None and len(note) > 255:
        raise click.UsageError(f"a note has at most 255 characters, this one {len(note)}")
    now_s = SystemClock().now()
    inspected_s = int(now_s if day is None else day.replace(tzinfo=UTC).timestamp())
    with open_store(dsn) as store:
        store.check_version()
        about = outcomes.Found(found, meter, inspected_s, note, inspector[:64])
        recorded = outcomes.record(store, alert_id, gateway, about, now_s)
    at = f" at {recorded.meter}" if recorded.meter else ""
    click.echo(f"{alert_id} of {recorded.gateway}: {found}{at}, recorded by {inspector}")


@click.command()
@store_option
@form_options
def precision(dsn: str, form: Form) -> None:
    """Of the inspected cases, how many were theft: by version of the model that spoke, with a 95 % interval."""
    with open_store(dsn) as store:
        store.check_version()
        answer = queries.precision(store)
    show(
        answer.columns, answer.rows, form, "no outcome yet: checkmeter utility outcome records what an inspection found"
    )


@click.command("export-features")
@store_option
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="CSV for checkmeter train."
)
def export_features(dsn: str, output: Path) -> None:
    """Write the training table: each meter of each inspected case, with what its gateway saw of it."""
    with open_store(dsn) as store:
        store.check_version()
        exported = outcomes.training_rows(store)
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*outcomes.IDENTIFIERS, outcomes.TARGET, *FEATURES))
        writer.writerows(exported.rows)
    left_out = [
        f"{exported.unlabelled} theft cases without --meter" if exported.unlabelled else "",
        f"{exported.incomplete} meters without all {len(FEATURES)} features" if exported.incomplete else "",
    ]
    note = "; left out: " + ", ".join(filter(None, left_out)) if any(left_out) else ""
    click.echo(f"{output}: {len(exported.rows)} rows of {exported.cases} inspected cases{note}")
    if not exported.rows:
        raise click.exceptions.Exit(NEGATIVE)
