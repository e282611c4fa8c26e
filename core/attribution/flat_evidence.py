"""What the rows around an alarm say of each flat, in figures that are comparable from one building to the next.

Owns the evidence that the posterior's model is given beside attribution's likelihoods: does adding the missing energy
back restore the flat's old life, day by day, hour by hour and in the large? Refuses to know alarms, models, priors.

y is the missing power of a row (too much, where there is a surplus), s what a flat shows, e what its past expects,
d = e - s by how much it fell. A day is active when plainly something is missing on it. Everything is bounded, and free
of units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arrays import Bools, Floats, Ints
from core.attribution.scene import Scene
from core.attribution.usage import sum_by, weighted_quantiles

LEAST_W = 15.0  # a few lamps: below it a ratio of powers says little
BLOCK_H = 3.0
QUANTILES = (np.arange(11) + 0.5) / 11
ACTIVE_SD, ACTIVE_SHARE = 5.0, 0.25  # of the noise of a day, of what is missing on its bad days

FLAT = (
    "restored_quantiles",  # log ratio of the distance of the load's distribution to the past's: y added, or not
    "restored_quantiles_all",  # the same over all days
    "distance_restored",  # log of the distance with y added
    "restored_profile",  # log ratio of the squared distance of the profile by hour
    "restored_blocks",
    "restored_days",
    "vanished_peaks",  # does the share of large loads that the flat lost match the peaks of y? log of the misfit
    "restored_level",  # |log| of the level over the past's with y added, active days
    "level",  # log of the level over the past's, active days
    "level_3d",
    "level_7d",
    "day_gain",  # log cost of the flat's explanations over that of nobody's, day by day
    "days_won",  # share of active days on which the flat's explanation is the best of all flats'
    "week_won",  # the same in its best week
    "day_likeness",  # Fisher z over days of y and d
    "day_likeness_shown",  # and of y and s
    "day_contrast",  # fall on active days against the other days, in shares of y
    "share",  # log of theta of y = theta s
    "fit_shown",  # log of the error of that over no explanation
    "fit_fall",  # of y = d
    "fit_past",  # of y = theta e
    "fit_both",  # of y = theta s + phi e
    "likeness_shown",  # Fisher z of y and s, by blocks
    "likeness_shown_within",  # the same less the mean by hour
    "likeness_fall",
    "likeness_fall_within",
    "likeness_past",
    "profile_likeness",  # Fisher z over hours of y and log(e / s)
    "profile_fall",  # and of y and d
    "likeness_slope",  # of y and the change of s: a clock
    "fall_share",  # energy of d over that of y, active days
    "fall_share_all",
    "fall_t",  # asinh of the fall over its scatter in normal life
    "size",  # log of y's mean over e's
    "past_size",  # log of e over the mean flat's
    "zero_rows",  # share of rows that show nothing, less the past's
    "estimated",  # share of rows that are spread over a gap
)
ZONE = (  # age: log of days since the onset; signal: log of y over its noise; the shares are of y over its mean
    "age", "missing_share", "signal", "block_scatter", "day_scatter", "profile_share", "night_share", "morning_share",
    "evening_share", "weekend_ratio",
    "active_share",  # of days
    "negative_share",  # of blocks where y is well below nothing
    "alternation", "block_memory",  # lag-one correlation of y's rows, of its blocks
    "likeness_load", "fit_load", "likeness_load_slope",  # of y and the load of all flats: a main meter, clocks
    "misfit_nobody", "misfit_best",  # log of the cost of nobody's profile, of the best flat's, in units of the noise
    "flats", "no_past", "step",
    "days_spread",  # how many flats it takes to win the days
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FlatEvidence:
    """flat [N, len(FLAT)] and zone [len(ZONE)], finite."""

    flat: Floats
    zone: Floats


def gather(scene: Scene, surplus: bool = False) -> FlatEvidence:
    """The figures of one scene. With `surplus` more is shown than went in, and d is by how much a flat rose."""
    return _Gatherer(scene, -1.0 if surplus else 1.0).gather()


class _Gatherer:
    """One scene's powers, by rows, blocks and days."""

    def __init__(self, scene: Scene, sign: float) -> None:
        self.scene, self.sign = scene, sign
        known = ~np.isnan(scene.residual_wh)
        self.known = known if known.any() else np.ones(len(known), np.bool_)
        hours = scene.hours
        self.r = np.nan_to_num(scene.residual_wh) / hours  # signed, W
        self.y = sign * self.r
        self.s = scene.sub_wh / hours
        self.e = scene.expected_wh / hours
        self.d = sign * (self.e - self.s)
        rows, slots = len(self.y), scene.slots
        self.day = np.minimum(np.arange(rows) // slots, max((rows - slots // 4) // slots, 0))
        self.days = int(self.day[-1]) + 1
        width = max(1, round(BLOCK_H / hours) if rows >= 2 * slots else round(1.0 / hours))
        self.width = width
        self.blocks = max(rows // width, 1)
        self.block_day = self.day[: self.blocks * width : width]
        self.block_hour = (
            scene.slot[: self.blocks * width : width] * hours / (BLOCK_H if rows >= 2 * slots else 1.0)
        ).astype(np.intp)
        self.by = self._blocks(self.y)
        self.bs, self.bd, self.be = self._blocks(self.s), self._blocks(self.d), self._blocks(self.e)
        self.noise_w = self._noise()
        self.active = self._active()
        self.on = self.active[self.block_day]
        self.row_on = self.active[self.day] & self.known

    def _blocks(self, rows: Floats) -> Floats:
        """Means over blocks of what is known."""
        size = self.blocks * self.width
        if size > len(rows):
            return np.asarray(rows.mean(0, keepdims=True))
        weight = self.known[:size].reshape(self.blocks, self.width)
        shaped = rows[:size].reshape(self.blocks, self.width, *rows.shape[1:])
        weight = weight if rows.ndim == 1 else weight[..., None]
        return np.asarray((shaped * weight).sum(1) / np.maximum(weight.sum(1), 1))

    def _noise(self) -> float:
        """Standard deviation of a block's mean, by what is known of the balance."""
        noise, hours = self.scene.noise, self.scene.hours
        length = self.width * hours
        edge = float(np.median(noise.variance)) * 2 / length**2
        slow = float(np.mean(noise.slow)) * noise.slow_share / hours
        return float(np.sqrt(edge + slow**2) + 1.0)

    def _active(self) -> Bools:
        mean = _group_mean(self.y[:, None], self.day, self.days, self.known)[:, 0]
        day_sd = self.noise_w * np.sqrt(max(BLOCK_H / 24.0, 0.125)) + 1.0
        bad = float(np.quantile(mean, 0.8))
        active = (mean > ACTIVE_SD * day_sd) & (mean > ACTIVE_SHARE * bad)
        return active if active.any() else np.ones(self.days, np.bool_)

    # -- all of it ----------------------------------------------------------------------------------------------------

    def gather(self) -> FlatEvidence:
        days = self._by_days()
        columns: dict[str, Floats] = {
            **self._restored(), **self._levels(), **days, **self._fits(), **self._likeness(),
        }  # fmt: skip
        zone = self._zone(days)
        flat = np.column_stack([columns[name] for name in FLAT])
        whole = np.array([zone[name] for name in ZONE])
        return FlatEvidence(np.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0), np.nan_to_num(whole, nan=0.0))

    def _restored(self) -> dict[str, Floats]:
        scene = self.scene
        count = self.s.shape[1]
        with_y = np.maximum(self.s + self.r[:, None], 0.0)
        past = np.maximum(scene.past_wh / scene.hours if len(scene.past_wh) >= scene.slots else self.e, 0.0)
        past_slot = scene.past_slot if len(scene.past_wh) >= scene.slots else scene.slot
        out: dict[str, Floats] = {}
        order = np.argsort(past, axis=0)
        logs = np.log(np.take_along_axis(past, order, 0) + LEAST_W)
        for name, rows in (("restored_quantiles", self.row_on), ("restored_quantiles_all", self.known)):
            weight = _same_hours(scene.slot[rows], past_slot, scene.slots)
            before = weighted_quantiles(QUANTILES, logs, weight[order])
            after = np.quantile(np.log(with_y[rows] + LEAST_W), QUANTILES, axis=0)
            plain = np.quantile(np.log(np.maximum(self.s[rows], 0.0) + LEAST_W), QUANTILES, axis=0)
            far, was = np.abs(after - before).mean(0) + 0.08, np.abs(plain - before).mean(0) + 0.08
            out[name] = np.log(far / was)
            out.setdefault("distance_restored", np.log(far))
        out["restored_profile"] = self._ratio_by_hour(with_y)
        fall, rest = self.bd[self.on], self.bd[self.on] - self.by[self.on, None]
        out["restored_blocks"] = _log_ratio((rest**2).sum(0), (fall**2).sum(0), len(fall) * self.noise_w**2)
        out["restored_days"] = self._ratio_by_day()
        high = float(np.quantile(self.y[self.row_on], 0.92)) * 0.75 if self.row_on.any() else 0.0
        if high > LEAST_W:
            weight = _same_hours(scene.slot[self.row_on], past_slot, scene.slots)
            lost = weight @ (past > high) - (self.s[self.row_on] > high).mean(0)
            wanted = float((self.y[self.row_on] > high).mean())
            out["vanished_peaks"] = np.abs(np.log(np.maximum(self.sign * lost + 0.01, 0.002) / (wanted + 0.01)))
        else:
            out["vanished_peaks"] = np.full(count, 2.0)
        return {name: np.clip(values, -4, 4) for name, values in out.items()}

    def _ratio_by_hour(self, with_y: Floats) -> Floats:
        part = (self.scene.slot * 12 // self.scene.slots).astype(np.intp)
        s, both, e = (_group_mean(rows, part, 12, self.row_on) for rows in (self.s, with_y, self.e))
        return _log_ratio(((both - e) ** 2).sum(0), ((s - e) ** 2).sum(0), 12 * 100.0)

    def _ratio_by_day(self) -> Floats:
        d = _group_mean(self.d, self.day, self.days, self.known)[self.active]
        y = _group_mean(self.y[:, None], self.day, self.days, self.known)[self.active]
        return _log_ratio(((d - y) ** 2).sum(0), (d**2).sum(0), len(d) * 100.0)

    def _levels(self) -> dict[str, Floats]:
        scene, rows = self.scene, self.row_on
        y, s, e = float(self.y[rows].mean()), self.s[rows].mean(0), self.e[rows].mean(0)
        d = self.d[rows].mean(0)
        last = {f"level_{n}d": slice(-n * scene.slots, None) for n in (3, 7)}
        sd = scene.usage.level_sd(scene.days) * self.e.mean(0) + 2.0
        never = (scene.past_wh <= 0.5 * scene.resolution_wh).mean(0) if len(scene.past_wh) else 0.0
        whole = max(abs(float(self.y[self.known].mean())), 1.0)
        return {
            "restored_level": np.abs(_log(np.maximum(s + self.sign * y, 0)) - _log(e)),
            "level": np.clip(_log(s) - _log(e), -4, 4),
            **{
                name: np.clip(_log(self.s[part].mean(0)) - _log(self.e[part].mean(0)), -4, 4)
                for name, part in last.items()
            },
            "fall_share": np.clip(d / max(abs(y), 1.0), -3, 3),
            "fall_share_all": np.clip(self.d[self.known].mean(0) / whole, -3, 3),
            "fall_t": np.arcsinh(self.d.mean(0) / sd),
            "size": np.clip(np.log(max(y, 1.0) / np.maximum(e, 1.0)), -5, 5),
            "past_size": np.clip(_log(self.e.mean(0)) - np.log(float(self.e.mean()) + LEAST_W), -4, 3),
            "zero_rows": (scene.sub_wh <= 0.5 * scene.resolution_wh).mean(0) - never,
            "estimated": scene.estimated[: len(self.y)].mean(0),
        }

    def _by_days(self) -> dict[str, Floats]:
        """Costs of each day under each flat's best explanation of that day, against nobody's profile."""
        y, s, d = self.by[:, None], self.bs, np.maximum(self.bd, 0.0)
        on = self.on[:, None]
        theta = (y * s * on).sum(0) / np.maximum((s * s * on).sum(0), 1.0)
        shares = (y - np.maximum(theta, 0.0) * s) ** 2
        falls = (y - d) ** 2
        cost = np.minimum(sum_by(self.block_day, shares, self.days), sum_by(self.block_day, falls, self.days))
        cost += self.noise_w**2
        nobody = sum_by(self.block_day, ((self.by - self._profile()) ** 2)[:, None], self.days)[:, 0] + self.noise_w**2
        active = self.active
        total, of_nobody = cost[active].sum(0), float(nobody[active].sum())
        winner = np.argmin(cost, axis=1)
        won = (winner[:, None] == np.arange(s.shape[1])) & (cost < nobody[:, None] * 1.2) & active[:, None]
        week = np.arange(self.days) // 7
        weeks = sum_by(week, won.astype(float), int(week[-1]) + 1)
        length = sum_by(week, active[:, None].astype(float), int(week[-1]) + 1)
        day_y = _group_mean(self.y[:, None], self.day, self.days, self.known)
        day_d = _group_mean(self.d, self.day, self.days, self.known)
        day_s = _group_mean(self.s, self.day, self.days, self.known)
        scale = max(float(day_y[active].mean()), 1.0)
        rest = day_d[~active].mean(0) if (~active).any() else np.zeros(s.shape[1])
        return {
            "day_gain": np.clip(np.log(total / of_nobody), -4, 4),
            "days_won": won.sum(0) / max(int(active.sum()), 1),
            "week_won": (weeks / np.maximum(length, 2.0)).max(0),
            "day_likeness": _fisher(day_y, day_d),
            "day_likeness_shown": _fisher(day_y, day_s),
            "day_contrast": np.clip((day_d[active].mean(0) - rest) / scale, -3, 3),
            "_best": cost[active].sum(0).min(keepdims=True) / max(int(on.sum()), 1),
            "_nobody": np.array([of_nobody / max(int(on.sum()), 1)]),
            "_winners": np.array([float(len(set(winner[active].tolist())))]),
        }

    def _profile(self) -> Floats:
        """Nobody's expectation of each block: the mean of the active days at that hour, less itself."""
        hour, on = self.block_hour, self.on
        size = int(hour.max()) + 1
        total, seen = np.bincount(hour[on], self.by[on], size), np.bincount(hour[on], minlength=size)
        mean = float(self.by[on].mean())
        own = np.where(on, self.by, 0.0)
        return np.asarray((total[hour] - own + mean) / (seen[hour] - on + 1.0))

    def _fits(self) -> dict[str, Floats]:
        on = self.on
        y, s, e, d = self.by[on][:, None], self.bs[on], self.be[on], self.bd[on]
        floor = len(y) * self.noise_w**2
        none = (y**2).sum(0)
        ys, ye, ss, ee, se = (y * s).sum(0), (y * e).sum(0), (s * s).sum(0), (e * e).sum(0), (s * e).sum(0)
        theta = ys / np.maximum(ss, 1.0)
        by_s = none - np.maximum(ys, 0) ** 2 / np.maximum(ss, 1.0)
        by_e = none - np.maximum(ye, 0) ** 2 / np.maximum(ee, 1.0)
        det = ss * ee - se**2
        good = det > 1e-3 * ss * ee
        det = np.where(good, det, 1.0)
        both = np.where(
            good, none - (ys * (ee * ys - se * ye) + ye * (ss * ye - se * ys)) / det, np.minimum(by_s, by_e)
        )
        return {
            "share": np.clip(np.log(np.maximum(theta, 0.01)), -4.6, 4.6),
            "fit_shown": _log_ratio(by_s, none, floor),
            "fit_fall": np.clip(_log_ratio(((y - d) ** 2).sum(0), none, floor), -4, 4),
            "fit_past": _log_ratio(by_e, none, floor),
            "fit_both": _log_ratio(np.maximum(both, 0.0), none, floor),
        }

    def _likeness(self) -> dict[str, Floats]:
        on = self.on
        y, s, d, e = self.by[on][:, None], self.bs[on], self.bd[on], self.be[on]
        hour = self.block_hour[on]
        within = [_less_mean(rows, hour) for rows in (y, s, d)]
        part = (self.scene.slot * 12 // self.scene.slots).astype(np.intp)
        py, ps, pe = (_group_mean(rows, part, 12, self.row_on) for rows in (self.y[:, None], self.s, self.e))
        slope = np.diff(self.s, axis=0, prepend=self.s[:1])
        return {
            "likeness_shown": _fisher(y, s),
            "likeness_shown_within": _fisher(within[0], within[1]),
            "likeness_fall": _fisher(y, d),
            "likeness_fall_within": _fisher(within[0], within[2]),
            "likeness_past": _fisher(y, e),
            "profile_likeness": self.sign * _fisher(py, _log(pe) - _log(ps)),
            "profile_fall": self.sign * _fisher(py, pe - ps),
            "likeness_slope": _fisher(self.y[self.known][:, None], slope[self.known]),
        }

    def _zone(self, days: dict[str, Floats]) -> dict[str, float]:
        scene, y = self.scene, self.y[self.known]
        mean = float(y.mean())
        by, on = self.by, self.on
        hour = (scene.slot[self.known] + 0.5) * scene.hours
        total = self.s.sum(1)
        load = max(float(total.mean()), 1.0)
        scale = max(abs(mean), 1.0)
        day_y = _group_mean(self.y[:, None], self.day, self.days, self.known)[:, 0]
        weekend = ((scene.day + 3) % 7 >= 5)[self.known]
        parts = {"night_share": (0, 6), "morning_share": (6, 12), "evening_share": (17, 23)}

        def level(mask: Bools) -> float:
            return float(np.clip(y[mask].mean() / scale, -2, 4)) if mask.any() else 0.0

        bt = self._blocks(total)
        fitted = float((by * bt).sum()) / max(float((bt**2).sum()), 1.0)
        noise2 = self.noise_w**2
        rows = y - y.mean()
        blocks = by - by.mean()
        return {
            "age": float(np.log(scene.days + 0.05)),
            "missing_share": float(np.clip(np.log(max(mean, 1.0) / load), -8, 1)),
            "signal": float(np.clip(np.log(max(mean, 1.0) / self.noise_w), -4, 6)),
            "block_scatter": float(np.log((by.std() + 1.0) / (scale + 1.0))),
            "day_scatter": float(np.log((day_y.std() + 1.0) / (scale + 1.0))),
            "profile_share": 1.0 - float(((by - self._profile())[on] ** 2).mean()) / (float(by[on].var()) + noise2),
            **{name: level((hour >= a) & (hour < b)) for name, (a, b) in parts.items()},
            "weekend_ratio": level(weekend) - level(~weekend) if weekend.any() and (~weekend).any() else 0.0,
            "active_share": float(self.active.mean()),
            "negative_share": float((by < -3 * self.noise_w).mean()),
            "alternation": _lag_one(rows),
            "block_memory": _lag_one(blocks),
            "likeness_load": float(_fisher(by[:, None], bt[:, None])[0]),
            "fit_load": float(np.log(((by - fitted * bt) ** 2).mean() + noise2) - np.log((by**2).mean() + noise2)),
            "likeness_load_slope": float(
                _fisher(y[:, None], np.diff(total, prepend=total[:1])[self.known][:, None])[0]
            ),
            "misfit_nobody": float(np.log(days["_nobody"][0] / noise2)),
            "misfit_best": float(np.log(days["_best"][0] / noise2)),
            "flats": float(np.log(self.s.shape[1])),
            "no_past": 0.0 if scene.usage.rows else 1.0,
            "step": float(
                np.log10(float(np.median(scene.resolution_wh)) / max(load * scene.hours / self.s.shape[1], 1.0))
            ),
            "days_spread": float(np.log(days["_winners"][0] / max(int(self.active.sum()), 1) ** 0.5)),
        }


def _same_hours(slot: Ints, past_slot: Ints, slots: int) -> Floats:
    """Weights [P] of past rows, summing to 1, that give them the hours of the rows at `slot`."""
    wanted = np.bincount(slot, minlength=slots).astype(float)
    have = np.bincount(past_slot, minlength=slots)
    weight = wanted[past_slot] / np.maximum(have[past_slot], 1)
    total = float(weight.sum())
    return np.asarray(weight / total) if total > 0 else np.full(len(past_slot), 1.0 / max(len(past_slot), 1))


def _group_mean(rows: Floats, index: Ints, size: int, use: Bools) -> Floats:
    """Means [size, N] of the rows in use by `index`; 0 where there is none."""
    total = sum_by(index, rows * use[:, None], size)
    seen = sum_by(index, use[:, None].astype(float), size)
    return np.asarray(total / np.maximum(seen, 1.0))


def _less_mean(rows: Floats, hour: Ints) -> Floats:
    mean = _group_mean(rows, hour, int(hour.max()) + 1, np.ones(len(rows), np.bool_))
    return np.asarray(rows - mean[hour])


def _fisher(a: Floats, b: Floats) -> Floats:
    """Fisher z of the columns' correlation [N], drawn to 0 where rows are few."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    r = np.where(scale > 1e-6, (a * b).sum(0) / np.maximum(scale, 1e-6), 0.0)
    return np.asarray(np.arctanh(np.clip(r * len(a) / (len(a) + 4.0), -0.995, 0.995)))


def _log_ratio(above: Floats, below: Floats, floor: float) -> Floats:
    return np.asarray(np.clip(np.log((above + floor) / (below + floor)), -5, 5))


def _log(power_w: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(power_w, 0.0) + LEAST_W))


def _lag_one(values: Floats) -> float:
    power = float((values**2).sum())
    return float((values[1:] * values[:-1]).sum()) / power if power > 1e-6 and len(values) > 2 else 0.0
