"""What a zone is, what its alarm promises, and what is held of an alarm while it is latched.

It owns these values; how an alarm comes and goes is the monitor's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from core.arrays import Floats
from core.evidence import Suspect

SUSPECT_MIN = 0.005  # probability below which a sub-meter is not listed


@dataclass(slots=True)
class Alarm:
    """One latched alarm; rows are counted over all time."""

    episode: int
    sign: float
    lo: int
    onset: int
    hi: int
    raised: int
    from_start: bool
    revisions: int = 0
    loss_w: float = 0.0


@dataclass(slots=True)
class Posterior:
    """What is held of each sub-meter after the last attribution."""

    probability: Floats
    nobody: float
    mechanism: tuple[str, ...]
    statistics: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def suspects(self, subs: Sequence[str]) -> tuple[Suspect, ...]:
        """The sub-meters by falling probability, without those that are out of the question."""
        order = np.argsort(-self.probability, kind="stable")
        return tuple(
            Suspect(subs[j], float(self.probability[j]), self.mechanism[j])
            for j in order
            if self.probability[j] >= SUSPECT_MIN
        )
