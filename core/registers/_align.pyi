import numpy as np

from core.arrays import Bytes, Floats, Ints32
from core.registers.align import AlignedRows

class AlignState:
    """What is remembered of M meters from row to row; `arrays` names all of it, for a checkpoint.

    last_wh [M]: last register that was read, NaN before the first. offset_wh [M]: booked energy minus register.
    booked_wh [M]: energy booked so far. gap_wh2 [M], gap_h [M]: variance of what was booked without a reading, and for
    how long. spread_w2 [M]: variance of a row's power around the profile. profile_w, profile_rows [M, 24]: mean power
    by hour of the UTC day, and the number of rows behind it.

    Args:
        limit_w: [M], W; more is no load.
        signed_net: [M] uint8, 1 where the register may fall (import minus export).
        row_h: length of a row, h.
        memory_rows: rows per hour of day that the profile remembers.
        step_wh: [M], Wh; step of a register so coarse that it stands still for rows, 0 where it is not. None: of none.
    """

    arrays: dict[str, Floats]
    row_h: float
    memory_rows: float
    meters: int
    def __init__(
        self,
        limit_w: Floats,
        signed_net: np.typing.NDArray[np.uint8],
        row_h: float,
        memory_rows: float,
        white: float = 1.0,
        lasting: float = 0.8,
        step_wh: Floats | None = None,
    ) -> None: ...

def align_rows(state: AlignState, wh: Floats, read_sd_wh: Floats, utc_hour: Ints32, out: AlignedRows) -> None:
    """Align rows of M meters.

    Args:
        state: of the M meters, brought up to date.
        wh: [T, M], Wh; registers at the rows' ends, NaN where not read.
        read_sd_wh: [T, M], Wh; standard error of each register that was read.
        utc_hour: [T] int32, hour of day of each row's middle.
        out: T rows, filled in place.

    Raises:
        ValueError: shapes do not agree, or an hour is out of 0..23.
    """

def spread_gaps(subs: Floats, missed: Bytes) -> None:
    """Spread the energy of each gap over its rows and the row that answers, in place.

    Args:
        subs: [T, N], Wh; energies per row.
        missed: [T, N] uint8, 1 where the meter was not read.
    """
