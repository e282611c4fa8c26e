"""Commit, Outgoing, Counters, the probe seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.store.messages import Message, Priority
from core.registers.booked import HistoryRow


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message and its place in the outbox; held ones have ids below zero."""

    id: int
    message: Message
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """A command that was carried out, and its answer; remembered until the command has expired."""

    command_id: str
    expires_s: float
    answer: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """What belongs together: all of it is committed, or none."""

    messages: Sequence[Message] = ()
    checkpoints: Mapping[str, bytes] = field(default_factory=dict)
    meters: Sequence[str] = ()  # the columns of `history`
    history: Sequence[HistoryRow] = ()
    answers: Sequence[Answered] = ()  # to commands whose effect is in the same commit

    @property
    def durable(self) -> bool:
        """Whether the disk has to be waited for."""
        return bool(self.answers) or any(m.priority <= Priority.ANSWER for m in self.messages)


@dataclass(slots=True)
class Counters:
    """What the outbox and the store went through since the start."""

    messages: int = 0
    bytes: int = 0
    evicted: int = 0
    errors: int = 0
    dropped_history: int = 0
    damaged: int = 0  # rows of the outbox whose checksum was wrong


def no_probe(step: str) -> None:
    """The seam of the crash proofs: called with the name of each step that a kill may interrupt."""
