"""Registers read one after the other over a slow bus -> registers at common boundaries, each with an error.

It owns the alignment and what makes a register's story break (rollover, replacement, clock jump, gap); it refuses
to know balances and zones.
"""

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
