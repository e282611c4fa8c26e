"""One bus: its meters, the order of work, back-off, keep-alive and statistics. One thread uses it.

    bus = Bus(spec, meters, open_transport, clock, counters)
    for poll in bus.poll_cycle():        # one `Poll` for each sample of a meter, as soon as it is read
        poll.meter, poll.readings, poll.error
    bus.keep_alive()                     # between cycles, every few seconds: it is cheap when nothing is due
    bus.poll("flat-302")                 # one meter now: its readings
    bus.read_profile("flat-302", first_s, last_s)
    bus.read_events("flat-302", since_s)
    bus.identify("flat-302")             # serial number, firmware, registers, clock offset
    bus.session("flat-302")              # an open association, for tools
    bus.statistics()                     # by meter
    bus.close()

`poll_cycle` never raises because of a meter or of the line: what went wrong is in `Poll.error`. The others raise a
`MeterError`. Values are as the meter shows them, in secondary units: a transformer ratio is the caller's.

The wire is the limit, so associations stay open, a meter's registers come in one request, and the next request goes
out when a reply is complete. The main meter is read first, after every `MAIN_EVERY` others, and last, so that its
samples bracket theirs.

A meter that is silent in two polls running is probed so rarely that all silent ones together take 1/128 of the time
of the others; when one of them comes back the rest are tried at once, as it may have been the line. A meter that
refused our credentials is left alone until `forgive`, because trying again can lock it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from firmware_io.clock import Clock
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.meter.reader import Identity, MeterReader
from firmware_io.dlms.session.association import ExceptionResponseError, Push
from firmware_io.dlms.session.channel import HdlcChannel, Trace, Traffic, WrapperChannel, open_channel
from firmware_io.dlms.session.counters import InvocationCounters, counter_id
from firmware_io.dlms.session.session import Session
from firmware_io.errors import (
    AccessDenied,
    MeterError,
    RegisterUnavailable,
    RemoteProtocolError,
    ResponseTimeout,
    SecurityError,
    TransportError,
)
from firmware_io.obis import INVOCATION_COUNTER
from firmware_io.reading import MeterEvent, Reading
from firmware_io.spec import BusSpec, MeterSpec
from firmware_io.transport import Transport

MAIN_EVERY = 16
PROBE_SHARE = 128  # silent meters take one part in so many of the time
PROBE_MAX_S = 3600.0
ALL_SILENT_BUDGET_S = 30.0  # nobody else needs the line then, but the caller wants it back
REOPEN_MIN_S, REOPEN_MAX_S = 1.0, 60.0
KEEP_ALIVE_SHARE = 0.6  # of the inactivity time-out
PATIENCE = 2  # polls in a row without an answer, and a meter counts as silent
PUBLIC_CLIENT = 16
DECIPHERING_ERROR = 5  # of an exception-response
COUNTER_LIMIT = 0xF0000000  # a meter that asks for a counter beyond it wants our key worn out

T = TypeVar("T")


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
    associations: int = 0
    last_answer_s: float | None = None  # UTC
    silent: bool = False
    denied: bool = False
    traffic: Traffic = field(default_factory=Traffic)


class _Meter:
    """A meter on this bus: how it is doing, and its reader while the line is open."""

    def __init__(self, spec: MeterSpec) -> None:
        self.spec = spec
        self.statistics = MeterStatistics()
        self.channel: HdlcChannel | WrapperChannel | None = None
        self.reader: MeterReader | None = None
        self.failures = 0
        self.probe_at_s = 0.0
        self.active_s = 0.0
        self.counter_asked = False  # by the public client, why ours is refused

    @property
    def silent(self) -> bool:
        return self.statistics.silent


class Bus:
    """All meters of one line. `open_transport` opens it, again after a failure."""

    def __init__(
        self,
        spec: BusSpec,
        meters: Sequence[MeterSpec],
        open_transport: Callable[[BusSpec], Transport],
        clock: Clock,
        counters: InvocationCounters,
        *,
        on_push: Callable[[str], Push] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.spec = spec
        self._meters = {meter.id: _Meter(meter) for meter in meters}
        self._open_transport = open_transport
        self._clock = clock
        self._counters = counters
        self._on_push = on_push
        self._trace = trace
        self._transport: Transport | None = None
        self._reopen_at_s = 0.0
        self._reopen_after_s = REOPEN_MIN_S

    def poll_cycle(self) -> Iterator[Poll]:
        """Read every meter that is due, the main meter more than once; yields as it goes."""
        for meter in self._probes():
            yield self._polled(meter)
        for meter in self._order():
            if not meter.silent:  # it may have fallen silent in this cycle
                yield self._polled(meter)
                self.keep_alive()

    def poll(self, meter: str) -> list[Reading]:
        """Read one meter now, silent or not.

        Raises:
            MeterError: it does not answer, or not as it should.
        """
        state = self._meters[meter]
        state.statistics.polls += 1
        return self._attempt(state, lambda reader: reader.poll())

    def read_profile(self, meter: str, first_s: float, last_s: float) -> list[Reading]:
        """The load profile between two UTC times, oldest first. Raises: MeterError."""
        return self._attempt(self._meters[meter], lambda reader: reader.read_profile(first_s, last_s))

    def read_events(self, meter: str, since_s: float) -> list[MeterEvent]:
        """What the event logs hold that is newer than a UTC time, oldest first. Raises: MeterError."""
        return self._attempt(self._meters[meter], lambda reader: reader.read_events(since_s))

    def identify(self, meter: str) -> Identity:
        """Who the meter is, asked now. Raises: MeterError."""
        return self._attempt(self._meters[meter], lambda reader: reader.identify())

    def identity(self, meter: str) -> Identity | None:
        """Who the meter was when it was last asked; None if it never was."""
        reader = self._meters[meter].reader
        return None if reader is None else reader.identity

    def session(self, meter: str) -> Session:
        """The meter's association, opened if it is not. Raises: MeterError."""
        return self._attempt(self._meters[meter], lambda reader: reader.session, keep=True)

    def forgive(self, meter: str) -> None:
        """Try a meter again that refused our credentials: somebody has seen to it."""
        self._meters[meter].statistics.denied = False
        self._meters[meter].probe_at_s = 0.0

    def statistics(self) -> dict[str, MeterStatistics]:
        """The counts of each meter, live."""
        return {name: meter.statistics for name, meter in self._meters.items()}

    def keep_alive(self) -> None:
        """Poll the links that would run into their inactivity time-out; never raises because of a meter."""
        now = self._clock.monotonic()
        for meter in self._meters.values():
            reader = meter.reader
            idle_s = now - meter.active_s
            if reader and reader.session.open and idle_s >= KEEP_ALIVE_SHARE * meter.spec.inactivity_s:
                with suppress(MeterError):
                    self._attempt(meter, lambda r: r.session.keep_alive())

    def close(self) -> None:
        """Release the associations and let the line go; never raises."""
        for meter in self._meters.values():
            if meter.reader and meter.reader.session.open:
                with suppress(MeterError):
                    meter.reader.session.release()
        self._close_line()

    # Order of work

    def _order(self) -> list[_Meter]:
        """Meters in the order of one cycle; main meters come back so that their samples bracket the others."""
        live = [m for m in self._meters.values() if not m.silent and not m.statistics.denied]
        mains = [m for m in live if m.spec.main]
        subs = [m for m in live if not m.spec.main]
        if not mains or not subs:
            return live
        order = list(mains)
        for start in range(0, len(subs), MAIN_EVERY):
            order += subs[start : start + MAIN_EVERY] + mains
        return order

    def _probes(self) -> Iterator[_Meter]:
        """Silent meters whose time has come, all of them if no other is left."""
        silent = sorted((m for m in self._meters.values() if m.silent), key=lambda m: m.probe_at_s)
        started_s = self._clock.monotonic()
        alone = len(silent) == sum(not m.statistics.denied for m in self._meters.values())
        for meter in silent:
            now = self._clock.monotonic()
            if meter.probe_at_s <= now or (alone and now - started_s < ALL_SILENT_BUDGET_S):
                yield meter

    def _polled(self, meter: _Meter) -> Poll:
        try:
            return Poll(meter.spec.id, tuple(self.poll(meter.spec.id)))
        except MeterError as error:
            return Poll(meter.spec.id, (), error)

    # One meter

    def _attempt(self, meter: _Meter, use: Callable[[MeterReader], T], *, keep: bool = False) -> T:
        """Do something with a meter over an open association, and keep the books about how it went."""
        statistics = meter.statistics
        if statistics.denied:
            raise AccessDenied("left alone since it refused our credentials", meter=meter.spec.id)
        started_s = self._clock.monotonic()
        try:
            result = self._use(meter, use)
        except TransportError:
            if self._transport is not None:
                self._reopen_at_s = self._clock.monotonic() + REOPEN_MIN_S
            self._close_line()
            raise
        except ResponseTimeout:
            statistics.timeouts += 1
            self._failed(meter, started_s)
            raise
        except SecurityError:
            statistics.security_errors += 1
            self._failed(meter, started_s)
            raise
        except RemoteProtocolError:
            statistics.protocol_errors += 1
            self._failed(meter, started_s)
            raise
        except RegisterUnavailable:
            self._answered(meter)  # with a refusal, but it did
            raise
        self._answered(meter)
        if meter.spec.single_association and meter.reader and not keep:
            meter.reader.session.release()
        return result

    def _use(self, meter: _Meter, use: Callable[[MeterReader], T]) -> T:
        reader = self._reader(meter)
        was_open = reader.session.open
        if not was_open:
            self._connect(meter, reader)
        try:
            return use(reader)
        except SecurityError:
            raise
        except RemoteProtocolError:
            if not was_open:
                raise
            self._connect(meter, reader)  # it had dropped the association: once more over a new one
            return use(reader)

    def _reader(self, meter: _Meter) -> MeterReader:
        """The meter's reader over the open line."""
        line = self._line()
        if meter.channel is None:
            meter.channel = open_channel(line, self.spec, meter.spec, meter.statistics.traffic, self._trace)
            push = self._on_push(meter.spec.id) if self._on_push else None
            session = Session(meter.spec, meter.channel, self._counters, push)
            if meter.reader is None:
                meter.reader = MeterReader(meter.spec, session, self._clock)
            else:
                session.with_list = meter.reader.session.with_list
                meter.reader.session = session
        assert meter.reader is not None
        if self._clock.monotonic() - meter.active_s >= meter.spec.inactivity_s:
            meter.reader.session.open = False  # the meter has dropped it by now
        return meter.reader

    def _connect(self, meter: _Meter, reader: MeterReader) -> None:
        if isinstance(meter.channel, HdlcChannel):
            meter.channel.repeats = 0 if meter.silent else 1
        try:
            try:
                reader.session.connect()
            except (AccessDenied, ExceptionResponseError):
                if not self._counter_behind(meter):
                    raise
                reader.session.connect()
        except ExceptionResponseError as error:
            if error.response.service != DECIPHERING_ERROR:
                raise
            meter.statistics.denied = True  # a meter that cannot decipher us counts that as an attempt
            hint = "the meter cannot decipher us: check its keys before trying again, it may lock itself"
            raise AccessDenied(hint, meter=meter.spec.id) from error
        except AccessDenied:
            meter.statistics.denied = True
            raise
        finally:
            if isinstance(meter.channel, HdlcChannel):
                meter.channel.repeats = 1
        meter.statistics.associations += 1

    def _counter_behind(self, meter: _Meter) -> bool:
        """Whether the meter knows a higher invocation counter than ours, which is raised then; asked once."""
        spec = meter.spec
        if meter.counter_asked or spec.encryption_key is None or spec.system_title is None:
            return False
        meter.counter_asked = True
        channel = open_channel(
            self._line(), self.spec, spec, meter.statistics.traffic, self._trace, client=PUBLIC_CLIENT
        )
        session = Session(spec, channel, self._counters, public=True)
        try:
            session.connect()
            theirs = session.get(Attribute(1, INVOCATION_COUNTER, 2)).value
            session.release()
        except TransportError:
            raise
        except MeterError:
            return False
        counter = counter_id(spec.encryption_key, spec.system_title)
        if not isinstance(theirs, int) or not self._counters.next(counter) <= theirs < COUNTER_LIMIT:
            return False
        self._counters.advance(counter, theirs + 1)
        return True

    def _answered(self, meter: _Meter) -> None:
        meter.statistics.answered += 1
        meter.statistics.last_answer_s = self._clock.now()
        meter.active_s = self._clock.monotonic()
        meter.failures = 0
        meter.counter_asked = False
        if meter.silent:
            meter.statistics.silent = False
            for other in self._meters.values():  # it may have been the line: look at the others now
                other.probe_at_s = 0.0

    def _failed(self, meter: _Meter, started_s: float) -> None:
        """One more poll without an answer; silent ones together may take one part in PROBE_SHARE of the time."""
        meter.failures += 1
        meter.statistics.silent = meter.failures >= PATIENCE
        now = self._clock.monotonic()
        silent = sum(m.silent for m in self._meters.values())
        meter.probe_at_s = now + min(PROBE_MAX_S, PROBE_SHARE * silent * (now - started_s))
        if self.spec.framing == "wrapper":
            self._close_line()  # a late reply on the same connection would answer the next question

    # The line

    def _line(self) -> Transport:
        if self._transport is None:
            now = self._clock.monotonic()
            if now < self._reopen_at_s:
                raise TransportError(
                    f"bus {self.spec.id}: {self.spec.port} failed; next try in {self._reopen_at_s - now:.0f} s"
                )
            try:
                self._transport = self._open_transport(self.spec)
            except TransportError:
                self._reopen_at_s = now + self._reopen_after_s
                self._reopen_after_s = min(2 * self._reopen_after_s, REOPEN_MAX_S)
                raise
            self._reopen_after_s = REOPEN_MIN_S
        return self._transport

    def _close_line(self) -> None:
        """Let the line go, and with it all that was open over it."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        for meter in self._meters.values():
            meter.channel = None
            if meter.reader:
                meter.reader.session.open = False
