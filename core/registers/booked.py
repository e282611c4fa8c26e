"""HistoryRow, StoredHistory: the aligned rows that are stored and restored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.arrays import Bytes, Floats


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """All meters at one boundary, in the order of `Pipeline.meters`: what the store keeps for `history_days`.

    `wh`: energy booked until then: a register that goes on over replacements, and over gaps by estimate. `sd_wh`:
    its standard error, NaN where the meter was never read. `flags`: `core.registers.align.Flag` of each meter.
    """

    time_s: float
    wh: Floats
    sd_wh: Floats
    flags: Bytes


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """Rows of the store, oldest first: `HistoryRow`s as whole arrays, times [T], the others [T, meters]."""

    times_s: Floats
    wh: Floats
    sd_wh: NDArray[np.float32]
    flags: Bytes

    def __len__(self) -> int:
        return len(self.times_s)

    @classmethod
    def of_nothing(cls, meters: int) -> Self:
        """No row at all."""
        shape = (0, meters)
        return cls(np.empty(0), np.empty(shape), np.empty(shape, np.float32), np.empty(shape, np.uint8))
