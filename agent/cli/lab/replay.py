"""`checkmeter replay`: what the service would have said of recorded registers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent import models
from agent.offline.replay import backtest
from agent.offline.replay import replay as offline
from agent.offline.replay.readings import Notes, ReadingsError, read, read_events
from agent.process.exit_codes import INPUT_OUTPUT
from agent.site.errors import ConfigError
from agent.site.load import load
from core.scoring.model import ModelRefused

BAR_ROWS = 20_000  # shorter recordings are done before a bar is drawn
SHOWN = 20  # notes that are shown one by one

_out = click.Path(dir_okay=False, path_type=Path)
_in = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("replay")
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("readings_file", metavar="READINGS.csv", type=_in)
@click.option("--alerts", type=_out, help="Write alerts, one CloudEvents JSON a line, as sent over MQTT.")
@click.option("--scores", type=_out, help="Write meter,theft_probability,<features>.")
@click.option("--events", type=_in, help="Meter events: time,meter,kind,value.")
@click.option("--csv", "balances", type=_out, help="Write the balance of every interval.")
@click.option("--forecast", type=_out, help="Write the forecast of every midnight, one JSON a line; print its scores.")
@click.option("--plot", type=_out, help="Draw loads, residual and alerts as SVG.")
def command(
    site_file: Path,
    readings_file: Path,
    alerts: Path | None,
    scores: Path | None,
    events: Path | None,
    balances: Path | None,
    forecast: Path | None,
    plot: Path | None,
) -> None:
    """Run recorded registers through the service's own detection.

    READINGS.csv has the header time,<meter id>,...: times ISO 8601 or epoch seconds, UTC; cells are cumulative import
    in kWh, empty where not read. A column <meter id>:export is what a meter fed in, where a zone's `export` names it;
    the one that `[forecast] temperature` names is the outdoor temperature in degrees Celsius.
    What cannot be used is named by line and column and left out, never taken as zero.
    """
    config = load(site_file)
    try:
        model = models.in_use(config.detection.model)
    except (OSError, ModelRefused) as error:
        raise ConfigError([f"{site_file}: [detection] model = {config.detection.model!r}: {error}"]) from None
    meters = tuple(dict.fromkeys(m for zone in config.zone for m in (zone.main, *zone.subs)))
    try:
        exports = {m for zone in config.zone for m in zone.export}
        readings = read(readings_file, meters, exports, config.forecast.temperature)
        signs, sign_notes = ([], None) if events is None else read_events(events, meters)
        with click.progressbar(
            length=len(readings.times_s),
            label="replay",
            file=sys.stderr,
            hidden=len(readings.times_s) < BAR_ROWS or not sys.stderr.isatty(),
        ) as bar:
            outcome = offline.replay(
                config,
                readings,
                signs=signs,
                model=model,
                balances=balances is not None or plot is not None,
                forecast=forecast is not None,
                progress=bar.update,
            )
    except ReadingsError as error:
        click.echo(str(error), err=True)
        sys.exit(INPUT_OUTPUT)
    _tell(readings.notes)
    if sign_notes is not None:
        _tell(sign_notes)
    for reason, count in outcome.register_notes.items():
        click.echo(f"{readings_file}: {count} x register {reason.lower()}", err=True)
    if alerts is not None:
        offline.write_alerts(alerts, outcome.alerts)
    if scores is not None:
        offline.write_scores(scores, outcome.scores)
    if balances is not None:
        offline.write_balances(balances, outcome.balances)
    if forecast is not None and outcome.backtest is not None:
        backtest.write_forecasts(forecast, outcome.backtest.forecasts)
    if plot is not None:
        plot.write_text(offline.plot(outcome), encoding="utf-8")
    raised = [a for a in outcome.alerts if a.data.state == "raised"]
    days = (readings.times_s[-1] - readings.times_s[0]) / 86_400
    click.echo(f"{outcome.rows} rows, {days:.1f} days, {len(meters)} meters: {len(raised)} alert(s) raised")
    for alert in raised:
        data = alert.data
        loss = "" if data.loss_w is None else f", {data.loss_w:.0f} W since {data.onset:%Y-%m-%d %H:%M}"
        click.echo(f"  {alert.time:%Y-%m-%d %H:%M} {data.kind.replace('_', ' ')} in {data.zone}{loss}")
    if outcome.backtest is not None:
        for zone in config.zone:
            scored = outcome.backtest.scores(zone.id)
            count = int(scored["checkmeter"]["days"]) if scored else 0
            left_out = outcome.backtest.left_out(zone.id)
            why = "".join(f"; {n} left out: {reason}" for reason, n in left_out.items())
            if not scored and not left_out:
                why = "; none was made at a midnight, which takes 7 measured days before it"
            click.echo(f"forecasts of {zone.id}: {count} whole days scored{why}")
            for line in backtest.table(scored) if scored else ():
                click.echo(line)


def _tell(notes: Notes) -> None:
    """What was left out, on standard error."""
    for note in notes.named[:SHOWN]:
        click.echo(note, err=True)
    for reason, count in notes.counted.items():
        click.echo(f"{notes.path}: {count} x {reason}", err=True)
