"""The command line: a table of verbs, each imported only when it is called, and exit codes for errors.

Exit codes: 0 done, 1 the verb's own negative answer, 2 wrong usage, 69 a device or broker is unavailable,
74 input or output failed, 78 configuration error (sysexits.h).
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from agent.cli.notes import quiet_option
from agent.cli.verb_table import VerbTable

# verb -> (module:command, one line for --help). Kept as text so that --help imports none of them.
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("agent.cli.lab.demo:command", "See a theft found, from the meters' octets to the utility's subscriber"),
    "run": ("agent.cli.gateway.run:command", "Read the meters and tell the utility: the service"),
    "check": ("agent.cli.site.check:command", "Check a site file, and with --online the devices and the broker"),
    "init": ("agent.cli.site.init:command", "Write a first site file from the meters that answer on a port"),
    "config": ("agent.cli.site.config:command", "Show the configuration in effect, or its JSON Schema"),
    "status": ("agent.cli.gateway.status:command", "Show what the running agent says of itself"),
    "doctor": ("agent.cli.gateway.doctor:command", "Look at all that a support call asks for, on one page"),
    "watch": ("agent.cli.gateway.watch:command", "Watch the running agent live in a terminal"),
    "pulse": ("agent.cli.gateway.pulse:command", "Find out which meter a flat hangs on: switch its breaker and see"),
    "forecast": ("agent.cli.gateway.forecast:command", "Show what each zone will draw in the next two days"),
    "install": ("agent.cli.gateway.install:command", "Install the systemd unit and what goes with it on this gateway"),
    "scan": ("agent.cli.meter.scan:command", "Find the meters on a line: speeds, addresses, serial numbers"),
    "read": ("agent.cli.meter.read:command", "Ask one meter: registers, load profile, event logs, object list"),
    "clock": ("agent.cli.meter.clock:command", "Show how far a meter's clock is off, and set it"),
    "write": ("agent.cli.meter.write:write", "Set attributes of a DLMS meter, after asking"),
    "call": ("agent.cli.meter.write:call", "Call methods of a DLMS meter, after asking"),
    "rekey": ("agent.cli.meter.rekey:command", "Give a meter another key, by transfer or agreement"),
    "commission": (
        "agent.cli.meter.commission:command",
        "Say whether a newly wired building adds up, or what is wrong",
    ),
    "replay": ("agent.cli.lab.replay:command", "Run recorded registers through the detection of the service"),
    "report": ("agent.cli.lab.report:command", "Make the evidence page of an alert, or check one"),
    "alerts": ("agent.cli.gateway.alerts:command", "Show what a gateway has raised, and what waits for the broker"),
    "keys": ("agent.cli.gateway.keys:command", "Make and show the keys that may sign commands, and sign with them"),
    "features": ("agent.cli.lab.features:command", "Make a training table from recorded registers"),
    "train": ("agent.cli.lab.train:command", "Train the compact theft model on a table of features"),
    "model": ("agent.cli.lab.model:command", "Show or verify a .tflite theft model"),
    "simulate": ("agent.cli.lab.simulate:command", "Simulate a building whose meters can be polled"),
    "utility": ("agent.cli.utility:command", "The backend: gateways' messages into SQL, the fleet in one view"),
}


class Checkmeter(VerbTable):
    """The whole command line: what a user can mend becomes one line for each error and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; `agent.cli.explain` says what an error means to the shell."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            from agent.cli.explain import explain  # the error classes are worth importing only now

            code, lines = explain(error)
            for line in lines:
                click.echo(line, err=True)
            ctx.exit(code)


@click.group(
    cls=Checkmeter, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="checkmeter")
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=quiet_option,
    help="No progress and no advice: results, errors and the exit code only.",
)
def cli() -> None:
    """Watch a building's energy balance: main meter against the sum of its sub-meters."""


def main(args: list[str] | None = None) -> Any:
    """Entry point of the console script."""
    # Our matrices are small: OpenBLAS's threads would wait for each other longer than they compute. Read at its load.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return cli.main(args, prog_name="checkmeter")


if __name__ == "__main__":
    sys.exit(main())
