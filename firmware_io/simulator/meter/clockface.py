"""A meter's own clock: how far it is off, how that came about, and how it is written as COSEM date-time.

Times inside are UTC seconds; `true` is the simulation's time, `shown` what this meter believes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from firmware_io.clock import local_time
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.errors import RemoteProtocolError
from firmware_io.simulator.meter.faults import Faults

DRIFT_STEP_S = 3600.0  # drift is added in steps of this length: a profile row knows its time to a second

INVALID, DOUBTFUL, DST = 0x01, 0x02, 0x80  # clock status bits (IEC 62056-62)


class Era(NamedTuple):
    """A stretch of true time in which the clock is off by a constant."""

    from_s: float
    to_s: float
    offset_s: float  # shown minus true


class MeterClock:
    """The clock of one meter, in the time zone of its building, with daylight saving."""

    def __init__(self, faults: Faults, timezone: str = "UTC") -> None:
        self._faults = faults
        self._zone = ZoneInfo(timezone)
        self._sets: list[tuple[float, float]] = []  # (true time, offset from then on); by SET and ACTION

    def offset_s(self, true_s: float) -> float:
        """Shown minus true time."""
        base, since = 0.0, float("-inf")
        for at, offset in self._sets:
            if at <= true_s:
                base, since = offset, at
        jumps = [(s.onset_s, s.amount) for s in self._faults.all("clock_jump")]
        jumps += [(s.onset_s, -3600.0) for s in self._faults.all("dst_doubled")]
        jumps += [(s.onset_s, 3600.0) for s in self._faults.all("dst_missing")]
        base += sum(amount for at, amount in jumps if since < at <= true_s)
        for drift in self._faults.all("clock_drift"):
            begin = max(drift.onset_s, since, -1e11)
            length = max(0.0, min(true_s, drift.until_s) - begin) if drift.onset_s > -1e10 else 0.0
            base += length // DRIFT_STEP_S * DRIFT_STEP_S / 86_400 * drift.amount
        return base

    def shown_s(self, true_s: float) -> float:
        """The meter's time."""
        return true_s + self.offset_s(true_s)

    def set(self, true_s: float, shown_s: float) -> None:
        """Somebody sets the clock. The latest thousand settings are remembered: a client could set it for ever."""
        self._sets = [*self._sets[-999:], (true_s, shown_s - true_s)]

    def eras(self, from_s: float, to_s: float) -> list[Era]:
        """The stretches of constant offset that make up `from_s`..`to_s` of true time."""
        cuts = {from_s, to_s}
        cuts.update(at for at, _ in self._sets)
        for kind in ("clock_jump", "dst_doubled", "dst_missing"):
            cuts.update(s.onset_s for s in self._faults.all(kind))
        for drift in self._faults.all("clock_drift"):
            begin = max(drift.onset_s, max((at for at, _ in self._sets), default=drift.onset_s))
            step = max(0.0, (from_s - begin) // DRIFT_STEP_S)
            at = begin + step * DRIFT_STEP_S
            while at < min(to_s, drift.until_s):
                cuts.add(at)
                at += DRIFT_STEP_S
        inside = sorted(cut for cut in cuts if from_s <= cut <= to_s)
        eras: list[Era] = []
        for begin, end in pairwise(inside):
            offset = self.offset_s(begin)
            if eras and eras[-1].offset_s == offset:
                eras[-1] = Era(eras[-1].from_s, end, offset)
            else:
                eras.append(Era(begin, end, offset))
        return eras

    def status(self, true_s: float) -> int:
        """The clock status octet."""
        if self._faults.at("clock_invalid", true_s):
            return INVALID | DOUBTFUL
        if self._faults.at("deviation_undefined", true_s):
            return 0
        return DST if self.daylight(self.shown_s(true_s)) else 0

    def daylight(self, shown_s: float) -> bool:
        """Whether daylight saving is on at a time that the clock shows."""
        return bool(self._local(shown_s).dst())

    def deviation_min(self, true_s: float) -> int:
        """Minutes from local time to UTC, as COSEM counts them: -60 in Central Europe's winter."""
        return -self._offset_min(self.shown_s(true_s))

    def _local(self, shown_s: float) -> datetime:
        return local_time(shown_s, self._zone)

    def _offset_min(self, shown_s: float) -> int:
        offset = self._local(shown_s).utcoffset()
        return 0 if offset is None else int(offset.total_seconds() // 60)

    def date_time(self, true_s: float, shown_s: float | None = None) -> bytes:
        """The twelve octets of a COSEM date-time for what the clock shows at `true_s`, or for `shown_s`.

        A profile's stamps pass both: the fault that was at work when they were captured decides their form.
        """
        shown = self.shown_s(true_s) if shown_s is None else shown_s
        local = self._local(shown)
        offset_s = 60.0 * self._offset_min(shown)
        deviation: int | None = -self._offset_min(shown)
        status = self.status(true_s) if shown_s is None else DST if local.dst() else 0
        if self._faults.at("deviation_undefined", true_s):  # such meters stay on standard time all year
            offset_s -= (local.dst() or timedelta(0)).total_seconds()
            deviation, status = None, 0
        elif self._faults.at("deviation_reversed", true_s):
            deviation = self._offset_min(shown)
        return MeterTime(shown + offset_s, deviation, status).encode()

    def from_date_time(self, octets: bytes) -> float | None:
        """UTC seconds of a COSEM date-time that a client wrote; None where it is no time or has wildcards.

        An undefined deviation is taken as this building's local time; a meter that reverses its deviation takes
        that of its client in the same way.
        """
        try:
            time = MeterTime.decode(octets)
        except RemoteProtocolError:
            return None
        if time is None:
            return None
        if time.deviation_min is None:
            local = local_time(time.local_s, UTC).replace(tzinfo=self._zone)
            return local.timestamp()
        sign = -1 if self._faults.all("deviation_reversed") else 1
        return time.local_s + 60 * sign * time.deviation_min
