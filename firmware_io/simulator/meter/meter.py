"""One simulated meter: its registers as the building feeds them and its faults spoil them, and its objects.

It knows no link and no association: `server` asks it for attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.simulator.building.building import Live, Registers
from firmware_io.simulator.meter.clockface import Era, MeterClock
from firmware_io.simulator.meter.events import Code, EventLog
from firmware_io.simulator.meter.faults import Faults
from firmware_io.simulator.meter.keys import MeterKeys
from firmware_io.simulator.meter.profile import MakeRows

Floats = npt.NDArray[np.float64]

PERIOD_S = 900  # of the load profile, as it leaves the factory
PERIODS_S = (300, 900, 1800, 3600)
MANUFACTURER = "CHM"
FIRMWARE = "checkmeter-sim 1.0"

Eras = list[tuple[Era, int, int]]  # which rows of the profile belong to which era of the clock
_MAX_U32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a meter is on its line, and the secrets it shares with its client."""

    id: str
    number: int  # counts the site's meters; its serial number is made of it
    address: int
    logical_address: int = 1
    address_octets: int = 0
    main: bool = False
    resolution_wh: float = 10.0
    phase: int = 0
    exports: bool = False
    security: str = "none"  # see `firmware_io.dlms.spec`
    password: bytes = field(default=b"", repr=False)
    authentication_key: bytes = field(default=b"", repr=False)
    encryption_key: bytes = field(default=b"", repr=False)
    client_title: bytes = b""
    max_pdu: int = 1024
    max_frame: int = 512
    inactivity_s: float = 120.0
    history_s: float = 65 * 86_400.0
    compress: bool = True
    policy: Literal["both", "authenticated", "encrypted"] = "both"
    suite: Literal[0, 1, 2] | None = None
    master_key: bytes = field(default=b"", repr=False)
    broadcast_key: bytes = field(default=b"", repr=False)
    client_signing_key: bytes | None = None  # the client's public key, as a point in hex
    client_agreement_key: bytes | None = None
    client: int = 16
    naming: Literal["ln", "sn"] = "ln"
    gbt_window: int = 0  # general blocks that it takes at once; 0: it has no such transfer

    @property
    def signing_suite(self) -> int:
        """The security suite whose curve its key pair is on."""
        return self.suite or (2 if len(self.encryption_key) == 32 else 1)

    @property
    def system_title(self) -> bytes:
        """Eight octets: manufacturer and number."""
        return MANUFACTURER.encode() + (0x51_0000_0000 + self.number).to_bytes(5, "big")

    @property
    def logical_device_name(self) -> bytes:
        """Sixteen octets: manufacturer and number."""
        return f"{MANUFACTURER}{self.number:013d}".encode()


