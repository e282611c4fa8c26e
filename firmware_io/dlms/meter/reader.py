"""How we read one meter: its registers, scalers, clock and identity; values as `Reading`s.

It decides what to ask the meter and whether to believe the answer. When to ask, and what a failure costs the other
meters of the bus, is the bus's business; what the meter stored is read by `stored`, whose answers are whose by `known`.

A cumulative value that has decreased, jumped or changed its type is not taken at once: identity and scalers are
read again, then the value. What comes twice is real and flagged; what does not was a wrong octet. A register whose
value cannot be understood is left out and named in `Identity.unreadable`; the others are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, TypeVar

from firmware_io import obis
from firmware_io.clock import Clock
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult, DataNotification, EventNotification
from firmware_io.dlms.cosem.meter_time import Convention, MeterTime
from firmware_io.dlms.cosem.profile import CLOCK_CLASS
from firmware_io.dlms.cosem.registers import (
    CATALOGUE,
    DATA,
    MISSING,
    REGISTER,
    REGISTER_CLASSES,
    VALUE,
    Plausibility,
    Register,
    Scale,
    scaler_of,
)
from firmware_io.dlms.meter.compact import CompactData
from firmware_io.dlms.meter.known import Exchanged, Known, text_of
from firmware_io.dlms.meter.push import PUSH_OBJECTS, PUSH_SETUP_CLASS, layout, values_of
from firmware_io.dlms.meter.stored import StoredReader
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.sources import combined, rates
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Identity
from firmware_io.errors import RemoteProtocolError
from firmware_io.identity import Serials
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Quality, Reading, Unit

CHECK_EVERY_S = 3600.0  # identity, scalers and clock are looked at again
PUSH_AGE_S = 3600.0  # a push that says it is older, or from so far ahead, is not taken
CAPTURED_NOW_S = 2.0  # compact data that were captured so near to now were captured by our question
LATE_S = 1.0  # half the time an exchange took: the sample may be that far off

_FIRMWARE = Attribute(DATA, obis.FIRMWARE_VERSION, VALUE)
_ERRORS = Attribute(DATA, obis.ERROR_REGISTER, VALUE)
_MAXIMUM_CURRENT = (Attribute(REGISTER, obis.MAXIMUM_CURRENT, VALUE), scaler_of(obis.MAXIMUM_CURRENT, REGISTER))
CLOCK = Attribute(CLOCK_CLASS, obis.CLOCK, 2)
PUSHED = Attribute(PUSH_SETUP_CLASS, obis.PUSH_SETUP, PUSH_OBJECTS)

T = TypeVar("T")


class _Sample(NamedTuple):
    """One value as it was read."""

    register: Register
    data: Data
    value: float
    sampled_s: float
    half_s: float

    def agrees(self, before: _Sample) -> bool:
        """Whether an odd value was seen twice, and not once."""
        same_register = self.register == before.register and self.data.tag == before.data.tag
        return same_register and 0 <= self.value - before.value <= Plausibility.slack_wh(self.register)


class MeterReader:
    """One meter over its session; keeps what it has learned over re-associations."""

    def __init__(
        self, spec: DlmsSpec, session: Session, clock: Clock, serials: Serials | None = None, place: str = ""
    ) -> None:
        """`serials` keeps whom we believe at this `place`."""
        self.spec = spec
        self._clock = clock
        self._known = Known(spec, session, clock, serials, place)
        self._stored = StoredReader(self._known)
        self._registers: tuple[Register, ...] = ()
        self._has_errors = True
        self._plausibility = Plausibility()
        self._unreadable: dict[Attribute, str] = {}  # since the last check: value, and why
        self._checked_s = 0.0
        self._compact = None if spec.sources.compact is None else CompactData(self._known, spec.sources.compact)
        self._captured_s = -math.inf  # when the compact data that was taken last was captured, by the meter
        self._pushes = tuple(_attribute_of(code) for code in spec.sources.push_objects or ())
        self.identity: Identity | None = None

    @property
    def session(self) -> Session:
        """The association over the line that is open now."""
        return self._known.session

    @session.setter
    def session(self, session: Session) -> None:
        self._known.session = session

    def poll(self) -> list[Reading]:
        """All registers of the meter, in one request where it takes lists.

        Raises:
            IdentityMismatch: another meter answered.
            MeterError: it does not answer, or not as it should.
        """
        return self._of_one_meter(self._poll)

    def identify(self) -> Identity:
        """Serial number, firmware, scalers and clock, read from the meter; scalers and registers hold from now on."""
        return self._of_one_meter(self._identify)

    def read_profile(self, first_s: float, last_s: float) -> list[Reading]:
        """What the load profile holds of the registers between two UTC times, oldest first.

        Raises:
            RegisterUnavailable: the meter has no such profile, or one without times.
        """
        name = self.spec.sources.load_profile
        return self._of_one_meter(lambda: self._vouched_for(lambda: self._stored.read_profile(first_s, last_s, name)))

    def read_events(self, since_s: float) -> list[MeterEvent]:
        """Entries of all event logs that are newer than `since_s` (UTC), oldest first."""
        return self._of_one_meter(lambda: self._vouched_for(lambda: self._stored.read_events(since_s)))

    def pushed(
        self, push: DataNotification | EventNotification, received_s: float, *, authentic: bool
    ) -> list[Reading] | None:
        """The readings in what came unasked at a UTC time; None if it does not say that it is of this meter.

        Of a meter that was never asked nothing is taken: its scalers are not known. What is odd is dropped.
        """
        try:
            said = values_of(push, self._pushes, authentic=authentic)
        except RemoteProtocolError as error:
            if not authentic:
                return None
            self._leave_out(PUSHED, str(error))
            return []
        ours = self._known.names_us(said.values)
        if ours is False or not (ours or said.authentic):
            return None
        sampled_s, half_s = received_s, LATE_S
        if said.time is not None:
            shown_s = self._known.utc_s(said.time)
            if not -PUSH_AGE_S < shown_s - received_s < PUSH_AGE_S:
                return []  # out of a meter's memory, or somebody else's
            if abs(shown_s - received_s) > CAPTURED_NOW_S:
                sampled_s = shown_s
        readings: list[Reading] = []
        there = {r: said.values[r.value] for r in self._registers if r.value in said.values}
        # One that cannot be understood is no reason not to ask for the register.
        there = {register: data for register, data in there.items() if register.understands(data)}
        if there:
            readings, _ = self._judged(tuple(there), list(there.values()), sampled_s, half_s)
        if _ERRORS in said.values:
            readings += self._error_reading(said.values[_ERRORS], sampled_s, half_s)
        return combined(readings, self._known.sums)

    def _learn_pushes(self) -> None:
        """What a push holds, by the meter's own push setup."""
        setup = Attribute(PUSH_SETUP_CLASS, self.spec.sources.push_setup, PUSH_OBJECTS)
        (objects,) = self._known.read([setup])
        try:
            if not isinstance(objects, Data):
                raise RemoteProtocolError("it is not there, or not for us: give push_objects in the site file")
            self._pushes = layout(objects)
        except RemoteProtocolError as error:
            self._unreadable[PUSHED] = f"push setup {self.spec.sources.push_setup}: {error}"

    # Whose answers

    def _of_one_meter(self, read: Callable[[], T]) -> T:
        """`read`, once more from the beginning where the meter was exchanged."""
        try:
            return read()
        except Exchanged:
            self._known.forget()
            self._stored.forget()
            self._plausibility.forget()
            self._registers, self._has_errors, self.identity = (), True, None
            self._unreadable.clear()
            return read()

    def _vouched_for(self, read: Callable[[], T]) -> T:
        """`read`, between two questions who answers: what comes in many parts fits into no list."""
        if self.identity is None:
            self._identify()
        self._known.vouch()
        result = read()
        self._known.vouch()
        return result

    # Registers

    def _poll(self) -> list[Reading]:
        if self.identity is None or self._clock.monotonic() - self._checked_s >= CHECK_EVERY_S:
            self._identify()
        asked = tuple(register for register in self._registers if register.value not in self._unreadable)
        sampled = self._compact_sample(asked) if self._compact is not None else None
        readings, doubted = sampled or self._sample(asked, errors=self._has_errors)
        if doubted:
            self._identify()
            asked = tuple(register for register in self._registers if register.name in doubted)
            again, still = self._sample(asked, errors=False)  # by the scaler that it has now
            readings += again
            readings += [self._confirmed(sample) for name, sample in still.items() if sample.agrees(doubted[name])]
        return combined(readings, self._known.sums)

    def _identify(self) -> Identity:
        self._unreadable.clear()
        self._discover()
        firmware, current, unit, time = self._known.read((_FIRMWARE, *_MAXIMUM_CURRENT, CLOCK))
        now_s = self._clock.now()
        self._learn_rating(current, unit)
        offset_s, doubtful, zone = None, False, None
        if isinstance(time, Data) and isinstance(time.value, bytes):
            try:
                meter_time = MeterTime.decode(time.value)
            except RemoteProtocolError:  # a clock that was never set; its registers are as good as any
                meter_time, doubtful = None, True
            if meter_time is not None:
                self._known.convention = Convention.learn(meter_time, now_s, self.spec.timezone)
                offset_s = self._known.convention.utc_s(meter_time) - now_s
                doubtful, zone = meter_time.doubtful, self._known.convention.assumed
        self._known.clock_offset_s = offset_s
        if self.spec.push and self.spec.sources.push_objects is None:
            self._learn_pushes()
        if self._compact is not None:
            self._compact.prepare()
            if self._compact.why:
                self._unreadable[self._compact.buffer] = self._compact.why
        parts = {code for codes in self._known.sums.values() for code in codes}
        names = tuple(register.name for register in self._registers if register.name not in parts)
        names += tuple(self._known.sums)
        self.identity = Identity(
            self._known.serial, text_of(firmware), names, offset_s, doubtful, zone, tuple(self._unreadable.values())
        )
        self._checked_s = self._clock.monotonic()
        return self.identity

    def _learn_rating(self, current: Data | DataAccessResult, unit: Data | DataAccessResult) -> None:
        current_a = None
        if isinstance(current, Data) and isinstance(unit, Data):
            with suppress(RemoteProtocolError):
                scale = Scale.decode(unit)
                if scale.unit is Unit.AMPERE:
                    current_a = Register(obis.MAXIMUM_CURRENT, REGISTER, scale).scaled(current)
        phases = sum(register.name in obis.VOLTAGE for register in self._registers)
        self._plausibility.learn_rating(phases, current_a)

    def _discover(self) -> None:
        """Which registers the meter has, under which class, with which scaler; the whole catalogue each time.

        Where it has no total of an energy, its rates are added up.
        """
        known = {register.name: register for register in self._registers}
        sources = self.spec.sources
        self._known.sums = dict(sources.registers)
        wanted = [code for quantity in CATALOGUE for code in sources.of(quantity)]
        found = self._found(wanted, known)
        for total in (obis.ENERGY_IMPORT, obis.ENERGY_EXPORT):
            if sources.of(total) == (total,) and total not in found:
                parts = self._found(list(rates(total)), known)
                if parts:
                    self._known.sums[total] = tuple(parts)
                    wanted, found = wanted + list(parts), found | parts
        if any(found.get(name, register) != register for name, register in known.items()):
            self._plausibility.forget()  # another scaler: the old values are no measure of the new ones
        self._registers = tuple(found[name] for name in wanted if name in found)
        self._known.scales = {(r.class_id, r.name): r.scale for r in self._registers}

    def _found(self, names: list[ObisCode], known: dict[ObisCode, Register]) -> dict[ObisCode, Register]:
        """Those of these objects that the meter has."""
        found: dict[ObisCode, Register] = {}
        names = list(dict.fromkeys(names))
        for class_id in REGISTER_CLASSES:
            asked = [n for n in names if n not in known or known[n].class_id == class_id]
            results = self._known.read(scaler_of(name, class_id) for name in asked) if asked else []
            for name, result in zip(asked, results, strict=True):
                if isinstance(result, Data):
                    with suppress(RemoteProtocolError):  # a unit that we do not read
                        found[name] = Register(name, class_id, Scale.decode(result))
                elif name in known and result not in MISSING:
                    found[name] = known[name]  # for the moment only
                if result is not DataAccessResult.OBJECT_CLASS_INCONSISTENT and name not in known:
                    names.remove(name)
            names = [name for name in names if name not in found]
        return found

    def _sample(self, asked: tuple[Register, ...], *, errors: bool) -> tuple[list[Reading], dict[ObisCode, _Sample]]:
        """Read registers now: the readings, and the samples whose value is odd.

        Raises:
            RemoteProtocolError: not one of them can be understood.
        """
        attributes = [register.value for register in asked]
        if errors:
            attributes.append(_ERRORS)
        before_s = self._clock.now()
        results = self._known.read(attributes)
        half_s = max(0.0, (self._clock.now() - before_s) / 2)
        sampled_s = before_s + half_s
        readings, doubted = self._judged(asked, results, sampled_s, half_s)
        if errors:
            readings += self._error_reading(results[-1], sampled_s, half_s)
        return readings, doubted

    def _compact_sample(self, asked: tuple[Register, ...]) -> tuple[list[Reading], dict[ObisCode, _Sample]] | None:
        """The same out of the compact data; None where they cannot be used, empty where they are those of before."""
        assert self._compact is not None
        before_s = self._clock.now()
        captured = self._compact.read()
        if captured is None:
            self._leave_out(self._compact.buffer, str(self._compact.why))
            return None
        half_s = max(0.0, (self._clock.now() - before_s) / 2)
        sampled_s = before_s + half_s
        if captured.time is not None:
            shown_s = self._known.utc_s(captured.time)
            if shown_s <= self._captured_s:
                return [], {}
            self._captured_s = shown_s
            if abs(shown_s - sampled_s) > CAPTURED_NOW_S:
                sampled_s, half_s = shown_s, CAPTURED_NOW_S / 2
        asked = tuple(register for register in asked if register.value in captured.values)
        readings, doubted = self._judged(asked, [captured.values[r.value] for r in asked], sampled_s, half_s)
        if _ERRORS in captured.values:
            readings += self._error_reading(captured.values[_ERRORS], sampled_s, half_s)
        return readings, doubted

    def _judged(
        self, asked: tuple[Register, ...], results: Sequence[Data | DataAccessResult], sampled_s: float, half_s: float
    ) -> tuple[list[Reading], dict[ObisCode, _Sample]]:
        """Values as readings, and those that are odd."""
        now = self._clock.monotonic()
        samples: list[_Sample] = []
        for register, result in zip(asked, results, strict=False):
            if register.value in self.session.malformed:
                self._leave_out(register.value, self.session.malformed.pop(register.value))
            elif isinstance(result, Data) and result.tag != Tag.NULL:
                try:
                    samples.append(_Sample(register, result, register.scaled(result), sampled_s, half_s))
                except RemoteProtocolError as error:
                    self._leave_out(register.value, str(error))
        if not samples and self._registers and all(register.value in self._unreadable for register in self._registers):
            why = next(iter(self._unreadable.values()))
            self._unreadable.clear()  # the next poll asks for them again
            raise RemoteProtocolError(f"none of its registers can be read: {why}", meter=self.spec.id)
        readings: list[Reading] = []
        doubted: dict[ObisCode, _Sample] = {}
        self._plausibility.learn_power([s.value for s in samples if s.register.scale.unit is Unit.WATT])
        for sample in samples:
            if self._plausibility.doubt(sample.register, sample.data, sample.value, now) is not None:
                doubted[sample.register.name] = sample
                continue
            self._plausibility.believe(sample.register, sample.data, sample.value, now)
            readings.append(self._reading(sample))
        return readings, doubted

    def _leave_out(self, attribute: Attribute, why: str) -> None:
        """A value that cannot be understood: not asked for again until the next check, and told."""
        self._unreadable[attribute] = why
        if self.identity is not None:
            self.identity = replace(self.identity, unreadable=tuple(self._unreadable.values()))

    def _confirmed(self, sample: _Sample) -> Reading:
        """A value as odd as the one before it: that is what the meter shows."""
        self._plausibility.believe(sample.register, sample.data, sample.value, self._clock.monotonic())
        return self._reading(sample, Quality.SUSPECT)

    def _reading(self, sample: _Sample, quality: Quality = Quality.GOOD) -> Reading:
        late = Quality.LATE if sample.half_s > LATE_S else Quality.GOOD
        name, unit = sample.register.name, sample.register.scale.unit
        return Reading(self.spec.id, name, sample.value, unit, sample.sampled_s, sample.half_s, None, quality | late)

    def _error_reading(self, result: Data | DataAccessResult, sampled_s: float, half_s: float) -> list[Reading]:
        """The error register as a number: meters have it as one, as octets or as bits."""
        if not isinstance(result, Data):
            self._has_errors = result not in MISSING and _ERRORS not in self.session.malformed
            return []
        value = result.value
        if isinstance(value, bytes):
            value = int.from_bytes(value[:6], "big")
        elif isinstance(value, str):
            value = int(value, 2) if result.tag == Tag.BIT_STRING and value and len(value) <= 48 else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return []
        return [Reading(self.spec.id, obis.ERROR_REGISTER, float(value), Unit.COUNT, sampled_s, half_s)]


def _attribute_of(code: ObisCode) -> Attribute:
    """The attribute that a code in the site file means: the clock's time, a name, or a register's value."""
    class_id = CLOCK_CLASS if code == obis.CLOCK else DATA if code.a == 0 else REGISTER
    return Attribute(class_id, code, VALUE)
