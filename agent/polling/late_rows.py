"""Which meters of a bus have a row of their load profile to come, and whose turn it is to be asked for it.

A row is exact in time, as no poll can be; but a meter's clock may be late, and polling must not wait for it. So rows
are asked for between the polls, a few at a time, and the boundary is held open meanwhile: `awaited` says to the
pipeline whose rows are still worth waiting for. It owns that order, and reads no meter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

USUAL_PERIOD_S = 900.0  # of a load profile whose period is not known yet
ROW_DELAY_S = 15.0  # a meter's clock may be late by as much
PATIENCE_S = 300.0  # behind a boundary, a row of it comes too late


@dataclass(slots=True)
class LateRows:
    """The rows of one bus. Times UTC seconds; `row_s` is the length of a balance."""

    row_s: float
    newest_s: dict[str, float] = field(default_factory=dict)  # stored row of each meter that may have a profile
    period_s: dict[str, float] = field(default_factory=dict)  # how far apart a meter's stored rows are
    _open: dict[str, float] = field(default_factory=dict)  # meter -> boundary whose row is to be asked for
    _boundary_s: float = float("-inf")  # the last for which it was looked who has a row

    def awaited(self, now_s: float, silent: Callable[[str], bool]) -> dict[str, float]:
        """Whose rows of a boundary that has just passed are worth waiting for; empty but once for each boundary."""
        boundary_s = now_s // self.row_s * self.row_s
        if boundary_s == self._boundary_s:
            return {}
        self._boundary_s = boundary_s
        if now_s - boundary_s > PATIENCE_S:
            return {}
        due = {
            meter: boundary_s
            for meter, newest_s in self.newest_s.items()
            if newest_s < boundary_s and self._has_row(meter, boundary_s) and not silent(meter)
        }
        self._open |= due
        return due

    def due(self, now_s: float) -> tuple[str, float, float] | None:
        """The next meter to be asked: its name, from when on, and up to which boundary; None while there is none.

        Whatever comes of it, this boundary is not asked for again.
        """
        for meter, boundary_s in list(self._open.items()):
            if now_s < boundary_s + ROW_DELAY_S:
                continue
            del self._open[meter]
            if now_s > boundary_s + PATIENCE_S:
                continue
            # Boundaries of a gap are judged already: no alert waits for a meter that may never answer again.
            first_s = max(self.newest_s[meter], boundary_s - self.row_s) + 1.0
            self.newest_s[meter] = boundary_s
            return meter, first_s, boundary_s
        return None

    def stored(self, meter: str, rows: Mapping[float, float], first_s: float) -> None:
        """What a meter has stored since `first_s`, by time."""
        self.newest_s[meter] = max(rows, default=first_s - 1.0)
        if len(rows) > 1:
            times_s = sorted(rows)
            self.period_s[meter] = min(b - a for a, b in pairwise(times_s))

    def _has_row(self, meter: str, boundary_s: float) -> bool:
        """Whether a meter can have stored a row at a boundary: its capture period divides it.

        A balance every ten seconds has no use for rows that come every quarter of an hour.
        """
        period_s = self.period_s.get(meter, max(self.row_s, USUAL_PERIOD_S))
        return boundary_s % period_s < 1.0
