"""HistoryRow, StoredHistory: the aligned rows that are stored and restored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.arrays import Floats


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """All meters at one boundary, in the order of `Pipeline.meters`: what the store keeps for `history_days`.

    `wh`: energy booked until then: a register that goes on over replacements, and over gaps by estimate. `sd_wh`:
    its standard error, negative where the meter was not read at this boundary (beyond -100 kWh: not for three rows).
    """

    time_s: float
    wh: Floats
    sd_wh: Floats


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """Rows of the store, oldest first: `HistoryRow`s as whole arrays, times [T], energies and errors [T, meters]."""

    times_s: Floats
    wh: Floats
    sd_wh: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.times_s)

    @classmethod
    def of_nothing(cls, meters: int) -> Self:
        """No row at all."""
        return cls(np.empty(0), np.empty((0, meters)), np.empty((0, meters), np.float32))
