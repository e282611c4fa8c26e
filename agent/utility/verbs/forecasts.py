"""`checkmeter utility peaks`, `coincident-peak` and `forecast-skill`."""

from __future__ import annotations

import click

from agent.process.clock import SystemClock
from agent.utility.fleet import forecasts
from agent.utility.sql.store import open_store, timestamp
from agent.utility.verbs.options import Form, form_options, show, store_option, top_option


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


@click.command("coincident-peak")
@store_option
@form_options
def coincident_peak(dsn: str, form: Form) -> None:
    """The fleet's next 24 h and its peak, from the gateways' quantiles and how their errors hang together."""
    with open_store(dsn) as store:
        store.check_version()
        try:
            start_s, step_s, zones, dependence, fleet = forecasts.coincident(store, SystemClock().now())
        except forecasts.NothingKnown as error:
            raise click.ClickException(str(error)) from None
    low, middle, high = (int(fleet.levels.searchsorted(level - 1e-9)) for level in (0.05, 0.5, 0.95))
    if form is Form.TABLE:
        about = timestamp(start_s + float(fleet.peak_time.argmax()) * step_s)
        click.echo(
            f"{zones} zones: coincident peak {fleet.peak_w[middle] / 1000:,.1f} kW "
            f"({fleet.peak_w[low] / 1000:,.1f} to {fleet.peak_w[high] / 1000:,.1f}) about {about} UTC; "
            f"their own peaks add up to {fleet.sum_of_peaks_w / 1000:,.1f} kW; "
            f"{100 * dependence.common:.0f} % of the errors are common"
        )
    rows = [
        (
            timestamp(start_s + k * step_s),
            float(fleet.mean_w[k]) / 1000,
            float(fleet.quantiles_w[low, k]) / 1000,
            float(fleet.quantiles_w[high, k]) / 1000,
            float(fleet.peak_time[k]),
        )
        for k in range(len(fleet.mean_w))
    ]
    show(("start", "mean_kw", "at_least_kw", "at_most_kw", "peak_probability"), rows, form)


@click.command("forecast-skill")
@store_option
@click.option("--days", type=click.IntRange(1, 90), default=14, show_default=True, help="Whole days, up to yesterday.")
@form_options
def forecast_skill(dsn: str, days: int, form: Form) -> None:
    """Realised load against the first forecast of each day, by horizon."""
    with open_store(dsn) as store:
        store.check_version()
        answer = forecasts.skill(store, SystemClock().now(), days)
    none = f"within {days} days no whole day has both a forecast and all of its intervals"
    show(answer.columns, answer.rows, form, none)
