"""How a meter stands with its bus: answering, silent, slow or refusing, and when it is its turn again.

It reads nothing and knows no protocol: the bus tells it what came of each call, with the times.

- *Silent* is a meter after `PATIENCE` calls in a row without a sign of life. It is probed at intervals that are an
  eighth of the time it has been silent: a short disturbance is over soon, a dead meter costs next to nothing. Meters
  that fell silent together are probed in turn, as one; when one of them is back, all are tried at once. While a good
  part of the line has fallen silent, as in a power cut, one of them is probed every few seconds.
- A damaged reply is a sign of life. Only after `GARBLED_PATIENCE` of them in a row is the line left to others.
- *Slow* is a meter whose poll takes far longer than the others': it gets its share of the line, and no more.
- *Denied* is a meter that refused our credentials. It is tried again after an hour, then after twice that, because
  more tries can lock it, and because anybody on the line can forge a refusal. Only one that proves with its keys that
  it is the meter, twice, is final.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PATIENCE = 2
GARBLED_PATIENCE = 10
PROBE_MIN_S = 2.0
PROBE_MAX_S = 3600.0
PROBE_AGE = 8.0  # an interval is this part of the time in silence
SPACING = 8.0  # between two probes, in times of the last one: silent meters never take more of the line than a ninth
OUTAGE_SHARE = 0.25  # so many of the meters silent together are an outage
OUTAGE_PROBE_S = 6.0
OUTAGE_S = 900.0  # so long one is awaited every few seconds
TOGETHER = 2.0  # silent for a time of the same size, within this factor
SLOW_MIN_S = 1.0
SLOW_FACTOR = 4.0  # slower than so many times the median of the bus
SLOW_SHARE = 8.0  # and it rests for so many times its poll
DENIED_MIN_S, DENIED_MAX_S = 3600.0, 8 * 3600.0
FINAL_REFUSALS = 2  # authenticated ones, in a row


@dataclass(slots=True)
class Standing:
    """One meter's. Times are of a clock that does not go back, seconds."""

    ever_answered: bool = False
    failures: int = 0
    garbled: int = 0
    silent: bool = False
    silent_since_s: float = 0.0
    failed_since_s: float = 0.0  # the first failure of the row
    probe_at_s: float = 0.0
    cost_s: float | None = None  # of the last poll that was answered
    due_s: float = 0.0  # for a slow meter
    denied: bool = False
    final: bool = False
    refusals: int = field(default=0)
    proven_refusals: int = 0
    retry_at_s: float = 0.0

    def answered(self) -> None:
        """It answered, whatever it said."""
        self.failures = self.garbled = self.refusals = self.proven_refusals = 0
        self.silent = self.denied = self.final = False
        self.ever_answered = True

    def took(self, cost_s: float, others_s: Sequence[float], now_s: float) -> None:
        """A poll took so long; `others_s` is what those of the other meters took."""
        self.cost_s = cost_s
        usual_s = sorted(others_s)[len(others_s) // 2] if others_s else cost_s
        slow = cost_s > max(SLOW_MIN_S, SLOW_FACTOR * usual_s)
        self.due_s = now_s + SLOW_SHARE * cost_s if slow else 0.0

    def failed(self, now_s: float, *, heard: bool) -> None:
        """No answer that is of use; `heard` if there was a sign of life."""
        if not self.failures and not self.garbled:
            self.failed_since_s = now_s
        if heard:
            self.garbled, self.failures = self.garbled + 1, 0
        else:
            self.failures += 1
        if not self.silent and (self.failures >= PATIENCE or self.garbled >= GARBLED_PATIENCE):
            self.silent, self.silent_since_s = True, self.failed_since_s

    def refused(self, now_s: float, *, proven: bool) -> None:
        """It refused our credentials."""
        self.denied = True
        self.proven_refusals = self.proven_refusals + 1 if proven else 0
        self.final = self.proven_refusals >= FINAL_REFUSALS
        self.retry_at_s = now_s + min(DENIED_MIN_S * 2**self.refusals, DENIED_MAX_S)
        self.refusals += 1

    def left_alone_s(self, now_s: float) -> float:
        """How long it is still left alone because it refused us; infinite if for good."""
        if not self.denied:
            return 0.0
        return float("inf") if self.final else max(0.0, self.retry_at_s - now_s)

    def probe_later(self, now_s: float, everybody: Iterable[Standing]) -> None:
        """Set the next probe, after one that was in vain."""
        everybody = tuple(everybody)
        age_s = now_s - self.silent_since_s
        group = [
            other
            for other in everybody
            if other is not self
            and other.silent
            and age_s <= TOGETHER * (now_s - other.silent_since_s) <= TOGETHER**2 * age_s
        ]
        interval_s = min(max(age_s / PROBE_AGE, PROBE_MIN_S), PROBE_MAX_S)
        outage = self.ever_answered and group and len(group) + 1 >= OUTAGE_SHARE * len(everybody)
        if outage and age_s < OUTAGE_S:
            interval_s = min(interval_s, OUTAGE_PROBE_S)
        # Behind those of its group, one interval after the other.
        self.probe_at_s = max([now_s, *(other.probe_at_s for other in group)]) + interval_s
