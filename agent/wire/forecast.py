"""The forecast of a zone on the wire, and as a line of `replay --forecast`: all powers W, all figures finite."""

from __future__ import annotations

from typing import Annotated

import msgspec

from agent.wire.values import Body, Share, Time


class ForecastExtreme(Body, frozen=True, kw_only=True):
    """Peak or trough of the first 24 h: its height, its 90 % interval, and when.

    `start` begins the step about which an hour either way most probably holds it; `time_probability` is that of each
    step of the 24 h.
    """

    w: float
    w_interval: tuple[float, float]
    start: Time
    time_probability: list[Share]


class OverCapacity(Body, frozen=True, kw_only=True):
    """How probably the first 24 h pass the zone's capacity, and for how long if they do."""

    capacity_w: float
    probability: Share
    duration_s: float


class Forecast(Body, frozen=True, kw_only=True):
    """`forecast/{zone}`, retained: the next 48 h from `issued` on, of what was read before.

    `mean_w` and each of `quantiles_w` ("0.05" to "0.95") have one figure for each `interval_s`. `flags` say what makes
    it worse than usual: `warming_up`, `gaps`, `stale`, `temperature_stale`.
    """

    zone: str
    issued: Time
    interval_s: Annotated[int, msgspec.Meta(ge=60)]
    mean_w: list[float]
    quantiles_w: dict[str, list[float]]
    peak: ForecastExtreme
    trough: ForecastExtreme
    over_capacity: OverCapacity | None = None
    days: Annotated[int, msgspec.Meta(ge=0)]
    flags: list[str] = []
