"""`checkmeter alerts`: what the gateway has raised, and what still waits for the broker, from its store."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from agent.deploy.layout import SITE_FILE
from agent.site.load import load
from agent.store.history import open_archive, read_events
from agent.wire.codec import decode
from agent.wire.events import AlertData, AlertEvent
from agent.wire.values import WireError


@click.command(name="alerts")
@click.argument("site_file", metavar="[SITE.toml]", default=SITE_FILE, type=click.Path(path_type=Path))
@click.option("--days", default=30.0, show_default=True, help="How far back.")
@click.option("--all", "everything", is_flag=True, help="Every transition, not only the last of each alert.")
@click.option("--json", "as_json", is_flag=True, help="The events as they went over the wire, one a line.")
def command(site_file: Path, days: float, everything: bool, as_json: bool) -> None:
    """Show the alerts of a gateway, newest first. Reads the store beside a running agent and changes nothing.

    Without SITE.toml it is the service's own, /etc/checkmeter/site.toml; reading that and the store takes root or the
    group checkmeter.
    """
    events, waiting = _read(Path(load(site_file).store.path), datetime.now(UTC) - timedelta(days=days))
    seen: set[str] = set()
    for event, body in events:
        if not everything and event.data.alert_id in seen:
            continue
        seen.add(event.data.alert_id)
        click.echo(body.decode() if as_json else _line(event, waiting=event.id in waiting))
    if not events and not as_json:
        click.echo(f"no alert within {days:g} days")


def _read(path: Path, since: datetime) -> tuple[list[tuple[AlertEvent, bytes]], set[str]]:
    """The alert events since then, newest first, and the ids of those that still wait."""
    with open_archive(path) as store:
        bodies = read_events(store, "event/alert", since.timestamp(), float("inf"))
        waiting = {key for (key,) in store.execute("SELECT key FROM outbox WHERE suffix = 'event/alert'")}
    events = []
    for body in bodies:
        with contextlib.suppress(WireError):
            events.append((decode(AlertEvent, body), body))
    events.sort(key=lambda pair: (pair[0].time, pair[0].data.revision), reverse=True)
    return events, waiting


def _line(event: AlertEvent, *, waiting: bool) -> str:
    data = event.data
    parts = [
        event.time.strftime("%Y-%m-%d %H:%M"),
        f"{data.state:8}",
        f"{data.severity:8}",
        f"{data.kind} {event.subject}",
        *_loss(data),
        data.alert_id,
    ]
    return "  ".join(parts) + ("  (waits for the broker)" if waiting else "")


def _loss(data: AlertData) -> list[str]:
    """How much, since when, and who; nothing for an alert that is no loss."""
    if data.loss_w is None:
        return [data.detail] if data.detail else []
    parts = [f"{data.loss_w:.0f} W since {data.onset:%Y-%m-%d %H:%M}"]
    first = max(data.suspects or [], key=lambda s: s.probability, default=None)
    if data.kind in ("non_technical_loss", "balance_surplus"):
        parts.append("not attributed")
    elif data.kind == "upstream_tap":
        parts.append(f"unmetered load ahead of the meters ({data.upstream_probability or 0.0:.0%})")
    elif first is not None:
        parts.append(f"{first.meter} ({first.probability:.0%})")
    return parts
