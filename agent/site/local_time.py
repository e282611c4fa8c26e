"""Standard-time offset of the site, both hemispheres."""

from __future__ import annotations

import datetime
import zoneinfo

_YEAR = 2024
_MONTHS = (1, 7)  # one of them has standard time, whichever hemisphere has summer then


def offset_s(timezone: str) -> float:
    """Standard time of the people in the building minus UTC, s; daylight saving does not move their meters.

    Where summer time is kept the clock is ahead then, so standard time is the lesser offset of January and July.
    Ireland's negative daylight saving in winter (IANA `Europe/Dublin`) comes out as its winter time, UTC.
    """
    zone = zoneinfo.ZoneInfo(timezone)
    instants = [datetime.datetime(_YEAR, month, 1, tzinfo=datetime.UTC).astimezone(zone) for month in _MONTHS]
    return min(offset.total_seconds() for instant in instants if (offset := instant.utcoffset()) is not None)
