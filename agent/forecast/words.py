"""A forecast in the words of the wire, as a condition for the alert book, and in a line for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

import numpy as np

from agent import wire
from agent.alerts.condition import Condition
from agent.forecast.zone_forecasts import Issued
from agent.wire.values import utc
from core.arrays import Floats
from core.forecast.values import LEVELS, Extreme, Forecast

WHOLE_W = 1000.0  # curves that reach so far are told in whole watts
RAISE, HOLD = 0.5, 0.25  # probability to pass the capacity: an alert is raised from one on, and cleared below the other


def on_wire(forecast: Forecast) -> wire.Forecast:
    """The message; every figure is finite, whatever the readings were."""
    over = forecast.over_capacity
    return wire.Forecast(
        zone=forecast.zone,
        issued=wire.utc(forecast.issued_s),
        interval_s=round(forecast.step_s),
        mean_w=_powers(forecast.mean_w),
        quantiles_w={
            f"{level:g}": _powers(row) for level, row in zip(LEVELS.tolist(), forecast.quantiles_w, strict=True)
        },
        peak=_extreme(forecast.peak),
        trough=_extreme(forecast.trough),
        over_capacity=None
        if over is None
        else wire.OverCapacity(
            capacity_w=over.capacity_w, probability=round(over.probability, 4), duration_s=round(over.duration_s)
        ),
        days=forecast.days,
        flags=list(forecast.flags),
    )


def _powers(values: Floats) -> list[float]:
    if np.abs(values).max() >= WHOLE_W:  # tenths of a watt would be a third of the message
        return [round(value) for value in values.tolist()]
    return [round(value, 1) + 0.0 for value in values.tolist()]  # no -0.0


def _extreme(extreme: Extreme) -> wire.ForecastExtreme:
    low, high = (round(value, 1) for value in extreme.interval_w)
    return wire.ForecastExtreme(
        w=round(extreme.power_w, 1),
        w_interval=(low, high),
        start=wire.utc(extreme.start_s),
        time_probability=[round(value, 5) for value in extreme.time_probability.tolist()],
    )


def conditions(issued: Issued) -> Iterator[Condition]:
    """What the alert book shall judge, oldest first: capacities that will be passed, or are.

    A forecast without readings of its last day accuses nobody: it raises no alert and keeps none.
    """
    told = [
        Condition(
            kind="capacity", active=False, time_s=time_s, since_s=time_s, zone=zone, detail="there is no forecast now"
        )
        for time_s, zone in issued.withdrawn
    ]
    for forecast in issued.forecasts:
        over = forecast.over_capacity
        stale = "stale" in forecast.flags
        if over is None or (HOLD <= over.probability < RAISE and not stale):
            continue
        told.append(
            Condition(
                kind="capacity",
                active=over.probability >= RAISE and not stale,
                time_s=forecast.issued_s,
                since_s=forecast.issued_s,
                zone=forecast.zone,
                detail=f"expected to pass {over.capacity_w / 1000:g} kW within 24 h",
            )
        )
    told += [
        Condition(
            kind="capacity",
            active=True,
            time_s=overload.time_s,
            since_s=overload.time_s,
            severity="critical",
            zone=overload.zone,
            detail=f"over {overload.capacity_w / 1000:g} kW",
        )
        for overload in issued.overloads
    ]
    yield from sorted(told, key=lambda condition: (condition.time_s, condition.severity != "critical"))


def table(forecast: wire.Forecast, timezone: str = "UTC", every_s: float = 3600.0) -> Iterable[str]:
    """The 48 h in lines, one an hour: local time, mean and the 90 % band."""
    zone = ZoneInfo(timezone)
    step = max(1, round(every_s / forecast.interval_s))
    start_s = forecast.issued.timestamp()
    low, high = forecast.quantiles_w["0.05"], forecast.quantiles_w["0.95"]
    top = max(high) or 1.0
    for k in range(0, len(forecast.mean_w), step):
        when = utc(start_s + k * forecast.interval_s).astimezone(zone)
        bar = "#" * max(0, round(30 * forecast.mean_w[k] / top))
        mean_kw, low_kw, high_kw = (values[k] / 1000 for values in (forecast.mean_w, low, high))
        yield f"{when:%a %H:%M}  {mean_kw:8.2f} kW  {low_kw:8.2f} to {high_kw:8.2f}  {bar}"
