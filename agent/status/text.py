"""A snapshot of the running agent in words, for `status`, `watch` and the demo."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from agent import wire
from agent.status.snapshot import MeterView, Snapshot
from agent.wire.values import utc

SLOWER = 1.05  # a cycle that comes this much later than it should is said
FULL = 0.8  # of the time between cycles: the line itself is what takes it


def lines(snapshot: Snapshot) -> list[str]:
    """The snapshot for a person, in a few lines."""
    health, status = snapshot.health, snapshot.status
    use = f"{health.memory_mb or 0:.0f} MB, {health.cpu_percent or 0:.1f} % CPU, up {span(health.uptime_s)}"
    if health.flash_bytes_day is not None:
        use += f", writes {health.flash_bytes_day / 1e6:.1f} MB a day"
    shown = [f"{status.state}: {status.reason or snapshot.phase}; {use}; broker {snapshot.broker}"]
    shown += [
        f"bus {bus.id}: {bus.state}, {bus.cycles} cycles{cycle(bus)}, {bus.skipped} skipped{_errors(bus.errors)}"
        for bus in health.buses
    ]
    if health.queue is not None:
        queue = health.queue
        shown.append(f"outbox: {queue.messages} messages, {queue.bytes} octets, {queue.evicted} evicted")
    shown += [
        f"zone {zone.zone} at {zone.end:%Y-%m-%d %H:%M}: main {_kwh(zone.main_kwh)}, subs {_kwh(zone.sum_kwh)}, "
        f"technical {_kwh(zone.technical_loss_kwh)}, missing {_kwh(zone.residual_kwh)} "
        f"± {_kwh(zone.uncertainty_kwh)} kWh"
        for zone in snapshot.balances
    ]
    shown += [
        f"zone {zone}: a steady loss of {watt:.0f} W would be found within a week"
        for zone, watt in health.detectable_w.items()
    ]
    shown += [f"zone {forecast.zone}, {forecast_line(forecast)}" for forecast in snapshot.forecasts]
    for alert in snapshot.alerts:
        loss = "" if alert.loss_w is None else f", {alert.loss_w:.0f} W since {alert.onset:%Y-%m-%d %H:%M}"
        who = max(alert.suspects or [], key=lambda s: s.probability, default=None)
        named = "" if who is None else f", {who.meter} {100 * who.probability:.0f} %"
        where = alert.zone or alert.meter or alert.bus
        shown.append(f"ALERT {alert.severity}: {alert.kind} {where}{loss}{named}  {alert.alert_id}")
    errors = {meter.id: _errors(meter.errors) for meter in health.meters}
    for meter in snapshot.meters:
        age = "never" if meter.time_s is None else f"{span(max(0.0, snapshot.now_s - meter.time_s))} ago"
        shown.append(f"  {meter.id:<20} {amount(meter):>14}  read {age}{errors.get(meter.id, '')}")
    return shown


def cycle(bus: wire.BusHealth) -> str:
    """How long a bus's cycles take, and how often they come where that is not as often as they should."""
    if bus.cycle_s is None:
        return ""
    words = f" of {bus.cycle_s:.1f} s"
    if bus.poll_s is None or bus.kept_s is None:
        return words
    if bus.kept_s > SLOWER * bus.poll_s:
        full = ": the line bears no more" if bus.cycle_s > FULL * bus.kept_s else ""
        return f"{words}, one every {bus.kept_s:.1f} s instead of {bus.poll_s:g} s{full}"
    return f"{words}, one every {bus.poll_s:g} s"


def amount(meter: MeterView) -> str:
    """What a meter counts, with its unit: kWh, or m³ of water; a dash while it has not been read."""
    if meter.register is not None:
        first = meter.register.amounts[0]
        return f"{first.value:.{3 if first.unit == 'm³' else 2}f} {first.unit}"
    return "-" if meter.energy_kwh is None else f"{meter.energy_kwh:.2f} kWh"


def _errors(errors: dict[str, int]) -> str:
    return "".join(f", {count} {kind}" for kind, count in errors.items() if count)


def _kwh(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def span(seconds: float) -> str:
    """A duration in the two units that matter."""
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // part:.0f} {below}"
    return f"{seconds:.0f} s"


def when(time_s: float) -> str:
    """A moment, short: Tue 03 Mar 14:15."""
    return utc(time_s).strftime("%a %d %b %H:%M")


def balance_line(balance: wire.Balance) -> str:
    """One zone's last interval as mean powers."""
    span_s = (balance.end - balance.start).total_seconds()

    def watts(kwh: float | None) -> str:
        return "    ?" if kwh is None else f"{kwh * 3.6e6 / span_s:5.0f}"

    return (
        f"main {watts(balance.main_kwh)} W = subs {watts(balance.sum_kwh)} W"
        f" + lines {watts(balance.technical_loss_kwh)} W + missing {watts(balance.residual_kwh)} W"
        f" (± {watts(balance.uncertainty_kwh).strip()})"
    )


def live_line(live: wire.Live) -> str:
    """The balance of the moment."""

    def watts(power_w: float | None) -> str:
        return "    ?" if power_w is None else f"{power_w:5.0f}"

    how = "by power registers" if live.by == "power" else f"by energy over {live.span_s:.0f} s"
    around = "" if live.uncertainty_w is None else f" ± {live.uncertainty_w:.0f}"
    return (
        f"now  {watts(live.main_w)} W = subs {watts(live.sum_w)} W + {watts(live.difference_w)} W{around}"
        f"  ({how}, read within {live.skew_s:.1f} s)"
    )


def forecast_line(forecast: wire.Forecast, timezone: str = "UTC") -> str:
    """The next day in one line, in local time."""
    zone = ZoneInfo(timezone)

    def at(extreme: wire.ForecastExtreme) -> str:
        low, high = extreme.w_interval
        return (
            f"{extreme.w / 1000:.1f} kW ({low / 1000:.1f} to {high / 1000:.1f})"
            f" about {extreme.start.astimezone(zone):%a %H:%M}"
        )

    over = forecast.over_capacity
    words = f"next 24 h: peak {at(forecast.peak)}, trough {at(forecast.trough)}"
    if over is not None:
        words += f", over {over.capacity_w / 1000:g} kW {100 * over.probability:.0f} %"
    return words + ("" if not forecast.flags else f"  [{', '.join(forecast.flags).replace('_', ' ')}]")
