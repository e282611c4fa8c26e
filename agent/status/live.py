"""The balance of the moment, from the last readings of each meter.

It owns the arithmetic: by the meters' own powers where all tell them, else by how far the energy registers moved
between two common instants. It reads no meter and sends nothing.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from agent.site.tables import Zone
from agent.wire.live import Live
from agent.wire.values import number, utc

TRAIL = 64  # readings of each meter that are remembered: a minute of seconds, an hour of minutes
SPAN_S = 60.0  # of registers; longer where they are read more seldom
STALE_S, STALE_POLLS = 10.0, 3.0  # a reading that is older than this, and than so many polls, is not of the moment


class Moment(NamedTuple):
    """One reading: UTC seconds, net energy Wh, net power W; NaN where the meter does not tell."""

    time_s: float
    wh: float
    power_w: float


class Trail(NamedTuple):
    """The last readings of one meter, oldest first, and the step of its register, Wh; a whole that nobody changes."""

    moments: tuple[Moment, ...]
    step_wh: float

    @property
    def shown_s(self) -> float:
        """When its register was read last."""
        return next((m.time_s for m in reversed(self.moments) if not math.isnan(m.wh)), -math.inf)

    @property
    def apart_s(self) -> float:
        """How far apart its registers were read, at most."""
        times_s = [moment.time_s for moment in self.moments if not math.isnan(moment.wh)]
        return max((b - a for a, b in pairwise(times_s)), default=math.inf)


def live_balance(zone: Zone, trails: Mapping[str, Trail], now_s: float, *, meters: bool = False) -> Live:
    """What a zone draws now; with `meters` also what each of its meters does."""
    names = [zone.main, *zone.subs]
    known = {name: trail for name in names if (trail := trails.get(name)) is not None and trail.moments}
    signs = [-1.0 if name in zone.minus else 1.0 for name in zone.subs]
    last = [trail.moments[-1] for trail in known.values()]
    skew_s = max(m.time_s for m in last) - min(m.time_s for m in last) if last else 0.0
    by_power = len(known) == len(names) and all(not math.isnan(moment.power_w) for moment in last)
    if by_power:
        powers = {name: _power_now(trail, now_s) for name, trail in known.items()}
        span_s, sd_w = 0.0, 0.0
    else:
        end_s = min((trail.shown_s for trail in known.values()), default=now_s)
        apart_s = max((trail.apart_s for trail in known.values() if len(trail.moments) > 1), default=0.0)
        span_s = max(SPAN_S, 2 * apart_s)
        powers = {name: _mean_power(trail, end_s - span_s, end_s) for name, trail in known.items()}
        sd_w = 3600 / span_s * math.sqrt(sum(trail.step_wh**2 for trail in known.values()) / 6)
    main_w = powers.get(zone.main, math.nan)
    sum_w = math.fsum(sign * powers.get(name, math.nan) for sign, name in zip(signs, zone.subs, strict=True))
    return Live(
        zone=zone.id,
        time=utc(now_s),
        by="power" if by_power else "energy",
        span_s=round(span_s, 1),
        skew_s=round(skew_s, 2),
        main_w=number(main_w, 1),
        sum_w=number(sum_w, 1),
        difference_w=number(main_w - sum_w, 1),
        uncertainty_w=None if by_power else number(sd_w, 1),
        meters={name: number(powers.get(name, math.nan), 1) for name in names} if meters else {},
    )


def _power_now(trail: Trail, now_s: float) -> float:
    last = trail.moments[-1]
    apart_s = last.time_s - trail.moments[-2].time_s if len(trail.moments) > 1 else 0.0
    return last.power_w if now_s - last.time_s <= max(STALE_S, STALE_POLLS * apart_s) else math.nan


def _mean_power(trail: Trail, start_s: float, end_s: float) -> float:
    """Mean power between two instants, W; NaN where the readings do not reach over both."""
    return (_wh_at(trail, end_s) - _wh_at(trail, start_s)) * 3600 / (end_s - start_s)


def _wh_at(trail: Trail, at_s: float) -> float:
    """The register at an instant, between the two readings around it."""
    moments = [moment for moment in trail.moments if not math.isnan(moment.wh)]
    after = bisect.bisect_left([moment.time_s for moment in moments], at_s)
    if after == len(moments):
        return math.nan
    b = moments[after]
    if b.time_s == at_s:
        return b.wh
    if after == 0:
        return math.nan
    a = moments[after - 1]
    return a.wh + (b.wh - a.wh) * (at_s - a.time_s) / (b.time_s - a.time_s)
