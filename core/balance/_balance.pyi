import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]

def residual_rows(
    energy: Floats, error: Floats, lost: Floats, columns: Ints, sign: Floats, subs: Floats, sums: Floats
) -> None: ...
def predict_rows(phi: Floats, coefficients: Floats, out: Floats) -> None: ...
def absorb_rows(
    x: Floats,
    p: Floats,
    phi: Floats,
    y: Floats,
    boundary: Floats,
    drift: Floats,
    hours: Floats,
    walk: Floats,
    keep: Floats,
    late: Floats,
    skew: int,
    clip: float,
    work: Floats,
    out: Floats,
) -> None: ...
def track_rows(
    state: Floats, r: Floats, boundary: Floats, drift: Floats, allowed: Floats, clip: float, out: Floats
) -> None: ...
