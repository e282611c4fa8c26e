"""How long to wait for a meter: the figures of the site file, and what its replies have taught.

It waits for nobody; the channel does.
"""

from __future__ import annotations

from dataclasses import dataclass

PATIENCE = 2.5  # times `timeout_s` for the first octet, at most
LATE_MARGIN = 1.5  # on the slowest reply of late
SLOWEST_FADES = 0.95  # with each reply
PROBE_MARGIN, PROBE_MIN_S, PROBE_UNKNOWN_S = 3.0, 0.15, 0.5  # the same for a meter that is silent
FULL_PROBES = 16  # every so many probes it gets the whole time


@dataclass(slots=True)
class Latency:
    """How long a meter takes for the first octet of its replies, seconds: the slowest of late."""

    slowest_s: float | None = None
    probes: int = 0

    def replied(self, latency_s: float) -> None:
        """A reply began after so long."""
        self.slowest_s = max(latency_s, SLOWEST_FADES * (self.slowest_s or 0.0))

    def timeout_s(self, usual_s: float) -> float:
        """How long to wait for the first octet."""
        if self.slowest_s is None or self.slowest_s <= usual_s / LATE_MARGIN:
            return usual_s
        return min(max(LATE_MARGIN * self.slowest_s, usual_s), PATIENCE * usual_s)

    def probe_timeout_s(self, usual_s: float) -> float:
        """How long to wait for a meter that is most likely not there."""
        self.probes += 1
        if self.probes % FULL_PROBES == 0:
            return self.timeout_s(usual_s)
        wait_s = PROBE_UNKNOWN_S if self.slowest_s is None else max(PROBE_MARGIN * self.slowest_s, PROBE_MIN_S)
        return min(wait_s, usual_s)
