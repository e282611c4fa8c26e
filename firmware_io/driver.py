"""The door for every kind of meter: what a bus asks of a meter, whatever protocol the meter speaks.

A `MeterDriver` is one meter behind one protocol. The bus calls it, from the bus's own thread only:

    driver.poll(line)                          # the registers, now
    driver.read_profile(line, first_s, last_s) # what the meter stored
    driver.read_events(line, since_s)          # what the meter logged
    driver.identify(line)                      # who it says it is, asked now
    driver.keep_alive(line)                    # hold open what would run into its inactivity time-out

Promised by the bus:
- Calls never overlap, on one driver or on two drivers of the same line: a line is half-duplex.
- Every call brings the open `Line`. Another `Line` object than in the call before means that the line was closed in
  between: whatever was open over it (a link, an association) is gone, whatever was learned of the meter (scalers,
  identity) is not.
- `keep_alive` is called between polls and costs nothing where nothing is due.
- Nothing is called after `AccessDenied` until somebody has seen to the meter.

Promised by a driver:
- It connects by itself when a verb needs it, and raises only `MeterError`s (firmware_io/errors.py); each class says who
  acts next. It never closes or reopens the line: it raises `TransportError`, and the bus does.
- It returns when the reply is complete or its deadline is over, never later: no wait without one.
- What a line would still bring must not be taken for the next answer: a driver that cannot tell them apart calls
  `Line.abandon`, and the bus opens the line anew.
- A line that is `probing` gets one attempt without repeats: the meter has been silent and others wait.
- What it opens over a line it hands to `Line.at_close`, so that it is released before the line goes.
- A reading is of this meter: a late reply, a foreign frame or another meter's answer is never returned as one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from firmware_io.errors import MeterError
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Reading
from firmware_io.transport import Transport

Trace = Callable[[bool, bytes], None]  # whether we send, octets as they pass


@dataclass(slots=True)
class Traffic:
    """What went over the line for one meter, counted up."""

    exchanges: int = 0
    repeats: int = 0
    sent_octets: int = 0
    received_octets: int = 0
    corrupt_frames: int = 0
    foreign_frames: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the meter says it is. `clock_offset_s` is its time minus ours; None where it has no clock.

    `clock_zone` says which zone its time was taken for, where the meter does not tell. `unreadable` are the registers
    that it has and whose values cannot be understood, each with the reason.
    """

    serial: str | None
    firmware: str | None
    registers: tuple[ObisCode, ...]
    clock_offset_s: float | None = None
    clock_doubtful: bool = False
    clock_zone: str | None = None
    unreadable: tuple[str, ...] = ()


class Line:
    """One opening of a bus's port. It ends with `close`; the next opening is another `Line`."""

    def __init__(self, transport: Transport, trace: Trace | None = None) -> None:
        self.transport = transport
        self.trace = trace
        self.probing = False  # set by the bus before each call
        self.abandoned = False
        self._at_close: list[Callable[[], None]] = []

    def at_close(self, release: Callable[[], None]) -> None:
        """Call `release` before the port is closed in good order (not after the port has failed)."""
        self._at_close.append(release)

    def abandon(self) -> None:
        """Have the bus close this line after the call: a late reply over it could answer the next question."""
        self.abandoned = True

    def close(self, *, orderly: bool) -> None:
        """Release what is open over the line, if the line still works, then let the port go; never raises."""
        for release in self._at_close if orderly else ():
            with suppress(MeterError):
                release()
        self._at_close.clear()
        self.transport.close()


class MeterDriver(Protocol):
    """One meter behind its protocol."""

    @property
    def identity(self) -> Identity | None:
        """Who the meter was when it was last asked; None if it never was."""

    @property
    def traffic(self) -> Traffic:
        """Counted since the driver was made."""

    def poll(self, line: Line) -> list[Reading]:
        """The meter's registers, now. Raises: MeterError."""

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        """Stored registers between two UTC times, both included, oldest first; empty if it stores none.

        Raises:
            MeterError: it does not answer, or not as it should.
        """

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        """Log entries newer than a UTC time, oldest first; empty if it keeps none. Raises: MeterError."""

    def identify(self, line: Line) -> Identity:
        """Who the meter is, asked now. Raises: MeterError."""

    def keep_alive(self, line: Line) -> None:
        """Hold open what would run into its inactivity time-out. Raises: MeterError."""


@runtime_checkable
class HasClock(Protocol):
    """A driver whose meter has a clock that can be read and set."""

    def read_clock(self, line: Line) -> float:
        """The meter's clock, UTC seconds. Raises: MeterError."""

    def set_clock(self, line: Line, utc_s: float) -> None:
        """Set the meter's clock. Raises: MeterError."""


@runtime_checkable
class HasProof(Protocol):
    """A driver that knows its meter by a description, which may be that of another device, and watches if it fits."""

    @property
    def proof(self) -> str:
        """What is known of the description by now, with the reasons in figures."""
