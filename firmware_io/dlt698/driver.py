"""One DL/T 698.45 meter behind the driver seam: its registers and freeze records by GET, read-only.

The pre-established association is used where it suffices; a meter that refuses there is asked again as a public client,
and with its password where there is one, over CONNECT.

Each question has a number that its answer bears, so a late answer is never taken for the next. What a meter refuses is
not asked again until it is identified anew. Event records are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from firmware_io import obis
from firmware_io.asking.exchange import Answer, Asker, Question, Timing
from firmware_io.asking.sampling import Doubts, Sampler, Value
from firmware_io.clock import Clock, local_time
from firmware_io.dlt698 import apdu
from firmware_io.dlt698 import frame as wire
from firmware_io.dlt698.apdu import Denied
from firmware_io.dlt698.frame import Frame
from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import AccessDenied, MeterError, RegisterUnavailable, RemoteProtocolError, ResponseTimeout
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Quality, Reading, Unit

T = TypeVar("T")
CHECK_EVERY_S = 21_600.0  # who the meter is, asked again
CLOCK, NUMBER = 0x40000200, 0x40020200
FROZEN_AT = 0x20210200  # when a row was frozen


class Freeze(NamedTuple):
    """A table of freeze records, its columns for import and export, and the span of one question."""

    table: int
    columns: tuple[int, int]
    span_s: float


FREEZES = (
    Freeze(0x50020200, (0x00100201, 0x00200201), 6 * 3600.0),  # by the minute: every quarter of an hour, mostly
    Freeze(0x50040200, (0x00100200, 0x00200200), 6 * 86_400.0),  # by the day: the total and the rates
)
MAX_PASSWORD = 64
MAX_QUESTIONS = 1_000  # of one reading of records


class Item(NamedTuple):
    """An attribute and what its values are: the total, or the elements of its array in this order."""

    oad: int
    names: tuple[ObisCode, ...]
    unit: Unit
    divisor: int  # of the number, to the unit
    multiplier: int = 1


# DL/T 698.45-2017, annex: object identifiers of energies, quantities and parameters, with their usual scalers.
ITEMS = (
    Item(0x00100200, (obis.ENERGY_IMPORT,), Unit.WATT_HOUR, 1, 10),
    Item(0x00200200, (obis.ENERGY_EXPORT,), Unit.WATT_HOUR, 1, 10),
    Item(0x20040200, (obis.POWER_IMPORT,), Unit.WATT, 10),
    Item(0x20000200, obis.VOLTAGE, Unit.VOLT, 10),
    Item(0x20010200, obis.CURRENT, Unit.AMPERE, 1000),
    Item(0x20010400, (obis.NEUTRAL_CURRENT,), Unit.AMPERE, 1000),
    Item(0x200A0200, (obis.POWER_FACTOR,), Unit.COUNT, 1000),
    Item(0x200F0200, (ObisCode(1, 0, 14, 7, 0),), Unit.HERTZ, 100),
)


@dataclass(frozen=True, slots=True)
class Dlt698Spec:
    """One meter. `address` is its digits as printed on it; `timezone` is what its clock shows."""

    id: str
    address: str
    live: bool = True
    timezone: str = "UTC"
    password: bytes | None = field(default=None, repr=False)
    wake_up: int = 4
    min_gap_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises: ValueError: no digits, or more than an address has; a password of no octets or too many."""
        if self.password is not None and not 1 <= len(self.password) <= MAX_PASSWORD:
            raise ValueError(f"meter {self.id}: a password has 1 to {MAX_PASSWORD} octets, got {len(self.password)}")
        if not self.address.isdigit() or len(self.address) > 32:
            raise ValueError(f"meter {self.id}: the address is up to 32 digits, as on the meter, got {self.address!r}")

    @property
    def octets(self) -> bytes:
        """The address as on the wire: BCD, low octet first, six octets at least."""
        digits = self.address.rjust(12, "0")
        return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)[::-1]


