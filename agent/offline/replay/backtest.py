"""What the forecasts of a recording were worth: scores of those issued at local midnight, beside two simple rules.

It owns the scores' definitions. A day counts from the eighth on where its load is known whole; the rules know, as the
forecast does, the days before only. A short gap's load is known: the register tells its energy when it is read again.
What is left out is counted by reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.forecast.words import on_wire
from agent.wire.codec import encode
from core.arrays import Floats
from core.forecast.values import LEVELS, Forecast

DAY_S = 86_400
NEAR_S = 3600.0
BRIDGED_S = 3 * 3600.0  # intervals without a reading that are taken for known, evenly: a longer gap may hide a peak
Row = tuple[Forecast, Floats, Floats, Floats]  # a forecast, its day's load, mean of the 7 days before, the week before


@dataclass(slots=True)
class Backtest:
    """Collects what was measured and what was forecast at midnight, zone by zone."""

    interval_s: float
    forecasts: list[Forecast] = field(default_factory=list)
    _load_w: dict[str, dict[int, float]] = field(default_factory=dict)
    _unread: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # a zone's open gap, booked Wh

    def record(self, zone: str, end_s: float, energy_wh: float, booked_wh: float = math.nan) -> None:
        """One interval's energy, Wh, NaN where not read; `booked_wh` is right in sum over a gap, NaN if even that is
        not.
        """
        at = round(end_s / self.interval_s) - 1
        load, gap = self._load_w.setdefault(zone, {}), self._unread.setdefault(zone, [])
        load[at] = energy_wh * 3600 / self.interval_s
        if gap and at != gap[-1][0] + 1:
            gap.clear()
        if math.isnan(energy_wh):
            if len(gap) * self.interval_s <= BRIDGED_S:  # beyond it there is nothing to remember
                gap.append((at, booked_wh))
            elif gap:
                gap[-1] = (at, math.nan)
            return
        total_wh = sum(wh for _, wh in gap)
        if gap and len(gap) * self.interval_s <= BRIDGED_S:
            for place, _ in gap:
                load[place] = total_wh * 3600 / (self.interval_s * len(gap))
        gap.clear()

    def take(self, forecasts: Iterable[Forecast], is_midnight: Iterable[bool]) -> None:
        """Keep the forecasts that were issued at local midnight."""
        self.forecasts += [f for f, keep in zip(forecasts, is_midnight, strict=True) if keep]

    def measured(self, zone: str, start_s: float, step_s: float) -> Floats:
        """Mean load of each step of the 24 h from `start_s`, W [steps]; NaN where not all of it was read."""
        per = round(step_s / self.interval_s)
        first = round(start_s / self.interval_s)
        load = self._load_w.get(zone, {})
        values = np.array([load.get(first + k, math.nan) for k in range(round(DAY_S / step_s) * per)])
        return np.asarray(values.reshape(-1, per).mean(axis=1))

    def _judged(self, zone: str) -> tuple[list[Row], Counter[str]]:
        """What can be scored, and how many forecasts cannot, by reason."""
        rows: list[Row] = []
        left_out: Counter[str] = Counter()
        until_s = (max(self._load_w.get(zone, {}), default=-1) + 1) * self.interval_s
        for forecast in self.forecasts:
            if forecast.zone != zone:
                continue
            day = self.measured(zone, forecast.issued_s, forecast.step_s)
            ago = (forecast.issued_s - k * DAY_S for k in range(1, 8))
            before = np.array([self.measured(zone, start_s, forecast.step_s) for start_s in ago])
            if until_s < forecast.issued_s + DAY_S:
                left_out["the recording ends before the day does"] += 1
            elif not np.isfinite(day).all():
                left_out["the day was not measured whole"] += 1
            elif not np.isfinite(before[-1]).all():
                left_out["the day a week before was not measured whole"] += 1
            else:
                rows.append((forecast, day, np.nanmean(before, axis=0), before[-1]))
        return rows, left_out

    def left_out(self, zone: str) -> Counter[str]:
        """How many midnights' forecasts are not scored, by reason."""
        return self._judged(zone)[1]

    def scores(self, zone: str) -> dict[str, dict[str, float]]:
        """Method -> score -> figure, over the days whose load is known; empty where there is none.

        A score that is a share of nothing (of a load of zero, of an error of zero) is NaN.
        """
        rows, _ = self._judged(zone)
        if not rows:
            return {}
        load = np.array([day for _, day, _, _ in rows])
        steps = load.shape[1]
        naive = float(np.abs(np.array([week for *_, week in rows]) - load).mean())
        out = {
            "checkmeter": self._own(rows, load),
            "mean of 7 days": curve_scores(np.array([mean for _, _, mean, _ in rows]), load, rows[0][0].step_s),
            "week ago": curve_scores(np.array([week for *_, week in rows]), load, rows[0][0].step_s),
        }
        out["checkmeter"] |= curve_scores(np.array([f.mean_w[:steps] for f, *_ in rows]), load, None)
        for scores in out.values():
            scores["mase"] = _share(scores.pop("mae"), naive)
        return {name: {"days": float(len(rows)), **scores} for name, scores in out.items()}

    @staticmethod
    def _own(rows: list[Row], load: Floats) -> dict[str, float]:
        steps = load.shape[1]
        quantiles = np.array([f.quantiles_w[:, :steps] for f, *_ in rows])
        gap = load[:, None, :] - quantiles
        pinball = np.maximum(LEVELS[:, None] * gap, (LEVELS[:, None] - 1) * gap)
        scores = {
            "ncrps": _share(2 * float(pinball.mean()), float(load.mean())),
            "coverage": float(((gap[:, 0] >= 0) & (gap[:, -1] <= 0)).mean()),
        }
        for name, best in (("peak", load.max(axis=1)), ("trough", load.min(axis=1))):
            extremes = [getattr(f, name) for f, *_ in rows]
            height = np.array([e.power_w for e in extremes])
            inside = [e.interval_w[0] <= h <= e.interval_w[1] for e, h in zip(extremes, best, strict=True)]
            after_s = [e.start_s - f.issued_s for e, (f, *_) in zip(extremes, rows, strict=True)]
            at = np.rint(np.array(after_s) / rows[0][0].step_s)
            scores |= _extreme(name, height, at, load, rows[0][0].step_s)
            scores[f"{name}_coverage"] = float(np.mean(inside))
        over = [(f.over_capacity, h) for (f, *_), h in zip(rows, load.max(axis=1), strict=True)]
        if known := [(o.probability, float(h > o.capacity_w)) for o, h in over if o is not None]:
            scores["brier"] = float(np.mean([(p - happened) ** 2 for p, happened in known]))
        return scores


