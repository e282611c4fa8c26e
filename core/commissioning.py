"""Does a newly wired building add up, and if not, which mistake in wiring or configuration explains it best?

It owns the catalogue of mistakes and their weighing; it knows nothing of buses, files or words for people. Rows are
energies of one zone on a regular grid, before anything is learned.

A mistake changes one column by a known amount: a meter that is not behind this main meter counts 0 times, a wrong
sign -1 times, a wrong CT ratio or unit k times, a wrong clock shifts the column. For each the remainder

    main - sum_i k_i R_i - (a + c * main^2)

is formed with a and c fitted, and weighed by its Gaussian likelihood with a BIC penalty, plus a penalty when a and c
are what no building has. The best mistake is mended in the figures and the search begins anew, so that two mistakes
are found one after the other (forward selection; Hastie, Tibshirani, Friedman, Elements of Statistical Learning, 3.3).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np

from core.arrays import Floats

MAIN = -1  # stands for the main meter where a column is named
MAX_FINDINGS = 5
LEAST_ROWS = 48
# Usual current-transformer ratios (IEC 61869-2 primaries over 5 A); a forgotten one multiplies, a doubled one divides.
CT_RATIOS = (5.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 120.0, 160.0, 200.0)
MAX_SHIFT_ROWS = 8
NEXT_TO_NOTHING = 0.05
ALIKE = 1.15  # two remainders of which the larger is not so much larger say the same
# A mended remainder must be this much smaller, or the mistake is not worth naming.
LEAST_GAIN = 0.15
BURDEN_W = 1.5  # most that one meter takes for itself
COPPER = 0.04  # most that risers lose at mean load
TYPICAL_COPPER = 0.012
TOLERANCE = 0.005  # of the load: what meters within class may be off by, together


class Mistake(enum.StrEnum):
    """What may be wrong with one meter, or with the zone."""

    NOT_IN_ZONE = "not_in_zone"  # counted, but not behind this main meter
    DOUBLED = "doubled"  # the same meter read under two names
    WRONG_SIGN = "wrong_sign"
    UNIT = "unit"  # Wh taken for kWh, or the other way round
    CT_RATIO = "ct_ratio"
    CLOCK = "clock"
    COMMON_LOAD = "common_load"  # steady load that no meter sees
    UNREAD_METER = "unread_meter"  # a load like a household's that no meter sees


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake. `column` is a sub-meter's, MAIN, or None for the zone.

    `amount`: factor by which the column has to be multiplied (unit, CT ratio), seconds by which its clock is fast
    (clock), W (common load, unread meter), index of the twin (doubled). `gain` is the share of the remainder's
    standard deviation that goes away when the mistake is mended; `odds` the log-likelihood gained, in nat.
    """

    mistake: Mistake
    column: int | None
    amount: float
    gain: float
    odds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the building adds up once all findings are mended.

    `constant_w` and `copper` are a and c of the loss (c as a share of the mean load); `remainder_w` is the standard
    deviation of what is left, `mean_w` the mean of main - sum as it was read; remainder_kwh [T] as read and mended.
    """

    adds_up: bool
    findings: tuple[Finding, ...]
    load_w: float
    mean_w: float
    constant_w: float
    copper: float
    remainder_w: float
    residual_kwh: Floats
    mended_kwh: Floats


@dataclass(frozen=True, slots=True)
class _Rows:
    main: Floats
    subs: Floats
    interval_s: float

    def mended(self, finding: Finding) -> _Rows:
        column, amount = finding.column, finding.amount
        if column is None:
            return self
        if finding.mistake is Mistake.CLOCK:
            shift = round(amount / self.interval_s)
            if column == MAIN:
                return _Rows(_shifted(self.main, shift), self.subs, self.interval_s).known()
            subs = self.subs.copy()
            subs[:, column] = _shifted(subs[:, column], shift)
            return _Rows(self.main, subs, self.interval_s).known()
        factor = {Mistake.NOT_IN_ZONE: 0.0, Mistake.DOUBLED: 0.0, Mistake.WRONG_SIGN: -1.0}.get(finding.mistake, amount)
        if column == MAIN:
            return replace(self, main=self.main * factor)
        subs = self.subs.copy()
        subs[:, column] *= factor
        return replace(self, subs=subs)

    def known(self) -> _Rows:
        ok = np.isfinite(self.main) & np.isfinite(self.subs).all(axis=1)
        return _Rows(self.main[ok], self.subs[ok], self.interval_s)


def examine(main_kwh: Floats, subs_kwh: Floats, interval_s: float) -> Verdict:
    """Judge main_kwh [T] against subs_kwh [T, N], energies per interval; NaN where not read.

    Raises:
        ValueError: fewer than LEAST_ROWS rows in which all meters were read.
    """
    raw = _Rows(main_kwh, subs_kwh, interval_s)
    rows = raw.known()
    if len(rows.main) < LEAST_ROWS:
        raise ValueError(f"{len(rows.main)} intervals in which all meters were read; at least {LEAST_ROWS} are needed")
    findings: list[Finding] = []
    for _ in range(MAX_FINDINGS):
        candidates = _candidates(rows)
        best = max(candidates, key=lambda f: f.odds, default=None)
        if best is None or best.odds <= 0 or best.gain < LEAST_GAIN:
            break
        best = _as_doubled(rows, _plainest(candidates, best))
        findings.append(best)
        rows = rows.mended(best)
    to_w = 1000 * 3600 / interval_s
    constant, copper, left = _loss(rows.main, rows.main - rows.subs.sum(axis=1))
    load_w = float(rows.main.mean()) * to_w
    mean_w = float((rows.main - rows.subs.sum(axis=1)).mean()) * to_w
    count = rows.subs.shape[1]
    burden_w = BURDEN_W * (count + 1) + TOLERANCE * load_w
    if constant * to_w > burden_w or mean_w > burden_w + COPPER * load_w:
        findings.append(_unmetered(rows, mean_w - TYPICAL_COPPER * load_w, to_w))
    surplus = mean_w < -TOLERANCE * load_w
    residual = main_kwh - subs_kwh.sum(axis=1)
    return Verdict(
        adds_up=not findings and not surplus,
        findings=tuple(findings),
        load_w=load_w,
        mean_w=float(np.nanmean(residual)) * to_w,
        constant_w=constant * to_w,
        copper=copper,
        remainder_w=float(left.std()) * to_w,
        residual_kwh=residual,
        mended_kwh=rows.main - rows.subs.sum(axis=1),
    )


def _shifted(values: Floats, rows: int) -> Floats:
    """The column of a clock that is `rows` intervals fast, put right; NaN where nothing is known."""
    out = np.full_like(values, np.nan)
    if rows > 0:
        out[:-rows] = values[rows:]
    else:
        out[-rows:] = values[: len(values) + rows]
    return out


def _loss(main: Floats, residual: Floats) -> tuple[float, float, Floats]:
    """a in kWh per interval, c as a share of the mean load, and what is left."""
    mean = float(main.mean()) or 1.0
    x = np.column_stack([np.ones_like(main), main**2 / mean])
    (a, c), *_ = np.linalg.lstsq(x, residual, rcond=None)
    return float(a), float(c), residual - x @ np.array([a, c])


def _cost(rows: _Rows) -> tuple[float, float]:
    """Standard deviation of the remainder (kWh), and minus twice the log-likelihood with the penalty on a and c."""
    main = rows.main
    constant, copper, left = _loss(main, main - rows.subs.sum(axis=1))
    mean = float(main.mean())
    # The register's step bounds how small a remainder can honestly be: 0.1 Wh of standard deviation.
    sd = max(float(left.std()), 1e-4)
    if mean <= 0:
        return sd, np.inf
    off = max(0.0, -constant / mean - TOLERANCE) + max(0.0, copper - COPPER, -copper - TOLERANCE)
    # Neighbouring rows share read-time errors, so not every row counts as a witness of its own.
    witnesses = len(main) / 4
    return sd, 2 * witnesses * np.log(sd) + witnesses * min(off, 1.0) ** 2 * 100


def _candidates(rows: _Rows) -> list[Finding]:
    sd, cost = _cost(rows)
    count = rows.subs.shape[1]
    trials: list[tuple[Mistake, int, float]] = []
    for column in range(count):
        if not rows.subs[:, column].any():
            continue
        trials += [(Mistake.NOT_IN_ZONE, column, 0.0), (Mistake.WRONG_SIGN, column, -1.0)]
        trials += [(Mistake.UNIT, column, k) for k in (1000.0, 0.001)]
        trials += [(Mistake.CT_RATIO, column, k) for r in CT_RATIOS for k in (r, 1 / r)]
    trials += [(Mistake.CT_RATIO, MAIN, k) for r in CT_RATIOS for k in (r, 1 / r)]
    trials += [(Mistake.UNIT, MAIN, k) for k in (1000.0, 0.001)]
    trials += [
        (Mistake.CLOCK, column, shift * rows.interval_s)
        for column in range(MAIN, count)
        for shift in range(-MAX_SHIFT_ROWS, MAX_SHIFT_ROWS + 1)
        if shift
    ]
    found = []
    price = np.log(len(rows.main)) + 2 * np.log(len(trials))
    for mistake, column, amount in trials:
        trial = Finding(mistake, column, amount, 0.0, 0.0)
        mended = rows.mended(trial)
        if len(mended.main) < LEAST_ROWS:
            continue
        sd_then, cost_then = _cost(mended)
        if column == MAIN and mistake is not Mistake.CLOCK:
            # The remainder is measured by the main meter's own size, or a small factor would always look good.
            scale = float(mended.main.mean() / rows.main.mean())
            sd_then /= scale
            cost_then -= 2 * len(mended.main) / 4 * np.log(scale)
        per_row = len(rows.main) / len(mended.main)
        odds = (cost - cost_then * per_row - price) / 2
        found.append(replace(trial, gain=1 - sd_then / sd, odds=float(odds)))
    return found


def _plainest(candidates: list[Finding], best: Finding) -> Finding:
    """A meter that hardly counts is rather one that does not count at all."""
    if best.mistake not in (Mistake.CT_RATIO, Mistake.UNIT) or best.amount > NEXT_TO_NOTHING:
        return best
    plain = next((f for f in candidates if f.mistake is Mistake.NOT_IN_ZONE and f.column == best.column), None)
    return plain if plain is not None and 1 - plain.gain < ALIKE * (1 - best.gain) else best


def _as_doubled(rows: _Rows, finding: Finding) -> Finding:
    """A meter that should not count, and shows what another one shows, is that other one."""
    if finding.mistake is not Mistake.NOT_IN_ZONE or finding.column is None:
        return finding
    own = rows.subs[:, finding.column]
    for twin in range(rows.subs.shape[1]):
        other = rows.subs[:, twin]
        if twin != finding.column and np.abs(own - other).mean() < 0.02 * max(float(other.mean()), 1e-9):
            return replace(finding, mistake=Mistake.DOUBLED, amount=float(twin))
    return finding


def _unmetered(rows: _Rows, spare_w: float, to_w: float) -> Finding:
    """Steady load, or one that comes and goes like a household's?"""
    left_w = (rows.main - rows.subs.sum(axis=1)) * to_w
    hour = round(3600 / rows.interval_s)
    usable = len(left_w) // hour * hour
    by_hour = left_w[:usable].reshape(-1, hour).mean(axis=1)
    steady = float(by_hour.std()) < 0.35 * float(by_hour.mean())
    mistake = Mistake.COMMON_LOAD if steady else Mistake.UNREAD_METER
    return Finding(mistake, None, spare_w, 0.0, 0.0)
