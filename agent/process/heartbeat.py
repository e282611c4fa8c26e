"""Sign of life of a thread."""

from __future__ import annotations

import time


class Heartbeat:
    """The sign of life of one thread: it calls `beat`, others ask `late_by_s`."""

    def __init__(self, name: str, limit_s: float) -> None:
        self.name = name
        self.limit_s = limit_s
        self._last_s = time.monotonic()

    def beat(self) -> None:
        """I made progress."""
        self._last_s = time.monotonic()

    def late_by_s(self) -> float:
        """By how much the limit is passed; not above zero while all is well."""
        return time.monotonic() - self._last_s - self.limit_s
