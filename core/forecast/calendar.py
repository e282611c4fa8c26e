"""Days as the people in the building live them: local days and the steps in them, working days and holidays.

It owns how an instant becomes a local day and a step. It refuses to know time-zone files: the changes of the clock
come in as figures, so that the same forecast can be calculated again anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400
WORKING, SATURDAY, SUNDAY = 0, 1, 2

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Calendar:
    """A site's clock and its holidays.

    `offsets_s[k]` (local time minus UTC) holds before `changes_s[k]`, the last one from the last change on; so there is
    one more of them. `holidays` are local days since 1970-01-01; they are taken as Sundays.

    Raises:
        ValueError: not one offset more than changes, or changes that do not rise.
    """

    changes_s: tuple[float, ...] = ()
    offsets_s: tuple[float, ...] = (0.0,)
    holidays: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.offsets_s) != len(self.changes_s) + 1 or any(np.diff(self.changes_s) <= 0):
            raise ValueError(f"{len(self.changes_s)} clock changes need as many offsets and one, in rising order")

    def local_s(self, times_s: Floats) -> Floats:
        """Local time at UTC `times_s` [T], in seconds since 1970-01-01 00:00 local."""
        which = np.searchsorted(np.asarray(self.changes_s, np.float64), times_s, side="right")
        return np.asarray(times_s + np.asarray(self.offsets_s)[which], np.float64)

    def place(self, times_s: Floats, step_s: float) -> tuple[Ints, Ints]:
        """Local day and step of the day in which each instant [T] lies.

        On the day when clocks go forward an hour of steps does not occur, when they go back an hour of them does twice.
        """
        local = self.local_s(times_s)
        day = np.floor(local / DAY_S)
        return day.astype(np.intp), ((local - day * DAY_S) // step_s).astype(np.intp)

    def kind(self, day: int) -> int:
        """0 for a working day, 1 for a Saturday, 2 for a Sunday or holiday."""
        if day in self.holidays:
            return SUNDAY
        return max((day + 3) % 7 - 4, WORKING)  # 1970-01-01 was a Thursday
