"""The seam to time, as the rooms of firmware_io see it; `agent.process.clock` has the implementations."""

from __future__ import annotations

import threading
from typing import Protocol


class Clock(Protocol):
    """Time as it is handed to everything that stamps, waits or has a deadline."""

    def now(self) -> float:
        """UTC in seconds since the epoch: for stamping only; it may jump."""

    def monotonic(self) -> float:
        """Seconds that never go back: for deadlines and intervals."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` seconds of this clock are over; True if it is set."""
