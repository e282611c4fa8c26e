"""A site file's time zone and holidays as the forecast's calendar: the only place that asks the time-zone database."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Iterable

from agent.wire.values import utc
from core.forecast.calendar import Calendar

FIRST_YEAR, LAST_YEAR = 2000, 2060
DAY_S = 86_400
EPOCH = datetime.date(1970, 1, 1)


def calendar_of(timezone: str, holidays: Iterable[str] = ()) -> Calendar:
    """The calendar of `timezone` from 2000 to 2060; each of `holidays` is YYYY-MM-DD, or MM-DD for every year.

    Raises:
        ValueError: a holiday that is no day of its year.
    """
    zone = zoneinfo.ZoneInfo(timezone)

    def offset_s(time_s: float) -> float:
        offset = utc(time_s).astimezone(zone).utcoffset()
        return 0.0 if offset is None else offset.total_seconds()

    changes: list[float] = []
    at_s = float((datetime.date(FIRST_YEAR, 1, 1) - EPOCH).days * DAY_S)
    end_s = float((datetime.date(LAST_YEAR, 12, 31) - EPOCH).days * DAY_S)
    offsets = [offset_s(at_s)]
    while at_s < end_s:
        next_s = at_s + 7 * DAY_S
        if offset_s(next_s) != offsets[-1]:
            low, high = at_s, next_s
            while high - low > 1:  # to the second: clocks change on a whole one
                middle = (low + high) // 2
                low, high = (middle, high) if offset_s(middle) == offsets[-1] else (low, middle)
            changes.append(high)
            offsets.append(offset_s(high))
            next_s = high
        at_s = next_s
    return Calendar(tuple(changes), tuple(offsets), frozenset(_days(holidays)))


def _days(holidays: Iterable[str]) -> Iterable[int]:
    for text in holidays:
        parts = [int(part) for part in text.split("-")]
        for year in range(FIRST_YEAR, LAST_YEAR + 1) if len(parts) == 2 else (parts[0],):
            if parts[-2:] == [2, 29] and len(parts) == 2 and (year % 4 or (year % 100 == 0 and year % 400)):
                continue  # a leap day is none in other years
            yield (datetime.date(year, parts[-2], parts[-1]) - EPOCH).days
