"""The only place that knows the time: the system's clock, and one that runs faster for simulations."""

from __future__ import annotations

import threading
import time


class SystemClock:
    """The gateway's own clock."""

    def now(self) -> float:
        """UTC in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` is over; True if it is set."""
        return event.wait(max(0.0, timeout_s))


class ScaledClock:
    """A clock that starts at `start_s` (UTC) and runs `speed` times as fast as the wall's.

    Every process that is given the same `start_s`, `speed` and `wall_origin_s` (the host's wall time at which
    `start_s` was) sees the same time, so that a simulated building and the agent agree without talking.
    """

    def __init__(self, start_s: float, speed: float, wall_origin_s: float | None = None) -> None:
        if not speed > 0:
            raise ValueError(f"the clock's speed must be positive, got {speed}")
        self.speed = speed
        self.start_s = start_s
        self.wall_origin_s = time.time() if wall_origin_s is None else wall_origin_s
        # Fixed once, so that a step of the host's wall clock does not move simulated time.
        self._monotonic_origin_s = time.monotonic() - (time.time() - self.wall_origin_s)

    def now(self) -> float:
        """Simulated UTC in seconds since the epoch."""
        return self.start_s + self.monotonic()

    def monotonic(self) -> float:
        """Simulated seconds since `start_s`."""
        return (time.monotonic() - self._monotonic_origin_s) * self.speed

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for `timeout_s` simulated seconds at most; True if `event` is set."""
        return event.wait(max(0.0, timeout_s) / self.speed)
