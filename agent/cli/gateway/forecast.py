"""`checkmeter forecast`: what each zone will draw in the next two days, from the readings in the gateway's store."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import click
import numpy as np

from agent.charts.svg import Band, Line, Mark, chart
from agent.forecast import words
from agent.forecast.zone_forecasts import HOUR_S, RECALL_S, ZoneForecasts
from agent.site.load import load
from agent.status.text import forecast_line
from agent.store.history import open_archive, read_history
from agent.wire.codec import encode
from agent.wire.forecast import Forecast


@click.command(name="forecast")
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.option("--zone", help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="The messages as they go over the wire, one a line.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the next 48 h as SVG.")
def command(site_file: Path, zone: str | None, as_json: bool, plot: Path | None) -> None:
    """Forecast peak, trough and curve of each zone from the last full hour of readings on.

    Reads the store beside a running agent and changes nothing.
    """
    config = load(site_file)
    forecasts = ZoneForecasts(config, config.detection.row_s)
    if zone is not None and zone not in forecasts.mains:
        raise click.ClickException(f"there is no zone {zone!r}; the site file has {', '.join(forecasts.mains)}")
    if not forecasts.zones:
        raise click.ClickException("no forecast: it is switched off, or the interval does not divide an hour")
    with open_archive(config.store.path) as store:
        latest = read_history(store, float("-inf"), float("inf"), [])
        since_s = float(latest.times_s[-1]) - RECALL_S if len(latest) else 0.0
        history = read_history(store, since_s, float("inf"), list(forecasts.mains.values()))
    forecasts.recall(history)
    until_s = float(np.floor(history.times_s[-1] / HOUR_S) * HOUR_S) if len(history) else 0.0
    drawn: list[Forecast] = []
    for name, forecaster in forecasts.zones.items():
        forecast = forecaster.forecast(until_s) if zone in (None, name) else None
        if forecast is None:
            continue
        message = words.on_wire(forecast)
        drawn.append(message)
        if as_json:
            click.echo(encode(message))
            continue
        click.echo(f"{name}: {forecast_line(message, config.site.timezone)}")
        for row in words.table(message, config.site.timezone):
            click.echo(f"  {row}")
    if not drawn:
        raise click.ClickException("fewer than 7 days of readings: too little to say anything yet")
    if plot is not None:
        plot.write_text(_svg(drawn, config.site.timezone), encoding="utf-8")


def _svg(forecasts: list[Forecast], timezone: str) -> str:
    """The curves with their bands, one chart below the other."""
    height = 280
    parts = []
    for n, forecast in enumerate(forecasts):
        times_s = forecast.issued.timestamp() + forecast.interval_s * (np.arange(len(forecast.mean_w)) + 0.5)
        kw = {level: np.array(row) / 1000 for level, row in forecast.quantiles_w.items()}
        drawing = chart(
            f"{forecast.zone}: the next 48 h",
            times_s,
            [Line("mean", np.array(forecast.mean_w) / 1000)],
            bands=[Band("90 % of outcomes", kw["0.05"], kw["0.95"])],
            marks=[
                Mark(forecast.peak.start.timestamp(), f"peak {forecast.peak.w / 1000:.1f} kW"),
                Mark(forecast.trough.start.timestamp(), f"trough {forecast.trough.w / 1000:.1f} kW"),
            ],
            y_label="kW",
            zone=ZoneInfo(timezone),
        )
        parts.append(f'<svg y="{n * height}" width="860" height="{height}">{drawing}</svg>')
    whole = height * len(forecasts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {whole}" width="860" height="{whole}">'
        f'<rect width="860" height="{whole}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
