"""One bus: its meters, the order of work, back-off, budgets and statistics. One thread uses it. It knows no protocol.

    bus = Bus(spec, [BusMeter("flat-302", driver), ...], open_transport, clock)
    for poll in bus.poll_cycle():        # one `Poll` for each sample of a meter, as soon as it is read
        poll.meter, poll.readings, poll.error
    bus.keep_alive()                     # between cycles, every few seconds: it is cheap when nothing is due
    for poll in bus.probe(): ...         # likewise: silent meters whose time has come
    bus.poll("flat-302")                 # one meter now: its readings
    bus.read_profile("flat-302", first_s, last_s)
    bus.read_events("flat-302", since_s)
    bus.identify("flat-302")             # serial number, firmware, registers, clock offset
    bus.use("flat-302", lambda driver, line: ...)  # what only this meter's protocol can do, for tools
    bus.statistics()                     # by meter
    bus.close()

`poll_cycle` never raises because of a meter or of the line: what went wrong is in `Poll.error`. The others raise a
`MeterError`. Values are as the meter shows them, in secondary units: a transformer ratio is the caller's.

What a meter is asked, and in which octets, is its `MeterDriver`'s business (firmware_io/driver.py); the bus opens the
line, hands it to one driver after the other, and closes it when it has failed. The main meter is read first, after
every `MAIN_EVERY` others, and last, so that its samples bracket theirs.

When a silent, slow or refusing meter is asked again is said in firmware_io/standing.py. Main meters are asked in each
cycle whatever happens, because without them there is no balance; while they are silent, once and without repeats.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from firmware_io.clock import Clock
from firmware_io.driver import Identity, Line, MeterDriver, Trace, Traffic
from firmware_io.errors import (
    AccessDenied,
    IdentityMismatch,
    MeterError,
    RegisterUnavailable,
    RemoteProtocolError,
    ResponseTimeout,
    SecurityError,
    TransportError,
)
from firmware_io.pushes import Pushed, PushSource, TakesPushes
from firmware_io.reading import MeterEvent, Reading
from firmware_io.spec import BusSpec
from firmware_io.standing import SLOW_MIN_S, SPACING, Standing
from firmware_io.transport import Transport

log = logging.getLogger("checkmeter.bus")

MAIN_EVERY = 16
LOOK_S = 0.1  # between two looks at what has to be held open, or probed, within a cycle
ALL_SILENT_BUDGET_S = 30.0  # nobody else needs the line then, but the caller wants it back
REOPEN_MIN_S, REOPEN_MAX_S = 1.0, 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BusMeter:
    """A meter as a bus has it: under which name, behind which driver, and whether its samples bracket the others'."""

    id: str
    driver: MeterDriver
    main: bool = False


@dataclass(frozen=True, slots=True)
class Poll:
    """One sample of one meter: what it said, or why it said nothing. Both are empty while it is left alone."""

    meter: str
    readings: tuple[Reading, ...] = ()
    error: MeterError | None = None


@dataclass(slots=True)
class MeterStatistics:
    """Counts of one meter since the bus was made."""

    polls: int = 0
    answered: int = 0
    timeouts: int = 0
    protocol_errors: int = 0
    security_errors: int = 0
    mismatches: int = 0  # another meter answered
    last_answer_s: float | None = None  # UTC
    silent: bool = False
    denied: bool = False
    traffic: Traffic = field(default_factory=Traffic)


class _Meter:
    """A meter on this bus and how it is doing."""

    def __init__(self, meter: BusMeter) -> None:
        self.id, self.driver, self.main = meter.id, meter.driver, meter.main
        self.statistics = MeterStatistics(traffic=meter.driver.traffic)
        self.standing = Standing()

    @property
    def silent(self) -> bool:
        return self.standing.silent


