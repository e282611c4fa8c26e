"""Array types, units of time and statistical constants that all of core shares, each defined once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]  # what NumPy indexes with: 32 bits on a 32-bit gateway
Ints32 = NDArray[np.int32]
Bytes = NDArray[np.uint8]

HOUR_S = 3600.0
DAY_S = 86_400.0
DAY_H = 24

Z95 = 1.96  # two-sided 95 % interval of a Gaussian, in standard deviations
UNKNOWN_WH2 = 1e12  # variance of a boundary of which nothing is known: the balance starts again behind it
