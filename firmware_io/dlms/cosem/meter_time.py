"""A meter's date-time (IEC 62056-62, 12 octets) and what a given meter means by it.

The standard says that deviation is UTC minus local time in minutes. Meters in the field also send it with the
sign reversed, or leave it out (0x8000) and keep some local time. What a meter means is learned by reading its
clock while we know the time (`Convention.learn`), and then holds for its load profile too.
"""

from __future__ import annotations

import calendar
import datetime
import enum
from typing import NamedTuple, Self
from zoneinfo import ZoneInfo

from firmware_io.clock import local_time
from firmware_io.errors import RemoteProtocolError

OCTETS = 12
NO_DEVIATION = -0x8000
STATUS_DOUBTFUL = 0x0B  # invalid value, doubtful value, invalid clock status
STATUS_DAYLIGHT = 0x80
STATUS_UNKNOWN = 0xFF
MAX_ZONE_S = 14 * 3600
ZONE_STEP_S = 900  # zones are quarters of an hour apart
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class MeterTime(NamedTuple):
    """A date-time as the meter sent it: `local_s` is its wall time counted as if it were UTC."""

    local_s: float
    deviation_min: int | None = None
    status: int = STATUS_UNKNOWN

    @classmethod
    def decode(cls, octets: bytes) -> Self | None:
        """Read a date-time; None when the meter leaves the date or the hour open.

        Raises:
            RemoteProtocolError: not 12 octets, or a date that does not exist.
        """
        if len(octets) != OCTETS:
            raise RemoteProtocolError(f"a date-time has {OCTETS} octets, got {octets.hex()}")
        year, month, day = octets[0] << 8 | octets[1], octets[2], octets[3]
        hour, minute, second, hundredths = octets[5:9]
        if year == 0xFFFF or month >= 0xFD or day >= 0xFD or hour == 0xFF:
            return None
        minute, second, hundredths = (0 if part == 0xFF else part for part in (minute, second, hundredths))
        try:
            local = datetime.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=datetime.UTC)
        except ValueError as error:
            raise RemoteProtocolError(f"date-time {octets.hex()}: {error}") from error
        if second > 60 or hundredths > 99:
            raise RemoteProtocolError(f"date-time {octets.hex()}: no such second")
        deviation = int.from_bytes(octets[9:11], "big", signed=True)
        if deviation != NO_DEVIATION and abs(deviation) > 840:
            raise RemoteProtocolError(f"date-time {octets.hex()}: deviation of {deviation} min")
        local_s = calendar.timegm(local.timetuple()) + (second - min(second, 59)) + hundredths / 100
        return cls(local_s, None if deviation == NO_DEVIATION else deviation, octets[11])

    def encode(self) -> bytes:
        """The 12 octets."""
        local = _EPOCH + datetime.timedelta(seconds=self.local_s)
        deviation = NO_DEVIATION if self.deviation_min is None else self.deviation_min
        head = local.year.to_bytes(2, "big") + bytes((local.month, local.day, local.isoweekday()))
        time = bytes((local.hour, local.minute, local.second, local.microsecond // 10000))
        return head + time + deviation.to_bytes(2, "big", signed=True) + bytes((self.status,))

    @property
    def doubtful(self) -> bool:
        """Whether the meter itself marks the time as invalid or doubtful."""
        return self.status != STATUS_UNKNOWN and bool(self.status & STATUS_DOUBTFUL)

    @property
    def daylight(self) -> bool | None:
        """Whether daylight saving is on; None when the status is not given."""
        return None if self.status == STATUS_UNKNOWN else bool(self.status & STATUS_DAYLIGHT)


def _seconds(delta: datetime.timedelta | None) -> float:
    return 0.0 if delta is None else delta.total_seconds()


def _offsets_s(zone: ZoneInfo, now_s: float) -> tuple[float, float]:
    """Local minus UTC at a site: as its people count it now, and in standard time."""
    now = local_time(now_s, zone)
    local_s = _seconds(now.utcoffset())
    return local_s, local_s - _seconds(now.dst())


class Deviation(enum.Enum):
    """How a meter fills the deviation in."""

    STANDARD = enum.auto()  # UTC minus local
    REVERSED = enum.auto()
    ABSENT = enum.auto()


class Convention(NamedTuple):
    """What a meter means by its time. `offset_s` is local minus UTC when it was learned, with `daylight` then.

    `zone` is the zone by whose rules its time without deviation runs, None where it is always `offset_s` from UTC.
    `assumed` says in words what a time without deviation was taken for.
    """

    deviation: Deviation = Deviation.STANDARD
    offset_s: float = 0.0
    daylight: bool | None = None
    zone: ZoneInfo | None = None
    assumed: str | None = None

    @classmethod
    def learn(cls, time: MeterTime, now_s: float, timezone: str | None = None) -> Self:
        """From the meter's clock, read at `now_s` UTC; `timezone` is the site's (IANA), where it is known.

        A clock without deviation is taken for the site's local time, the site's standard time or UTC, whichever is
        nearest: so a wrong hour shows. Without the site's zone an error of whole quarters of an hour cannot be seen.
        """
        ahead_s = time.local_s - now_s
        zone = None if timezone is None else ZoneInfo(timezone)
        if time.deviation_min is None and zone is not None:
            return cls._of_site(time, now_s, ahead_s, zone)
        if time.deviation_min is None:
            offset_s = round(ahead_s / ZONE_STEP_S) * ZONE_STEP_S
            # Further off than any zone is: the clock is wrong, and says nothing of the zone.
            near_s = float(offset_s) if abs(offset_s) <= MAX_ZONE_S else 0.0
            return cls(Deviation.ABSENT, near_s, time.daylight, None, f"{near_s / 3600:+g} h from UTC")
        standard_s = -60.0 * time.deviation_min
        if zone is not None:
            offsets = _offsets_s(zone, now_s)
            reversed_ = -standard_s in offsets and standard_s not in offsets
        else:
            reversed_ = abs(ahead_s + standard_s) < ZONE_STEP_S < abs(ahead_s - standard_s)
        if reversed_:
            return cls(Deviation.REVERSED, -standard_s, time.daylight)
        return cls(Deviation.STANDARD, standard_s, time.daylight)

    @classmethod
    def _of_site(cls, time: MeterTime, now_s: float, ahead_s: float, zone: ZoneInfo) -> Self:
        """A clock without deviation at a site whose zone is known."""
        local_s, standard_s = _offsets_s(zone, now_s)
        choices = [(local_s, "the site's local time"), (standard_s, "the site's standard time"), (0.0, "UTC")]
        offset_s, assumed = min(choices, key=lambda choice: abs(ahead_s - choice[0]))  # the first of equals
        rules = zone if offset_s == local_s and time.daylight is None and local_s != standard_s else None
        return cls(Deviation.ABSENT, offset_s, time.daylight, rules, assumed)

    def utc_s(self, time: MeterTime) -> float:
        """UTC seconds of a time of this meter."""
        if time.deviation_min is not None and self.deviation is not Deviation.ABSENT:
            return time.local_s + 60.0 * time.deviation_min * (-1 if self.deviation is Deviation.REVERSED else 1)
        offset_s = self.offset_s
        if self.zone is not None:
            local = (_EPOCH + datetime.timedelta(seconds=time.local_s)).replace(tzinfo=self.zone)
            offset_s = _seconds(local.utcoffset())
        elif time.daylight is not None and self.daylight is not None:
            offset_s += 3600.0 * (time.daylight - self.daylight)
        return time.local_s - offset_s

    def meter_time(self, utc_s: float) -> MeterTime:
        """A UTC time as this meter would say it, with the offset that was learned."""
        deviation = {
            Deviation.STANDARD: -round(self.offset_s / 60),
            Deviation.REVERSED: round(self.offset_s / 60),
            Deviation.ABSENT: None,
        }[self.deviation]
        offset_s = self.offset_s
        if self.zone is not None:
            offset_s = _seconds(local_time(utc_s, self.zone).utcoffset())
        status = STATUS_UNKNOWN if self.daylight is None else STATUS_DAYLIGHT * self.daylight
        return MeterTime(utc_s + offset_s, deviation, status)
