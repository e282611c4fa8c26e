"""What the readings of one meter mean beyond their energy: samples for the pipeline, signs, faults, silence.

No thread, no bus, no clock: it is told readings and errors with their times, and keeps the little that is needed to
see a change. Registers leave it in primary units (the transformer ratio is applied here and nowhere else).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.alerts.condition import Condition
from agent.polling.refresh import Refresh
from agent.site.tables import Meter
from agent.status.live import TRAIL, Moment, Trail
from agent.wire import Amount, Register, utc
from core.registers.samples import RegisterSample
from core.signs import MeterSign, SignKind
from firmware_io.errors import (
    AccessDenied,
    IdentityMismatch,
    MeterError,
    RegisterUnavailable,
    ResponseTimeout,
    SecurityError,
    TransportError,
)
from firmware_io.obis import (
    CURRENT,
    ENERGY_EXPORT,
    ENERGY_IMPORT,
    NEUTRAL_CURRENT,
    POWER_EXPORT,
    POWER_IMPORT,
    ObisCode,
)
from firmware_io.reading import Quality, Reading, Unit

SIGN_EVERY_S = 3600.0  # a sign that lasts is told once an hour
CURRENT_GAP_A, CURRENT_GAP_SHARE = 0.5, 0.1  # phase against neutral: below this it is the meter's own error
REVERSE_WH = 50.0  # export of a meter that has no generator: more than a register's last digit
CLOCK_TRUST_S = 10.0  # a meter's clock that is off by less is taken as right: a slow bus tells it no better
CONFLICT_S = 3600.0  # an hour in which nobody else answers, and the conflict is over
UNREADABLE = 50  # reasons remembered, so that each is told once: bounds what a meter of rubbish can make us keep
MAX_AMOUNTS = 16  # of one meter in a message
FAILURES = 3  # in a row, before a meter counts as silent

ERROR_KINDS: tuple[tuple[type[MeterError], str], ...] = (
    (TransportError, "transport"),
    (ResponseTimeout, "timeout"),
    (AccessDenied, "denied"),
    (RegisterUnavailable, "unavailable"),
    (SecurityError, "security"),
    (IdentityMismatch, "identity"),
)


def error_kind(error: MeterError) -> str:
    """The name under which an error is counted."""
    return next((name for kind, name in ERROR_KINDS if isinstance(error, kind)), "protocol")


@dataclass(slots=True)
class MeterWatch:
    """One meter's story since the start. Times UTC seconds, energies Wh."""

    config: Meter
    exports: bool = False  # its zone takes its export off: feeding in is no fault
    readings: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    failures: int = 0  # in a row
    failing_since_s: float | None = None
    denied: str | None = None
    mismatch: str | None = None  # who else answered in its place
    _mismatch_s: float = -math.inf
    unreadable: tuple[str, ...] = ()  # registers that were left out since the start
    last_reading_s: float | None = None
    import_wh: float = math.nan
    export_wh: float = math.nan
    power_w: float = math.nan
    amounts: tuple[Reading, ...] = ()  # what a meter of another medium showed last, what it counts first
    latency_s: float | None = None
    trail: Trail | None = None
    refresh: Refresh = field(default_factory=Refresh)
    serial: str | None = None
    firmware: str | None = None
    _signed_s: dict[SignKind, float] = field(default_factory=dict)
    _export_start_wh: float | None = None

    @property
    def silent(self) -> bool:
        """Whether it cannot be read at present."""
        return self.denied is not None or self.failures >= FAILURES or (self.failures > 0 and not self.readings)

    def answered(self, readings: Sequence[Reading]) -> tuple[list[RegisterSample], list[MeterSign]]:
        """Take one poll's readings; what the pipeline is to know of them."""
        if not readings:
            return [], []
        self.failures, self.failing_since_s, self.denied = 0, None, None
        self.readings += 1
        by_code = {reading.obis: reading for reading in readings}
        time_s = max(reading.sampled_s for reading in readings)
        self.last_reading_s = time_s
        if self.config.medium != "electricity":
            self.amounts = tuple(sorted(readings, key=lambda reading: reading.obis))
        power = by_code.get(POWER_IMPORT)
        if power is not None:
            self.power_w = power.value * self.config.ct_ratio
        samples = self._samples(by_code)
        self._note(samples)
        samples, polled_s = self.refresh.take(samples), [sample.time_s for sample in samples]
        self._leave_trail(samples, polled_s, by_code)
        signs = [sign for sign in (self._neutral(by_code, time_s), self._reverse(time_s)) if sign is not None]
        return samples, signs

    def register(self) -> Register | None:
        """What a meter of water, heat or gas shows, as it is published; None while it has shown nothing, or is none."""
        if self.config.medium == "electricity" or not self.amounts:
            return None
        return Register(
            meter=self.config.id,
            medium=self.config.medium,
            time=utc(max(reading.sampled_s for reading in self.amounts)),
            amounts=[_amount(reading) for reading in self.amounts[:MAX_AMOUNTS]],
        )

    def stored(self, readings: Sequence[Reading], clock_offset_s: float) -> list[RegisterSample]:
        """Rows of its load profile as samples; those of a clock that is off are moved to our time."""
        rows: dict[float, dict[ObisCode, Reading]] = {}
        for reading in readings:
            if not reading.quality & Quality.CLOCK_INVALID:
                rows.setdefault(reading.sampled_s, {})[reading.obis] = reading
        samples = [sample for row in rows.values() for sample in self._samples(row)]
        if abs(clock_offset_s) <= CLOCK_TRUST_S:
            return samples
        return [
            dataclasses.replace(sample, time_s=sample.time_s - clock_offset_s, uncertainty_s=1.0, from_profile=False)
            for sample in samples
        ]

    def failed(self, error: MeterError, time_s: float) -> None:
        """Take an error instead of readings."""
        kind = error_kind(error)
        self.errors[kind] = self.errors.get(kind, 0) + 1
        if isinstance(error, IdentityMismatch):  # it is no silence: somebody answers
            self.mismatch, self._mismatch_s = str(error), time_s
            return
        self.failures += 1
        if self.failing_since_s is None:
            self.failing_since_s = time_s
        if isinstance(error, AccessDenied):
            self.denied = str(error)

    def identified(self, serial: str | None, firmware: str | None, time_s: float) -> MeterSign | None:
        """Take its name plate; a sign if it is not the meter that was here before."""
        before, self.serial, self.firmware = self.serial, serial or self.serial, firmware or self.firmware
        if before is not None and serial is not None and serial != before:
            self._export_start_wh, self.refresh = None, Refresh()
            return MeterSign(self.config.id, time_s, SignKind.METER_REPLACED)
        return None

    def newly_unreadable(self, now: Sequence[str]) -> list[str]:
        """Those of the registers that cannot be understood which were not among them before."""
        fresh = [why for why in now if why not in self.unreadable]
        self.unreadable = (*self.unreadable, *fresh)[-UNREADABLE:]
        return fresh

    def fault(self, time_s: float) -> Condition:
        """Whether the meter itself is at fault: it refuses our credentials, or is not the one that was mounted."""
        detail = None
        if self.denied is not None:
            detail = f"it refuses our credentials ({self.denied}); check security and keys, then reload"
        elif self.mismatch is not None and time_s - self._mismatch_s < CONFLICT_S:
            detail = self.mismatch
        return Condition(
            kind="meter_fault",
            active=detail is not None,
            time_s=time_s,
            since_s=self.failing_since_s or time_s,
            meter=self.config.id,
            detail=detail,
        )

    def reversed_energy(self, time_s: float) -> Condition | None:
        """Energy running backwards through a meter that has no generator behind it; None while that is not known."""
        if self.exports or self._export_start_wh is None:
            return None
        gone_wh = self.export_wh - self._export_start_wh
        return Condition(
            kind="reverse_energy",
            active=gone_wh > REVERSE_WH,
            time_s=time_s,
            since_s=time_s,
            meter=self.config.id,
            detail=f"{gone_wh / 1000:.2f} kWh exported since the agent's start; a swapped terminal, or unread solar",
        )

    def _leave_trail(
        self, samples: Sequence[RegisterSample], polled_s: Sequence[float], by_code: dict[ObisCode, Reading]
    ) -> None:
        """Keep the reading for who looks at the moment: another whole, since others may be looking at the last."""
        power_w = self.power_w if POWER_IMPORT in by_code else math.nan
        if self.exports:
            power_w -= by_code[POWER_EXPORT].value * self.config.ct_ratio if POWER_EXPORT in by_code else math.nan
        fresh = [Moment(s.time_s, s.import_wh - (s.export_wh if self.exports else 0.0), power_w) for s in samples]
        if not fresh:  # the register shows an old value, the power is of now
            fresh = [Moment(time_s, math.nan, power_w) for time_s in polled_s]
        before = () if self.trail is None else self.trail.moments
        moments = (*before, *fresh)[-TRAIL:]
        self.trail = Trail(moments, self.config.resolution_wh * self.config.ct_ratio)

    def _note(self, samples: Sequence[RegisterSample]) -> None:
        """Keep the last registers, for those who look and for energy that runs backwards."""
        for sample in samples:
            self.import_wh = self.import_wh if math.isnan(sample.import_wh) else sample.import_wh
            self.export_wh = self.export_wh if math.isnan(sample.export_wh) else sample.export_wh
            if self._export_start_wh is None and not math.isnan(sample.export_wh):
                self._export_start_wh = sample.export_wh

    def _samples(self, by_code: dict[ObisCode, Reading]) -> list[RegisterSample]:
        energy = [
            reading
            for code in (ENERGY_IMPORT, ENERGY_EXPORT)
            if (reading := by_code.get(code)) is not None and reading.unit is Unit.WATT_HOUR
        ]
        if not energy:
            return []
        ratio = self.config.ct_ratio
        values = {reading.obis: reading.value * ratio for reading in energy}
        newest = max(energy, key=lambda reading: reading.sampled_s)
        return [
            RegisterSample(
                meter=self.config.id,
                time_s=newest.sampled_s,
                uncertainty_s=newest.uncertainty_s,
                import_wh=values.get(ENERGY_IMPORT, math.nan),
                export_wh=values.get(ENERGY_EXPORT, math.nan),
                from_profile=bool(newest.quality & Quality.FROM_PROFILE),
            )
        ]

    def _neutral(self, by_code: dict[ObisCode, Reading], time_s: float) -> MeterSign | None:
        """Phase and neutral current of a single-phase meter differ: a part of it returns another way."""
        phases = [by_code[code].value for code in CURRENT if code in by_code]
        neutral = by_code.get(NEUTRAL_CURRENT)
        if neutral is None or len(phases) != 1:
            return None
        gap_a = abs(phases[0] - neutral.value)
        if gap_a <= max(CURRENT_GAP_A, CURRENT_GAP_SHARE * max(phases[0], neutral.value)):
            return None
        return self._sign(SignKind.NEUTRAL_CURRENT, time_s, gap_a * self.config.ct_ratio)

    def _reverse(self, time_s: float) -> MeterSign | None:
        condition = self.reversed_energy(time_s)
        return self._sign(SignKind.REVERSE_ENERGY, time_s) if condition is not None and condition.active else None

    def _sign(self, kind: SignKind, time_s: float, value: float = 0.0) -> MeterSign | None:
        if time_s - self._signed_s.get(kind, -math.inf) < SIGN_EVERY_S:
            return None
        self._signed_s[kind] = time_s
        return MeterSign(self.config.id, time_s, kind, value)


def _amount(reading: Reading) -> Amount:
    """A register for people: energies in kWh, the other units as they are."""
    energy = reading.unit is Unit.WATT_HOUR
    value, unit = (reading.value / 1000, "kWh") if energy else (reading.value, reading.unit.symbol)
    return Amount(obis=str(reading.obis), value=value, unit=unit)
