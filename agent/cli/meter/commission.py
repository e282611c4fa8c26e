"""`checkmeter commission`: does the building add up after wiring, and if not, what is most likely wrong?"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable
from pathlib import Path

import click

from agent.cli.notes import note
from agent.offline.commission import (
    ZoneReport,
    clocks_apart,
    from_meters,
    from_store,
    judge,
    mending,
    plot,
    stamp,
    words,
)
from agent.process.clock import SystemClock
from agent.site.edit import Change, edited
from agent.site.errors import ConfigError
from agent.site.load import load
from firmware_io.clock import Clock


def _progress(count: int, clock: Clock) -> Callable[[str], None]:
    """Which meter is read, of how many, and how long the rest will take if it goes on like that."""
    began = clock.monotonic()
    done = 0

    def tell(meter: str) -> None:
        nonlocal done
        if done == count:
            note(f"reading {meter} again: it did not answer in time")
            return
        left_s = (clock.monotonic() - began) / done * (count - done) if done else 0.0
        rest = f", about {math.ceil(left_s / 60)} min left" if left_s >= 90 else ""
        done += 1
        note(f"reading {meter} ({done} of {count}{rest})")

    return tell


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.option(
    "--days", default=7.0, show_default=True, type=click.FloatRange(min=0.5, max=400), help="How far back to look."
)
@click.option(
    "--from-store", "stored", is_flag=True, help="Use what the running service has stored; it owns the serial ports."
)
@click.option(
    "--plot", "plot_to", type=click.Path(file_okay=False, path_type=Path), help="Folder for a plot of each zone (SVG)."
)
@click.option("--fix", is_flag=True, help="Show what was found as a patch of the site file, and ask.")
@click.option("--yes", is_flag=True, help="With --fix: write it without asking.")
@click.option("--json", "as_json", is_flag=True, help="The verdicts as JSON.")
def command(
    site_file: Path, days: float, stored: bool, plot_to: Path | None, fix: bool, yes: bool, as_json: bool
) -> None:
    """Say whether the building adds up, and if not what is most likely wrong. Exit code 1 if it does not."""
    config = load(site_file, online=not stored)
    clock = SystemClock()
    if stored:
        registers = from_store(config, days, clock.now())
    else:
        registers = from_meters(config, clock, days, _progress(len(config.meter), clock))
    reports = [judge(config, zone, registers) for zone in config.zone]
    if as_json:
        click.echo(json.dumps([_plain(report) for report in reports], indent=2))
    else:
        if len(registers.times_s):
            click.echo(
                f"{stamp(registers.times_s[0])} to {stamp(registers.times_s[-1])} UTC, {len(registers.times_s)} rows"
            )
        for proof in registers.proofs:
            click.echo(proof)
        for line in (*registers.problems, *clocks_apart(registers)):
            click.echo(f"! {line}")
        for report in reports:
            click.echo("\n".join(words(report)))
    if plot_to is not None:
        plot_to.mkdir(parents=True, exist_ok=True)
        for report in reports:
            if report.verdict is not None:
                (plot_to / f"{report.zone}.svg").write_text(plot(report), encoding="utf-8")
    if fix:
        _fix(site_file, mending(config, reports), yes=yes)
    good = all(r.verdict is not None and r.verdict.adds_up for r in reports) and not registers.problems
    raise SystemExit(0 if good else 1)


def _fix(site_file: Path, changes: list[Change], *, yes: bool) -> None:
    """Show the changes as a diff, and write them where the technician agrees and the result is a right site file."""
    texts = edited(site_file, changes)
    if not texts:
        click.echo("Nothing of it is mended in the site file.")
        return
    for path, (before, after) in texts.items():
        lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(path), f"{path} (mended)")
        click.echo("".join(lines), nl=False)
    if not yes and not click.confirm("Write this?"):
        click.echo("Nothing was written.")
        return
    for path, (_, after) in texts.items():
        part = path.with_name(path.name + ".new")  # a power cut leaves the old file or the new one, never half of one
        part.write_text(after, encoding="utf-8", newline="")
        part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    try:
        load(site_file)
    except ConfigError:
        for path, (before, _) in texts.items():
            path.write_text(before, encoding="utf-8", newline="")
        click.echo("The mended file would not pass `checkmeter check`; the old one is back.", err=True)
        raise
    click.echo("Written. Read the meters again with `checkmeter commission` to see that it adds up now.")


def _plain(report: ZoneReport) -> dict[str, object]:
    v = report.verdict
    if v is None:
        return {"zone": report.zone, "adds_up": None, "why": report.why}
    return {
        "zone": report.zone,
        "adds_up": v.adds_up,
        "load_w": round(v.load_w, 1),
        "missing_w": round(v.mean_w, 1),
        "constant_w": round(v.constant_w, 1),
        "copper_share": round(v.copper, 4),
        "remainder_w": round(v.remainder_w, 1),
        "findings": [
            {
                "mistake": f.mistake.value,
                "meter": None if f.column is None else report.main if f.column < 0 else report.subs[f.column],
                "amount": round(f.amount, 6),
                "explains": round(f.gain, 3),
            }
            for f in v.findings
        ],
    }
