"""What the meters' own signs say of who it is: log-likelihood ratios for attribution.

Owns how often honest meters show a sign, and how often a theft leaves it. A sign counts by how rare it is in the time
around the onset: log(1 + share of thefts that leave it / chance that an honest meter shows it then). Knows nothing of
loads, balances and posteriors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from core.arrays import DAY_S, Floats
from core.signs import MeterSign, SignKind

MARGIN_S = 3 * DAY_S  # meters are opened some days before the tampering shows, or after
CAP = 6.0  # nat: no sign is proof by itself
BESIDE_ANOTHER = 0.5  # what a second kind of sign adds: one visit leaves several
COMMON_SHARE = 0.25  # of the meters with one kind within an hour: the building's, not the meter's
SAME_TIME_S = 3600.0
SUPPLY_V = 230.0
FIT_SD, LOOSE_SD = 1.0, 2.5  # of log(hidden power / missing power), if it is the theft's and if it is not


@dataclass(frozen=True, slots=True)
class Habit:
    """How often an honest meter shows a sign in a year, the share of thefts that leave it, and whether it stays."""

    honest_per_year: float
    theft_share: float
    stays: bool = False


HABITS = {
    SignKind.COVER_OPENED: Habit(0.03, 0.35),
    SignKind.TERMINAL_OPENED: Habit(0.03, 0.45),
    SignKind.MAGNETIC_FIELD: Habit(0.01, 0.2),
    SignKind.REVERSE_ENERGY: Habit(0.02, 0.15, stays=True),
    SignKind.PHASE_FAILURE: Habit(0.2, 0.15, stays=True),
    SignKind.POWER_FAILURE: Habit(1.5, 0.3),
    SignKind.NEUTRAL_CURRENT: Habit(0.05, 0.3, stays=True),
    SignKind.VOLTAGE_DROP: Habit(0.05, 0.3, stays=True),
}


def sign_log_ratios(
    signs: Iterable[MeterSign], meters: Sequence[str], onset_s: tuple[float, float], now_s: float, loss_w: float
) -> Floats:
    """Log-likelihood ratios [N] of the signs of `meters`, for a loss of `loss_w` that began within `onset_s` (UTC).

    Signs of other meters, of other times and of no bearing on theft say nothing; so does a power failure of them all.
    """
    place = {meter: j for j, meter in enumerate(meters)}
    relevant = [s for s in signs if s.meter in place and s.kind in HABITS]
    crowd = Counter((kind, hour) for _, kind, hour in {(s.meter, s.kind, s.time_s // SAME_TIME_S) for s in relevant})
    said: dict[tuple[int, SignKind], float] = {}
    for sign in relevant:
        habit, key = HABITS[sign.kind], (place[sign.meter], sign.kind)
        until = max(now_s, onset_s[1]) if habit.stays else onset_s[1] + MARGIN_S
        since = onset_s[0] - MARGIN_S
        if not since <= sign.time_s <= until:
            continue
        if crowd[sign.kind, sign.time_s // SAME_TIME_S] > max(1.0, COMMON_SHARE * len(meters)):
            continue
        chance = 1 - exp(-habit.honest_per_year * (until - since) / (365 * DAY_S))
        said[key] = max(said.get(key, 0.0), log(1 + habit.theft_share / chance) + fit(sign, loss_w))
    out = np.zeros(len(meters))
    for j in range(len(meters)):
        ratios = sorted((ratio for (meter, _), ratio in said.items() if meter == j), reverse=True)
        out[j] = min(CAP, sum(ratios[:1]) + BESIDE_ANOTHER * sum(ratios[1:]))
    return out


def fit(sign: MeterSign, loss_w: float) -> float:
    """Log ratio that the power a sign speaks of is the missing power; 0 for signs that speak of none."""
    hidden_w = {SignKind.NEUTRAL_CURRENT: sign.value * SUPPLY_V, SignKind.VOLTAGE_DROP: sign.value}.get(sign.kind, 0.0)
    if hidden_w <= 0 or loss_w <= 0:
        return 0.0
    z = log(hidden_w / loss_w)
    return log(LOOSE_SD / FIT_SD) - 0.5 * z * z * (1 / FIT_SD**2 - 1 / LOOSE_SD**2)
