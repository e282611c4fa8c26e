"""`make bench-coincident`: the coincident peak of many buildings from quantiles alone, beside a centre with all curves.

Each building is forecast at every midnight by the gateway's own forecaster; the utility sees the quantiles of that
night and, of days that are over, loads against the 5 %, mean and 95 % curves, as its store keeps them. The centres see
every building's load added up: one runs the same forecaster on the sum and takes its peak head's distribution, the
other lays the sum's errors of the last 56 days on that curve. Scored by twice the mean pinball loss of 19 quantiles
(CRPS); `over capacity` by the Brier score beside the share of days so far.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from agent.offline.evaluation.bench_forecast import CAPACITY_SHARE, WARM_DAYS, building_w
from agent.offline.evaluation.virtual_buildings import DAY_S, START_S, Pool, household_pool, measured_pool
from agent.utility.fleet.coincident import LEVELS, Dependence, Persistence, combine, day_errors, learn, scores_of
from agent.utility.fleet.realised import STUDY_DAYS
from core.forecast.calendar import Calendar
from core.forecast.forecaster import Forecaster

F64 = NDArray[np.float64]
NOBODYS = Persistence(0.0, 0.5)
ENSEMBLE_DAYS = 56
METHODS = ("quantiles only", "copula alone", "as if independent", "centre: peak head", "centre: errors of 56 days")


def nightly(load_w: F64, interval_s: int, *, peak: bool = False) -> tuple[F64, F64, F64]:
    """Of each midnight from WARM_DAYS on: mean [days, steps], quantiles [days, 19, steps], the peak head's [days, 19].

    The last is NaN unless `peak` asks for it: it looks into the forecaster, as no gateway's message lets one.
    """
    steps = load_w.shape[1]
    forecaster = Forecaster("building", interval_s, Calendar())
    means, quantiles, peaks = [], [], []
    for day, row in enumerate(load_w):
        issued_s = float(START_S + day * DAY_S)
        said = forecaster.forecast(issued_s) if day >= WARM_DAYS else None
        if said is not None:
            means.append(said.mean_w[:steps])
            quantiles.append(said.quantiles_w[:, :steps])
            peaks.append(_head(forecaster) if peak else np.full(len(LEVELS), np.nan))
        forecaster.add(issued_s + interval_s * np.arange(1.0, steps + 1), row * interval_s / 3600)
    return np.array(means), np.array(quantiles, np.float32), np.array(peaks)


def _head(forecaster: Forecaster) -> F64:
    """The distribution of the peak's height of which the forecast says the 90 % interval: errors, each blurred."""
    head, scale = forecaster._heads[0], forecaster._scale
    assert scale is not None
    errors, weights = head._weighted_errors()
    widen = forecaster._model.widening
    blur = 0.35 * head.spread * widen * np.random.default_rng(0).standard_normal(50)
    heights = scale.power_w((forecaster._said[0][0] + errors[:, None] * widen + blur).ravel())
    order, shares = np.argsort(heights), np.repeat(weights, len(blur))
    below = np.cumsum(shares[order])
    return np.interp(LEVELS, (below - 0.5 * shares[order]) / below[-1], heights[order])


def crps(quantiles: F64, truth: float) -> float:
    """Twice the mean pinball loss."""
    return float(2 * np.maximum(LEVELS * (truth - quantiles), (LEVELS - 1) * (truth - quantiles)).mean())


