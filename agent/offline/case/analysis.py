"""What follows from the facts of a case, by arithmetic that a court's expert can do again on the raw figures.

On purpose it does not call the detector: it compares whole days before and after the onset, with one loss formula
fitted on the days before. It knows nothing of pages.

    residual = main - sum of sub-meters - (a + c * sum^2)      a, c from the days before (least squares)

Sums are exact (`math.fsum`), so that every machine gets the same figures to the last digit; docs/recompute.py does the
same arithmetic in plain Python.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import tzinfo
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from agent.offline.case.case import Case, CaseError, Energies
from agent.wire.values import utc

Floats = NDArray[np.float64]

DAY_S = 86_400
LEAST_DAYS_BEFORE = 5  # to fit two numbers and still have something left to judge the spread by
STANDSTILL_H = 72.0  # a weekend and a day: registers that a gateway gets have stood still for as long
CLASS_OF_UNKNOWN = 2.0  # percent; the coarsest class in household use, where the site file says nothing


# An explanation of which the model says more than this is open, whatever sums say; below the second it is closed only
# where sums speak against it, too.
OPEN_SHARE, CLOSED_SHARE = 0.1, 0.01


class Verdict(Enum):
    """How an alternative explanation fares: what sums of energy can say, never more than the probabilities allow."""

    AGAINST = "the figures speak against it"
    UNLIKELY = "unlikely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another explanation of the missing energy: the question, what the figures say, and the verdict.

    Both texts are templates in English; `values` are what stands in them. `share` is the probability that the gateway
    states of it, or of all that it is a part of where `part` is set; None: it states none.
    """

    name_form: str
    figures_form: str
    verdict: Verdict
    values: dict[str, float | str]
    share: float | None = None
    part: bool = False

    @property
    def name(self) -> str:
        """The question in English."""
        return self.name_form.format(**self.values)

    @property
    def figures(self) -> str:
        """What the figures say, in English."""
        return self.figures_form.format(**self.values)


@dataclass(frozen=True, slots=True)
class Balance:
    """Mean powers in W over whole days; `residual_sd_w` is the day-to-day standard deviation."""

    days: int
    main_w: float
    subs_w: float
    technical_w: float
    residual_w: float
    residual_sd_w: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """The case in figures.

    residual_kwh, technical_kwh [T] on the grid of the case; `day_s` [D] and `residual_day_kwh` [D] for whole days.
    `hours_before_kwh`, `hours_after_kwh` and `neighbours_after_kwh` [24]: mean energy by local hour of the suspect
    and of the other flats' median. None where there is no named suspect.
    """

    onset_s: float
    fitted: bool
    offset_kwh: float  # a of the technical loss, per interval
    copper_per_kwh: float  # c of the technical loss
    residual_kwh: Floats
    technical_kwh: Floats
    day_s: Floats
    residual_day_kwh: Floats
    suspect_day_kwh: Floats | None
    before: Balance | None
    after: Balance
    missing_kwh: float
    missing_w: float
    missing_sd_w: float
    suspect: str | None
    suspect_before_w: float
    suspect_after_w: float
    hours_before_kwh: Floats | None
    hours_after_kwh: Floats | None
    neighbours_after_kwh: Floats | None
    alternatives: tuple[Alternative, ...]


