"""Batch, CaughtUp, BookRequest: all that may be put into the pipeline thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.alerts.book import AlertBook
from agent.alerts.condition import Condition
from agent.pipeline.stored_rows import StoredRows
from agent.store.commit import Answered
from agent.store.messages import Message
from agent.wire.events import AlertEvent
from core.registers.samples import RegisterSample
from core.signs import MeterSign
from firmware_io.reading import MeterEvent

NOT_AWAITED = float("-inf")  # instead of a boundary: nothing more is to come


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request did to the book, and the answer to whoever asked: all of it belongs into one commit."""

    events: Sequence[AlertEvent] = ()
    messages: Sequence[Message] = ()
    answers: Sequence[Answered] = ()


@dataclass(frozen=True, slots=True)
class BookRequest:
    """Something to be done with the alert book, by the thread that owns it; `committed` is called after the commit."""

    act: Callable[[AlertBook], Outcome]
    committed: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one exchange on a bus brought, or what the backend asks of the alert book."""

    samples: Sequence[RegisterSample] = ()
    events: Sequence[MeterEvent] = ()
    signs: Sequence[MeterSign] = ()
    conditions: Sequence[Condition] = ()
    requests: Sequence[BookRequest] = ()
    awaited: Mapping[str, float] = field(default_factory=dict)  # meter -> boundary whose stored row is still to come


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """A bus has asked all its meters for what they stored while nobody read them."""

    bus: str
    stored: StoredRows
