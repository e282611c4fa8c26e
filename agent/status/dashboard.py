"""The building on a terminal, for `watch` and the demo. Needs rich (extra `watch`); it only draws a snapshot."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.status.snapshot import Snapshot
from agent.status.text import amount, balance_line, cycle, forecast_line, live_line, span, when

STATE_STYLE = {"online": "bold green", "degraded": "bold yellow", "offline": "bold red"}
SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow", "info": ""}


def building(snapshot: Snapshot, height: int | None = None) -> RenderableType:
    """State, balance, alerts, buses, and the meters, the most suspicious first: as many as `height` lines hold."""
    status, health = snapshot.status, snapshot.health
    head = Text.assemble(
        (status.state, STATE_STYLE[status.state]),
        f"  {when(snapshot.now_s)} UTC  {status.reason or snapshot.phase}  broker {snapshot.broker}",
        f"  {health.memory_mb or 0:.0f} MB  {health.cpu_percent or 0:.1f} % CPU",
    )
    parts: list[RenderableType] = [head]
    parts += [Text(f"{zone.zone:<14} {balance_line(zone)}") for zone in snapshot.balances]
    parts += [Text(f"{live.zone:<14} {live_line(live)}") for live in snapshot.live]
    parts += [Text(f"{forecast.zone:<14} {forecast_line(forecast)}") for forecast in snapshot.forecasts]
    for alert in snapshot.alerts:
        who = max(alert.suspects or [], key=lambda s: s.probability, default=None)
        words = f"! {alert.kind} in {alert.zone or alert.meter or alert.bus} since {alert.onset:%d %b %H:%M}"
        words += "" if alert.loss_w is None else f", {alert.loss_w:.0f} W"
        words += "" if who is None else f", {who.meter} {100 * who.probability:.0f} %"
        parts.append(Text(words, style=SEVERITY_STYLE[alert.severity]))
    for bus in health.buses:
        style = "" if bus.state == "up" else "bold red"
        parts.append(
            Text(f"bus {bus.id}: {bus.state}, {bus.cycles} cycles{cycle(bus)}, {bus.skipped} skipped", style=style)
        )
    rows = None if height is None else max(3, height - len(parts) - 3)
    return Group(*parts, _meters(snapshot, rows))


def _meters(snapshot: Snapshot, rows: int | None) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    table.add_column("meter")
    table.add_column("register", justify="right")
    table.add_column("power W", justify="right")
    table.add_column("read", justify="right")
    table.add_column("errors", justify="right")
    table.add_column("suspicion")
    errors = {meter.id: sum(meter.errors.values()) for meter in snapshot.health.meters}
    room = rows or len(snapshot.meters)
    by_interest = sorted(snapshot.meters, key=lambda m: _interest(m.id, snapshot), reverse=True)
    for meter in by_interest[:room]:
        suspicion = snapshot.suspicion.get(meter.id, 0.0)
        style = "bold red" if suspicion > 0.5 else "yellow" if meter.id in snapshot.status.meters else ""
        table.add_row(
            meter.id,
            amount(meter),
            "-" if meter.power_w is None else f"{meter.power_w:.0f}",
            "-" if meter.time_s is None else f"{span(max(0.0, snapshot.now_s - meter.time_s))} ago",
            str(errors.get(meter.id) or ""),
            "█" * round(20 * suspicion) + (f" {100 * suspicion:.0f} %" if suspicion >= 0.05 else ""),
            style=style,
        )
    left = len(snapshot.meters) - room
    return Group(table, Text(f"… and {left} more meters, less suspicious and without faults")) if left > 0 else table


def _interest(meter: str, snapshot: Snapshot) -> tuple[float, bool]:
    """What a person wants to see first: the suspicious, then those that cannot be read."""
    return (round(snapshot.suspicion.get(meter, 0.0), 2), meter in snapshot.status.meters)