def analyse(case: Case, zone: tzinfo) -> Analysis:
    """Compare the days before the onset with those after it.

    Raises:
        CaseError: no whole day lies after the onset.
    """
    energies, alert = case.energies, case.alert.data
    onset_s = alert.onset.timestamp()
    window = alert.onset_window or (alert.onset, alert.onset)
    times_s = energies.times_s
    before = times_s + energies.interval_s <= window[0].timestamp()
    after = times_s >= window[1].timestamp()
    total_kwh = _row_sums(energies.subs_kwh)  # NaN where a sub-meter was not read: such rows judge nothing
    gap_kwh = energies.main_kwh - total_kwh
    technical_kwh, fitted, offset_kwh, copper_per_kwh = _technical(gap_kwh, total_kwh, before, energies.interval_s)
    residual_kwh = gap_kwh - technical_kwh
    day = np.floor(_local(times_s, zone) / DAY_S).astype(np.intp)
    days, rows_a_day = np.unique(day), round(DAY_S / energies.interval_s)
    residual_day = _by_day(residual_kwh, day, days, rows_a_day)
    day_before = np.array([before[day == d].all() for d in days])
    day_after = np.array([after[day == d].all() for d in days])
    balance_after = _balance(energies, technical_kwh, residual_day, day_after, day, days)
    if balance_after is None:
        raise CaseError("no whole day with all meters read lies after the onset yet; make the report a day later")
    balance_before = _balance(energies, technical_kwh, residual_day, day_before, day, days)
    known = residual_kwh[after & np.isfinite(residual_kwh)]
    base_w = balance_before.residual_w if balance_before else 0.0
    suspect = _suspect(case)
    column = energies.subs.index(suspect) if suspect in energies.subs else None
    own = energies.subs_kwh[:, column] if column is not None else None
    to_w = 1000 * 3600 / energies.interval_s
    hours = (_local(times_s, zone) % DAY_S / 3600).astype(np.intp)
    analysis = Analysis(
        onset_s=onset_s,
        fitted=fitted,
        offset_kwh=offset_kwh,
        copper_per_kwh=copper_per_kwh,
        residual_kwh=residual_kwh,
        technical_kwh=technical_kwh,
        day_s=np.array([times_s[day == d][0] for d in days]),
        residual_day_kwh=residual_day,
        suspect_day_kwh=None if own is None else _by_day(own, day, days, rows_a_day),
        before=balance_before,
        after=balance_after,
        missing_kwh=math.fsum(known.tolist()),
        missing_w=balance_after.residual_w - base_w,
        missing_sd_w=_sd_of_difference(balance_before, balance_after),
        suspect=suspect if column is not None else None,
        suspect_before_w=_mean(own, before) * to_w if own is not None else float("nan"),
        suspect_after_w=_mean(own, after) * to_w if own is not None else float("nan"),
        hours_before_kwh=_hours(own, hours, before, to_w),
        hours_after_kwh=_hours(own, hours, after, to_w),
        neighbours_after_kwh=_neighbours(energies, column, hours, after, to_w),
        alternatives=(),
    )
    return _with_alternatives(case, analysis)


def _sd_of_difference(before: Balance | None, after: Balance) -> float:
    """Standard error of the difference of two means, from the days' own spread; one day has that of the days before."""
    if before is None or not math.isfinite(before.residual_sd_w):
        return float("nan")
    after_sd_w = after.residual_sd_w if math.isfinite(after.residual_sd_w) else before.residual_sd_w
    return math.sqrt(after_sd_w**2 / after.days + before.residual_sd_w**2 / before.days)


def _suspect(case: Case) -> str | None:
    alert = case.alert.data
    best = max(alert.suspects or [], key=lambda s: s.probability, default=None)
    other = max(alert.upstream_probability or 0.0, alert.unexplained_probability or 0.0)
    return None if best is None or best.probability <= other else best.meter


def _technical(
    gap_kwh: Floats, total_kwh: Floats, before: NDArray[np.bool_], interval_s: float
) -> tuple[Floats, bool, float, float]:
    """a + c * sum^2 with a and c by least squares over the rows before, in closed form around the means."""
    usable = before & np.isfinite(gap_kwh)
    if usable.sum() * interval_s < LEAST_DAYS_BEFORE * DAY_S:
        return np.zeros_like(gap_kwh), False, 0.0, 0.0
    square = total_kwh[usable] ** 2
    gap = gap_kwh[usable]
    mean_square, mean_gap = _mean_of(square), _mean_of(gap)
    spread = math.fsum(((square - mean_square) ** 2).tolist())
    shared = math.fsum(((square - mean_square) * (gap - mean_gap)).tolist())
    c = shared / spread if spread > 0.0 else 0.0
    a = mean_gap - c * mean_square
    return np.asarray(a + c * total_kwh**2), True, a, c


def _mean_of(values: Floats) -> float:
    return math.fsum(values.tolist()) / len(values)


def _row_sums(table: Floats) -> Floats:
    return np.array([math.fsum(row) for row in table.tolist()])


def _local(times_s: Floats, zone: tzinfo) -> Floats:
    # The offset changes twice a year at most: ask for it once a day, not once a row.
    day = np.floor(times_s / DAY_S)
    offsets = {d: utc(d * DAY_S + DAY_S / 2).astimezone(zone).utcoffset() for d in np.unique(day).tolist()}
    shift = np.array([o.total_seconds() if (o := offsets[d]) is not None else 0.0 for d in day.tolist()])
    return np.asarray(times_s + shift)


def _by_day(values: Floats, day: NDArray[np.intp], days: NDArray[np.intp], rows_a_day: int) -> Floats:
    """Sums of whole days; NaN where a row is missing (but for the two days a year that are an hour short or long)."""
    hour = rows_a_day // 24
    sums = []
    for d in days:
        rows = values[day == d]
        whole = rows_a_day - hour <= len(rows) and np.isfinite(rows).all()
        sums.append(math.fsum(rows.tolist()) if whole else np.nan)
    return np.array(sums)


