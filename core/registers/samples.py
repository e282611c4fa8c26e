"""RegisterSample, RegisterSpec: what enters."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RegisterSample:
    """Cumulative registers of one meter as sampled at `time_s` +- `uncertainty_s` (UTC seconds).

    `import_wh`, `export_wh`: NaN where that register was not read. `from_profile`: taken from the meter's stored
    load profile, exact in time.
    """

    meter: str
    time_s: float
    uncertainty_s: float = 0.0
    import_wh: float = math.nan
    export_wh: float = math.nan
    from_profile: bool = False


@dataclass(frozen=True, slots=True)
class RegisterSpec:
    """What alignment must know of a meter; `exports`: its export register is taken off its import."""

    id: str
    resolution_wh: float = 10.0
    accuracy_class: float = 1.0
    limit_w: float = 100_000.0
    exports: bool = False
