"""The page's charts, from rows: each is an SVG text without script, in the words of the page's language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent import wire
from agent.charts.svg import Band, Line, chart
from agent.utility.fleet.forecasts import Sum
from agent.utility.fleet.promise import Stated
from agent.utility.fleet.realised import SLOT_S
from agent.utility.sql.schema import DAY_S, JOULES_PER_KWH
from agent.utility.web.words import Words

BLUE, RED, GREY, GREEN = "#2f5d8a", "#b03a2e", "#6b7885", "#2e6b3a"


def fleet_trend(words: Words, days: Sequence[dict[str, Any]]) -> str:
    """Unexplained loss and technical loss of the fleet, in percent of the energy, day by day."""
    whole = [day for day in days if day["main_kwh"]]
    if len(whole) < 2:
        return ""
    x = np.array([day["day"] * DAY_S for day in whole], dtype=np.float64)
    main = np.array([day["main_kwh"] for day in whole], dtype=np.float64)
    percent = [100 * np.array([day[name] for day in whole], dtype=np.float64) / main for name in _KINDS]
    lines = [
        Line(words.say("unexplained"), percent[0], RED, width=2.2),
        Line(words.say("technical loss"), percent[1], GREY, "6 3"),
    ]
    return chart(words.say("Loss in percent of the energy"), x, lines, y_label="%")


_KINDS = ("unexplained_kwh", "technical_kwh")


def zone_days(words: Words, days: Sequence[dict[str, Any]]) -> str:
    """A zone's unexplained loss, kWh a day."""
    if len(days) < 2:
        return ""
    x = np.array([day["day"] * DAY_S for day in days], dtype=np.float64)
    residual = np.array([day["residual_j"] for day in days], dtype=np.float64) / JOULES_PER_KWH
    technical = np.array([day["technical_j"] for day in days], dtype=np.float64) / JOULES_PER_KWH
    lines = [
        Line(words.say("unexplained"), residual, RED, width=2.2),
        Line(words.say("technical loss"), technical, GREY, "6 3"),
    ]
    return chart(words.say("kWh a day"), x, lines, y_label="kWh")


def zone_intervals(words: Words, rows: Sequence[dict[str, Any]]) -> str:
    """Main meter against the sum of the sub-meters over the latest two days, kW."""
    if len(rows) < 2:
        return ""
    x = np.array([row["start_s"] for row in rows], dtype=np.float64)
    hours = np.array([row["seconds"] for row in rows], dtype=np.float64) / 3600

    def kw(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        joules = np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
        return joules / JOULES_PER_KWH / hours

    main, subs, residual, spread = kw("main_j"), kw("sum_j"), kw("residual_j"), kw("uncertainty_j")
    lines = [
        Line(words.say("main meter"), main, BLUE, width=2.0),
        Line(words.say("sum of sub-meters"), subs, GREEN, "6 3"),
        Line(words.say("unexplained"), residual, RED),
    ]
    bands = [Band("", -2 * spread, 2 * spread, GREY)]
    return chart(words.say("The latest two days, kW"), x, lines, bands=bands, y_label="kW")


def zone_forecast(words: Words, forecast: wire.Forecast | None) -> str:
    """The gateway's forecast of the next two days, kW, with its 90 % band."""
    if forecast is None or not {"0.05", "0.95"} <= set(forecast.quantiles_w):
        return ""
    x = forecast.issued.timestamp() + forecast.interval_s * np.arange(len(forecast.mean_w), dtype=np.float64)
    low, mean, high = (
        np.array(watts, dtype=np.float64) / 1000
        for watts in (forecast.quantiles_w["0.05"], forecast.mean_w, forecast.quantiles_w["0.95"])
    )
    lines = [Line(words.say("expected"), mean, BLUE, width=2.0)]
    return chart(words.say("Forecast, kW"), x, lines, bands=[Band(words.say("90 % interval"), low, high)], y_label="kW")


def group_forecast(words: Words, group: Sum | None) -> str:
    """The sum of a group over the next 24 h, kW, with its 90 % band and what it can carry."""
    if group is None:
        return ""
    said = group.forecast
    x = group.start_s + SLOT_S * np.arange(len(said.mean_w), dtype=np.float64)
    lines = [Line(words.say("expected"), said.mean_w / 1000, BLUE, width=2.0)]
    if group.capacity_w is not None:
        lines.append(Line(words.say("capacity"), np.full(len(x), group.capacity_w / 1000), RED, "6 3"))
    bands = [Band(words.say("90 % interval"), said.quantiles_w[0] / 1000, said.quantiles_w[-1] / 1000)]
    return chart(words.say("Forecast, kW"), x, lines, bands=bands, y_label="kW")


def peak_days(words: Words, days: Sequence[dict[str, Any]]) -> str:
    """A group's highest half hour day by day, beside the highest that was expected of the sum, kW."""
    if len(days) < 2:
        return ""
    x = np.array([day["day_start_s"] for day in days], dtype=np.float64)
    foreseen, true = (np.array([day[name] for day in days], np.float64) for name in ("forecast_peak_kw", "peak_kw"))
    lines = [Line(words.say("come true"), true, BLUE, width=2.0), Line(words.say("foreseen"), foreseen, GREY, "6 3")]
    return chart(words.say("The day's peak: foreseen and come true, kW"), x, lines, y_label="kW")


def calibration(words: Words, rows: Sequence[Stated]) -> str:
    """Stated probability against the share that was found, with the interval; on the diagonal the promise is kept."""
    if not rows:
        return ""
    x = np.array([row.stated_percent for row in rows])
    order = np.argsort(x)
    found = np.array([row.found_percent for row in rows])[order]
    low = np.array([row.at_least_percent for row in rows])[order]
    high = np.array([row.at_most_percent for row in rows])[order]
    lines = [Line(words.say("found"), found, BLUE, width=2.2), Line(words.say("stated"), x[order], GREY, "6 3")]
    bands = [Band(words.say("95 % interval"), low, high, BLUE)]
    return chart(words.say("Stated and found, percent"), x[order], lines, bands=bands, y_label="%", numbers=True)
