"""What a dishonest flat's meter shows instead of what flows: one function a way of stealing, power in, power out.

It knows minutes and watts; where and when is the scenario's.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TheftKind = Literal["bypass", "scale", "clip", "evening", "night", "mean", "replay", "tap"]
BYPASSED_W = 1000 / (30 * 24)  # a bypassed meter still shows 1 kWh a month
PAST_THE_PHASE = frozenset({"bypass", "scale"})  # the energy passes by the phase element only: currents differ


def shown_w(
    kind: TheftKind, true_w: Floats, local_hour: Floats, reference_w: Floats, share: float | None, power_w: float | None
) -> Floats:
    """Power that the meter registers, W, minute by minute of one week.

    `reference_w` is the flat's true week before the theft; `share` and `power_w` mean what `Theft` says.
    Raises ValueError for "tap", which is behind no flat's meter.
    """
    match kind:
        case "bypass":
            return np.minimum(true_w, BYPASSED_W)
        case "scale":
            return true_w * (0.4 if share is None else share)
        case "clip":
            limit = float(np.quantile(reference_w, 0.6)) if power_w is None else power_w
            return np.minimum(true_w, limit)
        case "evening":
            taken = (800.0 if power_w is None else power_w) * ((local_hour >= 17) & (local_hour < 23))
            return np.maximum(true_w - taken, 0.0)
        case "night":
            return np.where(local_hour < 6, 0.0, true_w)
        case "mean":
            return np.full_like(true_w, reference_w.mean() * (0.6 if share is None else share))
        case "replay":
            return reference_w
        case "tap":
            raise ValueError("a tap is ahead of all meters")


def tap_w(local_hour: Floats, power_w: float | None, half_day: bool) -> Floats:
    """Power of a tap ahead of all sub-meters: constant, or twice that from 20 h to 8 h."""
    power = 500.0 if power_w is None else power_w
    if not half_day:
        return np.full_like(local_hour, power)
    return np.where((local_hour >= 20) | (local_hour < 8), 2 * power, 0.0)