def _balance(
    energies: Energies,
    technical_kwh: Floats,
    residual_day: Floats,
    chosen: NDArray[np.bool_],
    day: NDArray[np.intp],
    days: NDArray[np.intp],
) -> Balance | None:
    ok = chosen & np.isfinite(residual_day)
    if not ok.any():
        return None
    rows = np.isin(day, days[ok])
    to_w = 1000 * 3600 / energies.interval_s
    a_day_w = residual_day[ok] * 1000 / 24
    mean_w = _mean_of(a_day_w)
    variance = math.fsum(((a_day_w - mean_w) ** 2).tolist()) / max(len(a_day_w) - 1, 1)
    return Balance(
        days=int(ok.sum()),
        main_w=_mean_of(energies.main_kwh[rows]) * to_w,
        subs_w=_mean_of(_row_sums(energies.subs_kwh[rows])) * to_w,
        technical_w=_mean_of(technical_kwh[rows]) * to_w,
        residual_w=mean_w,
        residual_sd_w=math.sqrt(variance) if ok.sum() > 1 else float("nan"),
    )


def _mean(values: Floats, rows: NDArray[np.bool_]) -> float:
    known = values[rows & np.isfinite(values)]
    return _mean_of(known) if len(known) else float("nan")


def _hours(values: Floats | None, hours: NDArray[np.intp], rows: NDArray[np.bool_], to_w: float) -> Floats | None:
    if values is None or not rows.any():
        return None
    return np.array([_mean(values, rows & (hours == h)) * to_w for h in range(24)])


def _neighbours(
    energies: Energies, column: int | None, hours: NDArray[np.intp], rows: NDArray[np.bool_], to_w: float
) -> Floats | None:
    if column is None or energies.subs_kwh.shape[1] < 2:
        return None
    others = np.delete(energies.subs_kwh, column, axis=1)
    profiles = [_hours(others[:, j], hours, rows, to_w) for j in range(others.shape[1])]
    return np.asarray(np.median(np.array([p for p in profiles if p is not None]), axis=0))


def _with_alternatives(case: Case, a: Analysis) -> Analysis:
    data = case.alert.data
    none, ahead = data.unexplained_probability, data.upstream_probability
    found = [
        _within(_clocks(a), none, part=True),
        _within(_accuracy(case, a), none, part=True),
        _within(_technical_loss(a), none, part=True),
        _within(_unread_meter(a), ahead, part=True),
    ]
    if a.suspect is not None:
        own = next(s.probability for s in data.suspects or [] if s.meter == a.suspect)
        found.append(_within(_vacancy(a), 1.0 - own))
    return replace(a, alternatives=tuple(found))


def _within(found: Alternative, share: float | None, part: bool = False) -> Alternative:
    """The same with the probability stated of it: a verdict is never surer than that, or than none at all."""
    verdict = found.verdict
    if verdict is Verdict.AGAINST:
        verdict = Verdict.UNLIKELY if share is None or share >= CLOSED_SHARE else verdict
    elif share is not None and share >= OPEN_SHARE:
        verdict = Verdict.POSSIBLE
    return replace(found, verdict=verdict, share=share, part=part)


def _clocks(a: Analysis) -> Alternative:
    days = a.after.days
    hours = a.missing_w * days * 24 / max(a.after.main_w, 1.0)
    return Alternative(
        "Meters read at different times",
        "A reading that is late shifts energy from one interval to the next; it takes none away. To look like "
        "{kwh:.1f} kWh within {days:d} days, all sub-meters would have to be read {hours:.1f} hours late, or one "
        "register to stand still for longer: look whether one did.",
        Verdict.AGAINST if hours > STANDSTILL_H else Verdict.UNLIKELY if hours > 0.5 else Verdict.POSSIBLE,
        {"kwh": a.missing_w * days * 24 / 1000, "days": days, "hours": hours},
    )


