"""The seam to time, as the rooms of firmware_io see it; `agent.process.clock` has the implementations."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Time as it is handed to everything that stamps, waits or has a deadline."""

    def now(self) -> float:
        """UTC in seconds since the epoch: for stamping only; it may jump."""

    def monotonic(self) -> float:
        """Seconds that never go back: for deadlines and intervals."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` seconds of this clock are over; True if it is set."""


def local_time(utc_s: float, zone: tzinfo) -> datetime:
    """UTC seconds since the epoch as the time of a zone.

    Not `datetime.fromtimestamp`: Debian's time_t has 32 bits on armhf, and a meter's clock may be beyond 2038.
    """
    return (EPOCH + timedelta(seconds=utc_s)).astimezone(zone)
