"""`checkmeter check`: is the site file right? With --online: do its meters, broker, disk and clock answer?"""

from __future__ import annotations

from pathlib import Path

import click

from agent.config import load


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
def command(site_file: Path) -> None:
    """Check a site file: every error at once, with file, line and key. Touches no device."""
    config = load(site_file)
    read = f"{len(config.bus)} bus(es)" if config.bus else "no bus: for replay only"
    click.echo(f"{site_file}: ok: {len(config.meter)} meters, {len(config.zone)} zone(s), {read}")
