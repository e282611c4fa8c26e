"""`make bench-forecast`: how good the forecasts are, beside simple rules and LightGBM, on loads that everyone can make.

It owns the buildings, the peers and the tables; scores are those of `replay --forecast`. A forecast is issued at every
midnight and knows the days before only; so do the peers. LightGBM is in the extra `bench`, and left out without it.
"""

from __future__ import annotations

import importlib
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from agent.offline.evaluation.virtual_buildings import DAY_S, START_S, Pool, household_pool, measured_pool
from agent.offline.replay.backtest import Backtest, curve_scores, table
from core.forecast.calendar import Calendar
from core.forecast.forecaster import Forecaster
from core.forecast.values import Forecast

F64 = NDArray[np.float64]

WARM_DAYS = 90  # before anything is scored
RESOLUTION_WH = 10.0
LOSS = 1.012
CAPACITY_SHARE = 0.9  # of the warm days' peaks lie below the capacity
REFIT_DAYS = 7  # of LightGBM: every night would take hours


@dataclass(slots=True)
class Run:
    """One building's forecasts, its load [days, steps] in W, and what the forecasts cost."""

    forecasts: list[Forecast]
    load_w: F64
    ms_a_day: float
    kept_mb: float


def building_w(pool: Pool, flats: int, seed: tuple[int, ...]) -> F64:
    """Load in W [days, steps] of `flats` households of the pool behind one meter of 10 Wh."""
    chosen = np.random.default_rng(seed).choice(pool.energy_wh.shape[1], flats, replace=False)
    register = np.cumsum(LOSS * pool.energy_wh[:, chosen].sum(axis=1))
    energy = np.diff(np.floor(register / RESOLUTION_WH) * RESOLUTION_WH, prepend=0.0)
    return np.asarray(energy.reshape(-1, pool.per_day) * 3600 / pool.interval_s)


def run(load_w: F64, interval_s: int) -> Run:
    """Forecast every midnight from the warm days on."""
    capacity_w = float(np.quantile(load_w[:WARM_DAYS].max(axis=1), CAPACITY_SHARE))
    tracemalloc.start()
    forecaster = Forecaster("building", interval_s, Calendar(), capacity_w=capacity_w)
    forecasts, spent_s = [], 0.0
    for day, row in enumerate(load_w):
        issued_s = float(START_S + day * DAY_S)
        ends_s = issued_s + interval_s * np.arange(1.0, len(row) + 1)
        if day == WARM_DAYS:
            kept_mb = tracemalloc.get_traced_memory()[0] / 1e6
            tracemalloc.stop()  # it slows down what is timed from here on
        began_s = time.process_time()
        said = forecaster.forecast(issued_s) if day >= WARM_DAYS else None
        forecaster.add(ends_s, row * interval_s / 3600)
        spent_s += (time.process_time() - began_s) if day >= WARM_DAYS else 0.0
        if said is not None:
            forecasts.append(said)
    return Run(forecasts, load_w, 1000 * spent_s / max(1, len(forecasts)), kept_mb)


def scores(done: Run, interval_s: int, lightgbm: Any) -> dict[str, dict[str, float]]:
    """Method -> score -> figure."""
    backtest = Backtest(float(interval_s), done.forecasts)
    for k, power_w in enumerate(done.load_w.ravel()):
        backtest.record("building", float(START_S + (k + 1) * interval_s), float(power_w) * interval_s / 3600)
    found = backtest.scores("building")
    if lightgbm is not None:
        load = done.load_w[WARM_DAYS:]
        row = curve_scores(boosted(done.load_w, lightgbm), load, float(interval_s))
        row["mase"] = row.pop("mae") / float(np.abs(done.load_w[WARM_DAYS - 7 : -7] - load).mean())
        found["LightGBM"] = {"days": float(len(load)), **row}
    return found


def boosted(load_w: F64, lightgbm: Any) -> F64:
    """LightGBM's day-ahead curves of the scored days: lags, levels and calendar; fitted weekly on all days before."""
    days, steps = load_w.shape
    unit = load_w[:28].mean()
    y = load_w / unit

    def features(day: int) -> F64:
        past = y[day - 7 : day]
        one = np.ones(steps)
        weekday = day % 7
        return np.column_stack(
            [past[-1], past[-2], past[0], past.mean(axis=0), one * past[-1].mean(),
             one * past[-1][-steps // 12 :].mean(),
             one * past[0].mean(), np.arange(steps), one * weekday, one * (weekday >= 5), one * past.mean()]
        )  # fmt: skip

    out = []
    for day in range(WARM_DAYS, days):
        if (day - WARM_DAYS) % REFIT_DAYS == 0:
            x = np.concatenate([features(d) for d in range(7, day)])
            booster = lightgbm.train(
                {"objective": "l1", "learning_rate": 0.06, "num_leaves": 31, "min_data_in_leaf": 40, "verbose": -1,
                 "num_threads": 1, "deterministic": True, "seed": 1},
                lightgbm.Dataset(x, y[7:day].ravel()),
                num_boost_round=150,
            )  # fmt: skip
        out.append(booster.predict(features(day)) * unit)
    return np.array(out)


def mean_of(rows: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the buildings."""
    return {
        method: {name: float(np.mean([row[method][name] for row in rows])) for name in rows[0][method]}
        for method in rows[0]
    }


@click.command()
@click.option("--loads", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Your own: .npz with kwh.")
@click.option("--columns", help="Which households of it, as 0:50.")
@click.option("--flats", multiple=True, type=int, default=(1, 12, 40), show_default=True)
@click.option("--buildings", default=4, show_default=True)
@click.option("--days", default=270, show_default=True)
@click.option("--interval-s", default=1800, show_default=True, help="Of the made-up loads.")
@click.option("--seed", default=1, show_default=True)
@click.option("--without-lightgbm", is_flag=True)
def main(
    loads: Path | None,
    columns: str | None,
    flats: tuple[int, ...],
    buildings: int,
    days: int,
    interval_s: int,
    seed: int,
    without_lightgbm: bool,
) -> None:
    """Measure the forecasts on simulated households, or on your own loads."""
    pool = household_pool(seed, 120, days, interval_s) if loads is None else measured_pool(loads)
    if columns:
        first, last = (int(part) for part in columns.split(":"))
        pool = Pool(pool.energy_wh[:, first:last], pool.interval_s)
    pool = Pool(pool.energy_wh[: len(pool.energy_wh) // pool.per_day * pool.per_day], pool.interval_s)
    peer = None
    if not without_lightgbm:
        try:
            peer = importlib.import_module("lightgbm")
        except ImportError:
            click.echo("LightGBM is not installed: pip install 'checkmeter[bench]' to see it beside", err=True)
    for count in flats:
        rows, cost = [], []
        for number in range(buildings):
            done = run(building_w(pool, count, (seed, number)), pool.interval_s)
            rows.append(scores(done, pool.interval_s, peer))
            cost.append((done.ms_a_day, done.kept_mb))
        found = mean_of(rows)
        scored = found["checkmeter"]["days"]
        click.echo(f"\n{buildings} buildings of {count} flats, {pool.interval_s} s, {scored:.0f} days each")
        for line in table(found):
            click.echo(line)
        ms, mb = np.mean(cost, axis=0)
        click.echo(f"{ms:.1f} ms a zone and day, {mb:.2f} MB kept a zone")


if __name__ == "__main__":
    main()
