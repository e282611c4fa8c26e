"""The time that the agent stamps with: the gateway's wall clock, believed within reason.

It owns the decision when the wall clock is believed. Between two looks time goes on by the monotonic clock; small
corrections (NTP) are followed, a jump waits for a second source: the clocks of the meters. So a clock that runs ahead
for a minute moves no boundary, a gateway without a battery-backed clock (1970 until NTP has an answer) does not stamp
its first readings with 1970, and a step back to what was right before is taken at once. It knows no meter and no store:
both are told to it, as times.

    follows --jump--> doubts --the meters agree with the wall clock, or it returns--> follows
                       |  no meter has a clock, and the jump has stood for HOLD_S --> follows

All offsets are UTC minus monotonic, seconds.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from datetime import UTC, datetime, timedelta

from firmware_io.clock import Clock

EARLIEST_S = 1_735_689_600.0  # 2025-01-01: before this program was made; no wall clock that says less is right
FOLLOW_S = 60.0  # a correction that needs no second source, within FOLLOW_EVERY_S
FOLLOW_EVERY_S = 3600.0
NEAR_S = 900.0  # a meter's clock that has run free for years is no better
HOLD_S = 3600.0  # how long a jump must stand where no meter has a clock
AWAY_S = 30 * 86400.0  # a gateway that was switched off for longer asks the meters first
HOLD_AT_START_S = 120.0  # the same, at a start, where the meters are asked first
WITNESSES = 64  # the latest clocks of meters that are kept


class TrustedClock:
    """A `Clock` over another; any thread may use it."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        mono_s = inner.monotonic()
        self._offset_s = self._anchor_s = inner.now() - mono_s
        self._anchored_s = self._began_s = mono_s
        self._former_s: float | None = None  # what was believed before a jump that no meter confirmed
        self._jump_s = 0.0  # the wall clock's offset while it is not believed
        self._jumped_s: float | None = None  # since when (monotonic)
        self._settled = inner.now() >= EARLIEST_S
        self._starting = False  # the store knows a later time than the wall clock
        self._witnesses: deque[float] = deque(maxlen=WITNESSES)
        self._meters_s: float | None = None  # their median
        self._steps = 0
        self._doubt: str | None = None

    # -- Clock --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """UTC in seconds since the epoch, as far as it is believed."""
        with self._lock:
            return self._look()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._inner.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """As the inner clock's."""
        return self._inner.wait(event, timeout_s)

    # -- second sources -----------------------------------------------------------------------------------------------

    def remember(self, latest_s: float) -> None:
        """At a start: time had come to `latest_s` before.

        A wall clock that says less, or very much more, is not believed before the meters have been asked.
        """
        with self._lock:
            mono_s = self._inner.monotonic()
            if latest_s >= EARLIEST_S and not -FOLLOW_S <= self._look() - latest_s <= AWAY_S:
                self._offset_s = self._anchor_s = latest_s - mono_s
                self._anchored_s = mono_s
                self._starting = True
                self._look()

    def witness(self, offset_s: float) -> None:
        """A meter's clock, just read: its time minus ours."""
        with self._lock:
            time_s = self._look() + offset_s
            if time_s >= EARLIEST_S:
                self._witnesses.append(time_s - self._inner.monotonic())
                self._meters_s = statistics.median(self._witnesses)
                self._look()

    # -- what can be seen ---------------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether any source has ever told a time that can be right; without one no reading can be dated."""
        with self._lock:
            self._look()
            return self._settled

    @property
    def steps(self) -> int:
        """How often the time has jumped since the start: what was measured against it is to be measured again."""
        with self._lock:
            self._look()
            return self._steps

    @property
    def doubt(self) -> str | None:
        """What is wrong with the gateway's clock, for `health` and `status`; None while it is believed."""
        with self._lock:
            self._look()
            return self._doubt

    # -- how ----------------------------------------------------------------------------------------------------------

    def _look(self) -> float:
        """Follow the wall clock, or do not; the time that is believed."""
        mono_s, wall_s = self._inner.monotonic(), self._inner.now()
        wall_offset_s = wall_s - mono_s
        meters_s = self._meters_s
        if mono_s - self._anchored_s > FOLLOW_EVERY_S:
            self._anchor_s, self._anchored_s = self._offset_s, mono_s
        if wall_s < EARLIEST_S:
            if meters_s is not None and not self._settled:
                self._step(meters_s, mono_s)
            self._note(wall_s, mono_s, meters_s)
        elif abs(wall_offset_s - self._anchor_s) <= FOLLOW_S:
            self._offset_s = wall_offset_s
            self._jumped_s, self._starting, self._settled = None, False, True
            self._doubt = self._disagreement(wall_offset_s, meters_s)
        elif self._believes_jump(wall_offset_s, mono_s, meters_s):
            if meters_s is None and self._settled:
                self._former_s = self._offset_s
            self._step(wall_offset_s, mono_s)
            self._jumped_s, self._starting, self._doubt = None, False, None
        else:
            if self._starting and meters_s is not None:  # how long we were away, only they know
                self._step(meters_s, mono_s)
                self._starting = False
            self._note(wall_s, mono_s, meters_s)
        return mono_s + self._offset_s

    def _believes_jump(self, wall_offset_s: float, mono_s: float, meters_s: float | None) -> bool:
        """Whether the wall clock, which is elsewhere than it was, is right."""
        if not self._settled:
            return True
        if self._former_s is not None and abs(wall_offset_s - self._former_s) <= FOLLOW_S:
            return True
        if self._jumped_s is None or abs(wall_offset_s - self._jump_s) > FOLLOW_S:
            self._jump_s, self._jumped_s = wall_offset_s, mono_s
        if meters_s is not None:
            wall_error_s = abs(wall_offset_s - meters_s)
            return wall_error_s <= NEAR_S and 2 * wall_error_s < abs(self._offset_s - meters_s)
        return mono_s - self._jumped_s >= (HOLD_AT_START_S if self._starting else HOLD_S)

    def _step(self, offset_s: float, mono_s: float) -> None:
        self._offset_s = self._anchor_s = offset_s
        self._anchored_s, self._settled = mono_s, True
        self._steps += 1

    def _note(self, wall_s: float, mono_s: float, meters_s: float | None) -> None:
        """Say why the wall clock is not believed."""
        said = f"the gateway's clock says {_shown(wall_s)}"
        if not self._settled:
            self._doubt = f"{said}, and no meter has told the time; set it, or connect to a time server"
            return
        source = "as before" if meters_s is None else "as the meters say"
        self._doubt = f"{said}; it is not believed, time goes on {source} ({_shown(mono_s + self._offset_s)})"

    def _disagreement(self, wall_offset_s: float, meters_s: float | None) -> str | None:
        """The wall clock is believed; what the meters think of it."""
        if meters_s is None or abs(wall_offset_s - meters_s) <= NEAR_S:
            return None
        return f"the gateway's clock and the meters' are {abs(wall_offset_s - meters_s) / 60:.0f} min apart; set one"


def _shown(time_s: float) -> str:
    """A time for a person, whatever the clock says."""
    try:
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_s)
        return f"{time:%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError):
        return f"{time_s:.0f} s"
