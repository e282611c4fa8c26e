"""`checkmeter utility`: the backend's verbs, each imported only when it is called."""

from __future__ import annotations

from typing import Any

import click

from agent.cli.verb_table import VerbTable

# verb -> (module:command, one line for --help)
VERBS: dict[str, tuple[str, str]] = {
    "ingest": ("agent.utility.verbs.ingest:ingest", "Write what the gateways say into the store"),
    "health": ("agent.utility.verbs.ingest:health", "Is an ingest making progress? (from its metrics file)"),
    "migrate": ("agent.utility.verbs.store:migrate", "Make or update the store's tables, partitions and views"),
    "maintain": ("agent.utility.verbs.store:maintain", "Partitions for the coming days; forget what is past its time"),
    "letters": ("agent.utility.verbs.store:letters", "Messages that could not be read, with the reasons"),
    "losses": ("agent.utility.verbs.fleet:losses", "Buildings by unexplained loss, in kWh and money"),
    "cases": ("agent.utility.verbs.fleet:cases", "Open cases with their age and confidence"),
    "suspects": ("agent.utility.verbs.fleet:suspects", "Meters that more than one sign speaks against"),
    "gateways": ("agent.utility.verbs.fleet:gateways", "Gateways that are silent, degraded or offline"),
    "trend": ("agent.utility.verbs.fleet:trend", "The fleet's loss day by day"),
    "peaks": ("agent.utility.verbs.forecasts:peaks", "The next day's peaks, those nearest to their capacity first"),
    "forecast": (
        "agent.utility.verbs.forecasts:forecast",
        "The next day's coincident peaks: fleet, feeders, districts",
    ),
    "capacity": ("agent.utility.verbs.forecasts:capacity", "What a feeder, a district or the fleet can carry"),
    "coincident-peak": ("agent.utility.verbs.forecasts:coincident_peak", "The fleet's next day and its peak"),
    "forecast-skill": ("agent.utility.verbs.forecasts:forecast_skill", "Realised against forecast, by horizon"),
    "serve": ("agent.cli.lab.serve:command", "The fleet as a web page"),
    "grafana": ("agent.utility.verbs.grafana:grafana", "Dashboards for Grafana, alert rules for Prometheus"),
    "outcome": ("agent.utility.verbs.outcome:outcome", "Tell what an inspection found: theft, fault or nothing"),
    "confirm": ("agent.utility.verbs.outcome:confirm", "A second pair of eyes on what somebody recorded"),
    "four-eyes": ("agent.utility.verbs.outcome:second_eyes", "Does an outcome need a second pair of eyes?"),
    "precision": ("agent.utility.verbs.outcome:precision", "How often the fleet was right, by version of the model"),
    "export-features": ("agent.utility.verbs.outcome:export_features", "The training table, from inspected cases"),
    "rollout": ("agent.utility.verbs.rollout:rollout", "Bring a signed model to a share of the gateways first"),
    "statement": (
        "agent.utility.verbs.statement:statement",
        "A zone's month: balance, loss, each household's fair share",
    ),
}


class UtilityVerbs(VerbTable):
    """The backend's verbs: errors of the store and the broker become one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; 69 where the store or the broker is away or refuses us, 78 where the set-up is wrong."""
        from agent.process.exit_codes import CONFIG, UNAVAILABLE
        from agent.utility.mqtt.packets import MqttError
        from agent.utility.sql.server import StoreError, StoreUnavailable

        try:
            return super().invoke(ctx)
        except (StoreUnavailable, MqttError) as error:
            click.echo(str(error), err=True)
            ctx.exit(UNAVAILABLE)
        except StoreError as error:
            click.echo(str(error), err=True)
            ctx.exit(CONFIG)


@click.command(cls=UtilityVerbs, verbs=VERBS)
def command() -> None:
    """The utility's side: gateways' messages into SQL, and the fleet in one view."""
