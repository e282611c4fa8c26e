"""A store as weeks of service leave it, without waiting for them: history rows, checkpoint, and the alerts' book.

The rows go the way that a first start's go, through the service's own `Worker`: only the meters are left out. Simulated
flats on a grid of the rows that are judged; the last row ends before now.
"""

from __future__ import annotations

import math
import queue
import time
from pathlib import Path

import numpy as np

from agent.alerts.book import AlertBook
from agent.forecast.zone_forecasts import ZoneForecasts
from agent.pipeline.inbox import CaughtUp
from agent.pipeline.pipeline import Pipeline
from agent.pipeline.stored_rows import StoredRows
from agent.pipeline.worker import Worker
from agent.process.clock import SystemClock
from agent.site.load import load
from agent.site.tables import Config
from agent.store.store import Store
from firmware_io.simulator.building.loads import household_energy

STEP_WH = 1.0


def prepare(site: Path, days: int, seed: int = 1) -> int:
    """Fill the store of a site file with `days` of its meters' rows; how many rows."""
    config = load(site, online=True)
    clock, row_s = SystemClock(), config.detection.row_s
    book = AlertBook.from_config(config)
    store = Store(config.store.path, clock.now(), history_days=config.store.history_days)
    try:
        pipeline = Pipeline(config, book, forecasts=ZoneForecasts(config, row_s))
        worker = Worker(config, clock, pipeline, book, store, queue.Queue(), ["all"])
        worker.restore()
        worker.take([CaughtUp("all", _rows(config, clock.now(), row_s, days, seed))])
    finally:
        store.close()
    return days * round(86_400 / row_s)


def _rows(config: Config, now_s: float, row_s: float, days: int, seed: int) -> StoredRows:
    """Registers of all meters: flats as the simulator draws them, main meters with a little copper."""
    end_s = math.floor(now_s / row_s) * row_s
    rows = StoredRows([meter.id for meter in config.meter], row_s)
    count = days * round(86_400 / row_s)
    rows.times_s = end_s - row_s * np.arange(count, -1, -1.0)
    rows.wh = np.zeros((count + 1, len(rows.meters)))
    place = {meter: n for n, meter in enumerate(rows.meters)}
    for number, zone in enumerate(config.zone):
        flats = household_energy(seed + number, len(zone.subs), int(rows.times_s[0]), round(row_s), count) * 1000.0
        main = flats.sum(axis=1) * 1.012 + 0.6 * len(zone.subs) * row_s / 3600
        for name, wh in [(zone.main, main), *zip(zone.subs, flats.T, strict=True)]:
            rows.wh[1:, place[name]] = np.floor(np.cumsum(wh) / STEP_WH) * STEP_WH
    return rows


if __name__ == "__main__":
    import sys

    began_s = time.monotonic()
    made = prepare(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{made} rows in {time.monotonic() - began_s:.1f} s")
