"""What the compact model sees of every sub-meter on every day, kept up as the days come in.

It owns the features' definitions and order. It knows no registers, alarms or models: it is given whole local days
of one zone, and where the zone is alarmed what detection and attribution found. All features are free of scale
(counts, shares, logarithms of ratios), so that a model carries over from one building to another. What it remembers
follows from the last 70 days and from `before`, so a checkpoint needs no more.

The first three are the classical ones of electricity-theft analysis on customer data, in trailing form since the
future is not known online. The others are the evidence of this project: how a flat changed against its own past and
against its neighbours, signs of an artificial register, and what the balance says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.arrays import Floats
from core.attribution.attribute import STATISTICS
from core.signs import SignKind

CLASSICAL = ("power_usage_decline_level", "line_loss_rate", "warning_num")
HABIT = (
    "warnings_30d",  # log(1 + theft-related signs of the last 30 days)
    "usage_change",  # log of recent energy over that before, less the zone's median of it
    "spread_change",  # log of the day's relative spread, recent over before
    "zero_change",  # share of intervals without energy, recent less before
    "weekly_repeat",  # Fisher z of the correlation with the same day a week ago
    "peak_share",  # share of intervals within a tenth of the day's highest
    "loss_likeness",  # Fisher z of the correlation of the flat's rows with the residual
)
EVIDENCE = (
    "past_suspicion",  # log-odds of the highest posterior so far, fading; outlives the alarm
    "alarm",  # 1 while the zone's loss alarm is latched
    "loss_share",  # log10 of the loss over 1 % of the zone's load
    "loss_of_flat",  # log of the loss over what the flat used before
    "theft_log_odds",  # of attribution's posterior
    "nobody_log_odds",  # of attribution's "nobody": a tap ahead of all meters
    "evidence",  # asinh of the flat's log evidence against nobody
    "evidence_lead",  # asinh of the same less the best of the other flats
    "conservation_t",  # asinh of the t by which it fell when the loss rose
    "conservation_match",  # asinh of the log ratio that it fell by just what is missing
    "deficit_share",  # the power it fell by over the power lost
    "shown_share",  # log of what it shows over what it was expected to use
    "flat_signature",  # asinh of log ratios against normal life: one value again and again,
    "repeat_signature",  # a recording,
    "ceiling_signature",  # a ceiling
)
NO_LOG_ODDS = -8.0  # where attribution has not been asked: far below any prior
NO_EVIDENCE = {
    name: NO_LOG_ODDS if name.endswith("_log_odds") or name == "past_suspicion" else 0.0 for name in EVIDENCE
}
SIGNATURES = ("flat_signature", "repeat_signature", "ceiling_signature")
FEATURES = (*CLASSICAL, *HABIT, *EVIDENCE)

# Signs that speak of theft; a power failure, a replaced meter or a changed clock does not.
THEFT_SIGNS = frozenset(SignKind) - {SignKind.POWER_FAILURE, SignKind.METER_REPLACED, SignKind.CLOCK_CHANGED}

RECENT_DAYS = 14
PAST_DAYS = 48
RING_DAYS = RECENT_DAYS + PAST_DAYS  # with the week before it, what 70 days of rows can make anew
SLOPE_DAYS = 11  # days j - 5 .. j + 5 of the definition, here the 11 days up to j
DECLINE_DAYS = 10
LOSS_DAYS = 5
LOSS_GROWTH = 0.01
SIGN_DAYS = 30
WEEK = 7
LEAST_KNOWN = 0.5  # of a day's intervals, for the day to count

_ENERGY, _SPREAD, _ZERO, _REPEAT, _PEAK, _COVARIANCE, _VARIANCE, _SIGNS = range(8)


@dataclass(frozen=True, slots=True)
class Day:
    """One local day of a zone with N flats in S equal intervals; NaN where nothing is known.

    sub_wh [S, N] and main_wh [S]: energies, estimated where missed [S, N] says so; an estimate counts in sums over
    the zone, not in what is said of the flat. signs [N]: number of theft-related signs (THEFT_SIGNS).
    """

    sub_wh: Floats
    main_wh: Floats
    missed: NDArray[np.bool_]
    signs: Floats

    @property
    def residual_wh(self) -> Floats:
        """What the main meter shows more than all sub-meters [S]; the technical loss hardly moves within a day."""
        return np.asarray(self.main_wh - self.sub_wh.sum(axis=1))


@dataclass(frozen=True, slots=True)
class Loss:
    """What a latched alarm says: its power, and what attribution last found, where it was asked.

    probability [N] and nobody: the posterior; statistics [N, len(columns)]: the figures behind it.
    """

    loss_w: float
    probability: Floats | None = None
    nobody: float = 0.0
    statistics: Floats | None = None
    columns: tuple[str, ...] = STATISTICS


class ZoneFeatures:
    """The features of one zone's flats: `add` every local day in turn, `latch`, then `rows` when they are wanted."""

    def __init__(self, flats: int) -> None:
        self.flats = flats
        self.before: Floats | None = None  # summaries of the time before the latched loss [N, 8]; for a checkpoint
        self._days = 0  # added so far
        self._ring = np.full((RING_DAYS, flats, 8), np.nan)  # daily summaries, day d in place d % RING_DAYS
        self._zone = np.full((RING_DAYS, 3), np.nan)  # line-loss rate, variance of the residual, mean main power
        self._week: NDArray[np.float32] | None = None  # the last seven days' rows [7, S, flats]: the largest part
        self._recent_days = RECENT_DAYS

    def add(self, day: Day) -> None:
        """Take one more day."""
        slots, flats = day.sub_wh.shape
        if flats != self.flats:
            raise ValueError(f"a day of {flats} flats, expected {self.flats}")
        if self._week is None or self._week.shape[1] != slots:
            self._week = np.full((WEEK, slots, flats), np.nan, np.float32)
        place = self._days % RING_DAYS
        self._ring[place] = _summary(day, self._week[self._days % WEEK])
        self._zone[place] = _zone_summary(day)
        self._week[self._days % WEEK] = np.where(day.missed, np.nan, day.sub_wh)
        self._days += 1

    def latch(self, age_days: float | None) -> None:
        """Say how long before the end of the last day the latched loss began; None: there is none.

        While a loss is latched, "before" stays what it was at its onset, so that a theft does not become the habit;
        for the first two weeks the onset may still move.
        """
        if age_days is None:
            self.before, self._recent_days = None, RECENT_DAYS
            return
        age = max(1, round(age_days))
        if self.before is None or age <= RECENT_DAYS:
            self.before = _mean(self._last(RING_DAYS)[: max(0, min(self._days, RING_DAYS) - age)][-PAST_DAYS:])
        self._recent_days = min(RECENT_DAYS, age)

    def rows(self, loss: Loss | None = None, suspicion: Floats | None = None) -> Floats:
        """Features [N, len(FEATURES)] as of the last day added, all of them finite.

        `suspicion` [N]: the highest probability that attribution ever gave each flat, faded.
        """
        out = np.zeros((self.flats, len(FEATURES)))
        days = self._last(RING_DAYS)
        recent = _mean(days[-self._recent_days :])
        before = self.before if self.before is not None else _mean(days[: -self._recent_days])
        columns = {
            "power_usage_decline_level": self._decline(),
            "line_loss_rate": np.full(self.flats, self._line_loss()),
            "warning_num": days[-1][:, _SIGNS] if len(days) else np.zeros(self.flats),
            "warnings_30d": np.log1p(np.nansum(days[-SIGN_DAYS:, :, _SIGNS], axis=0)),
            **self._habits(days, recent, before),
            **self._evidence(loss, np.where(np.isfinite(before), before, recent)[:, _ENERGY] / 24),
        }
        if suspicion is not None:
            columns["past_suspicion"] = _log_odds(suspicion)
        for place, name in enumerate(FEATURES):
            out[:, place] = columns[name]
        return np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0)

    def _last(self, count: int) -> Floats:
        """Summaries of the last `count` days, oldest first [days, N, 8]."""
        have = min(self._days, count, RING_DAYS)
        return np.asarray(self._ring[np.arange(self._days - have, self._days) % RING_DAYS])

    def _last_zone(self, count: int) -> Floats:
        have = min(self._days, count, RING_DAYS)
        return np.asarray(self._zone[np.arange(self._days - have, self._days) % RING_DAYS])

    def _decline(self) -> Floats:
        """Of the last 10 days, how many had a steeper fall than the day before: slopes over 11 days each."""
        energy = self._last(SLOPE_DAYS + DECLINE_DAYS)[:, :, _ENERGY]
        if len(energy) < SLOPE_DAYS + 1:
            return np.zeros(self.flats)
        at = np.arange(SLOPE_DAYS) - SLOPE_DAYS // 2
        windows = np.lib.stride_tricks.sliding_window_view(energy, SLOPE_DAYS, axis=0)  # [slopes, N, 11]
        known = np.isfinite(windows)
        filled = np.where(known, windows, 0.0)
        count = np.maximum(known.sum(axis=2), 1)
        centred = (at - (known * at).sum(axis=2, keepdims=True) / count[..., None]) * known
        slopes = (centred * filled).sum(axis=2) / np.maximum((centred**2).sum(axis=2), 1e-9)
        slopes[count <= SLOPE_DAYS // 2] = np.nan
        return np.asarray((slopes[1:] < slopes[:-1]).sum(axis=0), np.float64)

    def _line_loss(self) -> float:
        """1 if the mean loss rate of the last 5 days has grown by more than 1 % over that of the 5 before."""
        rate = self._last_zone(2 * LOSS_DAYS)[:, 0]
        if len(rate) < 2 * LOSS_DAYS:
            return 0.0
        before, now = rate[:LOSS_DAYS], rate[LOSS_DAYS:]
        if not (np.isfinite(before).any() and np.isfinite(now).any()):
            return 0.0
        level = float(np.nanmean(before))
        return float(np.nanmean(now) > level + LOSS_GROWTH * abs(level))

    def _habits(self, days: Floats, recent: Floats, before: Floats) -> dict[str, Floats]:
        # A hundredth of the zone's median flat: what keeps a ratio of two small energies from meaning much.
        least = 0.01 * float(_median(recent[:, _ENERGY])) + 1e-9
        change = _log_ratio(recent[:, _ENERGY] + least, before[:, _ENERGY] + least)
        slots = 1 if self._week is None else self._week.shape[1]
        relative = [part[:, _SPREAD] / (part[:, _ENERGY] / slots + least / slots) for part in (recent, before)]
        covariance, variance = recent[:, _COVARIANCE], recent[:, _VARIANCE]
        residual = self._last_zone(self._recent_days)[:, 1]
        residual_variance = float(np.nanmean(residual)) if np.isfinite(residual).any() else 0.0
        likeness = covariance / np.sqrt(np.maximum(variance * residual_variance, 1e-12))
        return {
            "usage_change": np.clip(change - _median(change), -5, 5),
            "spread_change": np.clip(_log_ratio(relative[0] + 0.05, relative[1] + 0.05), -4, 4),
            "zero_change": recent[:, _ZERO] - before[:, _ZERO],
            "weekly_repeat": recent[:, _REPEAT],
            "peak_share": recent[:, _PEAK],
            "loss_likeness": np.arctanh(np.clip(likeness, -0.99, 0.99)),
        }

    def _evidence(self, loss: Loss | None, flat_w: Floats) -> dict[str, Floats]:
        out = {name: np.full(self.flats, neutral) for name, neutral in NO_EVIDENCE.items()}
        if loss is None:
            return out
        main_w = self._last_zone(RECENT_DAYS)[:, 2]
        zone_w = float(np.nanmean(main_w)) if np.isfinite(main_w).any() else float("nan")
        out["alarm"][:] = 1.0
        out["loss_share"][:] = np.clip(np.log10(max(loss.loss_w, 1e-3) / max(0.01 * zone_w, 1e-3)), -3, 3)
        out["loss_of_flat"] = np.clip(np.log(max(loss.loss_w, 1e-3) / np.maximum(flat_w, 1e-1)), -5, 5)
        if loss.probability is None or loss.statistics is None:
            return out
        statistic = dict(zip(loss.columns, loss.statistics.T, strict=True))
        out["theft_log_odds"] = _log_odds(loss.probability)
        out["nobody_log_odds"][:] = _log_odds(np.array([loss.nobody]))
        out["evidence"] = np.arcsinh(statistic["log_evidence"])
        out["evidence_lead"] = np.arcsinh(statistic["log_evidence"] - _best_other(statistic["log_evidence"]))
        out["deficit_share"] = np.clip(statistic["deficit_w"] / max(loss.loss_w, 1e-3), -3, 3)
        out["shown_share"] = np.log(np.clip(statistic["level_ratio"], 0.02, 5))
        for name in ("conservation_t", "conservation_match", *SIGNATURES):
            out[name] = np.arcsinh(statistic[name])
        return out


def _summary(day: Day, week_ago: NDArray[np.float32]) -> Floats:
    """One day of every flat [N, 8]; NaN where less than half of it is known."""
    rows = np.where(day.missed, np.nan, day.sub_wh)
    known = np.isfinite(rows)
    count = known.sum(axis=0)
    least = LEAST_KNOWN * len(rows)
    x = np.where(known, rows, 0.0)
    mean = x.sum(axis=0) / np.maximum(count, 1)
    centred = np.where(known, rows - mean, 0.0)
    variance = (centred**2).sum(axis=0) / np.maximum(count, 1)
    y = day.residual_wh
    both = known & np.isfinite(y)[:, None]
    y_mean = float(np.nanmean(y)) if np.isfinite(y).any() else 0.0
    with_y = np.where(both, centred * (np.nan_to_num(y) - y_mean)[:, None], 0.0)
    out = np.empty((rows.shape[1], 8))
    out[:, _ENERGY] = mean * len(rows)
    out[:, _SPREAD] = np.sqrt(variance)
    out[:, _ZERO] = ((x < 1e-6) & known).sum(axis=0) / np.maximum(count, 1)
    out[:, _REPEAT] = _likeness(rows, week_ago)
    out[:, _PEAK] = (known & (x >= 0.9 * x.max(axis=0)) & (x > 0)).sum(axis=0) / np.maximum(count, 1)
    out[:, _COVARIANCE] = with_y.sum(axis=0) / np.maximum(both.sum(axis=0), 1)
    out[:, _VARIANCE] = variance
    out[count < least] = np.nan
    out[:, _SIGNS] = day.signs
    return out


def _zone_summary(day: Day) -> Floats:
    """(line-loss rate, variance of the residual, mean power at the main meter in W) of one day."""
    slots = len(day.main_wh)
    whole = np.isfinite(day.main_wh) & np.isfinite(day.sub_wh).all(axis=1)
    main = day.main_wh[whole].sum()
    if whole.sum() < LEAST_KNOWN * slots or not main > 0:
        return np.full(3, np.nan)
    rate = (main - day.sub_wh[whole].sum()) / main
    known = day.residual_wh[np.isfinite(day.residual_wh)]
    return np.array([rate, known.var() if len(known) else np.nan, main / whole.sum() * slots / 24])


def _likeness(rows: Floats, others: NDArray[np.float32]) -> Floats:
    """Fisher z of the correlation of two days, flat by flat; 0 where one of them is constant."""
    both = np.isfinite(rows) & np.isfinite(others)
    count = np.maximum(both.sum(axis=0), 1)
    a, b = np.where(both, rows, 0.0), np.where(both, others, 0.0).astype(np.float64)
    a = np.where(both, a - a.sum(axis=0) / count, 0.0)
    b = np.where(both, b - b.sum(axis=0) / count, 0.0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    correlation = np.where(scale > 1e-9, (a * b).sum(axis=0) / np.maximum(scale, 1e-9), 0.0)
    return np.asarray(np.arctanh(np.clip(correlation, -0.995, 0.995)))


def _mean(days: Floats) -> Floats:
    """Mean over days [days, N, 8] -> [N, 8]; NaN where no day is known."""
    known = np.isfinite(days)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, days, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _log_ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(above, 1e-12)) - np.log(np.maximum(below, 1e-12)))


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-9, 1 - 1e-9)
    return np.clip(np.log(inside / (1 - inside)), NO_LOG_ODDS, -NO_LOG_ODDS)


def _best_other(values: Floats) -> Floats:
    """For every flat the greatest value among the others."""
    if len(values) < 2:
        return np.zeros(len(values))
    order = np.argsort(values)
    out = np.full(len(values), values[order[-1]])
    out[order[-1]] = values[order[-2]]
    return out
