"""The one step of service, replay and tests: register samples in, alerts and a checkpoint out.

It owns the order of things: align the registers, let every zone's monitor judge the new rows, hand the evidence
to the alert book, and give back what belongs into ONE transaction. It refuses to know buses, disks, clocks and
brokers. Only one thread may touch it.

Use: `feed` and `sign` in any order, then `step(now_s)`, again and again. After a restart: make a new Pipeline,
`restore` the last checkpoint and the history rows that were stored, and go on; the same input gives the same
output bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.config import Config
from core.evidence import Evidence
from core.intervals import RegisterSample
from core.signs import MeterSign


class Book(Protocol):
    """What turns evidence into alert transitions on the wire: `agent.alerts.AlertBook`."""

    def apply(self, evidence: Sequence[Evidence]) -> list[Any]:
        """Alert events to send, oldest first; may be empty."""


@dataclass(frozen=True, slots=True)
class Balance:
    """One zone's balance over one interval; NaN where a figure cannot be told (the main meter did not answer)."""

    zone: str
    start_s: float
    end_s: float
    main_kwh: float
    subs_kwh: float
    technical_loss_kwh: float
    residual_kwh: float
    uncertainty_kwh: float
    coverage: float


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """All registers at one boundary, in the order of `Pipeline.meters`: what the store keeps for `history_days`.

    `wh` is import minus export (NaN: not read), `sd_wh` its standard error from timing alone.
    """

    time_s: float
    wh: NDArray[np.float64]
    sd_wh: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step brought; `checkpoint` is None when no boundary was closed. Commit all of it together."""

    alerts: list[Any]
    evidence: list[Evidence]
    balances: list[Balance]
    history: list[HistoryRow]
    checkpoint: bytes | None


class Pipeline:
    """Aligned registers -> zone monitors -> alert book.

    `meters` fixes the column order of history rows and of `feed_block`.
    """

    meters: tuple[str, ...]

    def __init__(self, config: Config, book: Book, scorer: Any = None) -> None:
        raise NotImplementedError

    def feed(self, samples: Iterable[RegisterSample]) -> None:
        """Take register samples of any meters, in any order; what cannot be true is counted and becomes an event."""
        raise NotImplementedError

    def feed_block(self, times_s: NDArray[np.float64], wh: NDArray[np.float64]) -> None:
        """Take whole rows, fast: registers `wh` [T, meters] at rising `times_s` [T]; NaN where not read."""
        raise NotImplementedError

    def sign(self, sign: MeterSign) -> None:
        """Take one tamper sign."""
        raise NotImplementedError

    def step(self, now_s: float) -> Step:
        """Close every boundary that all meters have answered, or whose grace time is over at `now_s`."""
        raise NotImplementedError

    def restore(self, checkpoint: bytes, history: Sequence[HistoryRow]) -> None:
        """Go on where `checkpoint` was made; `history` are the stored rows up to it (more is ignored).

        Raises:
            ValueError: the checkpoint belongs to another site file or version; start fresh and say so.
        """
        raise NotImplementedError

    def scores(self) -> dict[str, dict[str, float]]:
        """Per sub-meter: `theft_probability` and the features behind it."""
        raise NotImplementedError
