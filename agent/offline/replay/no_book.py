"""A book for those who run the pipeline and want no alerts: evidence is read from the step itself.

It writes nothing, and knows nothing of what an alert is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.alerts.condition import Condition
from agent.alerts.state import Accepted
from agent.wire.events import AlertEvent
from core.evidence import Evidence


class NoBook:
    """See `agent.pipeline.step.Book`."""

    def apply(self, evidence: Sequence[Evidence]) -> list[AlertEvent]:
        return []

    def observe(self, conditions: Iterable[Condition]) -> list[AlertEvent]:
        return []

    def take_accepted(self) -> list[Accepted]:
        return []
