"""`checkmeter pulse`: switch a flat's breaker in a rhythm, and be told which meter it hangs on."""

from __future__ import annotations

import time
from pathlib import Path

import click

from agent.cli.gateway.status import DEFAULT_SOCKET, snapshot_of, socket_of
from agent.process.exit_codes import UNAVAILABLE
from agent.status.pulse import Rhythm, judge, seen_enough
from agent.status.snapshot import Snapshot
from agent.wire.live import Live


@click.command()
@click.argument("site_file", metavar="[SITE.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--socket", metavar="PATH", help=f"The agent's socket.  [default: of SITE.toml, or {DEFAULT_SOCKET}]")
@click.option("--zone", metavar="ID", help="The zone that the flat belongs to.  [default: the only one]")
@click.option("--step", type=click.FloatRange(0.2, 120), default=8.0, show_default=True, help="Seconds on, and off.")
@click.option("--rounds", type=click.IntRange(1, 10), default=3, show_default=True, help="Times off.")
def command(site_file: Path | None, socket: str | None, zone: str | None, step: float, rounds: int) -> None:
    """Say when to switch a flat's breaker off and on, watch all meters, and tell which one moved with it.

    Three times 8 s off take less than a minute. Something of 100 W or more has to be on in the flat, and the meters
    have to be read every second or two (poll_s). Exit code 69 if the agent does not tell powers quickly enough.
    """
    path = socket_of(site_file, socket)
    zone = _live(snapshot_of(path), zone).zone
    rhythm = Rhythm(step, rounds, min(3.0, step / 2))
    click.echo(f"zone {zone}: {rhythm.length_s:.0f} s; leave the breaker on until you are told")
    traces: dict[str, dict[float, float]] = {}
    main, said, began_s, ahead_s = "", 0, time.monotonic(), None
    while (at_s := time.monotonic() - began_s) < rhythm.length_s:
        phase = rhythm.phase(at_s)
        if phase != said:
            said = phase
            click.echo("  OFF" if phase % 2 else "  ON")
        seen = snapshot_of(path)
        ahead_s = seen.now_s - at_s if ahead_s is None else ahead_s  # the agent's clock at our beginning
        main = _take(seen, zone, ahead_s, traces)
        time.sleep(min(step / 8, 0.5))
    found = [list(traces[name].items()) for name in traces]
    often = found and max(len(trace) for trace in found) >= 2 * (2 * rounds + 1)
    if main not in traces or not often or not seen_enough(rhythm, list(traces[main].items())):
        click.echo("the powers came too seldom: set poll_s to a second or two, or take a longer --step", err=True)
        raise SystemExit(UNAVAILABLE)
    subs = {name: list(trace.items()) for name, trace in traces.items() if name != main}
    verdict = judge(rhythm, list(traces[main].items()), subs)
    moved = sorted(verdict.subs.items(), key=lambda item: -item[1].power_w if item[1].power_w == item[1].power_w else 0)
    for name, fall in [(main, verdict.main), *moved[:3]]:
        told = f"{fall.power_w:8.0f} ± {fall.sd_w:.0f} W" if fall.power_w == fall.power_w else "read too seldom to tell"
        click.echo(f"  {name:<20} {told}")
    click.echo(verdict.words)


def _live(seen: Snapshot, wanted: str | None) -> Live:
    """What is seen of the wanted zone, or of the only one."""
    found = [live for live in seen.live if wanted in (None, live.zone)]
    if len(found) != 1:
        raise click.UsageError(f"--zone: expected one of {', '.join(live.zone for live in seen.live)}")
    return found[0]


def _take(seen: Snapshot, zone: str, ahead_s: float, traces: dict[str, dict[float, float]]) -> str:
    """Note each meter's power at the instant at which it was read; the name of the zone's main meter."""
    live = _live(seen, zone)
    for view in seen.meters:
        if view.id in live.meters and view.time_s is not None and view.power_w is not None:
            traces.setdefault(view.id, {})[view.time_s - ahead_s] = view.power_w
    return next(iter(live.meters), "")
