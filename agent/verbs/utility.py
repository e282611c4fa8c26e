"""`checkmeter utility`: the backend's verbs, each imported only when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

# verb -> (module:command, one line for --help)
VERBS: dict[str, tuple[str, str]] = {
    "ingest": ("agent.utility.verb_ingest:ingest", "Write what the gateways say into the store"),
    "health": ("agent.utility.verb_ingest:health", "Is an ingest making progress? (from its metrics file)"),
    "migrate": ("agent.utility.verb_store:migrate", "Make or update the store's tables, partitions and views"),
    "maintain": ("agent.utility.verb_store:maintain", "Partitions for the coming days; forget what is past its time"),
    "letters": ("agent.utility.verb_store:letters", "Messages that could not be read, with the reasons"),
    "losses": ("agent.utility.verb_fleet:losses", "Buildings by unexplained loss, in kWh and money"),
    "cases": ("agent.utility.verb_fleet:cases", "Open cases with their age and confidence"),
    "suspects": ("agent.utility.verb_fleet:suspects", "Meters that more than one sign speaks against"),
    "gateways": ("agent.utility.verb_fleet:gateways", "Gateways that are silent, degraded or offline"),
    "trend": ("agent.utility.verb_fleet:trend", "The fleet's loss day by day"),
    "outcome": ("agent.utility.verb_outcome:outcome", "Tell what an inspection found: theft, fault or nothing"),
    "precision": ("agent.utility.verb_outcome:precision", "How often the fleet was right, by version of the model"),
    "export-features": ("agent.utility.verb_outcome:export_features", "The training table, from inspected cases"),
    "rollout": ("agent.utility.verb_rollout:rollout", "Bring a signed model to a share of the gateways first"),
    "statement": (
        "agent.utility.verb_statement:statement",
        "A zone's month: balance, loss, each household's fair share",
    ),
}


class UtilityVerbs(click.Group):
    """A group whose commands are named in VERBS; errors of the store and the broker become one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; 69 where the store or the broker is away or refuses us, 78 where the set-up is wrong."""
        from agent.exits import CONFIG, UNAVAILABLE
        from agent.utility.mqtt import MqttError
        from agent.utility.server import StoreError, StoreUnavailable

        try:
            return super().invoke(ctx)
        except (StoreUnavailable, MqttError) as error:
            click.echo(str(error), err=True)
            ctx.exit(UNAVAILABLE)
        except StoreError as error:
            click.echo(str(error), err=True)
            ctx.exit(CONFIG)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from the table, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.command(cls=UtilityVerbs)
def command() -> None:
    """The utility's side: gateways' messages into SQL, and the fleet in one view."""
