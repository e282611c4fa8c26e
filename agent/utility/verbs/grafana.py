"""`checkmeter utility grafana`."""

from __future__ import annotations

import click

from agent.utility.dashboards import grafana as made


@click.command()
@click.argument("what", type=click.Choice(["fleet", "gateways", "rules"]))
def grafana(what: str) -> None:
    """Print a dashboard for Grafana (fleet: the SQL views; gateways: Prometheus), or alert rules for Prometheus."""
    click.echo({"fleet": made.fleet, "gateways": made.gateways, "rules": made.rules}[what](), nl=False)
