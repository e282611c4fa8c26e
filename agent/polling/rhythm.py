"""When the next cycle of a bus begins, and which cycle is really kept.

It owns the schedule: one cycle every `poll_s`, placed so that the boundaries of the balance fall into the middle of a
cycle, where main meter and sub-meters are read closest to them. Due times are counted on a clock that never jumps; the
wall clock only draws their phase, a little each cycle, so that one that trembles or is set costs no cycle. It knows no
meters and waits for nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SLEW = 0.01  # share of a cycle by which one may be moved towards the boundary
KEPT_OF = 60  # cycles by which it is told how often they really come


@dataclass(slots=True)
class Rhythm:
    """One bus's. `now_s` is of a clock that does not go back, `wall_s` UTC seconds."""

    poll_s: float
    cycle_s: float | None = None  # the last one's length
    _due_s: float | None = None
    _began: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_OF + 1))

    def begins(self, now_s: float) -> None:
        """A cycle begins."""
        if self._due_s is None or now_s - self._due_s > self.poll_s:
            self._due_s = now_s  # the first one, or one that comes so late that its turn is over
        self._began.append(now_s)

    def ended(self, now_s: float) -> None:
        """It is over."""
        if self._began:
            self.cycle_s = now_s - self._began[-1]

    def next_s(self, now_s: float, wall_s: float) -> float:
        """When the next one is due, on the clock of `now_s`; not before now."""
        if self._due_s is None:
            return now_s
        due_s = self._due_s + self.poll_s
        middle_s = wall_s + (due_s - now_s) + min(self.cycle_s or 0.0, self.poll_s) / 2
        ahead_s = (middle_s + self.poll_s / 2) % self.poll_s - self.poll_s / 2
        most_s = SLEW * self.poll_s if len(self._began) > 1 else self.poll_s  # the first one sets the phase
        due_s -= min(max(ahead_s, -most_s), most_s)
        self._due_s = max(due_s, now_s)  # what the wire cannot keep is not made up for by bursts
        return self._due_s

    @property
    def kept_s(self) -> float | None:
        """How far apart the last cycles really began; None before the second."""
        if len(self._began) < 2:
            return None
        return (self._began[-1] - self._began[0]) / (len(self._began) - 1)
