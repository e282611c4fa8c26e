"""`checkmeter check`: is the site file right? With --online: do its meters, broker, disk and clock answer?"""

from __future__ import annotations

from pathlib import Path

import click

from agent.keys.credentials import loosely_kept
from agent.process.exit_codes import UNAVAILABLE
from agent.site.load import load_and_doubt, read_site


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.option("--online", is_flag=True, help="Also ask the disk, the broker, and each meter.")
def command(site_file: Path, online: bool) -> None:
    """Check a site file: every error at once, with file, line and key. Touches no device unless --online is given.

    Exit code 78 if the file is wrong, 69 if something does not answer as it should.
    """
    config, doubts = load_and_doubt(site_file, online=online)
    if config.simulation is not None:
        from agent.cli.lab.simulate import read_simulation  # NumPy is worth importing only where there is such a table

        read_simulation(config, read_site(site_file), site_file)
    if any(meter.profile for meter in config.meter):
        from agent.polling.buses import check_profiles

        check_profiles(config, read_site(site_file))
    from agent.polling.rates import rate_doubts  # the protocols are worth importing only for a file that is right

    for doubt in (*doubts, *rate_doubts(config), *loosely_kept(config)):
        click.echo(f"warning: {doubt}", err=True)
    read = f"{len(config.bus)} bus(es)" if config.bus else "no bus: for replay only"
    click.echo(f"{site_file}: ok: {len(config.meter)} meters, {len(config.zone)} zone(s), {read}")
    if not online:
        return
    from agent.cli.site.online_check import findings  # the protocol, numpy and paho are worth importing only now
    from agent.process.clock import SystemClock

    failed = 0
    for finding in findings(config, SystemClock()):
        failed += not finding.ok
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.text}")
    if failed:
        click.echo(f"{failed} failed", err=True)
        raise SystemExit(UNAVAILABLE)