class Bus:
    """All meters of one line. `open_transport` opens it, again after a failure."""

    def __init__(
        self,
        spec: BusSpec,
        meters: Sequence[BusMeter],
        open_transport: Callable[[BusSpec], Transport],
        clock: Clock,
        *,
        trace: Trace | None = None,
        sources: Sequence[PushSource] = (),
    ) -> None:
        """`sources` are where the meters' pushes come in."""
        self.spec = spec
        self._sources = tuple(sources)
        self._meters = {meter.id: _Meter(meter) for meter in meters}
        self._open_transport = open_transport
        self._clock = clock
        self._trace = trace
        self._line: Line | None = None
        self._said: set[str] = set()
        self._probe_at_s = 0.0
        self._reopen_at_s = 0.0
        self._reopen_after_s = REOPEN_MIN_S

    def poll_cycle(self) -> Iterator[Poll]:
        """Read every meter that is due, the main meter more than once; yields as it goes."""
        yield from self.probe(whole_line=True)
        asked: set[str] = set()
        looked_s = self._clock.monotonic()
        for meter in self._order():
            # It may have fallen silent in this cycle. A silent main meter is tried once.
            if not meter.silent or (meter.main and meter.id not in asked):
                asked.add(meter.id)
                yield self._polled(meter)
                now_s = self._clock.monotonic()
                if now_s - looked_s >= LOOK_S:  # where a poll takes milliseconds, looking at all behind each is dear
                    looked_s = now_s
                    self.keep_alive()
                    yield from self.probe()

    def probe(self, *, whole_line: bool = False) -> Iterator[Poll]:
        """What meters have pushed; and silent meters whose time has come, and those that refused us long ago.

        With `whole_line` all that are silent are tried if nobody answers: it may be the cable.
        """
        yield from self._pushed()
        for meter in self._meters.values():
            standing = meter.standing
            if standing.denied and not standing.left_alone_s(self._clock.monotonic()):
                yield self._polled(meter)
        silent = [m for m in self._meters.values() if m.silent and not m.standing.denied]
        if not silent:
            return
        began_s = self._clock.monotonic()
        alone = whole_line and len(silent) == sum(not m.standing.denied for m in self._meters.values())
        for meter in sorted(silent, key=lambda m: m.standing.probe_at_s):
            now = self._clock.monotonic()
            due = meter.standing.probe_at_s <= now and self._probe_at_s <= now and not meter.main
            if due or (alone and now - began_s < ALL_SILENT_BUDGET_S):
                yield self._polled(meter)
                if meter.silent:
                    self._probe_at_s = self._clock.monotonic() + SPACING * (self._clock.monotonic() - now)

    def poll(self, meter: str) -> list[Reading]:
        """Read one meter now, silent or not.

        Raises:
            MeterError: it does not answer, or not as it should.
        """
        state = self._meters[meter]
        state.statistics.polls += 1
        began_s = self._clock.monotonic()
        readings = self.use(meter, lambda driver, line: driver.poll(line))
        now_s = self._clock.monotonic()
        cost_s = now_s - began_s
        others = self._meters.values() if cost_s > SLOW_MIN_S else ()  # a quick one is never slow, whatever others are
        costs = [m.standing.cost_s for m in others if m is not state and m.standing.cost_s is not None]
        state.standing.took(cost_s, costs, now_s)
        return readings

    def read_profile(self, meter: str, first_s: float, last_s: float) -> list[Reading]:
        """The load profile between two UTC times, oldest first. Raises: MeterError."""
        return self.use(meter, lambda driver, line: driver.read_profile(line, first_s, last_s))

    def read_events(self, meter: str, since_s: float) -> list[MeterEvent]:
        """What the event logs hold that is newer than a UTC time, oldest first. Raises: MeterError."""
        return self.use(meter, lambda driver, line: driver.read_events(line, since_s))

    def identify(self, meter: str) -> Identity:
        """Who the meter is, asked now. Raises: MeterError."""
        return self.use(meter, lambda driver, line: driver.identify(line))

    def identity(self, meter: str) -> Identity | None:
        """Who the meter was when it was last asked; None if it never was."""
        return self._meters[meter].driver.identity

    def use(self, meter: str, work: Callable[[MeterDriver, Line], T]) -> T:
        """What `work` returns, called with the meter's driver and the open line; the books are kept about how it went.

        Raises:
            MeterError: what `work` raises, or the line cannot be opened.
        """
        state = self._meters[meter]
        left_s = state.standing.left_alone_s(self._clock.monotonic())
        if left_s:
            again = "until the agent starts again" if state.standing.final else f"for {left_s / 3600:.1f} h more"
            raise AccessDenied(f"left alone {again} since it refused our credentials", meter=meter)
        result = self._attempt(state, lambda line: work(state.driver, line))
        self._answered(state)
        return result

    def retry_denied(self, meter: str) -> None:
        """Try a meter again that refused our credentials: somebody has seen to it."""
        self._meters[meter].standing = Standing()
        self._meters[meter].statistics.denied = False

    def statistics(self) -> dict[str, MeterStatistics]:
        """The counts of each meter, live."""
        return {name: meter.statistics for name, meter in self._meters.items()}

    def keep_alive(self) -> None:
        """Hold open what would run into its inactivity time-out; never raises because of a meter."""
        for meter in self._meters.values():
            if self._line is None:
                return
            if not meter.standing.denied:
                with suppress(MeterError):
                    self._attempt(meter, meter.driver.keep_alive)

    def close(self) -> None:
        """Release what is open over the line and let it go; never raises."""
        for source in self._sources:
            source.close()
        self._close_line(orderly=True)

    def _pushed(self) -> Iterator[Poll]:
        """What meters have sent unasked since the last call, each as the sample of the one that it is of."""
        for meter in self._meters.values():
            readings = self._of_push(meter, None)
            if readings:
                yield Poll(meter.id, tuple(readings))
        for source in self._sources:
            try:
                units = source.take(None if self._line is None else self._line.transport)
            except TransportError as error:  # the line is gone, which the next poll finds; or the port is another's
                self._say_once(str(error), error)
                continue
            for unit in units:
                for meter in self._meters.values():
                    taken = self._of_push(meter, unit)
                    if taken is not None:
                        self._heard(meter)
                        if taken:
                            yield Poll(meter.id, tuple(taken))
                        break

    def _of_push(self, meter: _Meter, unit: Pushed | None) -> list[Reading] | None:
        """What a driver makes of a unit, or (None) of what came meanwhile; an error of it is nothing to the others."""
        driver = meter.driver
        if not isinstance(driver, TakesPushes):
            return None
        try:
            return driver.pushed_meanwhile() if unit is None else driver.take_push(unit)
        except MeterError as error:
            self._say_once(meter.id, error)  # not each: whoever reaches the listener makes as many as he likes
            return None

    def _say_once(self, about: str, error: MeterError) -> None:
        if about not in self._said:
            self._said.add(about)
            log.warning("bus %s: %s", self.spec.id, error)

    # Order of work

    def _order(self) -> list[_Meter]:
        """Meters in the order of one cycle; main meters come back so that their samples bracket the others."""
        now = self._clock.monotonic()
        live = [
            m
            for m in self._meters.values()
            if not m.standing.denied and (m.main or not m.silent) and m.standing.due_s <= now
        ]
        mains = [m for m in live if m.main]
        subs = [m for m in live if not m.main]
        if not mains or not subs:
            return live
        order = list(mains)
        for start in range(0, len(subs), MAIN_EVERY):
            order += subs[start : start + MAIN_EVERY] + mains
        return order

    def _polled(self, meter: _Meter) -> Poll:
        try:
            return Poll(meter.id, tuple(self.poll(meter.id)))
        except MeterError as error:
            return Poll(meter.id, (), error)

    # One meter

    def _attempt(self, meter: _Meter, work: Callable[[Line], T]) -> T:
        """Do something with a meter over the open line, and keep the books about failures."""
        statistics = meter.statistics
        try:
            line = self._opened()
            line.probing = meter.silent
            result = work(line)
        except TransportError:
            if self._line is not None:
                self._reopen_at_s = self._clock.monotonic() + REOPEN_MIN_S
            self._close_line()
            raise
        except AccessDenied as error:
            statistics.denied = True
            meter.standing.refused(self._clock.monotonic(), proven=error.proven)
            raise
        except ResponseTimeout as error:
            statistics.timeouts += 1
            self._failed(meter, heard=error.heard)
            raise
        except RemoteProtocolError as error:
            statistics.security_errors += isinstance(error, SecurityError)
            statistics.protocol_errors += not isinstance(error, SecurityError)
            self._failed(meter, heard=True)
            raise
        except IdentityMismatch:
            statistics.mismatches += 1
            self._heard(meter)
            raise
        except RegisterUnavailable:
            self._answered(meter)  # with a refusal, but it did
            raise
        finally:
            if self._line is not None and self._line.abandoned:
                self._close_line()
        return result

    def _answered(self, meter: _Meter) -> None:
        meter.statistics.answered += 1
        meter.statistics.last_answer_s = self._clock.now()
        self._heard(meter)

    def _heard(self, meter: _Meter) -> None:
        was_silent = meter.silent
        meter.standing.answered()
        meter.statistics.silent = meter.statistics.denied = False
        if was_silent:
            self._probe_at_s = 0.0
            for other in self._meters.values():  # it may have been the line: look at the others now
                other.standing.probe_at_s = 0.0

    def _failed(self, meter: _Meter, *, heard: bool) -> None:
        now = self._clock.monotonic()
        meter.standing.failed(now, heard=heard)
        meter.statistics.silent = meter.silent
        if meter.silent:
            meter.standing.probe_later(now, (m.standing for m in self._meters.values()))

    # The line

    def _opened(self) -> Line:
        if self._line is None:
            now = self._clock.monotonic()
            if now < self._reopen_at_s:
                wait_s = self._reopen_at_s - now
                raise TransportError(
                    f"bus {self.spec.id}: {self.spec.port} failed; it is not opened again within {wait_s:.0f} s"
                )
            try:
                self._line = Line(self._open_transport(self.spec), self._trace)
            except TransportError:
                self._reopen_at_s = now + self._reopen_after_s
                self._reopen_after_s = min(2 * self._reopen_after_s, REOPEN_MAX_S)
                raise
            self._reopen_after_s = REOPEN_MIN_S
        return self._line

    def _close_line(self, *, orderly: bool = False) -> None:
        if self._line is not None:
            line, self._line = self._line, None
            line.close(orderly=orderly)
