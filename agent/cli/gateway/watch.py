"""`checkmeter watch`: a live view of the running agent in a terminal, over SSH too."""

from __future__ import annotations

import time
from pathlib import Path

import click

from agent.cli.gateway.status import DEFAULT_SOCKET, socket_of
from agent.status.local_socket import ask


@click.command()
@click.argument("site_file", metavar="[SITE.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--socket", metavar="PATH", help=f"The agent's socket.  [default: of SITE.toml, or {DEFAULT_SOCKET}]")
@click.option("--every", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between looks.")
def command(site_file: Path | None, socket: str | None, every: float) -> None:
    """Watch zones, meters, balance, alerts and buses live. Ctrl-C ends it; the agent goes on."""
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        from agent.status.dashboard import building
    except ImportError:
        raise click.ClickException(
            "this needs rich, which the Debian package has; in an environment of your own: pip install rich"
        ) from None
    path = socket_of(site_file, socket)
    console = Console()
    if not console.is_terminal:
        raise click.ClickException("watch needs a terminal; use `checkmeter status` or `status --json` here")
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                live.update(building(ask(path), console.height), refresh=True)
            except OSError as error:
                live.update(Text(f"{path}: {error.strerror or error}; waiting for the agent"), refresh=True)
            try:
                time.sleep(every)
            except KeyboardInterrupt:
                return
