"""What could not be written yet: kept in memory, and put into the next commit.

It owns the bound on it, and who goes first where that is passed. It knows no file.
"""

from __future__ import annotations

from collections.abc import Collection

from agent.store.commit import Answered, Commit, Outgoing
from agent.store.messages import Priority

HELD_MAX = 1000  # messages kept in memory while nothing can be written; beyond it the least important go


class Held:
    """The steps that wait for a file that can be written. Not thread-safe: the store locks."""

    def __init__(self) -> None:
        self._messages: dict[int, Outgoing] = {}
        self._checkpoints: dict[str, bytes] = {}
        self._answers: list[Answered] = []
        self._next_id = -1

    def __len__(self) -> int:
        """How many messages."""
        return len(self._messages)

    @property
    def waits(self) -> bool:
        """Whether there is anything to be written without a further step."""
        return bool(self._messages or self._checkpoints)

    @property
    def newest_s(self) -> float:
        """Measurement time of the newest message; 0 where there is none."""
        return max((o.message.time_s for o in self._messages.values()), default=0.0)

    def before(self, commit: Commit) -> Commit:
        """All that is held and a step behind it, as one."""
        return Commit(
            messages=(*(o.message for o in self._messages.values()), *commit.messages),
            checkpoints=self._checkpoints | dict(commit.checkpoints),
            meters=commit.meters,
            history=commit.history,
            answers=(*self._answers, *commit.answers),
        )

    def hold(self, commit: Commit) -> int:
        """Keep a step; how many messages had to go for it. Its history is not kept: the meters have it."""
        self._checkpoints |= commit.checkpoints
        self._answers += commit.answers
        del self._answers[:-HELD_MAX]
        for message in commit.messages:
            self._messages[self._next_id] = Outgoing(self._next_id, message)
            self._next_id -= 1
        evicted = max(0, len(self._messages) - HELD_MAX)
        for _ in range(evicted):
            worst = max(self._messages.values(), key=lambda o: (o.message.priority, -o.message.time_s))
            del self._messages[worst.id]
        return evicted

    def clear(self) -> None:
        """It is written."""
        self._messages.clear()
        self._checkpoints = {}
        self._answers = []

    def pending(self, priorities: Collection[Priority], without: Collection[int]) -> list[Outgoing]:
        """The messages of these priorities, but for those of `without`."""
        return [o for o in self._messages.values() if o.message.priority in priorities and o.id not in without]

    def ids_of(self, keys: Collection[str]) -> list[int]:
        """The messages that have one of these keys."""
        return [o.id for o in self._messages.values() if o.message.key in keys]

    def delete(self, ids: Collection[int]) -> None:
        """Those that are held have arrived, or are past their time."""
        for held in ids:
            self._messages.pop(held, None)

    def answer_of(self, command_id: str) -> bytes | None:
        """What was answered to a command last; None where nothing is held."""
        return next((a.answer for a in reversed(self._answers) if a.command_id == command_id), None)
