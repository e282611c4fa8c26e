"""`checkmeter utility peaks`, `forecast`, `coincident-peak`, `capacity` and `forecast-skill`."""

from __future__ import annotations

import click

from agent.process.clock import SystemClock
from agent.utility.fleet import forecasts, realised
from agent.utility.fleet.groups import FLEET, KINDS, Kind, set_capacity
from agent.utility.sql.store import open_store, timestamp
from agent.utility.verbs.options import Form, form_options, printable, show, store_option, top_option

KIND = click.Choice(KINDS)


@click.command()
@store_option
@top_option
@form_options
def peaks(dsn: str, top: int, form: Form) -> None:
    """The next day's peak and trough of each zone, those nearest to their capacity first."""
    with open_store(dsn) as store:
        store.check_version()
        now_s = SystemClock().now()
        answer = forecasts.peaks(store, now_s, top)
        none = "" if answer.rows else forecasts.why_none(store, now_s)
    show(answer.columns, answer.rows, form, none)


@click.command()
@store_option
@click.option("--by", "kind", type=KIND, default="fleet", show_default=True, help="Whose peaks: as the sites say.")
@form_options
def forecast(dsn: str, kind: Kind, form: Form) -> None:
    """The coincident peak of the next 24 h of the fleet, or of each feeder or district."""
    with open_store(dsn) as store:
        store.check_version()
        try:
            answer = forecasts.group_peaks(store, SystemClock().now(), kind)
        except forecasts.NothingKnown as error:
            raise click.ClickException(str(error)) from None
    show(answer.columns, answer.rows, form)


@click.command("coincident-peak")
@store_option
@click.option("--feeder", help="What this feeder supplies, instead of the whole fleet.")
@click.option("--district", help="What lies in this district, instead of the whole fleet.")
@form_options
def coincident_peak(dsn: str, feeder: str | None, district: str | None, form: Form) -> None:
    """The next 24 h of the fleet, a feeder or a district, half hour by half hour, from the gateways' quantiles."""
    if feeder is not None and district is not None:
        raise click.UsageError("--feeder or --district, not both")
    kind: Kind = "feeder" if feeder is not None else "district" if district is not None else "fleet"
    with open_store(dsn) as store:
        store.check_version()
        try:
            (group,) = forecasts.coincident(store, SystemClock().now(), kind, feeder or district or FLEET)
        except forecasts.NothingKnown as error:
            raise click.ClickException(str(error)) from None
    said, step_s = group.forecast, realised.SLOT_S
    if form is Form.TABLE:
        about = timestamp(group.start_s + float(said.peak_time.argmax()) * step_s)
        over = "" if group.capacity_w is None else (
            f"; over {group.capacity_w / 1000:,.1f} kW with {100 * (group.over_probability or 0.0):.0f} %"
        )  # fmt: skip
        click.echo(
            f"{said.zones} zones: coincident peak {said.peak_w[forecasts.MEDIAN] / 1000:,.1f} kW "
            f"({said.peak_w[0] / 1000:,.1f} to {said.peak_w[-1] / 1000:,.1f}) about {about} UTC; "
            f"their own peaks add up to {said.sum_of_peaks_w / 1000:,.1f} kW; "
            f"{100 * group.dependence.common:.0f} % of the errors are common{over}"
        )
    rows = [
        (
            timestamp(group.start_s + k * step_s),
            float(said.mean_w[k]) / 1000,
            float(said.quantiles_w[0, k]) / 1000,
            float(said.quantiles_w[-1, k]) / 1000,
            float(said.peak_time[k]),
        )
        for k in range(len(said.mean_w))
    ]
    show(("start", "mean_kw", "at_least_kw", "at_most_kw", "peak_probability"), rows, form)


@click.command()
@store_option
@click.argument("kind", type=KIND)
@click.argument("name")
@click.argument("kw", type=click.FloatRange(0, 1e9, min_open=True))
def capacity(dsn: str, kind: Kind, name: str, kw: float) -> None:
    """What a feeder, a district or the fleet can carry: capacity feeder F12 400. From then on `forecast` says how
    probably its peak passes that."""
    if kind == "fleet" and name != FLEET:
        raise click.UsageError(f"there is one fleet: capacity fleet {FLEET} {kw:g}")
    if len(name) > 64:
        raise click.UsageError("a name has 64 characters at most")
    with open_store(dsn) as store:
        store.check_version()
        set_capacity(store, kind, name, 1000 * kw, SystemClock().now())
    click.echo(f"{kind} {printable(name)}: {kw:g} kW")


@click.command("forecast-skill")
@store_option
@click.option("--days", type=click.IntRange(1, 90), default=14, show_default=True, help="Days that are over.")
@form_options
def forecast_skill(dsn: str, days: int, form: Form) -> None:
    """Realised load against the first forecast of each day, by hours ahead."""
    with open_store(dsn) as store:
        store.check_version()
        answer = realised.skill(store, SystemClock().now(), days)
    none = (
        f"nothing was compared of the {days} days that are over: a day is compared three days later, "
        "by the ingest or by checkmeter utility maintain"
    )
    show(answer.columns, answer.rows, form, none)
