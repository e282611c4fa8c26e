"""What a forecast says: the only thing that leaves this room.

All powers are finite numbers in W, all instants UTC seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVELS = np.arange(1, 20) / 20  # of the quantiles: 5 % .. 95 %


@dataclass(frozen=True, slots=True)
class Extreme:
    """Peak or trough of the first 24 h: its height, where it lies with 90 %, and when.

    `start_s` begins the step around which an hour to either side most probably holds it; `time_probability` [steps of
    24 h] is that of each step, from the forecast's start on.
    """

    power_w: float
    interval_w: tuple[float, float]
    start_s: float
    time_probability: Floats


@dataclass(frozen=True, slots=True)
class OverCapacity:
    """How probably the first 24 h pass a capacity, and for how long if they do."""

    capacity_w: float
    probability: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """One zone's next 48 h, of what was known before `issued_s`.

    `mean_w` [steps], `quantiles_w` [19, steps]. `days` of readings lie behind it; `flags` say what makes it worse than
    usual: `warming_up` (fewer than 28 days), `gaps` (readings missing in the last week), `stale` (none for a day),
    `temperature_stale` (outdoor temperatures that used to come are missing).
    """

    zone: str
    issued_s: float
    step_s: float
    mean_w: Floats
    quantiles_w: Floats
    peak: Extreme
    trough: Extreme
    over_capacity: OverCapacity | None
    days: int
    flags: tuple[str, ...]