class Dlt698Driver:
    """See `driver.MeterDriver`."""

    def __init__(self, spec: Dlt698Spec, timing: Timing, clock: Clock) -> None:
        self.spec = spec
        self._clock = clock
        self._zone = ZoneInfo(spec.timezone)
        self._asker = Asker(spec.id, timing, clock.now, gap_s=spec.min_gap_s)
        self._sampler = Sampler(spec.id, clock)
        self._items: tuple[Item, ...] = ()
        self._identity: Identity | None = None
        self._checked_s = 0.0
        self._piid = 0
        self._opened: Line | None = None  # over which an association was opened by CONNECT
        self._freezes: tuple[Freeze, ...] = FREEZES

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
        if self._identity is None or self._clock.monotonic() - self._checked_s >= CHECK_EVERY_S:
            self.identify(line)
        return self._sampler.readings(lambda: self._values(line), lambda: self.identify(line))

    def identify(self, line: Line) -> Identity:
        wanted = [item for item in ITEMS if self.spec.live or item.unit is Unit.WATT_HOUR]
        told, _, _ = self._get(line, [item.oad for item in wanted])
        found = tuple(item for item in wanted if _numbers(told.get(item.oad)))
        if not found:
            refused = next((v.text for v in told.values() if isinstance(v, Denied)), "it shows no register")
            if any(isinstance(v, Denied) and v.refused for v in told.values()):
                raise AccessDenied(f"its registers may not be read without a password: {refused}", meter=self.spec.id)
            raise RemoteProtocolError(f"none of its registers can be read: {refused}", meter=self.spec.id)
        about, _, _ = self._get(line, [NUMBER, CLOCK])
        number, time = about.get(NUMBER), about.get(CLOCK)
        serial = number.hex() if isinstance(number, bytes) and number else self.spec.address
        offset_s = self._utc_s(time) - self._clock.now() if isinstance(time, datetime) else None
        if self._identity is not None and self._identity.serial != serial:
            self._sampler.forget()
        names = tuple(name for item in found for name in item.names)
        self._items, self._freezes = found, FREEZES
        self._identity = Identity(serial, None, names, offset_s, CLOCK in about and time is None)
        self._checked_s = self._clock.monotonic()
        return self._identity

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        """Freezes by the minute where the meter has them, by the day else."""
        for freeze in self._freezes:
            readings = self._frozen(line, freeze, first_s, last_s)
            if readings is None:
                self._freezes = tuple(kept for kept in self._freezes if kept is not freeze)
            elif readings:
                return readings
        return []

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        return []

    def keep_alive(self, line: Line) -> None:
        """An association that has run out is opened again when it is missed."""

    def _values(self, line: Line) -> list[Value]:
        told, asked_s, heard_s = self._get(line, [item.oad for item in self._items])
        values: list[Value] = []
        for item in self._items:
            numbers = _numbers(told.get(item.oad))
            for name, number in zip(item.names, numbers, strict=False):
                if number is not None:
                    scaled = number * item.multiplier / item.divisor
                    values.append(Value(name, scaled, item.unit, asked_s, heard_s))
                if name == obis.POWER_IMPORT and number is not None:
                    values[-1] = values[-1]._replace(value=max(scaled, 0.0))
                    values.append(values[-1]._replace(obis=obis.POWER_EXPORT, value=max(-scaled, 0.0)))
        return values

    def _utc_s(self, local: datetime) -> float:
        return local.replace(tzinfo=self._zone).timestamp()

    # Freeze records

    def _frozen(self, line: Line, freeze: Freeze, first_s: float, last_s: float) -> list[Reading] | None:
        """The rows of a table between two UTC times, both included; None where the meter has no such table."""
        readings: list[Reading] = []
        start_s = first_s
        for _ in range(MAX_QUESTIONS):
            end_s = min(start_s + freeze.span_s, last_s + 1.0)
            try:
                rows = self._rows(line, freeze, start_s, end_s)
            except RegisterUnavailable:
                return readings or None
            for time, *energies in rows:
                time_s = self._utc_s(time) if isinstance(time, datetime) else float("nan")
                if not first_s <= time_s <= last_s:
                    continue
                for name, energy in zip((obis.ENERGY_IMPORT, obis.ENERGY_EXPORT), energies, strict=False):
                    total = (_numbers(energy) or [None])[0]
                    if total is not None:
                        stamp_s = time.timestamp()
                        readings.append(
                            Reading(
                                self.spec.id,
                                name,
                                total * 10.0,
                                Unit.WATT_HOUR,
                                time_s,
                                0.0,
                                stamp_s,
                                Quality.FROM_PROFILE,
                            )
                        )
            if end_s > last_s:
                break
            start_s = end_s
        return sorted(readings, key=lambda reading: reading.sampled_s)

    def _rows(self, line: Line, freeze: Freeze, first_s: float, last_s: float) -> list[list[Any]]:
        """Raises: RegisterUnavailable: the meter has no such table, or gives none."""
        first, last = local_time(first_s, self._zone), local_time(last_s, self._zone)

        def ask() -> bytes:
            piid = self._next_piid()
            wanted = (FROZEN_AT, *freeze.columns)
            request = apdu.get_record(piid, freeze.table, FROZEN_AT, first, last, wanted)
            return self._ask(line, piid, request, f"records of {freeze.table:08X}").frame.apdu

        told = self._open_for(line, lambda: apdu.rows(ask()), lambda rows: isinstance(rows, Denied) and rows.refused)
        if isinstance(told, Denied):
            raise RegisterUnavailable(f"records of {freeze.table:08X}: {told.text}", meter=self.spec.id)
        return told

    # Services

    def _get(self, line: Line, oads: list[int]) -> tuple[dict[int, Any], float, float]:
        """What the meter says of some attributes, and between which two UTC seconds.

        Raises:
            RegisterUnavailable: it answers with an error instead.
            AccessDenied: it does not take the password.
        """

        def ask() -> tuple[dict[int, Any], float, float]:
            piid = self._next_piid()
            answer = self._ask(line, piid, apdu.get(piid, oads), f"GET of {len(oads)} attributes")
            return apdu.results(answer.frame.apdu), answer.asked_s, answer.heard_s

        def refused(told: tuple[dict[int, Any], float, float]) -> bool:
            return all(isinstance(value, Denied) and value.refused for value in told[0].values())

        return self._open_for(line, ask, refused)

    def _open_for(self, line: Line, ask: Callable[[], T], refused: Callable[[T], bool]) -> T:
        """What `ask` brings; asked again in an association of its own where the meter refuses without one."""
        if self.spec.password is not None and self._opened is not line:
            self._open(line)
        told: T | None = None
        error: RegisterUnavailable | None = None
        try:
            told = ask()
            if not refused(told):
                return told
        except RegisterUnavailable as answered:
            error = answered
        try:
            self._open(line)
        except (ResponseTimeout, RemoteProtocolError, RegisterUnavailable):  # it knows no CONNECT
            if error is not None or told is None:
                raise error or RegisterUnavailable("refused", meter=self.spec.id) from None
            return told
        return ask()

    def _open(self, line: Line) -> None:
        """CONNECT, with the password where there is one. Raises: AccessDenied: the meter does not take us."""
        piid = self._next_piid()
        answer = self._ask(line, piid, apdu.connect(piid, self.spec.password), "CONNECT")
        why = apdu.connected(answer.frame.apdu)
        if why:
            self._opened = None
            raise AccessDenied(f"CONNECT: {why}; check its password", meter=self.spec.id)
        if self._opened is not line:
            line.at_close(lambda: self._release(line))
        self._opened = line

    def _release(self, line: Line) -> None:
        """Say good-bye; whether it answers does not matter."""
        if self._opened is line:
            self._opened = None
            piid = self._next_piid()
            octets = Frame(self.spec.octets, wire.REQUEST, apdu.release(piid)).encode(self.spec.wake_up)
            with suppress(MeterError):
                self._asker.tell(line, octets)

    def _next_piid(self) -> int:
        self._piid = (self._piid + 1) & 0x3F
        return self._piid

    def _ask(self, line: Line, piid: int, request: bytes, what: str) -> Answer[Frame]:
        """One question, known by its number. Raises: RegisterUnavailable: the meter answers with an error."""

        def answers(reply: Frame) -> bool:
            ours = reply.is_response and reply.address == self.spec.octets and reply.client == wire.CLIENT
            return ours and (apdu.piid_of(reply.apdu) == piid or reply.apdu[:1] == bytes((apdu.ERROR_RESPONSE,)))

        octets = Frame(self.spec.octets, wire.REQUEST, request).encode(self.spec.wake_up)
        answer = self._asker.ask(line, Question(octets, wire.parse, answers, wire.LONGEST, what))
        if apdu.piid_of(answer.frame.apdu) is None:
            raise RegisterUnavailable(f"{what}: the meter answers with an error", meter=self.spec.id)
        return answer


def _numbers(value: Any) -> list[float | None]:
    """The elements of an array of numbers, or the number alone; empty where there is none."""
    items = value if isinstance(value, list) else [value]
    numbers = [item if isinstance(item, int | float) and not isinstance(item, bool) else None for item in items]
    return numbers if any(number is not None for number in numbers) else []
