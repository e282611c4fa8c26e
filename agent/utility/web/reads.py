"""What pages ask of the store: one connection for each thread, and answers over the whole fleet kept for a while.

A fleet's question reads 10^5 to 10^6 days; fifty people who look at the same page ask it once, and none of them waits
for it: what is older than FRESH_S is shown while a thread of its own asks again. What is older than STALE_S is not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from agent.utility.sql.store import Store, open_store

log = logging.getLogger(__name__)
T = TypeVar("T")
FRESH_S = 30.0
STALE_S = 600.0


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

    def apart(self) -> Store:
        """A connection for one question, to be closed after it."""
        return open_store(self._dsn)


class Kept:
    """Answers by name, of which there are a handful; each is asked for by one thread at a time."""

    def __init__(self, stores: Stores, now: Callable[[], float] = time.monotonic) -> None:
        self._stores, self._now = stores, now
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[float, Any]] = {}
        self._asking: dict[str, threading.Lock] = {}
        self._changes = 0  # an answer that was begun before a change is none after it
        self._renewing: set[str] = set()
        self._one = threading.Lock()  # renewal at a time: they read the same tables

    def get(self, name: str, ask: Callable[[Store], T], *, fresh_s: float = FRESH_S) -> T:
        """The answer of that name: kept, or asked for now. `ask` may run in another thread, with a store of its own.

        `fresh_s`: so long it is not asked for again; twice as long it is shown, if that is more than STALE_S.
        """
        with self._lock:
            found = self._answers.get(name)
            asking = self._asking.setdefault(name, threading.Lock())
        if found is not None and (age_s := self._now() - found[0]) <= max(STALE_S, 2 * fresh_s):
            if age_s > fresh_s:
                self._renew(name, ask)
            return found[1]  # type: ignore[no-any-return]
        with asking:
            with self._lock:
                again = self._answers.get(name)
            if again is not None and again is not found:
                return again[1]  # type: ignore[no-any-return]  # asked while we waited
            return self._ask(name, ask, self._stores.here())

    def forget(self, *names: str) -> None:
        """What somebody's change makes untrue."""
        with self._lock:
            self._changes += 1
            for name in names:
                self._answers.pop(name, None)

    def _ask(self, name: str, ask: Callable[[Store], T], store: Store) -> T:
        changes = self._changes
        answer = ask(store)
        with self._lock:
            if changes == self._changes:
                self._answers[name] = (self._now(), answer)
        return answer

    def _renew(self, name: str, ask: Callable[[Store], Any]) -> None:
        with self._lock:
            if name in self._renewing:
                return
            self._renewing.add(name)

        def run() -> None:
            try:
                with self._one, self._stores.apart() as store:
                    self._ask(name, ask, store)
            except Exception as error:  # the old answer stays until it is too old; then a visitor hears of it
                log.warning("%s cannot be renewed: %s", name, error)
            finally:
                with self._lock:
                    self._renewing.discard(name)

        threading.Thread(target=run, name=f"renew {name}").start()
