"""What the balance kernel costs: ns per meter and tick beside NumPy and pure Python, a Kalman row, replay end to end.

    python tests/system/bench/bench_core.py [--short] [--json]

A tick is one boundary of all meters: registers to booked energies with their errors, and the zone's residual. The
same algorithm is written three times. Times are CPU time, the best of several runs, so that a busy machine changes
them little.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np

from agent.offline.replay.no_book import NoBook
from agent.pipeline.pipeline import Pipeline
from agent.site.tables import Config, Meter, Site, Zone
from core.balance import _balance
from core.balance.losses import LossModel
from core.balance.rows import ZoneRows
from core.registers import _align
from core.registers.align import AlignedRows

HOURS, LIMIT_W, MEMORY = 0.25, 50_000.0, 80.0
MISSED = 1


def best(run: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the fastest of `repeats` runs."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


def registers(rows: int, meters: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    wh = np.cumsum(rng.integers(0, 30, (rows, meters)) * 10.0, axis=0)
    wh[:, 0] = wh[:, 1:].sum(axis=1) * 1.01
    wh[1:][rng.random((rows - 1, meters)) < 0.01] = np.nan
    return wh


class Kernel:
    """The product's own, over blocks or tick by tick, with nothing of the figures allocated on the way."""

    def __init__(self, wh: np.ndarray) -> None:
        rows, meters = wh.shape
        self.wh, self.sd = wh, np.full(wh.shape, 3.0)
        self.hour = (np.arange(rows) // 4 % 24).astype(np.int32)
        self.signed, self.limit = np.zeros(meters, np.uint8), np.full(meters, LIMIT_W * meters)
        self.columns, self.sign = np.arange(meters, dtype=np.int32), np.ones(meters)
        self.aligned = AlignedRows(
            HOURS * 3600 * np.arange(rows), HOURS, *(np.empty(wh.shape) for _ in range(4)), np.empty(wh.shape, np.uint8)
        )
        self.zone, self.read = ZoneRows.empty(self.aligned.ends_s, meters - 1), np.empty(rows)
        parts = [slice(t, t + 1) for t in range(rows)]
        self.each = [self._views(part) for part in parts]  # views of one tick each: an agent's arrays are one row long
        self.whole = self._views(slice(None))
        self.begin()

    def _views(self, part: slice) -> tuple:
        a, z = self.aligned, self.zone
        aligned = AlignedRows(
            a.ends_s[part], HOURS, a.booked_wh[part], a.energy_wh[part], a.sd_wh[part], a.lost_wh2[part], a.flags[part]
        )
        zone = ZoneRows(
            z.ends_s[part], z.main_wh[part], z.subs_wh[part], z.residual_wh[part], z.boundary_wh2[part],
            z.lost_wh2[part], z.gap_wh2[part],
        )  # fmt: skip
        return self.wh[part], self.sd[part], self.hour[part], aligned, zone, self.read[part]

    def begin(self) -> None:
        self.state = _align.AlignState(self.limit, self.signed, HOURS, MEMORY)

    def rows(self, views: tuple) -> None:
        wh, sd, hour, aligned, zone, read = views
        _align.align_rows(self.state, wh, sd, hour, aligned)
        _balance.residual_rows(
            aligned.energy_wh, aligned.sd_wh, aligned.lost_wh2, aligned.flags, self.columns, self.sign, zone, read
        )

    def all(self) -> np.ndarray:
        self.begin()
        self.rows(self.whole)
        return self.zone.residual_wh.copy()

    def ticks(self) -> None:
        self.begin()
        for views in self.each:
            self.rows(views)


def with_numpy(wh: np.ndarray) -> np.ndarray:
    """The same, vectorised over the meters of a tick."""
    rows, meters = wh.shape
    last, booked, offset = np.full(meters, np.nan), np.zeros(meters), np.zeros(meters)
    gap_var, gap_h, spread = np.zeros(meters), np.zeros(meters), np.zeros(meters)
    profile, seen = np.zeros((24, meters)), np.zeros((24, meters))
    residual = np.empty(rows)
    for t in range(rows):
        hour = t // 4 % 24
        read, known = ~np.isnan(wh[t]), ~np.isnan(last)
        before = booked.copy()
        expected = profile[hour] * HOURS
        first, bridged, whole = read & ~known, ~read & known, read & known
        offset[first] = before[first] - wh[t, first]
        booked[bridged] += expected[bridged]
        around = np.where(spread > 0, spread, (0.1 * LIMIT_W * meters) ** 2)
        gap_var[bridged] += around[bridged] * HOURS * (1 + 0.8 * (2 * gap_h[bridged] + HOURS))
        gap_h[bridged] += HOURS
        gained = np.where(whole, wh[t] - last, 0.0)
        fresh = before - (last + offset)
        most = 4 * np.abs(fresh + expected) + LIMIT_W * meters * (gap_h + HOURS)
        broken = whole & ((gained < 0) | (np.abs(gained) > most))
        booked = np.where(broken, before + expected, np.where(whole, wh[t] + offset, booked))
        offset = np.where(broken, booked - wh[t], offset)
        learns = whole & ~broken & (gap_var == 0)
        miss = gained / HOURS - profile[hour]
        count = np.minimum(MEMORY, seen[hour] + 1)
        fresh_bin = learns & (seen[hour] == 0)
        spread = np.where(
            fresh_bin,
            np.maximum(spread, (gained / HOURS) ** 2),
            np.where(learns, spread + (miss**2 - spread) / (24 * np.minimum(MEMORY, 1 + seen[hour])), spread),
        )
        seen[hour] = np.where(learns, count, seen[hour])
        profile[hour] = np.where(learns, profile[hour] + miss / count, profile[hour])
        last = np.where(read, wh[t], last)
        gap_var[read] = gap_h[read] = 0.0
        energy = booked - before
        residual[t] = energy[0] - energy[1:].sum()
    return residual


def with_python(wh: np.ndarray) -> list[float]:
    """The same with floats and lists."""
    meters = wh.shape[1]
    last, booked, offset = [math.nan] * meters, [0.0] * meters, [0.0] * meters
    gap_var, gap_h, spread = [0.0] * meters, [0.0] * meters, [0.0] * meters
    profile, seen = [[0.0] * 24 for _ in range(meters)], [[0.0] * 24 for _ in range(meters)]
    residual = []
    for t, row in enumerate(wh.tolist()):
        hour, total, main = t // 4 % 24, 0.0, 0.0
        for j, value in enumerate(row):
            before, expected = booked[j], profile[j][hour] * HOURS
            if value != value:
                if last[j] == last[j]:
                    booked[j] = before + expected
                    around = spread[j] if spread[j] > 0 else (0.1 * LIMIT_W * meters) ** 2
                    gap_var[j] += around * HOURS * (1 + 0.8 * (2 * gap_h[j] + HOURS))
                    gap_h[j] += HOURS
            elif last[j] != last[j]:
                offset[j], last[j] = before - value, value
            else:
                gained = value - last[j]
                most = 4 * abs(before - last[j] - offset[j] + expected) + LIMIT_W * meters * (gap_h[j] + HOURS)
                if gained < 0 or gained > most:
                    booked[j] = before + expected
                    offset[j] = booked[j] - value
                else:
                    booked[j] = value + offset[j]
                    if gap_var[j] == 0:
                        power, n = gained / HOURS, seen[j][hour]
                        miss = power - profile[j][hour]
                        if n == 0:
                            spread[j] = max(spread[j], power * power)
                        else:
                            spread[j] += (miss * miss - spread[j]) / (24 * min(MEMORY, 1 + n))
                        seen[j][hour] = min(MEMORY, n + 1)
                        profile[j][hour] += miss / seen[j][hour]
                last[j], gap_var[j], gap_h[j] = value, 0.0, 0.0
            if j:
                total += booked[j] - before
            else:
                main = booked[j] - before
        residual.append(main - total)
    return residual


def kalman_row_s(subs: int, repeats: int) -> float:
    """CPU seconds of one row of the loss filter."""
    rng = np.random.default_rng(2)
    energy = rng.uniform(50, 150, (20, subs))
    main = energy.sum(axis=1) * 1.01
    ends = 900.0 * np.arange(1, 21)
    rows = ZoneRows(ends, main, energy, main - energy.sum(axis=1), np.full(20, 4e3), np.zeros(20), np.zeros(20))
    model = LossModel(HOURS, 0.5, [1.0] * subs, 400.0 * subs)
    return best(lambda: model.absorb(rows), repeats) / 20


def replay_year(flats: int = 40) -> tuple[float, int]:
    """CPU seconds and meter-readings of a year of half hours through the whole pipeline."""
    rng = np.random.default_rng(3)
    rows = 365 * 48 + 1
    power = 60 + rng.gamma(0.8, 350, (rows, flats))
    through = power.sum(axis=1)
    main = through + 0.7 * flats + 0.012 * through**2 / through.mean()
    wh = np.floor(np.cumsum(np.column_stack([main, power]) / 2, axis=0) / 10) * 10
    wh[1:, 1:][rng.random((rows - 1, flats)) < 0.01] = np.nan
    names = [f"flat-{k}" for k in range(flats)]
    config = Config(
        site=Site(site="bench", gateway="bench"),
        meter=[Meter(id="main", accuracy_class=0.5), *(Meter(id=n) for n in names)],
        zone=[Zone(id="building", main="main", subs=names)],
    )
    pipeline = Pipeline(config, NoBook(), interval_s=1800.0, keep=False)
    times = 1_700_006_400.0 + 1800.0 * np.arange(rows)

    def run() -> None:
        for start in range(0, rows, 7 * 48):
            part = slice(start, start + 7 * 48)
            pipeline.feed_block(times[part], wh[part])
            pipeline.step(float(times[part][-1]))

    return best(run, 1), wh.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="fewer rows and repeats")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    repeats = 3 if args.short else 7
    result: dict[str, object] = {}
    print(f"{'meters':>8}{'tick, us':>12}{'kernel':>10}{'NumPy':>10}{'Python':>10}   ns per meter and tick (in blocks)")
    for meters in (10, 100, 1000):
        rows = 400 if args.short else 2000
        wh = registers(rows, meters)
        kernel = Kernel(wh)
        oracle = with_numpy(wh)
        np.testing.assert_allclose(kernel.all()[1:], oracle[1:], atol=1e-5)
        few = wh[: max(20, 20_000 // meters)]
        np.testing.assert_allclose(with_python(few)[1:], oracle[1 : len(few)], atol=1e-5)
        tick_s = best(kernel.ticks, repeats) / rows
        each = [
            best(kernel.all, repeats) / wh.size,
            best(lambda w=wh: with_numpy(w), 2) / wh.size,
            best(lambda w=few: with_python(w), 2) / few.size,
        ]
        print(f"{meters:>8}{tick_s * 1e6:>12.1f}" + "".join(f"{1e9 * s:>10.1f}" for s in each))
        result[f"{meters} meters"] = {"tick_us": tick_s * 1e6, "ns": [1e9 * s for s in each]}
    for subs in (40, 100, 1000):
        row_s = kalman_row_s(subs, repeats)
        print(f"Kalman row of {subs} sub-meters: {row_s * 1e3:.3f} ms")
        result[f"kalman {subs}"] = row_s
    wh = registers(20_000, 41)
    kernel = Kernel(wh)
    rate = wh.size / best(kernel.all, repeats)
    print(f"residual path: {rate / 1e6:.1f} million meter-readings a second")
    year_s, size = replay_year()
    print(
        f"a year of 40 flats at 30 min through the pipeline: {year_s:.2f} s, {size / year_s / 1e6:.2f} million a second"
    )
    result |= {"residual_readings_per_s": rate, "year_s": year_s}
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
