"""One M-Bus meter behind the driver seam, by primary or secondary address; and the search for secondary addresses.

Each poll begins with SND_NKE, after which the meter sends its first telegram: whatever frame count bit another
master left behind does not matter. Battery meters are asked no more often than `interval_s`: each answer costs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from firmware_io.asking.exchange import Answer, Asker, Question, Timing
from firmware_io.asking.sampling import Doubts, Sampler, Value
from firmware_io.clock import Clock
from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import RemoteProtocolError, ResponseTimeout
from firmware_io.mbus import frame as wire
from firmware_io.mbus import records, registers
from firmware_io.mbus.frame import Frame, SecondaryAddress
from firmware_io.mbus.records import Telegram
from firmware_io.reading import MeterEvent, Reading

MAX_TELEGRAMS = 16  # of one answer: bounds a meter that never comes to an end
MAX_FOUND = 250  # meters of one search
GAP_BITS = 33  # bit times of silence ahead of a frame (EN 13757-2, 5.5)
BITS_AN_OCTET = 11
_KEY_OCTETS = 16


@dataclass(frozen=True, slots=True)
class MbusSpec:
    """One meter: `address` is primary (0 to 250), `secondary` its secondary address; one of the two."""

    id: str
    address: int | None = None
    secondary: SecondaryAddress | None = None
    key: bytes | None = field(default=None, repr=False)
    interval_s: float = 0.0
    min_gap_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises: ValueError: no address, or two, or none that a meter has; a key of another length."""
        if (self.address is None) == (self.secondary is None):
            raise ValueError(f"meter {self.id}: give its primary or its secondary address, one of the two")
        if self.address is not None and not 0 <= self.address <= wire.MAX_PRIMARY:
            raise ValueError(f"meter {self.id}: a primary address is 0 to {wire.MAX_PRIMARY}, got {self.address}")
        if self.key is not None and len(self.key) != _KEY_OCTETS:
            raise ValueError(f"meter {self.id}: the key of mode 5 has {_KEY_OCTETS} octets, got {len(self.key)}")


class MbusDriver:
    """See `driver.MeterDriver`. Load profiles and logs of M-Bus meters are not read, nor is their clock."""

    def __init__(self, spec: MbusSpec, timing: Timing, clock: Clock) -> None:
        self.spec = spec
        self._clock = clock
        self._asker = _asker(spec.id, timing, clock, spec.min_gap_s)
        self._sampler = Sampler(spec.id, clock)
        self._identity: Identity | None = None
        self._seen: tuple[str, ...] = ()  # serial numbers that have answered here, the latest last
        self._asked_s = float("-inf")

    @property
    def identity(self) -> Identity | None:
        return self._identity

    @property
    def traffic(self) -> Traffic:
        return self._asker.traffic

    @property
    def doubts(self) -> Doubts:
        """Values that were not taken as they came."""
        return self._sampler.doubts

    def poll(self, line: Line) -> list[Reading]:
        now = self._clock.monotonic()
        if now - self._asked_s < self.spec.interval_s:
            return []  # its battery is spared
        readings = self._sampler.readings(lambda: self._values(line), lambda: None)
        self._asked_s = now
        return readings

    def identify(self, line: Line) -> Identity:
        self._values(line)
        assert self._identity is not None
        return self._identity

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        return []

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        return []

    def keep_alive(self, line: Line) -> None:
        """Nothing is open over this protocol."""

    def telegrams(self, line: Line) -> list[Answer[Telegram]]:
        """The meter's whole answer, as it stands. Raises: MeterError."""
        address = self.spec.address
        if self.spec.secondary is not None:
            address = wire.SELECTED
            _select(self._asker, line, self.spec.secondary)
        else:
            assert address is not None
            acknowledged = Question(Frame(wire.SND_NKE, address).encode(), wire.parse, _is_ack, 5, "SND_NKE")
            self._asker.ask(line, acknowledged)
        told: list[Answer[Telegram]] = []
        control = wire.REQ_UD2 | wire.FCB
        while True:
            answer = _request(self._asker, line, address, control, self._is_ours)
            telegram = records.decode(answer.frame, self.spec.key)
            told.append(Answer(telegram, answer.asked_s, answer.heard_s))
            if not telegram.more:
                return told
            if len(told) >= MAX_TELEGRAMS:
                raise RemoteProtocolError(f"has no end after {len(told)} telegrams", meter=self.spec.id)
            control ^= wire.FCB

    def _is_ours(self, frame: Frame) -> bool:
        if not frame.is_response:
            return False
        if self.spec.secondary is None:
            return frame.address == self.spec.address
        if frame.ci != wire.RESPONSE_VARIABLE or len(frame.data) < 8:
            return frame.ci in (wire.RESPONSE_FIXED, wire.APPLICATION_ERROR)
        digits = frame.data[3::-1].hex().upper()
        return all(w in ("F", d) for w, d in zip(self.spec.secondary.digits, digits, strict=True))

    def _values(self, line: Line) -> list[Value]:
        told = self.telegrams(line)
        first = told[0].frame
        broken = next((answer.frame.broken for answer in told if answer.frame.broken), "")
        medium = first.address.medium if first.address is not None else None
        self._identify(first, medium)
        found = registers.known(medium or 0, [answer.frame for answer in told])
        if not found and broken:
            raise RemoteProtocolError(f"its answer cannot be read: {broken}", meter=self.spec.id)
        asked_s, heard_s = told[0].asked_s, told[-1].heard_s
        assert self._identity is not None
        names = tuple(register.obis for register in found)
        self._identity = Identity(self._identity.serial, self._identity.firmware, names)
        return [Value(register.obis, register.value, register.unit, asked_s, heard_s) for register in found]

    def _identify(self, telegram: Telegram, medium: int | None) -> None:
        address = telegram.address
        serial = None if address is None else f"{address.manufacturer or ''}{address.digits}"
        if self._identity is not None and serial != self._identity.serial and serial is not None:
            if serial in self._seen:
                one, other = self._identity.serial, serial
                raise RemoteProtocolError(
                    f"two meters answer at this address, {one} and {other}: give one of them another address, or use "
                    "their secondary addresses",
                    meter=self.spec.id,
                )
            self._sampler.forget()
        if serial is not None and serial not in self._seen:
            self._seen = (*self._seen[-3:], serial)
        version = None if address is None or address.version is None else str(address.version)
        self._identity = Identity(serial, version, () if self._identity is None else self._identity.registers)


