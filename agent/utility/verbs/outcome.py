"""`checkmeter utility outcome`, `confirm`, `four-eyes`, `precision` and `export-features`."""

from __future__ import annotations

import csv
import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.process.clock import SystemClock
from agent.process.exit_codes import NEGATIVE
from agent.utility.fleet import audit, four_eyes, outcomes, queries
from agent.utility.sql.store import open_store
from agent.utility.verbs.options import F, Form, form_options, printable, show, store_option
from core.scoring.features import FEATURES


def _by(name: str, what: str) -> Callable[[F], F]:
    """The option that says who speaks."""
    return click.option(
        "--by", name, default=getpass.getuser, show_default="your user name", callback=_somebody, help=what
    )


def _somebody(_: click.Context, __: click.Parameter, name: str) -> str:
    if four_eyes.same_person(name, ""):
        raise click.BadParameter("it is empty: say who you are")
    return name[:64]


@click.command()
@store_option
@click.argument("alert_id")
@click.argument("found", type=click.Choice(["theft", "fault", "nothing"]))
@click.option("--meter", help="The meter that was passed by or tampered with: needed to train on a theft.")
@click.option("--gateway", metavar="TENANT/SITE/GATEWAY", help="If several gateways have an alert of this id.")
@click.option("--on", "day", type=click.DateTime(["%Y-%m-%d"]), help="Day of the inspection [default: today].")
@_by("inspector", "Who says so.")
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
    """Record what the inspection of ALERT_ID found. A later outcome replaces it; a theft's meter stays unless named.

    Where the store asks for a second pair of eyes, it counts when somebody else has confirmed it.
    """
    if meter is not None and found != "theft":
        raise click.UsageError("--meter names the thief's meter: it goes with theft only")
    if note is not None and len(note) > 255:
        raise click.UsageError(f"a note has at most 255 characters, this one {len(note)}")
    now_s = SystemClock().now()
    inspected_s = int(now_s if day is None else day.replace(tzinfo=UTC).timestamp())
    if day is not None and day.timestamp() > now_s:  # it begins at this machine's midnight, elsewhere than UTC's
        raise click.UsageError(f"--on {day:%Y-%m-%d} is still to come: an outcome is what was found")
    with open_store(dsn) as store:
        store.check_version()
        about = outcomes.Found(found, meter, inspected_s, note, inspector)
        entry = audit.entry(inspector, audit.SHELL, "outcome", alert_id, f"{found} {meter or ''}".strip(), now_s)
        recorded = outcomes.record(store, alert_id, gateway, about, now_s, [entry])
        waits = four_eyes.needed(store)
    at = f" at {recorded.meter}" if recorded.meter else ""
    click.echo(f"{alert_id} of {recorded.gateway}: {found}{at}, recorded by {inspector}")
    if waits:
        click.echo("it counts when another person has confirmed it: checkmeter utility confirm")


@click.command()
@store_option
@click.argument("alert_id")
@click.option("--gateway", metavar="TENANT/SITE/GATEWAY", help="If several gateways have an alert of this id.")
@_by("who", "Who confirms it.")
@click.option("--yes", is_flag=True, help="Do not ask: for programs.")
def confirm(dsn: str, alert_id: str, gateway: str | None, who: str, yes: bool) -> None:
    """A second pair of eyes on the outcome of ALERT_ID: shows it, asks, and confirms it. Not for who recorded it."""
    with open_store(dsn) as store:
        store.check_version()
        standing = outcomes.standing(store, alert_id, gateway)
        if standing is not None and not yes:
            at = f" at {standing.meter}" if standing.meter else ""
            note = f": {printable(standing.note)}" if standing.note else ""
            click.echo(f"{alert_id}: {standing.outcome}{at}, recorded by {standing.inspector or 'nobody named'}{note}")
            click.confirm(f"Does {who} confirm it?", abort=True)
        now_s = SystemClock().now()
        entry = audit.entry(who, audit.SHELL, "confirm", alert_id, "", now_s)
        seen_ms = None if standing is None else standing.recorded_ms
        done = outcomes.confirm(store, alert_id, gateway, who, now_s, [entry], seen_ms)
    click.echo(f"{alert_id}: {done.outcome}, confirmed by {who}")


@click.command("four-eyes")
@store_option
@click.argument("wish", type=click.Choice(["on", "off"]), required=False)
@_by("who", "Who decides it.")
def second_eyes(dsn: str, wish: str | None, who: str) -> None:
    """Whether an outcome counts only after another person has confirmed it: for the page and the verbs alike.

    What is not confirmed is left out of precision, of the training table and of the energy found.
    """
    with open_store(dsn) as store:
        store.check_version()
        if wish is not None:
            four_eyes.decide(store, wish == "on", who, audit.SHELL, SystemClock().now())
        needed = four_eyes.needed(store)
    click.echo("an outcome counts when another person has confirmed it" if needed else "an outcome counts at once")


@click.command()
@store_option
@form_options
def precision(dsn: str, form: Form) -> None:
    """Of the inspected cases, how many were theft: by version of the model that spoke, with a 95 % interval."""
    with open_store(dsn) as store:
        store.check_version()
        answer = queries.precision(store)
        waiting = store.rows("SELECT COUNT(*) FROM outcome WHERE confirmed_by IS NULL")[0][0]
    none = "no outcome yet: checkmeter utility outcome records what an inspection found"
    if waiting:  # else they would have counted
        none = f"no outcome that counts: {waiting} to be confirmed by another person (checkmeter utility confirm)"
    show(answer.columns, answer.rows, form, none)


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