class SimulatedMeter:
    """The inside of a meter: what it would show at any instant, honest or not."""

    def __init__(
        self,
        identity: Identity,
        registers: Registers,
        now: Callable[[], float],
        faults: Faults,
        clock: MeterClock,
        log: EventLog,
        installed_s: float,
    ) -> None:
        self.identity = identity
        self.now = now
        self.faults = faults
        self.clock = clock
        self.log = log
        self.installed_s = installed_s
        self._registers = registers
        self._profile_from_s = installed_s  # moved by a reset of the load profile
        self.period_s = PERIOD_S
        step = identity.resolution_wh
        exponent = round(np.log10(step)) if step > 0 else 0
        even = exponent >= 0 and abs(10.0**exponent - step) < 1e-9 * step
        self._step_wh = step
        self._scaler = int(exponent) if even or step < 1 else 0
        self._stamps: tuple[tuple[object, ...], list[float], Eras] = ((), [], [])
        self.bad_authentications = 0
        self.keys = MeterKeys(
            identity.encryption_key, identity.authentication_key, identity.master_key, identity.broadcast_key
        )
        self.twin_wh: float | None = None  # while the other meter at this address answers: how much more it shows

    def serial_number(self) -> str:
        """Another one after a replacement."""
        if self.twin_wh is not None:
            return f"{MANUFACTURER}{self.identity.number + 90_000_000:08d}"
        replaced = sum(s.onset_s <= self.now() for s in self.faults.all("replaced"))
        return f"{MANUFACTURER}{self.identity.number:08d}" + (f"R{replaced}" if replaced else "")

    def logical_device_name(self) -> bytes:
        """Sixteen octets: manufacturer and number."""
        name = self.identity.logical_device_name
        return name if self.twin_wh is None else name[:-2] + b"99"

    # Energy

    def energy_wh(self, true_s: float) -> tuple[float, float]:
        """Import and export as the registers show them, quantised, Wh."""
        imported, exported = self._registers.energy_wh(self.identity.id, true_s)
        times = np.array([true_s])
        shown = self._spoiled(np.array([imported]), np.array([exported]), times)
        return float(shown[0][0]) + (self.twin_wh or 0.0), float(shown[1][0])

    def _spoiled(self, imported: Floats, exported: Floats, times: Floats) -> tuple[Floats, Floats]:
        """What faults make of true registers at some times; quantised to the resolution."""

        def at(moment_s: float) -> float:
            return self._registers.energy_wh(self.identity.id, moment_s)[0]

        for strike in self.faults.all("frozen"):
            imported = np.where((times >= strike.onset_s) & (times < strike.until_s), at(strike.onset_s), imported)
        for strike in self.faults.all("reverse"):
            if strike.onset_s <= times[-1]:
                gone = np.clip(
                    imported - at(strike.onset_s), 0.0, at(min(strike.until_s, times[-1])) - at(strike.onset_s)
                )
                imported, exported = imported - gone, exported + gone
        for strike in self.faults.all("ct_ratio"):
            if strike.onset_s <= times[-1]:
                first = at(strike.onset_s)
                length = at(min(strike.until_s, times[-1])) - first
                imported = imported - np.clip(imported - first, 0.0, length) * (1 - strike.amount)
        for strike in self.faults.all("replaced"):
            if strike.onset_s <= times[-1]:
                imported = np.where(times >= strike.onset_s, imported - at(strike.onset_s), imported)
        for strike in self.faults.all("decrease"):
            down = (times >= strike.onset_s) & (times < strike.until_s)
            imported = np.where(down, imported - 1000 * strike.amount, imported)
        for strike in self.faults.all("rollover"):
            imported = np.where(times >= strike.onset_s, imported % (1000 * 10.0**strike.amount), imported)
        step = self._step_wh
        return np.floor(np.maximum(imported, 0.0) / step) * step, np.floor(exported / step) * step

    def energy_data(self, energy_wh: float, true_s: float) -> Data:
        """A register's value on the wire, in the type that the meter has at that time."""
        scaler = self.energy_scaler(true_s)
        value = round(energy_wh * 10.0**-scaler if scaler <= self._scaler else energy_wh // 10.0**scaler)
        if self.faults.at("int32", true_s):
            return axdr.int32(min(value, 0x7FFF_FFFF))
        if self.faults.at("uint64", true_s):
            return axdr.uint64(value)
        return axdr.uint32(value & _MAX_U32)

    def energy_scaler(self, true_s: float) -> int:
        """The power of ten of the energy registers."""
        return self._scaler + (1 if self.faults.at("scaler_changed", true_s) else 0)

    def live(self) -> Live:
        """Instantaneous values, spoiled as far as faults reach them."""
        now = self.now()
        live = self._registers.live(self.identity.id, now)
        volts, amperes, neutral, power = live.voltages_v, live.currents_a, live.neutral_a, live.power_w
        if self.faults.at("phase_loss", now):
            volts, amperes = (0.0, *volts[1:]), (0.0, *amperes[1:])
        if self.faults.at("reverse", now):
            power = -power
        ratio = self.faults.at("ct_ratio", now)
        if ratio:
            power, amperes = power * ratio.amount, tuple(a * ratio.amount for a in amperes)
        if self.faults.at("neutral_current", now):
            neutral = neutral * 1.5 + 2.0
        return Live(power, volts, amperes, neutral, live.power_factor)

    def error_register(self) -> int:
        """Bits as IDIS has them: 0 clock invalid, 13 fraud attempt."""
        now = self.now()
        frauds = ("cover", "terminal_cover", "magnet", "reverse", "neutral_current")
        fraud = any(self.faults.at(kind, now) for kind in frauds)  # type: ignore[arg-type]  # they are fault kinds
        return int(bool(self.faults.at("clock_invalid", now))) | int(fraud) << 13

    def demand_w(self, true_s: float) -> float:
        """Mean import of the last whole measuring period before a time."""
        end = true_s // PERIOD_S * PERIOD_S
        return max(self.energy_wh(end)[0] - self.energy_wh(end - PERIOD_S)[0], 0.0) * 3600 / PERIOD_S

    def rates_wh(self) -> tuple[float, float]:
        """Import by tariff: 6-22 h local time, and the rest; the two add up to the total."""
        now = self.now()
        total = self.energy_wh(now)[0]
        last = int(now // PERIOD_S)
        first = int(self.installed_s // PERIOD_S)
        wh, _ = self._registers.quarters_wh(self.identity.id, first, last)
        shift_s = -60 * self.clock.deviation_min(now)
        hour = (np.arange(first, last) * PERIOD_S + shift_s) % 86_400 / 3600
        day = float(np.diff(wh)[(hour >= 6) & (hour < 22)].sum()) + float(wh[0])
        day = min(np.floor(day / self._step_wh) * self._step_wh, total)
        return float(day), total - float(day)

    # Load profile: a `Rows`

    def snapshot(self) -> tuple[Sequence[float], MakeRows]:
        """See `profile.Rows`."""
        stamps, eras = self._profile()
        return stamps, lambda first, last: self._rows(stamps, eras, first, last)

    def _rows(self, stamps: list[float], eras: Eras, first: int, last: int) -> list[list[Data]]:
        """Rows of the load profile: time, status, import and, where the meter has it, export."""
        rows: list[list[Data]] = []
        for era, begin, end in eras:
            a, b = max(first, begin), min(last, end)
            if a >= b:
                continue
            shown = np.array(stamps[a:b])
            true = shown - era.offset_s
            if era.offset_s % PERIOD_S == 0 == self.period_s % PERIOD_S:
                low = int(true[0] // PERIOD_S)
                raw = self._registers.quarters_wh(self.identity.id, low, int(true[-1] // PERIOD_S))
                at = (true // PERIOD_S).astype(int) - low
                imported, exported = raw[0][at], raw[1][at]
            else:
                pairs = [self._registers.energy_wh(self.identity.id, t) for t in true.tolist()]
                imported, exported = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
            imported, exported = self._spoiled(imported, exported, true)
            for stamp, moment, energy, back in zip(
                shown.tolist(), true.tolist(), imported.tolist(), exported.tolist(), strict=True
            ):
                row = [
                    axdr.octet_string(self.clock.date_time(moment, stamp)),
                    axdr.uint8(self._status(moment, stamp, adjusted=bool(begin) and stamp == stamps[begin])),
                    self.energy_data(energy, moment),
                ]
                if self.identity.exports:
                    row.append(self.energy_data(back, moment))
                rows.append(row)
        return rows

    def _status(self, true_s: float, shown_s: float, *, adjusted: bool) -> int:
        """The status of a row, as IDIS has it: 0x02 clock invalid, 0x08 daylight saving, 0x20 clock adjusted."""
        invalid = self.faults.at("clock_invalid", true_s) is not None
        return 0x02 * invalid | 0x08 * self.clock.daylight(shown_s) | 0x20 * adjusted

    def reset_profile(self) -> None:
        """Forget all rows until now."""
        self._profile_from_s = self.now()

    def set_period(self, period_s: int) -> bool:
        """Capture at another period from now on, which empties the profile; False where the meter has no such."""
        if period_s not in PERIODS_S:
            return False
        self.period_s = period_s
        self.reset_profile()
        return True

    def set_clock(self, shown_s: float) -> None:
        """A client sets the clock; the log says so."""
        now = self.now()
        self.log.add(now, Code.CLOCK_OLD)
        self.clock.set(now, shown_s)
        self.log.add(now, Code.CLOCK_NEW)

    def _profile(self) -> tuple[list[float], Eras]:
        """Time stamps of all rows, and which of them belong to which era of the clock."""
        now, period_s = self.now(), self.period_s
        key = (period_s, int(self.clock.shown_s(now) // period_s), self._profile_from_s, self.clock.offset_s(now))
        if self._stamps[0] != key:
            begin = max(self.installed_s, self._profile_from_s, now - self.identity.history_s)
            stamps: list[float] = []
            eras: Eras = []
            gaps = self.faults.all("profile_gap")
            for era in self.clock.eras(begin, now):
                at = len(stamps)
                low = int(-(-(era.from_s + era.offset_s) // period_s))
                high = int(-(-(era.to_s + era.offset_s) // period_s))
                if era.to_s == now and (now + era.offset_s) % period_s == 0:
                    high += 1
                stamps.extend(
                    float(q * period_s)
                    for q in range(low, high)
                    if not any(g.onset_s <= q * period_s - era.offset_s < g.until_s for g in gaps)
                )
                eras.append((era, at, len(stamps)))
            self._stamps = (key, stamps, eras)
        return self._stamps[1], self._stamps[2]


class LogRows:
    """The rows of one event log: time and code."""

    def __init__(self, meter: SimulatedMeter, *, fraud: bool) -> None:
        self._meter = meter
        self._fraud = fraud

    def snapshot(self) -> tuple[Sequence[float], MakeRows]:
        """See `profile.Rows`."""
        clock = self._meter.clock
        entries = self._meter.log.entries(self._fraud, self._meter.now())
        stamps = [clock.shown_s(entry.time_s) for entry in entries]

        def rows(first: int, last: int) -> list[list[Data]]:
            return [
                [axdr.octet_string(clock.date_time(entry.time_s, stamp)), axdr.uint8(entry.code)]
                for entry, stamp in list(zip(entries, stamps, strict=True))[first:last]
            ]

        return stamps, rows
