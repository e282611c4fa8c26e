"""Recorded registers and what was found out, as a table to train on: one row per sub-meter and day.

It owns the table's form and the labels file. The features are the pipeline's own, taken as the gateway would have had
them on that day, so a model sees in training what it will see in service.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from agent.offline.replay.lines import CsvLines
from agent.offline.replay.no_book import NoBook
from agent.offline.replay.readings import Readings, ReadingsError, time_of
from agent.offline.replay.replay import blocks, interval_of
from agent.pipeline.pipeline import Pipeline
from agent.site.local_time import offset_s
from agent.site.tables import Config
from agent.wire.values import utc
from core.scoring.features import FEATURES
from core.signs import MeterSign

DAY_S = 86_400.0
WARM_UP_DAYS = 14  # before that nothing has a past
TARGET = "is_theft"


@dataclass(frozen=True, slots=True)
class Theft:
    """What was found out of one sub-meter: theft from `start_s` until `end_s` (UTC seconds)."""

    meter: str
    start_s: float
    end_s: float


def read_labels(path: Path, meters: set[str]) -> list[Theft]:
    """Read LABELS.csv: `meter,from,to`, times as in readings, `to` empty where the theft still goes on.

    Raises:
        ReadingsError: with line, column and what to do; a label that is guessed would spoil the training.
    """

    def refuse(line: int, why: str) -> None:
        raise ReadingsError(f"{path}: line {line}: {why}")

    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = CsvLines(file, refuse)
        header = rows.header or []
        if not {"meter", "from", "to"} <= set(header):
            raise ReadingsError(f"{path}: line 1: expected the columns meter,from,to, got {','.join(header)!r}")
        return [_theft(path, line, dict(zip(header, cells, strict=False)), meters) for line, _, cells in rows]


def _theft(path: Path, line: int, row: dict[str, str], meters: set[str]) -> Theft:
    meter, start, end = (row.get(name, "").strip() for name in ("meter", "from", "to"))
    if meter not in meters:
        raise ReadingsError(f"{path}: line {line}, column meter: {meter!r} is no sub-meter of the site file")
    start_s, end_s = time_of(start), time_of(end) if end else float("inf")
    for name, text, value in (("from", start, start_s), ("to", end, end_s)):
        if value is None:
            raise ReadingsError(f"{path}: line {line}, column {name}: {text!r} is neither ISO 8601 nor epoch seconds")
    if start_s is None or end_s is None or end_s <= start_s:
        raise ReadingsError(f"{path}: line {line}, column to: {end} does not come after {start}")
    return Theft(meter, start_s, end_s)


def write_table(
    out: TextIO,
    config: Config,
    readings: Readings,
    *,
    labels: list[Theft] | None = None,
    signs: list[MeterSign] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write the table to `out`; gives the number of rows. Without labels there is no `is_theft` column."""
    interval_s = interval_of(readings.times_s, config.detection.interval_s)
    pipeline = Pipeline(config, NoBook(), interval_s=interval_s, keep=False)
    local_s = offset_s(config.site.timezone)
    waiting = list(signs or [])
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["building", "meter", "day", *FEATURES, *([] if labels is None else [TARGET])])
    last_day = int((readings.times_s[0] + local_s) // DAY_S) + WARM_UP_DAYS
    written = 0
    for start, stop, feed in blocks(readings, interval_s, pipeline, days=1):
        until_s = float(readings.times_s[stop - 1])
        while waiting and waiting[0].time_s <= until_s:
            pipeline.sign(waiting.pop(0))
        feed()
        pipeline.step(until_s)
        progress(stop - start)
        day = int((until_s + local_s) // DAY_S) - 1  # the last that is whole
        if day <= last_day:
            continue
        last_day = day
        begin_s = day * DAY_S - local_s
        name = utc(day * DAY_S).date().isoformat()
        for meter, row in pipeline.scores().items():
            cells = [config.site.site, meter, name, *(f"{row[feature]:.7g}" for feature in FEATURES)]
            if labels is not None:
                cells.append(str(int(_stolen(labels, meter, begin_s))))
            table.writerow(cells)
            written += 1
    return written


def _stolen(labels: list[Theft], meter: str, begin_s: float) -> bool:
    """Whether the meter's theft covers more than half of the day."""
    return any(t.meter == meter and min(t.end_s, begin_s + DAY_S) - max(t.start_s, begin_s) > DAY_S / 2 for t in labels)
