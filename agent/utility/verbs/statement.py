"""`checkmeter utility statement`."""

from __future__ import annotations

import json
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from agent.process.exit_codes import NEGATIVE
from agent.utility.fleet.statement import EnergiesError, Month, bounds, households, months, read_energies
from agent.utility.sql.store import open_store
from agent.utility.verbs.options import Form, form_options, show, store_option

COLUMNS = (
    "tenant", "site", "gateway", "zone", "main_kwh", "sum_kwh", "technical_loss_kwh", "unexplained_kwh", "coverage",
)  # fmt: skip
SUM_TOLERANCE = 0.01  # between what was billed and what the balance summed up


@click.command()
@store_option
@click.option("--month", required=True, metavar="YYYY-MM")
@click.option("--timezone", default="UTC", show_default=True, help="Whose month it is, as Europe/Berlin.")
@click.option("--site", help="Only this site.")
@click.option("--zone", help="Only zones of this name.")
@click.option(
    "--energies",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of the billed energies (site, zone, meter, kwh): adds each household's fair share of the technical loss.",
)
@form_options
def statement(
    dsn: str, month: str, timezone: str, site: str | None, zone: str | None, energies: Path | None, form: Form
) -> None:
    """A zone's month: main meter, sum of sub-meters, technical loss, and what remains unexplained.

    The technical loss is shared out by energy and by its square; the unexplained remainder to nobody.
    """
    try:
        ZoneInfo(timezone)
        start_s, end_s = bounds(month, timezone)
    except (ValueError, ZoneInfoNotFoundError):
        raise click.UsageError(
            f"--month is YYYY-MM and --timezone a name as Europe/Berlin; got {month}, {timezone}"
        ) from None
    try:
        billed = {} if energies is None else read_energies(energies)
        with open_store(dsn) as store:
            store.check_version()
            found = months(store, start_s, end_s, site, zone)
        if not found:
            click.echo("no balance of such a zone in this month")
            raise click.exceptions.Exit(NEGATIVE)
        if energies is None:
            show(COLUMNS, [(*m.name, *m[1:]) for m in found], form)
            return
        for one in found:
            _print(one, billed.get((one.name[1], one.name[3]), {}), form)
    except EnergiesError as error:
        raise click.ClickException(str(error)) from None


def _print(month: Month, energies: dict[str, float], form: Form) -> None:
    lines = households(month, energies) if energies else []
    if form is Form.JSON:
        body = dict(zip(COLUMNS, (*month.name, *month[1:]), strict=True))
        click.echo(json.dumps({**body, "households": [line._asdict() for line in lines]}))
        return
    click.echo("/".join(month.name))
    click.echo(f"  main meter          {month.main_kwh:12.3f} kWh")
    click.echo(f"  sum of sub-meters   {month.sum_kwh:12.3f} kWh")
    click.echo(f"  technical loss      {month.technical_loss_kwh:12.3f} kWh")
    click.echo(f"  unexplained         {month.unexplained_kwh:12.3f} kWh, shared out to nobody")
    click.echo(f"  measured            {month.coverage:12.1%} of the month")
    if not lines:
        click.echo("  no billed energies of this zone: no shares\n")
        return
    used = sum(line.used_kwh for line in lines)
    if abs(used - month.sum_kwh) > SUM_TOLERANCE * max(used, month.sum_kwh):
        click.echo(f"  careful: {used:.3f} kWh were billed; is a household missing, or the month incomplete?")
    show(("meter", "used_kwh", "share_by_energy_kwh", "share_by_square_kwh"), lines, Form.TABLE)
    click.echo()
