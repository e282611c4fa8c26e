"""The only place that knows the time: the system's clock, and two that run faster for simulations."""

from __future__ import annotations

import mmap
import struct
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

_RECORD = struct.Struct("<ddddI")  # host s, simulated UTC s, speed, granted UTC s; CRC-32 of these
CRAWL_SPEED = 60.0  # beyond what is granted: not zero, because whoever catches up may have to wait for a time-out
WAIT_SLICE_S = 0.1  # of the host: the clock may be made faster while somebody waits
LEAST_WAIT_S = 0.001  # of the host


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


@dataclass(frozen=True, slots=True)
class Pace:
    """How simulated time runs from `host_s` (CLOCK_MONOTONIC, one for all processes of a machine) on.

    It is `utc_s` then, and runs `speed` times as fast as the host's until `granted_s`, from there at a crawl.
    """

    host_s: float
    utc_s: float
    speed: float
    granted_s: float

    def at(self, host_s: float) -> float:
        """Simulated UTC in seconds since the epoch."""
        time_s = self.utc_s + (host_s - self.host_s) * self.speed
        if time_s <= self.granted_s:
            return time_s
        begun_s = max(self.host_s, self.host_s + (self.granted_s - self.utc_s) / self.speed)
        return max(self.granted_s, self.utc_s) + (host_s - begun_s) * min(CRAWL_SPEED, self.speed)


class ClockFile:
    """One clock for several processes: whoever owns it writes how time runs, `SharedClock` reads it.

    Time never goes back: a new pace begins where the old one is.
    """

    def __init__(self, path: Path, start_s: float, speed: float) -> None:
        if not speed > 0:
            raise ValueError(f"the clock's speed must be positive, got {speed}")
        path.write_bytes(bytes(_RECORD.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _RECORD.size)
        self._write(Pace(time.monotonic(), start_s, speed, start_s))

    def now(self) -> float:
        """Simulated UTC in seconds since the epoch."""
        return self._pace.at(time.monotonic())

    def grant(self, until_s: float, speed: float) -> None:
        """Let time run at `speed` until `until_s`; what was granted before stays so."""
        host_s = time.monotonic()
        self._write(Pace(host_s, self._pace.at(host_s), speed, max(until_s, self._pace.granted_s)))

    def advance(self, to_s: float) -> None:
        """Set the clock forward to `to_s`, where it crawls."""
        host_s = time.monotonic()
        now_s = max(to_s, self._pace.at(host_s))
        self._write(Pace(host_s, now_s, self._pace.speed, now_s))

    def close(self) -> None:
        """Give the file back."""
        self._shared.close()

    def _write(self, pace: Pace) -> None:
        self._pace = pace
        values = (pace.host_s, pace.utc_s, pace.speed, pace.granted_s)
        self._shared[:] = _RECORD.pack(*values, zlib.crc32(_RECORD.pack(*values, 0)[:-4]))


class SharedClock:
    """The clock that a `ClockFile` of another process drives."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._shared = mmap.mmap(file.fileno(), _RECORD.size, access=mmap.ACCESS_READ)
        self._pace = Pace(0.0, 0.0, 1.0, 0.0)
        self.start_s = self.now()

    def now(self) -> float:
        """Simulated UTC in seconds since the epoch."""
        return self._current().at(time.monotonic())

    def monotonic(self) -> float:
        """Simulated seconds since this clock was opened."""
        return self.now() - self.start_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for `timeout_s` simulated seconds at most; True if `event` is set."""
        until_s = self.now() + timeout_s
        while (left_s := until_s - self.now()) > 0:
            slice_s = min(WAIT_SLICE_S, max(LEAST_WAIT_S, left_s / self._pace.speed))
            if event.wait(slice_s):
                return True
        return event.is_set()

    def _current(self) -> Pace:
        """The pace in force; where the record is just being written, the one before it still holds."""
        octets = self._shared[:]
        *values, crc = _RECORD.unpack(octets)
        if zlib.crc32(octets[:-4]) == crc:
            self._pace = Pace(*values)
        return self._pace
