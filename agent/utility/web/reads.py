"""What pages ask of the store: one connection for each thread, and answers over the whole fleet kept for a minute.

A fleet's question reads 10^5 days; fifty people who look at the same page ask it once. What is older than FRESH_S is
still shown while one thread asks again; what is older than STALE_S is not shown.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store, open_store

T = TypeVar("T")
FRESH_S = 30.0
STALE_S = 600.0
MAX_ANSWERS = 200  # kept at a time; bounds what made-up filters can make us keep


class Stores:
    """A store for each thread that asks."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._local = threading.local()

    def here(self) -> Store:
        """This thread's own connection."""
        store: Store | None = getattr(self._local, "store", None)
        if store is None:
            store = self._local.store = open_store(self._dsn)
        return store

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of one question."""
        return self.here().rows(query, values)


class Kept:
    """Answers by name; each is computed by one thread at a time."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._answers: OrderedDict[object, tuple[float, Any]] = OrderedDict()
        self._asking: dict[object, threading.Lock] = {}

    def get(self, name: object, ask: Callable[[], T]) -> T:
        """The answer of that name: kept, or asked for now."""
        with self._lock:
            found = self._answers.get(name)
            asking = self._asking.setdefault(name, threading.Lock())
            if len(self._asking) > 2 * MAX_ANSWERS:
                self._asking = {
                    key: lock for key, lock in self._asking.items() if key in self._answers or lock.locked()
                }
                self._asking[name] = asking
        age_s = self._now() - found[0] if found else STALE_S + 1
        if found and age_s <= FRESH_S:
            return found[1]  # type: ignore[no-any-return]
        if found and age_s <= STALE_S and not asking.acquire(blocking=False):
            return found[1]  # type: ignore[no-any-return]  # somebody is asking: what there is will do
        if not (found and age_s <= STALE_S):
            asking.acquire()
        try:
            with self._lock:
                again = self._answers.get(name)
            if again is not None and again is not found:
                return again[1]  # type: ignore[no-any-return]  # asked while we waited
            answer = ask()
            with self._lock:
                self._answers[name] = (self._now(), answer)
                self._answers.move_to_end(name)
                while len(self._answers) > MAX_ANSWERS:
                    self._answers.popitem(last=False)
            return answer
        finally:
            asking.release()

    def forget(self) -> None:
        """After somebody has changed something."""
        with self._lock:
            self._answers.clear()