def _accuracy(case: Case, a: Analysis) -> Alternative:
    classes = {m.id: m.accuracy_class or CLASS_OF_UNKNOWN for m in case.meters}
    main_w = classes.get(case.energies.main, CLASS_OF_UNKNOWN) / 100 * a.after.main_w
    mean_w = np.nan_to_num(np.nanmean(case.energies.subs_kwh, axis=0)) * 1000 * 3600 / case.energies.interval_s
    limits_w = np.array([classes.get(s, CLASS_OF_UNKNOWN) for s in case.energies.subs]) / 100 * mean_w
    worst_w = main_w + float(limits_w.sum())
    likely_w = float(np.hypot(main_w, np.linalg.norm(limits_w)) / 2)
    values: dict[str, float | str] = {"worst_w": worst_w, "likely_w": likely_w, "missing_w": a.missing_w}
    if a.before is not None:
        return Alternative(
            "Errors of the meters",
            "With every meter at its class limit and all in the same direction, {worst_w:.0f} W could be explained; "
            "with independent errors about {likely_w:.0f} W. Missing are {missing_w:.0f} W, and errors within the "
            "class do not set in on one day. A meter that is defective or wired wrongly can be further off.",
            Verdict.AGAINST if a.missing_w > worst_w else Verdict.UNLIKELY,
            values,
        )
    return Alternative(
        "Errors of the meters",
        "With every meter at its class limit and all in the same direction, {worst_w:.0f} W could be explained; "
        "with independent errors about {likely_w:.0f} W. Missing are {missing_w:.0f} W, and there are no days "
        "before the onset to compare with.",
        Verdict.AGAINST if a.missing_w > worst_w else Verdict.POSSIBLE,
        values,
    )


def _technical_loss(a: Analysis) -> Alternative:
    name = "Technical loss (copper, meters' own use)"
    share = a.missing_w / max(a.after.subs_w, 1.0)
    if not a.fitted or a.before is None:
        return Alternative(
            name,
            "The missing power is {share:.1%} of the metered load. Risers lose 0.7-2 %, each meter up to 1.2 W. "
            "There are no days before the onset from which this building's own loss could be learned.",
            Verdict.UNLIKELY if share > 0.03 else Verdict.POSSIBLE,
            {"share": share},
        )
    technical_w = a.after.technical_w
    if technical_w <= 0:
        return Alternative(
            name,
            "The loss learned before the onset is {technical_w:.0f} W at today's load. It would have to come from "
            "next to nothing, from one day to the next. Copper and meters do not change overnight.",
            Verdict.AGAINST,
            {"technical_w": technical_w},
        )
    times = (technical_w + a.missing_w) / technical_w
    return Alternative(
        name,
        "The loss learned before the onset is {technical_w:.0f} W at today's load. It would have to be {times:.1f} "
        "times what it was, from one day to the next. Copper and meters do not change overnight.",
        Verdict.AGAINST if times > 1.3 else Verdict.UNLIKELY,
        {"technical_w": technical_w, "times": times},
    )


def _unread_meter(a: Analysis) -> Alternative:
    name = "A meter that is not read, or unmetered common load"
    if a.before is None:
        return Alternative(
            name,
            "The loss was there from the first day on, so a forgotten meter or common load cannot be told from a "
            "tap by arithmetic. Compare the list of meters with the building.",
            Verdict.POSSIBLE,
            {},
        )
    sd_w = a.before.residual_sd_w
    return Alternative(
        name,
        "The balance was complete before: over {days:d} days the remainder was {residual_w:+.0f} W with a "
        "day-to-day spread of {sd_w:.0f} W. What is missing set in later, so no meter was forgotten from the start. A "
        "new consumer behind no meter looks just like this: a tap, or common load that somebody connected.",
        Verdict.UNLIKELY if np.isfinite(sd_w) and a.missing_w > 4 * sd_w else Verdict.POSSIBLE,
        {"days": a.before.days, "residual_w": a.before.residual_w, "sd_w": sd_w},
    )


def _vacancy(a: Analysis) -> Alternative:
    name, fall_w = "{meter} is merely empty or thrifty", a.suspect_before_w - a.suspect_after_w
    values: dict[str, float | str] = {"meter": a.suspect or ""}
    if not np.isfinite(fall_w) or a.before is None:
        figures = "There are no days before the onset to compare this meter with."
        return Alternative(name, figures, Verdict.POSSIBLE, values)
    values |= {"before_w": a.suspect_before_w, "after_w": a.suspect_after_w}
    if fall_w <= 1:
        figures = (
            "This meter shows no less than before ({before_w:.0f} W, now {after_w:.0f} W): it is not its fall that "
            "speaks against it."
        )
        return Alternative(name, figures, Verdict.UNLIKELY, values)
    share = a.missing_w / fall_w
    return Alternative(
        name,
        "This meter fell from {before_w:.0f} W to {after_w:.0f} W. If its people merely used less, nothing would be "
        "missing; but {missing_w:.0f} W are, {share:.0%} of its fall. Sums cannot tell whether these are its own or "
        "those of another load that began in the same days.",
        Verdict.UNLIKELY if share > 0.5 else Verdict.POSSIBLE,
        values | {"fall_w": fall_w, "missing_w": a.missing_w, "share": share},
    )
