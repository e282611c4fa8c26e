"""`checkmeter status`: what the running agent says of itself, once, over its local socket."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from agent.config import Service, load
from agent.control import ask
from agent.vitals import Snapshot

DEFAULT_SOCKET = Service().socket


def socket_of(site_file: Path | None, socket: str | None) -> str:
    """The socket that was meant: given, or of a site file, or the service's usual one."""
    if socket is not None:
        return socket
    return DEFAULT_SOCKET if site_file is None else load(site_file).service.socket


@click.command()
@click.argument("site_file", metavar="[SITE.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--socket", metavar="PATH", help=f"The agent's socket.  [default: of SITE.toml, or {DEFAULT_SOCKET}]")
@click.option("--json", "as_json", is_flag=True, help="The whole snapshot as JSON.")
def command(site_file: Path | None, socket: str | None, as_json: bool) -> None:
    """Show what the running agent says: meters, buses, balance, open alerts. Exit code 1 if it is not online."""
    path = socket_of(site_file, socket)
    try:
        snapshot = ask(path)
    except (FileNotFoundError, ConnectionRefusedError):
        click.echo(f"{path}: no agent listens here; is it running? (systemctl status checkmeter)", err=True)
        raise SystemExit(69) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(snapshot)).decode())
    else:
        click.echo("\n".join(lines(snapshot)))
    raise SystemExit(0 if snapshot.status.state == "online" else 1)


def lines(snapshot: Snapshot) -> list[str]:
    """The snapshot for a person, in a few lines."""
    health, status = snapshot.health, snapshot.status
    use = f"{health.memory_mb or 0:.0f} MB, {health.cpu_percent or 0:.1f} % CPU, up {_span(health.uptime_s)}"
    shown = [f"{status.state}: {status.reason or snapshot.phase}; {use}; broker {snapshot.broker}"]
    for bus in health.buses:
        cycle = "" if bus.cycle_s is None else f", last cycle {bus.cycle_s:.1f} s"
        shown.append(
            f"bus {bus.id}: {bus.state}, {bus.cycles} cycles, {bus.skipped} skipped{cycle}{_errors(bus.errors)}"
        )
    if health.queue is not None:
        queue = health.queue
        shown.append(f"outbox: {queue.messages} messages, {queue.bytes} octets, {queue.evicted} evicted")
    shown += [
        f"zone {zone.zone} at {zone.end:%Y-%m-%d %H:%M}: main {_kwh(zone.main_kwh)}, subs {_kwh(zone.sum_kwh)}, "
        f"technical {_kwh(zone.technical_loss_kwh)}, missing {_kwh(zone.residual_kwh)} "
        f"± {_kwh(zone.uncertainty_kwh)} kWh"
        for zone in snapshot.balances
    ]
    for alert in snapshot.alerts:
        loss = "" if alert.loss_w is None else f", {alert.loss_w:.0f} W since {alert.onset:%Y-%m-%d %H:%M}"
        who = max(alert.suspects or [], key=lambda s: s.probability, default=None)
        named = "" if who is None else f", {who.meter} {100 * who.probability:.0f} %"
        where = alert.zone or alert.meter or alert.bus
        shown.append(f"ALERT {alert.severity}: {alert.kind} {where}{loss}{named}  {alert.alert_id}")
    errors = {meter.id: _errors(meter.errors) for meter in health.meters}
    for meter in snapshot.meters:
        age = "never" if meter.time_s is None else f"{_span(max(0.0, snapshot.now_s - meter.time_s))} ago"
        energy = "-" if meter.energy_kwh is None else f"{meter.energy_kwh:.2f} kWh"
        shown.append(f"  {meter.id:<20} {energy:>14}  read {age}{errors.get(meter.id, '')}")
    return shown


def _errors(errors: dict[str, int]) -> str:
    return "".join(f", {count} {kind}" for kind, count in errors.items() if count)


def _kwh(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def _span(seconds: float) -> str:
    """A duration in the two units that matter."""
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // part:.0f} {below}"
    return f"{seconds:.0f} s"
