"""`checkmeter status`: what the running agent says of itself, once, over its local socket."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from agent.process.exit_codes import UNAVAILABLE
from agent.site.load import load
from agent.site.tables import Service
from agent.status.local_socket import ask
from agent.status.snapshot import Snapshot
from agent.status.text import lines

DEFAULT_SOCKET = Service().socket


def socket_of(site_file: Path | None, socket: str | None) -> str:
    """The socket that was meant: given, or of a site file, or the service's usual one."""
    if socket is not None:
        return socket
    return DEFAULT_SOCKET if site_file is None else load(site_file).service.socket


def snapshot_of(path: str) -> Snapshot:
    """What the agent says that listens there; where none does, an end in words with exit code 69."""
    try:
        return ask(path)
    except (FileNotFoundError, ConnectionRefusedError):
        click.echo(f"{path}: no agent listens here; is it running? (systemctl status checkmeter)", err=True)
        raise SystemExit(UNAVAILABLE) from None


@click.command()
@click.argument("site_file", metavar="[SITE.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--socket", metavar="PATH", help=f"The agent's socket.  [default: of SITE.toml, or {DEFAULT_SOCKET}]")
@click.option("--json", "as_json", is_flag=True, help="The whole snapshot as JSON.")
def command(site_file: Path | None, socket: str | None, as_json: bool) -> None:
    """Show what the running agent says: meters, buses, balance, open alerts. Exit code 1 if it is not online."""
    snapshot = snapshot_of(socket_of(site_file, socket))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(snapshot)).decode())
    else:
        click.echo("\n".join(lines(snapshot)))
    raise SystemExit(0 if snapshot.status.state == "online" else 1)
