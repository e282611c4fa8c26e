"""`checkmeter demo`: a theft in a simulated building is found, from the meter's octets to the utility's subscriber."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

import click

from agent.cli.lab.demo_utility import UtilitySide
from agent.cli.lab.report import made_page
from agent.offline.case.case import CaseError
from agent.offline.case.from_store import from_store
from agent.offline.demo.brokers import NoBroker
from agent.offline.demo.demo import LEAD_DAYS, LEARNING_DAYS, Demo, DemoError, Outcome, plan_of
from agent.offline.demo.ending import ending_in_order
from agent.offline.demo.view import screen
from agent.site.errors import ConfigError
from agent.site.load import load
from agent.wire.events import AlertEvent

EXAMPLE = "examples/demo-building.toml"
PACKAGED = Path("/usr/share/doc/checkmeter") / EXAMPLE  # where the Debian package puts it


@click.command()
@click.argument("site_file", metavar="[SITE.toml]", default=EXAMPLE, type=click.Path(path_type=Path))
@click.option(
    "--speed", type=click.FloatRange(1, 10_000), default=1800.0, show_default=True, help="Simulated s in a s."
)
@click.option(
    "--lead-days",
    type=click.FloatRange(0.05, 60),
    show_default=f"{LEAD_DAYS:g}, {LEARNING_DAYS:g} where a meter stores no load profile",
    help="Quiet at first.",
)
@click.option(
    "--patience",
    type=click.FloatRange(1, 1000),
    default=72.0,
    show_default=True,
    help="Hours of the building's time after the theft's onset; then the demo has failed.",
)
@click.option("--broker", type=click.Choice(["mosquitto", "amqtt"]), help="Use this broker, not the first there is.")
@click.option("--utility", is_flag=True, help="End with the utility's page, open on the theft that was found.")
@click.option("--serve-seconds", type=float, hidden=True, help="With --utility: how long the page stays.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs, store and site file here.")
def command(
    site_file: Path,
    speed: float,
    lead_days: float | None,
    patience: float,
    broker: str | None,
    utility: bool,
    serve_seconds: float | None,
    keep: Path | None,
) -> None:
    """Run a building, a broker and an agent, let a flat steal, and print the alert as a subscriber receives it.

    Simulated time waits for the host: on a busy machine the demo takes longer, it does not fail. It ends with the
    evidence page of the theft, made two days of the building later.

    Exit code 0 if the right flat was named with the set confidence and nobody was accused before, 1 if not.
    """
    if site_file == Path(EXAMPLE) and not site_file.exists() and PACKAGED.exists():
        site_file = PACKAGED
    if site_file == Path(EXAMPLE) and not site_file.exists():
        where = f"{EXAMPLE} is not in this folder"
        raise ConfigError([f"{where}: run the demo in a clone of checkmeter, or name a SITE.toml"])
    # A backend refuses what is old or lies in the future: then the demo's days are the latest ones.
    start_s = (time.time() // 86_400 - 3) * 86_400 + 4 * 3600 if utility else None
    plan = plan_of(site_file, speed, lead_days, patience * 3600, start_s)
    folder = Path(tempfile.mkdtemp(prefix="checkmeter-demo-")) if keep is None else keep
    folder.mkdir(parents=True, exist_ok=True)
    shown = screen()
    evidence = None
    try:
        with ending_in_order():
            demo = Demo(site_file, folder, plan, shown)
            if utility:
                side = UtilitySide(folder, serve_seconds, shown.say)
                outcome = demo.run(broker, side.processes, side.show)
            else:
                outcome = demo.run(broker)
                evidence = _evidence(outcome, keep)
    except (DemoError, NoBroker, CaseError) as error:
        raise click.ClickException(str(error)) from None
    finally:
        shown.close()
        if keep is None:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
    if outcome.found is not None and outcome.early is None:
        click.echo(_verdict(plan.thief, plan.onset_s, outcome.found, outcome.elapsed_s))
        if evidence is not None:
            click.echo(f"The inspector's page of it: open {evidence}")
        return
    if outcome.early is not None:
        click.echo("FAILED: a loss was reported before anybody stole", err=True)
    elif outcome.alerts:
        click.echo(f"FAILED: {plan.thief} was not named with confidence within {patience:g} h", err=True)
    else:
        click.echo(f"FAILED: no alert arrived within {patience:g} h of the building's time", err=True)
    raise SystemExit(1)


def _evidence(outcome: Outcome, keep: Path | None) -> Path | None:
    """The evidence page of what was found, where it outlives the demo; None if nothing was found.

    Raises:
        CaseError: the store does not hold enough.
    """
    if outcome.found is None or outcome.early is not None or outcome.site is None:
        return None
    case = from_store(outcome.site, outcome.found.data.alert_id)
    text, _, _ = made_page(case, load(outcome.site).site.timezone, None)
    folder = keep or Path(tempfile.mkdtemp(prefix="checkmeter-evidence-"))
    page = folder.absolute() / "case.html"
    page.write_text(text, encoding="utf-8")
    return page


def _verdict(thief: str, onset_s: float, event: AlertEvent, elapsed_s: float) -> str:
    hours = (event.time.timestamp() - onset_s) / 3600
    probability = next(s.probability for s in event.data.suspects or [] if s.meter == thief)
    return (
        f"FOUND: {thief}, {event.data.loss_w or 0:.0f} W, {100 * probability:.0f} % sure, {hours:.1f} h of the "
        f"building's time after it began; the demo took {elapsed_s:.0f} s"
    )