def curve_scores(mean: Floats, load: Floats, step_s: float | None) -> dict[str, float]:
    """Scores of a curve; with `step_s` also those of its own extremes."""
    mae = float(np.abs(mean - load).mean())
    scores = {"mae": mae, "nmae": _share(mae, float(load.mean()))}
    if step_s is not None:
        scores |= _extreme("peak", mean.max(axis=1), mean.argmax(axis=1), load, step_s)
        scores |= _extreme("trough", mean.min(axis=1), mean.argmin(axis=1), load, step_s)
    return scores


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _extreme(name: str, height: Floats, at: Floats, load: Floats, step_s: float) -> dict[str, float]:
    best = load.max(axis=1) if name == "peak" else load.min(axis=1)
    tied = load == best[:, None]
    distance = np.where(tied, np.abs(np.arange(load.shape[1]) - at[:, None]), np.inf).min(axis=1) * step_s
    relative = (height - best) / np.maximum(np.abs(best), 1.0)
    return {
        f"{name}_1h": float((distance <= NEAR_S).mean()),
        f"{name}_mape": float(np.abs(relative).mean()),
        f"{name}_bias": float(relative.mean()),
    }


LOAD_COLUMNS = ("nmae", "mase", "ncrps", "coverage")
PEAK_COLUMNS = ("peak_1h", "peak_mape", "peak_bias", "peak_coverage", "trough_1h", "trough_mape")
COLUMNS = LOAD_COLUMNS + PEAK_COLUMNS


def table(scores: dict[str, dict[str, float]]) -> Iterable[str]:
    """The scores as lines for a person."""
    yield f"{'':16}" + "".join(f"{name:>{max(8, len(name) + 2)}}" for name in COLUMNS)
    for method, row in scores.items():
        cells = (f"{row[name]:.3f}" if math.isfinite(row.get(name, math.nan)) else "-" for name in COLUMNS)
        yield f"{method:16}" + "".join(
            f"{cell:>{max(8, len(name) + 2)}}" for name, cell in zip(COLUMNS, cells, strict=True)
        )


def write_forecasts(path: Path, forecasts: list[Forecast]) -> None:
    """One forecast a line, oldest first, in the form of the topic `forecast/{zone}`."""
    with path.open("wb") as file:
        for forecast in forecasts:
            file.write(encode(on_wire(forecast)) + b"\n")
