import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]

def align_rows(
    wh: Floats,
    sd_wh: Floats,
    hours: Floats,
    bins: Ints,
    signed_net: Bytes,
    limit_w: Floats,
    last_wh: Floats,
    offset_wh: Floats,
    booked_wh: Floats,
    gap_var: Floats,
    gap_h: Floats,
    profile_w: Floats,
    seen: Floats,
    spread: Floats,
    booked: Floats,
    energy: Floats,
    error: Floats,
    lost: Floats,
    flags: Bytes,
    memory: float,
) -> None: ...
def spread_gaps(subs: Floats, missed: Bytes) -> None: ...