def _asker(name: str, timing: Timing, clock: Clock, min_gap_s: float = 0.0) -> Asker:
    return Asker(name, timing, clock.now, gap_s=max(GAP_BITS / BITS_AN_OCTET * timing.octet_s, min_gap_s))


def _is_ack(frame: Frame) -> bool:
    return frame.control == wire.ACK


def _request(
    asker: Asker, line: Line, address: int, control: int, is_ours: Callable[[Frame], bool], repeats: int = 1
) -> Answer[Frame]:
    octets = Frame(control, address).encode()
    return asker.ask(line, Question(octets, wire.parse, is_ours, wire.LONGEST, "REQ_UD2"), repeats=repeats)


def _select(asker: Asker, line: Line, secondary: SecondaryAddress, repeats: int = 1) -> None:
    """Select the meters of a secondary address, and no others. Raises: ResponseTimeout: none is there."""
    octets = Frame(wire.SND_UD, wire.SELECTED, wire.SELECT, secondary.encode()).encode()
    asker.ask(line, Question(octets, wire.parse, _is_ack, 5, f"selection of {secondary.digits}"), repeats=repeats)


def find_secondary(line: Line, timing: Timing, clock: Clock, start: str = "FFFFFFFF") -> list[SecondaryAddress]:
    """All meters of a bus by their secondary addresses (EN 13757-7, wildcard search); changes nothing in them.

    Where several answer at once the next digit is tried; so a search takes ten questions for each digit in which
    meters differ.

    Raises:
        TransportError: the line failed.
    """
    asker = _asker("search", timing, clock)
    found: list[SecondaryAddress] = []
    patterns = [start]
    while patterns and len(found) < MAX_FOUND:
        pattern = patterns.pop(0)
        corrupt = asker.traffic.corrupt_frames
        heard = asker.traffic.received_octets
        try:
            _select(asker, line, SecondaryAddress(pattern), repeats=0)
            answer = _request(asker, line, wire.SELECTED, wire.REQ_UD2 | wire.FCB, _responds, repeats=0)
            data = answer.frame.data
            maker = wire.manufacturer(int.from_bytes(data[4:6], "little"))
            address = SecondaryAddress(data[3::-1].hex().upper(), maker, data[6], data[7])
            if address not in found:
                found.append(address)
            # One that is quicker, or nearer, may be heard whole before the others.
            asker.rest(line, timing.inter_octet_s)
            several = asker.traffic.received_octets - heard > len(answer.frame.encode()) + 1
        except ResponseTimeout:
            # Several acknowledge at once, which sounds like one; then their answers collide.
            several = asker.traffic.received_octets > heard or asker.traffic.corrupt_frames > corrupt
        place = pattern.find("F")
        if several and place >= 0:
            patterns = [pattern[:place] + str(digit) + pattern[place + 1 :] for digit in range(10)] + patterns
    return found


def _responds(frame: Frame) -> bool:
    return frame.is_response and frame.ci == wire.RESPONSE_VARIABLE and len(frame.data) >= 12
