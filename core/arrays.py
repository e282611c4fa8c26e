"""Floats, Bools, Ints, DAY_S, HOUR_S, Z95: defined once (31 alias definitions and 16 DAY_S today)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
