"""Recorded registers through the service's own step: alerts, scores and balances as a gateway would have made them.

It owns how a recording becomes boundaries. The times of alerts are the recording's.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.alerts.book import AlertBook
from agent.charts.svg import Band, Line, Mark, chart
from agent.forecast.words import conditions
from agent.forecast.zone_forecasts import ZoneForecasts
from agent.models import InUse
from agent.offline.replay.backtest import Backtest
from agent.offline.replay.readings import Readings, ReadingsError
from agent.pipeline.pipeline import Pipeline
from agent.pipeline.step import GAP_S, Balance
from agent.site.tables import QUARTER_S, Config
from agent.wire.codec import encode
from agent.wire.events import AlertEvent
from agent.wire.values import utc
from core.registers.samples import RegisterSample
from core.signs import MeterSign

Floats = NDArray[np.float64]

DAY_S = 86_400
BLOCK_DAYS = 7  # rows that are judged in one call
EXACT_S = 1.0  # a time this near to its boundary is on it
JITTER = 0.05  # by which the median step of a recording may be longer than the interval that was meant
OFF_GRID = 0.02  # share of rows that may miss the grid before all are interpolated


@dataclass(slots=True)
class Outcome:
    """What a replay gave; balances only where they were asked for."""

    alerts: list[AlertEvent] = field(default_factory=list)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    balances: list[Balance] = field(default_factory=list)
    interval_s: float = 0.0
    rows: int = 0
    backtest: Backtest | None = None
    register_notes: dict[str, int] = field(default_factory=dict)


def interval_of(times_s: Floats, wanted_s: float) -> float:
    """The balance's interval for a recording: the site file's, or the recording's own step where that is coarser.

    Rows that come some minutes early or late are rows of the interval that they come around.

    Raises:
        ReadingsError: rows are too far apart.
    """
    step_s = float(np.median(np.diff(times_s)))
    for interval_s in (wanted_s, *(float(s) for s in range(60, round(QUARTER_S) + 1, 60))):
        if interval_s >= max(wanted_s, (1.0 - JITTER) * step_s - EXACT_S) and QUARTER_S % interval_s == 0:
            return interval_s
    raise ReadingsError(f"rows are {step_s:.0f} s apart; a recording needs at least a row every six hours")


def replay(
    config: Config,
    readings: Readings,
    *,
    signs: list[MeterSign] | None = None,
    model: InUse | None = None,
    balances: bool = False,
    forecast: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> Outcome:
    """Run the recording; `progress` is told how many more rows are done.

    `forecast`: judge the forecasts of all zones; where a zone has a capacity they are made in any case, for its alerts.
    """
    interval_s = interval_of(readings.times_s, config.detection.interval_s)
    about = (None, None) if model is None else (model.named.sha256, model.named.threshold)
    row_s = config.detection.row_of(interval_s)
    book = AlertBook.from_config(config, *about)
    wanted = forecast or any(zone.capacity_w is not None for zone in config.zone)
    backtest = Backtest(row_s)
    forecasts = ZoneForecasts(config, row_s, backtest.record if forecast else None) if wanted else None
    scorer, states = (None, None) if model is None else (model.scorer, model.states)
    pipeline = Pipeline(config, book, scorer, states=states, interval_s=interval_s, keep=balances, forecasts=forecasts)
    waiting = list(signs or [])
    outcome = Outcome(interval_s=row_s, rows=len(readings.times_s))
    begins = {begin for begin, _ in _without_holes(readings.times_s)}
    began_s = ended_s = -np.inf
    for start, stop, feed in blocks(readings, interval_s, pipeline):
        if forecasts is not None and readings.outdoor_c is not None:
            forecasts.take_outdoor(readings.times_s[start:stop], readings.outdoor_c[start:stop])
        until_s = float(readings.times_s[stop - 1])
        while waiting and waiting[0].time_s <= until_s:
            pipeline.sign(waiting.pop(0))
        feed()
        step = pipeline.step(until_s)
        outcome.alerts += step.alerts
        if forecasts is not None:
            forecasts = pipeline.forecasts or forecasts  # another one since the balance began again
            issued = forecasts.drain()
            outcome.alerts += book.observe(conditions(issued))
            if forecast:
                backtest.take(issued.forecasts, (forecasts.at_midnight(f) for f in issued.forecasts))
        if start in begins:
            began_s, ended_s = float(readings.times_s[start]), float(readings.times_s[start - 1]) if start else -np.inf
        outcome.balances += [
            b for b in step.balances if b.end_s > began_s + EXACT_S or b.start_s < ended_s - EXACT_S
        ]  # the row that ends where a recording begins holds nothing
        progress(stop - start)
    outcome.alerts += book.advance(float(readings.times_s[-1]))
    outcome.scores = pipeline.scores()
    outcome.backtest = backtest if forecast else None
    outcome.register_notes = {reason: n for reason, n in (pipeline.counted | pipeline.unusable).items() if n}
    return outcome


def blocks(
    readings: Readings, interval_s: float, pipeline: Pipeline, days: float = BLOCK_DAYS
) -> Iterator[tuple[int, int, Callable[[], None]]]:
    """Parts of the recording, each with what feeds it: whole rows where they stand on a grid, else samples.

    A hole longer than the service bridges row by row makes the pipeline begin again, as the service does.
    """
    times_s, wh = readings.times_s, readings.wh
    phase_s = (times_s - times_s[0]) % interval_s
    on_grid = np.minimum(phase_s, interval_s - phase_s) <= EXACT_S
    regular = on_grid.mean() >= 1 - OFF_GRID or (on_grid.sum() - 1) * interval_s >= 0.98 * (times_s[-1] - times_s[0])
    for begin, end in _without_holes(times_s):
        if begin:
            pipeline.reset()
        size = max(1, round(days * (end - begin) * DAY_S / max(DAY_S, times_s[end - 1] - times_s[begin])))
        for start in range(begin, end, size):
            stop = min(start + size, end)
            part = slice(start, stop)

            def rows(part: slice = part) -> None:
                fits = on_grid[part]
                if fits.any():
                    pipeline.feed_block(times_s[part][fits], wh[part][fits])

            def samples(part: slice = part) -> None:
                pipeline.feed(
                    RegisterSample(meter, float(t), import_wh=float(value))
                    for t, row in zip(times_s[part], wh[part], strict=True)
                    for meter, value in zip(pipeline.meters, row, strict=True)
                    if value == value
                )

            yield start, stop, rows if regular else samples


def _without_holes(times_s: Floats) -> Iterator[tuple[int, int]]:
    """First and one past the last row of each part in which no hole is longer than `GAP_S`."""
    edges = [0, *(np.flatnonzero(np.diff(times_s) > GAP_S) + 1).tolist(), len(times_s)]
    yield from itertools.pairwise(edges)


# -- out ------------------------------------------------------------------------------------------------------------


def write_alerts(path: Path, alerts: list[AlertEvent]) -> None:
    """One CloudEvents alert a line, as sent over MQTT."""
    with path.open("wb") as file:
        file.writelines(encode(alert) + b"\n" for alert in alerts)


def write_scores(path: Path, scores: dict[str, dict[str, float]]) -> None:
    """`meter,theft_probability,<features>`."""
    names = list(dict.fromkeys(name for row in scores.values() for name in row if name != "theft_probability"))
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["meter", "theft_probability", *names])
        for meter, row in scores.items():
            out.writerow(
                [meter, f"{row['theft_probability']:.6g}", *(f"{row.get(n, float('nan')):.6g}" for n in names)]
            )


def write_balances(path: Path, balances: list[Balance]) -> None:
    """One line for each zone and interval; energies in kWh, empty where a figure cannot be told."""
    names = ("main_kwh", "subs_kwh", "technical_loss_kwh", "residual_kwh", "uncertainty_kwh", "coverage")
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["zone", "start", "end", *names])
        for b in balances:
            values = [getattr(b, name) for name in names]
            out.writerow([b.zone, _stamp(b.start_s), _stamp(b.end_s), *("" if v != v else f"{v:.4f}" for v in values)])


def _stamp(time_s: float) -> str:
    return utc(time_s).strftime("%Y-%m-%dT%H:%M:%SZ")


def plot(outcome: Outcome) -> str:
    """Loads, residual with its band, and alerts of every zone, as one SVG document."""
    zones = list(dict.fromkeys(b.zone for b in outcome.balances))
    charts = [part for zone in zones for part in _charts(zone, outcome)]
    height = 280
    inner = "".join(
        f'<svg y="{k * height}" width="860" height="{height}">{part}</svg>' for k, part in enumerate(charts)
    )
    whole = height * len(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {whole}" width="860" height="{whole}">'
        f'<rect width="860" height="{whole}" fill="#fff"/>{inner}</svg>\n'
    )


def _charts(zone: str, outcome: Outcome) -> tuple[str, str]:
    rows = [b for b in outcome.balances if b.zone == zone]
    hours = outcome.interval_s / 3600
    span = max(1, round(len(rows) / 1400), round(6 / hours) if len(rows) * hours > 14 * 24 else 1)
    count = len(rows) // span * span or len(rows)
    span = min(span, count)

    def mean(name: str) -> Floats:
        values: Any = np.array([getattr(b, name) for b in rows[:count]])
        return np.asarray(values.reshape(-1, span).mean(axis=1) / hours)

    ends = np.array([b.end_s for b in rows[:count]]).reshape(-1, span)[:, -1]
    edge = np.array([b.uncertainty_kwh for b in rows[:count]]).reshape(-1, span)[:, -1] / (hours * span)
    residual = mean("residual_kwh") * 1000
    marks = [
        Mark(a.time.timestamp(), f"{a.data.state} {a.data.kind.replace('_', ' ')}")
        for a in outcome.alerts
        if a.data.zone == zone and a.data.state in ("raised", "cleared")
    ]
    loads = chart(
        f"{zone}: load",
        ends,
        [Line("main meter", mean("main_kwh")), Line("sub-meters", mean("subs_kwh"), "#b8860b", "4 3")],
        marks=marks,
        y_label="kW",
    )
    balance = chart(
        f"{zone}: residual after technical loss, with the band of its reading error",
        ends,
        [Line("residual", residual)],
        bands=[Band("95 % of reading error", -edge * 1000, edge * 1000, "#6b7885")],
        marks=marks,
        y_label="W",
    )
    return loads, balance
