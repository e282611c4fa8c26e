"""What a building loses honestly: copper, burden, common load, gain errors, temperature, read delay; learned online.

It owns the regressors of a zone's residual, their priors and their posterior. It refuses to know alarms: which rows
may be absorbed, and when, is the monitor's decision.

The residual of a row is  y = M - sum(R_i) = phi . x + tap + boundary errors,  where the coefficients x are

    hour 0..23  unmetered load per sub-meter by hour of day, W: the meters' own burden (0.3-1.2 W each) and common load
    copper      share of a nominal load lost in the risers, growing with the square of the power (0.7-2 %)
    own         the same of what each flat's power loses alone: it is not spread over three phases, see `own_wh`
    main        gain error of the main meter, prior from its accuracy class
    warm, cool  the gain's daily temperature cycle (cosine and sine), common to the building
    weather     the gain's wander with the weather: an Ornstein-Uhlenbeck process of some days
    delay       mean read delay of the sub-meters behind the main meter, s: acts on the boundary, not on the energy
    gain i      gain error of sub-meter i, prior from its accuracy class, a slow random walk

Boundary errors telescope (rows have MA(1) covariance). So the filter's first state is the offset between booked and
true cumulative residual: it is predicted by phi . x and then *observed* to be zero but for the boundary's error, which
is independent from boundary to boundary. That is the exact treatment, at O(P^2) a row (Harvey 1989, ch. 3; Yip et al.
2017 use the static least-squares form). A gain prior of half a per cent is what keeps a theft from being learned as a
meter error (IEC 62053-21/-22: class 1 is within 1 % at rated conditions).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np

from core.arrays import UNKNOWN_WH2, Bools, Floats, Ints
from core.balance import _balance
from core.balance.rows import ZoneRows, jumps_wh2, window_sums

HOURS = 24
COPPER, OWN, MAIN, WARM, COOL, WEATHER, DELAY = range(HOURS, HOURS + 7)
COMMON = HOURS + 7  # coefficients before the gains

BURDEN_W = 0.75  # per sub-meter, IEC 62053-61 allows 2 W; electronic meters take 0.3-1.2 W
UNMETERED_SD_W = 6.0  # common load per sub-meter nobody told us of: its level,
UNMETERED_HOUR_SD_W = 2.0  # and each hour around it
COPPER_MEAN, COPPER_SD = 0.0135, 0.005
OWN_MEAN, OWN_SD = 0.010, 0.010  # 0 where every flat has three phases and a riser of its own
OWN_SCATTER = 0.7  # of the common one; places that are even along a riser give 0.58, and risers are not alike
OWN_FACTOR = 4.5  # one phase instead of three; a riser that tapers: what lies behind a flat shares only half of it
OWN_LIMIT_W = 15_000.0  # more is the end of a gap, not a load of one phase
CLASS_TO_SD = 0.005  # a meter of class c: standard deviation c * 0.5 %
TEMPERATURE_SD = 3e-4  # daily cycle of the common gain
WEATHER_SD, WEATHER_H = 2.6e-4, 108.0
DELAY_S, DELAY_SD_S = 15.0, 15.0
SEASON_H = 90 * 24.0  # over a season ...
MAIN_WALK, COPPER_WALK, GAIN_WALK, HOUR_WALK_W = 4e-4, 5e-4, 3e-4, 0.1  # ... coefficients walk so far
MISFIT = 5e-4  # energy per row that no regressor explains, as a share of the load
OUTLIER = 4.0  # standard deviations
GAP_TAIL = 3.0  # what a flat used while it was not heard of is heavy-tailed: an oven is a rare, large miss
GAP_ROWS = 8.0  # rows for which a meter that is silent, or stands still, errs alike: they tell no more than one
FAR = 2.0  # times the load: so far from the sub-meters no row of a main meter is a load
GIVEN_MOST = 0.7  # of what the flats take: with more given back, the main meter ran backwards for a part of the row
TOLD_WALK = 0.01**2 / 24.0  # variance that a told loss's level gains in an hour, in units of its prior's


class LossModel:
    """Posterior of a zone's technical loss and meter errors; `x` [1 + P] and covariance `p` [1 + P, 1 + P].

    Behind the P = `size` coefficients stand the states of the losses that were told, see `carry`.
    """

    def __init__(
        self,
        hours: float,
        main_class: float,
        sub_classes: Sequence[float],
        load_w: float,
        unmetered_w: float = 0.0,
        *,
        import_only: bool = False,
    ) -> None:
        count = len(sub_classes)
        self.import_only = import_only
        self.hours, self.count = hours, count
        self.load_w = load_w  # nominal: fixes the scale of copper and of misfit
        size = self.size = COMMON + count
        self.told: tuple[int, ...] = ()  # states of each told loss, behind the coefficients
        self.sd = np.zeros(size)
        self.sd[:HOURS] = math.hypot(UNMETERED_SD_W, UNMETERED_HOUR_SD_W)
        self.sd[COPPER] = COPPER_SD
        self.sd[OWN] = OWN_SD
        self.sd[MAIN] = CLASS_TO_SD * main_class
        self.sd[WARM] = self.sd[COOL] = TEMPERATURE_SD
        self.sd[WEATHER] = WEATHER_SD
        self.sd[DELAY] = DELAY_SD_S
        self.sd[COMMON:] = CLASS_TO_SD * np.asarray(sub_classes)
        self.mean = np.zeros(size)
        self.mean[:HOURS] = BURDEN_W + unmetered_w / max(count, 1)
        self.mean[COPPER] = COPPER_MEAN
        self.mean[OWN] = OWN_MEAN
        self.mean[DELAY] = DELAY_S
        self._walk = np.zeros(size)
        self._walk[:HOURS] = HOUR_WALK_W**2 / SEASON_H
        self._walk[COPPER] = COPPER_WALK**2 / SEASON_H
        self._walk[OWN] = COPPER_WALK**2 / SEASON_H
        self._walk[MAIN] = MAIN_WALK**2 / SEASON_H
        self._walk[COMMON:] = GAIN_WALK**2 / SEASON_H
        self._keep = np.ones(size)
        self._keep[WEATHER] = 1 - 1 / WEATHER_H
        self._walk[WEATHER] = 2 * WEATHER_SD**2 / WEATHER_H
        self._work = np.empty(size + 1)
        self.x = np.concatenate([[0.0], self.mean])
        self.p = np.zeros((size + 1, size + 1))
        self.p[1:, 1:] = np.diag(self.sd**2)
        self.p[1 : HOURS + 1, 1 : HOURS + 1] = UNMETERED_SD_W**2 + UNMETERED_HOUR_SD_W**2 * np.eye(HOURS)

    def of_rows(self, hours: float) -> LossModel:
        """The same coefficients for rows of another length; for reading only."""
        other = copy.copy(self)
        other.hours = hours
        return other

    @property
    def gain_sd(self) -> Floats:
        """Standard deviation of each sub-meter's gain error [N]."""
        at = np.arange(1 + COMMON, 1 + self.size)
        sd: Floats = np.sqrt(np.maximum(self.p[at, at], 0.0))
        return sd

    def design(self, rows: ZoneRows) -> Floats:
        """Regressors [T, P] of rows, Wh per unit of coefficient; the delay acts elsewhere and is 0 here."""
        phi = np.zeros((len(rows), COMMON + self.count))
        day_s, hour = self._time_of_day(rows)
        phi[np.arange(len(rows)), hour] = self.count * self.hours
        main = self.flow_wh(rows)
        phi[:, COPPER] = main * main / (self.load_w * self.hours)
        phi[:, OWN] = self.own_wh(rows).sum(axis=1)
        angle = 2 * np.pi * day_s / 86_400.0
        phi[:, MAIN] = main
        phi[:, WARM] = main * np.cos(angle)
        phi[:, COOL] = main * np.sin(angle)
        phi[:, WEATHER] = main
        phi[:, COMMON:] = rows.subs_wh
        return phi

    def flow_wh(self, rows: ZoneRows) -> Floats:
        """What flowed into the building in each row [T]: as the main meter says, but where that is no row's energy.

        Where a main meter answers again, its row sets right all that was estimated while it was silent.
        """
        subs = rows.subs_wh.sum(axis=1)
        far = np.abs(rows.main_wh - subs) > FAR * np.maximum(np.abs(subs), self.load_w * self.hours)
        return np.where(far, subs, rows.main_wh)

    def own_wh(self, rows: ZoneRows) -> Floats:
        """What a flat's own power loses in the riser [T, N], Wh per unit of OWN.

        A flat on one phase, k-th of n along a riser, loses 9 k / n^2 of the share that an even load of all loses, by
        the square of its power: a car or a heater costs ten times what the square of the building's power tells.
        How far along each flat is nobody knows: its own coefficient scatters by `own_sd` around the common one.
        """
        limit = OWN_LIMIT_W * self.hours
        used = np.clip(rows.subs_wh, -limit, limit)
        own: Floats = used * used * self._per_own2
        return own

    @property
    def cov(self) -> Floats:
        """Covariance of the coefficients [P, P], whatever the told losses are."""
        cov: Floats = self.p[1 : 1 + self.size, 1 : 1 + self.size]
        return cov

    @property
    def own_sd(self) -> float:
        """Standard deviation of a flat's own copper coefficient around the common one.

        It is in proportion to the common one, as far as that is known: where no flat loses by its own power, as with
        three phases to each flat, none is far up the riser either.
        """
        common = max(0.0, float(self.x[1 + OWN]))
        return OWN_SCATTER * math.sqrt(common**2 + float(self.p[1 + OWN, 1 + OWN]))

    def unread(self, rows: ZoneRows) -> Bools:
        """Rows of unknown balance [T]: the flats gave back what they took, and the main meter's export is unread.

        It then counts what flows back as import, or nothing of it.
        """
        if not self.import_only:
            return np.zeros(len(rows), np.bool_)
        given = -np.minimum(rows.subs_wh, 0.0).sum(axis=1)
        taken = np.maximum(rows.subs_wh, 0.0).sum(axis=1)
        unread: Bools = (given > GIVEN_MOST * taken) & (given > 0.0)
        return unread

    def scatter_wh2(self, rows: ZoneRows) -> Floats:
        """Variance of each row's energy because flats lie differently far along the riser [T]."""
        return self.explained(rows, 0.0)[1]

    def late(self, rows: ZoneRows) -> Floats:
        """What a second of read delay leaves out at each row's end, Wh."""
        return rows.main_wh / (3600.0 * self.hours)

    def carry(self, told: Sequence[int]) -> None:
        """Carry a state of unit variance for each column of every told loss: `told` numbers the losses' columns.

        A loss keeps its states while it is named again, in the same order; those of the others are dropped. Their
        regressors, one prior standard deviation each, are given with the rows that are absorbed.
        """
        keep = list(range(1 + self.size))
        at = 1 + self.size
        for key in self.told:
            if key in told:
                keep.append(at)
            at += 1
        kept = tuple(key for key in self.told if key in told)
        fresh = [key for key in told if key not in kept]
        if kept + tuple(fresh) == self.told:
            return
        size = len(keep)
        x, p = np.zeros(size + len(fresh)), np.zeros((size + len(fresh), size + len(fresh)))
        x[:size], p[:size, :size] = self.x[keep], self.p[np.ix_(keep, keep)]
        p[range(size, len(x)), range(size, len(x))] = 1.0
        self.x, self.p, self.told = x, p, kept + tuple(fresh)
        self._work = np.empty(len(x))

    def absorb(
        self, rows: ZoneRows, gap_before_wh2: float = 0.0, clip: float = OUTLIER, told_wh: Floats | None = None
    ) -> Floats:
        """Learn from rows, oldest first; the innovations and their variances [T, 2].

        told_wh [T, len(told)]: the regressors of the told losses' states.
        """
        out = np.empty((len(rows), 2))
        hours = np.full(len(rows), self.hours)
        extra = len(self.told)
        design = self.design(rows)
        if extra:
            design = np.hstack([design, np.zeros((len(rows), extra)) if told_wh is None else told_wh])
        _balance.absorb_rows(
            self.x,
            self.p,
            np.ascontiguousarray(design),
            np.ascontiguousarray(rows.residual_wh),
            rows.boundary_wh2 + GAP_ROWS * GAP_TAIL**2 * rows.gap_wh2,
            (MISFIT * rows.main_wh) ** 2
            + self.scatter_wh2(rows)
            + jumps_wh2(rows, gap_before_wh2)
            + UNKNOWN_WH2 * self.unread(rows),
            hours,
            np.append(self._walk, np.full(extra, TOLD_WALK)),
            np.append(self._keep, np.ones(extra)),
            self.late(rows),
            1 + DELAY,
            clip,
            self._work,
            out,
        )
        return out

    def skip(self, hours: float) -> None:
        """Let time pass over rows that must not be learned: coefficients walk, the offset is forgotten."""
        base = slice(1, 1 + self.size)
        keep = np.exp(-(1 - self._keep) * hours)
        fade = np.concatenate([[0.0], keep, np.ones(len(self.told))])
        self.x[base] *= keep
        self.x[0] = 0.0
        self.p *= fade[:, None] * fade[None, :]
        gained = np.where(self._keep < 1, self.sd**2 * (1 - keep**2), self._walk * hours)
        at = np.arange(1, 1 + self.size)
        self.p[at, at] += gained
        self.p[0, 0] = UNKNOWN_WH2

    def adopt(self, fit: LossModel, x: Floats, unmetered_sd_w: float) -> None:
        """Take over coefficients `x` [1 + P] and their covariance from `fit`; the unmetered load is `x`'s.

        It may be off by `unmetered_sd_w` per sub-meter: what more goes unmetered is a loss.
        """
        self.carry(())
        self.x, self.p = x[: 1 + self.size].copy(), fit.p[: 1 + self.size, : 1 + self.size].copy()
        hours = slice(1, 1 + HOURS)
        self.p[hours, :] = self.p[:, hours] = 0.0
        self.p[hours, hours] = unmetered_sd_w**2 * np.eye(HOURS)

    def free_unmetered(self) -> None:
        """Know nothing of the unmetered load but its prior, around what it is taken for now."""
        hours = slice(1, 1 + HOURS)
        self.p[hours, :] = self.p[:, hours] = 0.0
        self.p[hours, hours] = UNMETERED_SD_W**2 + UNMETERED_HOUR_SD_W**2 * np.eye(HOURS)

    def expected(self, rows: ZoneRows, before_wh: float, x: Floats | None = None) -> Floats:
        """Technical loss and meter errors of rows, Wh; `before_wh`: main energy of the row before the first."""
        return self.explained(rows, before_wh, x)[0]

    def explained(self, rows: ZoneRows, before_wh: float, x: Floats | None = None) -> tuple[Floats, Floats]:
        """`expected` and `scatter_wh2` of rows, without making a design."""
        x = self.x if x is None else x
        out, own2 = np.empty(len(rows)), np.empty(len(rows))
        day_s, hour = self._time_of_day(rows)
        angle = 2 * np.pi * day_s / 86_400.0
        _balance.explain_rows(
            np.ascontiguousarray(rows.subs_wh),
            self.flow_wh(rows),
            hour.astype(np.int32),
            np.cos(angle),
            np.sin(angle),
            np.ascontiguousarray(x[1 : 1 + self.size]),
            self.count * self.hours,
            1.0 / (self.load_w * self.hours),
            self._per_own2,
            OWN_LIMIT_W * self.hours,
            out,
            own2,
        )
        late = self.late(rows)
        out[1:] -= x[1 + DELAY] * (late[1:] - late[:-1])
        if len(out):
            out[0] -= x[1 + DELAY] * (late[0] - before_wh / (3600.0 * self.hours))
        own2 *= self.own_sd**2
        unread = self.unread(rows)  # nothing of such a row is unexplained
        out[unread] = rows.residual_wh[unread]
        return out, own2

    def own_in(self, rows: ZoneRows, start: Ints, stop: Ints) -> tuple[Floats, Floats]:
        """Sum of `own_wh` over windows of rows start .. stop - 1 [W, N], and of its squares over rows and flats [W]."""
        own, square = np.empty((len(start), self.count)), np.empty(len(start))
        subs, limit = np.ascontiguousarray(rows.subs_wh), OWN_LIMIT_W * self.hours
        _balance.own_windows(subs, start, stop, self._per_own2, limit, np.empty(self.count), own, square)
        return own, square

    @property
    def _per_own2(self) -> float:
        return OWN_FACTOR / (self.load_w * self.hours)

    def _time_of_day(self, rows: ZoneRows) -> tuple[Floats, Ints]:
        """Seconds of the UTC day at the middle of each row, and its hour."""
        day_s = (rows.ends_s - 1800.0 * self.hours) % 86_400.0
        return day_s, (day_s // 3600).astype(np.intp)

    def level_sd_w(self, rows: ZoneRows) -> float:
        """Standard deviation of the expected mean power over rows, from the coefficients alone (without weather)."""
        mean = self.design(rows).mean(axis=0) / self.hours
        mean[WEATHER] = 0.0
        return math.sqrt(max(0.0, float(mean @ self.cov @ mean)))

    def errors_in(self, rows: ZoneRows, start: Ints, stop: Ints) -> Floats:
        """What each of P independent errors of the coefficients, one standard deviation, adds to windows [W, P], Wh."""
        phi = window_sums(self.design(rows), start, stop)
        phi[:, WEATHER] = 0.0
        values, vectors = np.linalg.eigh(self.cov)
        errors: Floats = phi @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        return errors
