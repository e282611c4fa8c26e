"""`checkmeter run`: the service itself."""

from __future__ import annotations

from pathlib import Path

import click

from agent.process.clock import ScaledClock, SharedClock, SystemClock
from agent.service.run import run


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.option("--clock-start", type=float, hidden=True, help="Simulated UTC at the origin, seconds.")
@click.option("--clock-speed", type=float, default=1.0, hidden=True, help="Simulated seconds in a second.")
@click.option("--clock-origin", type=float, hidden=True, help="The host's UTC at which the simulated time began.")
@click.option("--clock-file", type=click.Path(path_type=Path), hidden=True, help="Instead: another process's clock.")
def command(
    site_file: Path,
    clock_start: float | None,
    clock_speed: float,
    clock_origin: float | None,
    clock_file: Path | None,
) -> None:
    """Read the meters of a site, watch its balance and tell the utility, until SIGTERM."""
    clock: SystemClock | ScaledClock | SharedClock = SystemClock()
    if clock_file is not None:
        clock = SharedClock(clock_file)
    elif clock_start is not None:
        clock = ScaledClock(clock_start, clock_speed, clock_origin)
    raise SystemExit(run(site_file, clock))
