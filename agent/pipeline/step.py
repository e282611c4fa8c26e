"""What one step of the pipeline brings, and the book that it asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.alerts.condition import Condition
from agent.alerts.state import Accepted
from agent.wire.events import AlertEvent
from core.evidence import Evidence
from core.registers.booked import HistoryRow

GAP_S = 60 * 86_400.0  # a hole in time that is not bridged row by row: the balance starts again behind it


class Book(Protocol):
    """What turns evidence into alert transitions on the wire: `agent.alerts.book.AlertBook`."""

    def apply(self, evidence: Sequence[Evidence]) -> list[AlertEvent]:
        """Alert events to send, oldest first; may be empty."""

    def observe(self, conditions: Iterable[Condition]) -> list[AlertEvent]:
        """Alert events of what is not a balance, oldest first; may be empty."""

    def take_accepted(self) -> Sequence[Accepted]:
        """The losses that are to be normal loads from now on, each once."""


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
class Step:
    """What one step brought; `checkpoint` is None when no boundary was closed. Commit all of it together."""

    alerts: list[AlertEvent]
    evidence: list[Evidence]
    balances: list[Balance]
    history: list[HistoryRow]
    checkpoint: Mapping[str, bytes] | None  # by part, see agent.pipeline.checkpoint

    @staticmethod
    def nothing() -> Step:
        """A step in which no boundary was closed."""
        return Step([], [], [], [], None)