class Score:
    """One way to forecast the peak of the sum, over the days."""

    def __init__(self) -> None:
        self.crps: list[float] = []
        self.error: list[float] = []
        self.inside: list[bool] = []

    def add(self, quantiles: F64, truth: float) -> None:
        self.crps.append(crps(quantiles, truth))
        self.error.append(quantiles[len(LEVELS) // 2] / truth - 1)
        self.inside.append(bool(quantiles[0] <= truth <= quantiles[-1]))

    def line(self, mean_peak_w: float) -> str:
        share = np.mean(self.crps) / mean_peak_w
        return f"{share:8.4f}{np.mean(self.error):+9.4f}{np.mean(self.inside):9.3f}"


def measure(pool: Pool, flats: int, buildings: int, seed: int) -> None:
    """Print the table of one fleet."""
    load_w = np.array([building_w(pool, flats, (seed, number)) for number in range(buildings)])
    kept = [nightly(load, pool.interval_s) for load in load_w]
    mean_w = np.array([mean for mean, _, _ in kept])
    quantiles_w = np.array([quantiles for _, quantiles, _ in kept])
    total_w = load_w.sum(axis=0)
    centre_w, centre_quantiles_w, head_w = nightly(total_w, pool.interval_s, peak=True)
    capacity_w = float(np.quantile(total_w[:WARM_DAYS].max(axis=1), CAPACITY_SHARE))
    before = total_w[:WARM_DAYS].max(axis=1)
    load_w, total_w = load_w[:, WARM_DAYS:], total_w[WARM_DAYS:]
    scores = scores_of(load_w, quantiles_w[:, :, 0], mean_w, quantiles_w[:, :, -1])
    days = [day_errors(scores[:, day]) for day in range(scores.shape[1])]
    expected_w = mean_w.sum(axis=0)
    past = (total_w - expected_w) / np.abs(expected_w).mean(axis=1, keepdims=True)
    spread_w = (centre_quantiles_w[:, -1] - centre_quantiles_w[:, 0]) / 3.29
    centre_errors = (total_w - centre_w) / spread_w
    found = {name: Score() for name in METHODS}
    brier: list[tuple[float, float]] = []
    peaks = [*before]
    spent_s, learned = 0.0, Dependence()
    for day in range(STUDY_DAYS, len(total_w)):
        truth = float(total_w[day].max())
        began_s = time.process_time()
        learned = learn(days[day - STUDY_DAYS : day])
        today = quantiles_w[:, day].astype(np.float64)
        said = combine(LEVELS, today, mean_w[:, day], learned, past[day - STUDY_DAYS : day])
        spent_s += time.process_time() - began_s
        found["quantiles only"].add(said.peak_w, truth)
        found["copula alone"].add(combine(LEVELS, today, mean_w[:, day], learned).peak_w, truth)
        apart = Dependence(0.0, NOBODYS, NOBODYS)
        found["as if independent"].add(combine(LEVELS, today, mean_w[:, day], apart, courses=300).peak_w, truth)
        found["centre: peak head"].add(head_w[day], truth)
        laid = centre_w[day] + spread_w[day] * centre_errors[max(0, day - ENSEMBLE_DAYS) : day]
        found["centre: errors of 56 days"].add(np.quantile(laid.max(axis=1), LEVELS), truth)
        over, usual = truth > capacity_w, float(np.mean(np.array(peaks) > capacity_w))
        brier.append(((said.over(capacity_w) - over) ** 2, (usual - over) ** 2))
        peaks.append(truth)
    scored = len(total_w) - STUDY_DAYS
    mean_peak_w = float(total_w[STUDY_DAYS:].max(axis=1).mean())
    click.echo(
        f"\n{buildings} buildings of {flats} flats, seed {seed}, {scored} days; coincident peak {mean_peak_w:.3g} W"
    )
    click.echo(f"{'':28}{'CRPS':>8}{'bias':>9}{'in 90 %':>9}   (CRPS by the mean peak)")
    for name, score in found.items():
        click.echo(f"{name:28}{score.line(mean_peak_w)}")
    ours = np.mean(found["quantiles only"].crps)
    for name in ("centre: peak head", "centre: errors of 56 days"):
        click.echo(f"quantiles only / {name}: {ours / np.mean(found[name].crps):.3f}")
    of_ours, of_climate = np.mean(brier, axis=0)
    click.echo(
        f"over {capacity_w:.3g} W: Brier {of_ours:.4f}, climatology {of_climate:.4f}, "
        f"skill {1 - of_ours / of_climate if of_climate else 0.0:+.3f}"
    )
    click.echo(f"{100 * learned.common:.0f} % of the errors common at the end; {1000 * spent_s / scored:.0f} ms a day")


@click.command()
@click.option("--loads", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Your own: .npz with kwh.")
@click.option("--flats", multiple=True, type=int, default=(12, 40), show_default=True)
@click.option("--buildings", default=100, show_default=True)
@click.option("--days", default=240, show_default=True, help="Of the made-up loads.")
@click.option("--households", default=1200, show_default=True, help="Of the made-up loads, to draw buildings from.")
@click.option("--seed", default=1, show_default=True)
def main(loads: Path | None, flats: tuple[int, ...], buildings: int, days: int, households: int, seed: int) -> None:
    """Measure it on simulated households, or on your own loads."""
    pool = household_pool(seed, households, days) if loads is None else measured_pool(loads)
    pool = Pool(pool.energy_wh[: len(pool.energy_wh) // pool.per_day * pool.per_day], pool.interval_s)
    for count in flats:
        measure(pool, count, buildings, seed)


if __name__ == "__main__":
    main()
