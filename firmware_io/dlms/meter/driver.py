"""A DLMS meter behind the seam of `firmware_io.driver`: link, association, counters and keep-alive, as they are needed.

It decides when to associate, what to try once more over a new association, and when to leave a meter alone. What is
asked of the meter is the reader's business; order of work and back-off are the bus's.

Associations stay open between the calls: the wire is the limit. A meter that has dropped its one is associated again
within the same call, once. One that cannot decipher us is asked by the public client, once, for its invocation
counter; is ours not behind, the keys are wrong, and it is left alone because it may lock itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from firmware_io import obis
from firmware_io.clock import Clock
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import Attribute, DataNotification, EventNotification
from firmware_io.dlms.apdu.refusals import ExceptionResponseError
from firmware_io.dlms.cosem.meter_time import Convention, MeterTime
from firmware_io.dlms.meter.broadcast import ciphered, clock_request, frame
from firmware_io.dlms.meter.push import PushOpener
from firmware_io.dlms.meter.reader import CLOCK, MeterReader
from firmware_io.dlms.session.association import Push
from firmware_io.dlms.session.channel import FrameRejected, HdlcChannel, WrapperChannel, open_channel
from firmware_io.dlms.session.counters import CounterUnknown, InvocationCounters, counter_id
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.session.timing import Latency
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import (
    AccessDenied,
    LocalProtocolError,
    MeterError,
    RegisterUnavailable,
    RemoteProtocolError,
    ResponseTimeout,
    SecurityError,
    TransportError,
)
from firmware_io.identity import Serials
from firmware_io.pushes import Pushed
from firmware_io.reading import MeterEvent, Reading
from firmware_io.spec import BusSpec

KEEP_ALIVE_SHARE = 0.6  # of the inactivity time-out
PUBLIC_CLIENT = 16
DECIPHERING_ERROR = 5  # of an exception-response
MAX_PUSHES = 64  # that came meanwhile, and are not taken yet
COUNTER_LIMIT = 0xF0000000  # a meter that asks for a counter beyond it wants our key worn out

T = TypeVar("T")


class DlmsDriver:
    """A `MeterDriver` that `HasClock`, for one meter that speaks DLMS over HDLC or the wrapper."""

    def __init__(
        self,
        spec: DlmsSpec,
        bus: BusSpec,
        clock: Clock,
        counters: InvocationCounters,
        on_push: Push | None = None,
        serials: Serials | None = None,
    ) -> None:
        self.spec = spec
        self.traffic = Traffic()
        self.associations = 0  # opened since the driver was made
        self._bus = bus
        self._clock = clock
        self._counters = counters
        self._on_push = on_push
        self._serials = serials
        self._meanwhile: deque[tuple[DataNotification | EventNotification, float, bool]] = deque(maxlen=MAX_PUSHES)
        self._opener: PushOpener | None = None
        self._title: bytes | None = None  # of the meter, since it last associated
        self._latency = Latency()
        self._line: Line | None = None
        self._channel: HdlcChannel | WrapperChannel | None = None
        self._reader: MeterReader | None = None
        self._active_s = 0.0
        self._counter_asked = False  # by the public client, why ours is refused

    @property
    def identity(self) -> Identity | None:
        """Who the meter was when it was last asked."""
        return None if self._reader is None else self._reader.identity

    def poll(self, line: Line) -> list[Reading]:
        """All registers, in one request where the meter takes lists. Raises: MeterError."""
        return self._verb(line, MeterReader.poll)

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        """The load profile between two UTC times, oldest first. Raises: MeterError."""
        return self._verb(line, lambda reader: reader.read_profile(first_s, last_s))

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        """What the event logs hold that is newer than a UTC time, oldest first. Raises: MeterError."""
        return self._verb(line, lambda reader: reader.read_events(since_s))

    def identify(self, line: Line) -> Identity:
        """Serial number, firmware, registers and clock, asked now. Raises: MeterError."""
        return self._verb(line, MeterReader.identify)

    def keep_alive(self, line: Line) -> None:
        """Poll a link that would run into its inactivity time-out. Raises: MeterError."""
        if line is not self._line or self._reader is None or not self._reader.session.open:
            return
        if self._clock.monotonic() - self._active_s >= KEEP_ALIVE_SHARE * self.spec.inactivity_s:
            self._verb(line, lambda reader: reader.session.keep_alive())

    def take_push(self, pushed: Pushed) -> list[Reading] | None:
        """See `TakesPushes`."""
        # Several meters may share a key: whose a ciphered push is says the title of the meter that associated.
        if not self.spec.push or (self.spec.ciphers and self._title is None):
            return None
        if self._opener is None:
            self._opener = PushOpener(self.spec)
        try:
            push, authentic = self._opener.open(pushed.octets, self._title)
        except (SecurityError, RemoteProtocolError):
            return None
        if self._reader is None or self._reader.identity is None:
            return None
        return self._reader.pushed(push, pushed.received_s, authentic=authentic)

    def pushed_meanwhile(self) -> list[Reading]:
        """See `TakesPushes`."""
        readings: list[Reading] = []
        while self._meanwhile and self._reader is not None and self._reader.identity is not None:
            push, received_s, authentic = self._meanwhile.popleft()
            readings += self._reader.pushed(push, received_s, authentic=authentic) or []
        return readings

    def _heard_push(self, push: DataNotification | EventNotification) -> None:
        """A push while a reply was waited for; ciphered where the association is."""
        if self._on_push:
            self._on_push(push)
        if self.spec.push:
            authentic = self._reader is not None and self._reader.session.authenticated
            self._meanwhile.append((push, self._clock.now(), authentic))

    def read_clock(self, line: Line) -> float:
        """The meter's clock, UTC seconds.

        Raises:
            RegisterUnavailable: it has none, or one that was never set.
        """
        time, convention = self.read_meter_time(line)
        if time is None:
            raise RegisterUnavailable("its clock is not set", meter=self.spec.id, obis=str(obis.CLOCK))
        return convention.utc_s(time)

    def read_meter_time(self, line: Line) -> tuple[MeterTime | None, Convention]:
        """The meter's time as it shows it, None if it was never set, and what it means by it. Raises: MeterError."""
        value = self._use(line, lambda reader: reader.session.get(CLOCK)).value
        if not isinstance(value, bytes):
            raise RegisterUnavailable("it has no time", meter=self.spec.id, obis=str(obis.CLOCK))
        time = MeterTime.decode(value)
        return time, Convention() if time is None else Convention.learn(time, self._clock.now(), self.spec.timezone)

    def set_clock(self, line: Line, utc_s: float) -> None:
        """Set the clock in the meter's own manner (zone, sign of the deviation). Raises: MeterError."""
        _, convention = self.read_meter_time(line)
        time = axdr.octet_string(convention.meter_time(utc_s).encode())
        self._use(line, lambda reader: reader.session.set(CLOCK, time))

    def session(self, line: Line) -> Session:
        """The meter's association, opened if it is not: for tools that ask what no verb does. Raises: MeterError."""
        return self._use(line, lambda reader: reader.session)

    def broadcast_clock(self, line: Line, utc_s: float, convention: Convention) -> None:
        """Send the time to all meters of the line, in this meter's form of address and security; nobody answers.

        Raises:
            LocalProtocolError: this meter's security or framing has no broadcast.
        """
        spec = self.spec
        if spec.framing == "wrapper":
            raise LocalProtocolError("there is no broadcast behind a wrapper gateway: set the clocks one by one")
        apdu = clock_request(convention.meter_time(utc_s))
        if spec.ciphers:
            counter = counter_id(spec.broadcast_key or b"", spec.system_title or b"")
            apdu = ciphered(spec, apdu, lambda: self._counters.next(counter))
        octets = frame(spec.client, apdu, spec.address_octets or 2)
        if line.trace:
            line.trace(True, octets)
        line.transport.write(octets)

    def take_spec(self, spec: DlmsSpec) -> None:
        """Go on with another specification of the same meter: its keys have changed. The association is opened anew."""
        self.spec = spec
        self._line = None

    # One call

    def _verb(self, line: Line, use: Callable[[MeterReader], T]) -> T:
        """`_use`, and the association is released again where the meter has only one for all its clients."""
        result = self._use(line, use)
        if self.spec.single_association and self._reader is not None:
            self._reader.session.release()
        return result

    def _use(self, line: Line, use: Callable[[MeterReader], T]) -> T:
        """Do something over an open association; over a new one, once, if the meter turns out to have dropped it."""
        reader = self._over(line)
        was_open = reader.session.open
        try:
            if not was_open:
                self._connect(line, reader)
            try:
                result = self._permitted(reader, use)
            except SecurityError:
                raise
            except RemoteProtocolError:
                if not was_open:
                    raise
                self._connect(line, reader)
                result = self._permitted(reader, use)
        except RegisterUnavailable:
            self._answered()  # with a refusal, but it did
            raise
        except FrameRejected:
            reader.session.shrink_lists()
            raise
        except ResponseTimeout:
            if self.spec.framing == "wrapper" and self.spec.naming == "sn":
                line.abandon()  # without an invoke-id a late answer would be that to the next question
            raise
        except RemoteProtocolError:
            # Units that make no sense leave a stream of them out of step. (A late one is known by its invoke-id.)
            if self.spec.framing == "wrapper":
                line.abandon()
            raise
        self._answered()
        return result

    def _permitted(self, reader: MeterReader, use: Callable[[MeterReader], T]) -> T:
        """A right that is missing is no matter of credentials: those were accepted."""
        try:
            return use(reader)
        except AccessDenied as error:
            raise RegisterUnavailable(str(error)) from error

    def _answered(self) -> None:
        self._active_s = self._clock.monotonic()
        self._counter_asked = False

    # Link and association

    def _over(self, line: Line) -> MeterReader:
        """The meter's reader over the open line; what was open over another one is gone."""
        if self._reader is None or self._line is not line:
            self._channel = open_channel(
                line.transport, self._bus, self.spec, self.traffic, line.trace, latency=self._latency
            )
            session = Session(self.spec, self._channel, self._counters, self._heard_push)
            if self._reader is None:
                place = f"{self._bus.id}/{self.spec.logical_address}/{self.spec.address}"
                self._reader = MeterReader(self.spec, session, self._clock, self._serials, place)
            else:
                session.with_list = self._reader.session.with_list
                self._reader.session = session
            self._line = line
            line.at_close(self._release)
        if self._clock.monotonic() - self._active_s >= self.spec.inactivity_s:
            self._reader.session.open = False  # the meter has dropped it by now
        return self._reader

    def _release(self) -> None:
        if self._reader is not None and self._reader.session.open:
            self._reader.session.release()

    def _connect(self, line: Line, reader: MeterReader) -> None:
        if isinstance(self._channel, HdlcChannel):
            self._channel.repeats, self._channel.probing = (0, True) if line.probing else (1, False)
        try:
            try:
                reader.session.connect()
            except (AccessDenied, ExceptionResponseError, CounterUnknown) as error:
                if not self._counter_behind(line, error):
                    raise
                reader.session.connect()
        except ExceptionResponseError as error:
            if error.response.service != DECIPHERING_ERROR:
                raise
            # A meter that cannot decipher us counts that as an attempt.
            hint = "the meter cannot decipher us: check its keys before trying again, it may lock itself"
            raise AccessDenied(hint, meter=self.spec.id) from error
        finally:
            if isinstance(self._channel, HdlcChannel):
                self._channel.repeats, self._channel.probing = 1, False
        self.associations += 1
        self._title = reader.session.meter_title or self._title

    def _counter_behind(self, line: Line, error: MeterError) -> bool:
        """Whether the meter knows a higher invocation counter than ours, which is raised then; asked once.

        It may say so itself: "invocation counter error, it expects N". Anybody on the line could, too: that costs
        counters, of which there are enough, and no secret.
        """
        spec = self.spec
        if self._counter_asked or spec.encryption_key is None or spec.system_title is None:
            return False
        self._counter_asked = True
        if isinstance(error, ExceptionResponseError) and error.response.counter is not None:
            return self._advance(error.response.counter)
        channel = open_channel(line.transport, self._bus, spec, self.traffic, line.trace, client=PUBLIC_CLIENT)
        session = Session(spec, channel, self._counters, public=True)
        try:
            session.connect()
            theirs = session.get(Attribute(1, spec.sources.counter, 2)).value
            session.release()
        except TransportError:
            raise
        except MeterError:
            return False
        return isinstance(theirs, int) and self._advance(theirs + 1)

    def _advance(self, expected: int) -> bool:
        """Go on with the counter that the meter expects; False if ours is there already, or it cannot be."""
        key, title = self.spec.encryption_key, self.spec.system_title
        if key is None or title is None:
            return False
        counter = counter_id(key, title)
        try:
            ours = self._counters.next(counter)
        except CounterUnknown:  # the file was lost: the meter's word is all there is
            ours = 0
        if not ours < expected <= COUNTER_LIMIT:
            return False
        self._counters.advance(counter, expected)
        return True
