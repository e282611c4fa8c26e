"""`checkmeter features`: recorded registers as a table to train on."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.cli.notes import note
from agent.offline.replay.readings import ReadingsError, read, read_events
from agent.offline.training.feature_table import read_labels, write_table
from agent.process.exit_codes import INPUT_OUTPUT
from agent.site.load import load

BAR_ROWS = 20_000
SHOWN = 20
_in = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("features")
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("readings_file", metavar="READINGS.csv", type=_in)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="FEATURES.csv")
@click.option("--labels", type=_in, help="What was found out: meter,from,to; `to` empty where it goes on.")
@click.option("--events", type=_in, help="Meter events: time,meter,kind,value.")
def command(site_file: Path, readings_file: Path, output: Path, labels: Path | None, events: Path | None) -> None:
    """Make a training table: one row per sub-meter and day, with the features the gateway computes."""
    config = load(site_file)
    meters = tuple(dict.fromkeys(m for zone in config.zone for m in (zone.main, *zone.subs)))
    subs = {m for zone in config.zone for m in zone.subs}
    try:
        thefts = None if labels is None else read_labels(labels, subs)
        readings = read(readings_file, meters, {m for zone in config.zone for m in zone.export})
        signs, sign_notes = ([], None) if events is None else read_events(events, meters)
        hidden = len(readings.times_s) < BAR_ROWS or not sys.stderr.isatty()
        with (
            output.open("w", newline="", encoding="utf-8") as out,
            click.progressbar(length=len(readings.times_s), label="features", file=sys.stderr, hidden=hidden) as bar,
        ):
            rows = write_table(out, config, readings, labels=thefts, signs=signs, progress=bar.update)
    except ReadingsError as error:
        click.echo(str(error), err=True)
        sys.exit(INPUT_OUTPUT)
    for notes in (readings.notes, sign_notes):
        if notes is not None:
            for named in notes.named[:SHOWN]:
                click.echo(named, err=True)
            for reason, count in notes.counted.items():
                click.echo(f"{notes.path}: {count} x {reason}", err=True)
    told = "" if thefts is None else f", {len(thefts)} theft(s) labelled"
    click.echo(f"{output}: {rows} rows of {len(subs)} sub-meters{told}")
    if thefts is None:
        note("It has no is_theft column yet: give --labels, or add it, before `train`.")
    elif len({theft.meter for theft in thefts}) < 2:
        note(
            "To train, theft of at least two meters has to be known: one to learn from, one to judge on. Join the "
            "tables of more buildings."
        )
    else:
        note("One building: train with --group meter, or join the tables of more buildings.")
