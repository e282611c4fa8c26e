"""A gateway's forecast as rows of the store: the last one whole, and the first of each day for looking back.

It checks what a forecast's form alone does not: that its curves have one length and possible figures.
"""

from __future__ import annotations

import msgspec

from agent import wire
from agent.utility.ingest.checks import LARGEST_W, body_of
from agent.utility.sql.schema import DAY_S, FORECAST, FORECAST_DAY
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table

SHORTEST_S = 300  # of a step: bounds what one message brings


def fault(forecast: wire.Forecast) -> str | None:
    """Why this is no forecast; None if it is one."""
    steps, day_steps = len(forecast.mean_w), DAY_S // forecast.interval_s
    curves = (forecast.mean_w, *forecast.quantiles_w.values())
    lengths = {len(curve) for curve in curves}
    whole = forecast.interval_s >= SHORTEST_S and day_steps <= steps <= 2 * day_steps and lengths == {steps}
    if not whole or not {"0.05", "0.95"} <= set(forecast.quantiles_w):
        return "forecast: expected 24 to 48 h of mean_w and of quantiles_w from 0.05 to 0.95"
    peak, trough, over = forecast.peak, forecast.trough, forecast.over_capacity
    heights = [peak.w, *peak.w_interval, trough.w, *trough.w_interval]
    # Feed-in makes a load negative, so a power may be; a capacity and a duration may not.
    largest = max(abs(power_w) for values in (*curves, heights) for power_w in values)
    if largest > LARGEST_W:
        return f"range: {largest:g} W in a forecast; at most {LARGEST_W:g}"
    if any(low > high for low, high in (peak.w_interval, trough.w_interval)):
        return "range: an interval of peak or trough ends before it begins"
    if over is not None and not 0.0 < over.capacity_w <= LARGEST_W:
        return f"range: capacity_w = {over.capacity_w:g}; above 0 and at most {LARGEST_W:g}"
    if over is not None and not 0.0 <= over.duration_s <= DAY_S:
        return f"range: duration_s = {over.duration_s:g}; a day ({DAY_S} s) at most"
    return None


def rows(zone_key: int, issued_s: int, forecast: wire.Forecast) -> tuple[tuple[Table, Row], ...]:
    """The two rows of a forecast without fault."""
    peak, trough, over = forecast.peak, forecast.trough, forecast.over_capacity
    peak_s, trough_s = round(peak.start.timestamp()), round(trough.start.timestamp())
    latest: Row = (
        zone_key,
        peak.w,
        *peak.w_interval,
        peak_s,
        trough.w,
        trough_s,
        None if over is None else over.capacity_w,
        None if over is None else over.probability,
        body_of(forecast),
        issued_s,
    )
    low, high = forecast.quantiles_w["0.05"], forecast.quantiles_w["0.95"]
    band = [[round(w) for w in row] for row in zip(low, forecast.mean_w, high, strict=True)]
    kept = msgspec.json.encode(band).decode()
    first: Row = (zone_key, issued_s // DAY_S, issued_s, forecast.interval_s, peak.w, peak_s, trough.w, kept)
    return ((FORECAST, latest), (FORECAST_DAY, first))
