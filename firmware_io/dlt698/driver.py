"""One DL/T 698.45 meter behind the driver seam: its registers by GET in the pre-established association, read-only.

Each question has a number that its answer bears, so a late answer is never taken for the next. What a meter refuses is
not asked again until it is identified anew. Load profiles and event records (GetRecord) are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from firmware_io import obis
from firmware_io.clock import Clock
from firmware_io.dlt698 import apdu
from firmware_io.dlt698 import frame as wire
from firmware_io.dlt698.apdu import Denied
from firmware_io.dlt698.frame import Frame
from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import AccessDenied, RegisterUnavailable, RemoteProtocolError
from firmware_io.exchange import Asker, Question, Timing
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Reading, Unit
from firmware_io.sampling import Doubts, Sampler, Value

CHECK_EVERY_S = 21_600.0  # who the meter is, asked again
CLOCK, NUMBER, VERSION = 0x40000200, 0x40020200, 0x43000300


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
    wake_up: int = 4
    min_gap_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises: ValueError: no digits, or more than an address has."""
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
            if any(isinstance(v, Denied) and v.code in apdu.NOT_AUTHORISED for v in told.values()):
                raise AccessDenied(f"its registers may not be read without a password: {refused}", meter=self.spec.id)
            raise RemoteProtocolError(f"none of its registers can be read: {refused}", meter=self.spec.id)
        about, _, _ = self._get(line, [NUMBER, CLOCK])
        number, time = about.get(NUMBER), about.get(CLOCK)
        serial = number.hex() if isinstance(number, bytes) and number else self.spec.address
        offset_s = self._utc_s(time) - self._clock.now() if isinstance(time, datetime) else None
        if self._identity is not None and self._identity.serial != serial:
            self._sampler.forget()
        names = tuple(name for item in found for name in item.names)
        self._items = found
        self._identity = Identity(serial, None, names, offset_s, CLOCK in about and time is None)
        self._checked_s = self._clock.monotonic()
        return self._identity

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        return []

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        return []

    def keep_alive(self, line: Line) -> None:
        """The pre-established association has no time-out."""

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

    def _get(self, line: Line, oads: list[int]) -> tuple[dict[int, Any], float, float]:
        """What the meter says of some attributes, and between which two UTC seconds.

        Raises:
            RegisterUnavailable: it answers with an error instead.
        """
        self._piid = (self._piid + 1) & 0x3F
        piid = self._piid
        request = Frame(self.spec.octets, wire.REQUEST, apdu.get(piid, oads)).encode(self.spec.wake_up)

        def answers(reply: Frame) -> bool:
            ours = reply.is_response and reply.address == self.spec.octets and reply.client == wire.CLIENT
            return ours and (apdu.piid_of(reply.apdu) == piid or reply.apdu[:1] == bytes((apdu.ERROR_RESPONSE,)))

        what = f"GET of {len(oads)} attributes"
        answer = self._asker.ask(line, Question(request, wire.parse, answers, wire.LONGEST, what))
        if apdu.piid_of(answer.frame.apdu) is None:
            raise RegisterUnavailable(f"{what}: the meter answers with an error", meter=self.spec.id)
        return apdu.results(answer.frame.apdu), answer.asked_s, answer.heard_s


def _numbers(value: Any) -> list[float | None]:
    """The elements of an array of numbers, or the number alone; empty where there is none."""
    items = value if isinstance(value, list) else [value]
    numbers = [item if isinstance(item, int | float) and not isinstance(item, bool) else None for item in items]
    return numbers if any(number is not None for number in numbers) else []
