"""`python -m agent.offline.evaluation.bench_minutes`: how soon large losses are found with rows of a minute.

Virtual buildings (virtual_buildings.py) in rows of 60 s, half of them harsh. One thing differs: the gateway knows when
each register was read, so that sub-meters are behind by a tenth of what is assumed where read times are unknown (up to
2 s, in harsh buildings 6 s), and a read that comes more than half a minute late is missing in its row. A recording
without read times would have to be in rows of a quarter of an hour. A steady tap of so much of the load begins at an
instant drawn from the day; the same registers are judged with rows of a minute and with rows of 15 minutes. Quiet
buildings tell the false alarms, of short rows and of long ones apart. `--seed` draws all of them; `--loads` takes
measured homes (an .npz as `measured_pool` reads it, in rows of 60 s) instead of simulated ones.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from agent.offline.evaluation import virtual_buildings
from agent.offline.evaluation.trial import site
from agent.offline.evaluation.virtual_buildings import Building, Plan, Pool, household_pool, measured_pool
from agent.offline.replay.no_book import NoBook
from agent.pipeline.pipeline import Pipeline
from core.monitor.zone_monitor import MARK_H

F64 = NDArray[np.float64]
ROW_S, LONG_S, DAY_S = 60, 900, 86_400
LATE = 0.005  # of all reads come more than half a minute late
SETTLED_DAYS = 14  # the loss begins in the day behind them
KNOWN = 0.1  # of a meter's delay is left where the instant of each read is known
DAYS_AFTER = 3
SHARES = (0.2, 0.1, 0.05, 0.02)
LOOK_S = MARK_H * 3600.0  # long rows are looked at on the hour; short ones are taken for them once in sixty times


class _Maker(virtual_buildings._Maker):
    """Draws a building whose late reads are known to be late."""

    def _register(self, energy_wh: F64, gain: F64, step_wh: float, late_s: float) -> F64:
        rng, count = self.rng, len(energy_wh) + 1
        behind_s = np.maximum(KNOWN * late_s + rng.normal(0, 1.5, count), 0.0)
        shape = rng.lognormal(-0.15, 0.55, count)
        power = np.append(energy_wh, energy_wh[-1]) / self.pool.interval_s
        read = np.concatenate([[0.0], np.cumsum(energy_wh * gain)]) + behind_s * power * shape
        read = np.floor((np.maximum.accumulate(read) + rng.uniform(0, 5e6)) / step_wh) * step_wh
        late = rng.random(count) < LATE
        late[[0, -1]] = False
        return np.where(late, np.nan, read)


@dataclass(frozen=True, slots=True)
class Found:
    """When a loss that began at `onset_s` was told, minutes later, by rows of a minute and of 15; inf: not at all."""

    short_min: float
    long_min: float
    early: int  # alarms before it began


def tapped(building: Building, share: float, onset_s: float) -> Building:
    """The same building with a steady tap ahead of all sub-meters."""
    on_h = np.maximum(building.times_s - onset_s, 0.0) / 3600
    wh = np.floor(share * building.load_w * on_h / building.main_step_wh) * building.main_step_wh
    return replace(building, main_wh=building.main_wh + wh)


def told(building: Building, interval_s: float) -> list[tuple[float, bool]]:
    """When losses were told first, UTC seconds, and whether short rows told them."""
    every = round(interval_s / ROW_S)
    wh = np.column_stack([building.main_wh, building.subs_wh])[::every]
    times_s = building.times_s[::every]
    pipeline = Pipeline(site(replace(building, times_s=times_s)), NoBook(), keep=False)
    at, seen = [], set()
    rows = round(DAY_S / interval_s)
    for start in range(0, len(times_s), rows):
        part = slice(start, start + rows)
        pipeline.feed_block(times_s[part], np.ascontiguousarray(wh[part]))
        for evidence in pipeline.step(float(times_s[part][-1]) + 1e4).evidence:
            key = evidence.kind == "balance_surplus", evidence.episode
            if evidence.active and key not in seen:
                seen.add(key)
                short = evidence.time_s % LOOK_S != 0
                at.append((evidence.time_s, short))
    return at


def trial(seed: tuple[int, ...], pool: Pool, plan: Plan, share: float, *, long: bool = True) -> Found:
    """One building with a loss."""
    rng = np.random.default_rng((*seed, 1))
    quiet = _Maker(np.random.default_rng(seed), pool, plan).make()
    onset_s = float(quiet.times_s[0]) + (SETTLED_DAYS + rng.random()) * DAY_S
    building = tapped(quiet, share, onset_s)
    delays, early = [], 0
    for interval_s in (ROW_S, LONG_S) if long else (ROW_S,):
        at = told(building, interval_s)
        early += sum(t < onset_s for t, _ in at) if interval_s == ROW_S else 0
        delays.append(min((t - onset_s for t, _ in at if t >= onset_s), default=np.inf) / 60)
    return Found(delays[0], delays[-1], early)


@click.command()
@click.option("--flats", default=24)
@click.option("--each", default=6, help="Buildings of each size of loss; half of them are harsh.")
@click.option("--quiet", default=20, help="Buildings without one.")
@click.option("--days", default=60, help="Of a quiet building.")
@click.option("--seed", default=1)
@click.option("--loads", type=click.Path(exists=True, path_type=Path), help="Measured homes in rows of a minute.")
def main(flats: int, each: int, quiet: int, days: int, seed: int, loads: Path | None) -> None:
    """Measure delays and false alarms."""
    pool = household_pool(seed, 2 * flats, days + 8, ROW_S) if loads is None else measured_pool(loads)
    plan = Plan(flats=flats, days=SETTLED_DAYS + 1 + DAYS_AFTER)
    for number, share in enumerate(SHARES if each else ()):
        found = [trial((seed, number, k), pool, replace(plan, harsh=k % 2 == 1), share) for k in range(each)]
        short, long = (np.array([getattr(f, name) for f in found]) for name in ("short_min", "long_min"))
        click.echo(
            f"{share:4.0%} of load: {np.median(short):6.1f} min (kind {np.median(short[::2]):.1f}, harsh "
            f"{np.median(short[1::2]):.1f}, worst {short.max():.1f}); 15-min rows {np.median(long):6.1f} min; later "
            f"than with them {(short > long).sum()} of {each}; before the onset {sum(f.early for f in found)}"
        )
    if not quiet:
        return
    alarms, of_long, took_s = {False: 0, True: 0}, 0, 0.0
    for k in range(quiet):
        harsh = k % 2 == 1
        building = _Maker(np.random.default_rng((seed, 99, k)), pool, replace(plan, days=days, harsh=harsh)).make()
        began_s = time.process_time()
        at = told(building, ROW_S)
        took_s += time.process_time() - began_s
        alarms[harsh] += sum(by_short for _, by_short in at)
        of_long += sum(not by_short for _, by_short in at)
        for at_s, by_short in at:
            day = (at_s - float(building.times_s[0])) / DAY_S
            click.echo(f"  building {k}{' (harsh)' * harsh}: {'short' if by_short else 'long'} rows on day {day:.2f}")
    years = quiet * days / 365.25
    click.echo(
        f"{years:.1f} building-years without a loss: {alarms[False]} false alarms of short rows in kind, "
        f"{alarms[True]} in harsh buildings; {of_long} of long rows; {took_s / years:.1f} s of CPU a year"
    )


if __name__ == "__main__":
    main()
