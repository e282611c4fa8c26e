"""Standard-time offset of the site, both hemispheres."""

from __future__ import annotations

import datetime
import zoneinfo


def offset_s(timezone: str) -> float:
    """Standard time of the people in the building minus UTC; daylight saving does not move their meters."""
    zone = zoneinfo.ZoneInfo(timezone)
    winter = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC).astimezone(zone)
    offset = winter.utcoffset()
    return offset.total_seconds() if offset is not None else 0.0
