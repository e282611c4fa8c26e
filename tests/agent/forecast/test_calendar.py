"""A site's time zone and holidays as the forecast's calendar."""

from __future__ import annotations

import datetime
import zoneinfo

import numpy as np
import pytest

from agent.forecast.calendar import calendar_of

UTC = datetime.UTC


@pytest.mark.parametrize(
    "timezone", ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata"]
)
def test_local_time_is_that_of_the_time_zone_database(timezone):
    calendar, zone = calendar_of(timezone), zoneinfo.ZoneInfo(timezone)
    times_s = np.random.default_rng(1).uniform(1.3e9, 2.0e9, 300)
    want = [t + datetime.datetime.fromtimestamp(t, UTC).astimezone(zone).utcoffset().total_seconds() for t in times_s]
    np.testing.assert_allclose(calendar.local_s(times_s), want)


def test_clocks_change_at_the_very_second():
    calendar = calendar_of("Europe/Berlin")
    change_s = datetime.datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    assert change_s in calendar.changes_s
    assert np.diff(calendar.local_s(np.array([change_s - 1, change_s])))[0] == 3601


def test_a_day_of_23_hours_lacks_steps_and_one_of_25_has_some_twice():
    calendar = calendar_of("Europe/Berlin")
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)):
        date = datetime.date.fromisoformat(day)
        number = (date - datetime.date(1970, 1, 1)).days
        start_s = datetime.datetime.combine(date, datetime.time(), zoneinfo.ZoneInfo("Europe/Berlin")).timestamp()
        days, steps = calendar.place(start_s + 1800 * np.arange(hours * 2) + 900, 1800)
        assert set(days) == {number}
        assert len(set(steps)) == min(48, hours * 2)


def test_holidays_are_sundays_once_or_every_year():
    calendar = calendar_of("UTC", ["2026-04-06", "12-25", "02-29"])

    def kind(day):
        return calendar.kind((datetime.date.fromisoformat(day) - datetime.date(1970, 1, 1)).days)

    assert [kind(d) for d in ("2026-04-06", "2026-12-25", "2027-12-25", "2028-02-29")] == [2, 2, 2, 2]
    assert [kind(d) for d in ("2027-04-06", "2026-11-23", "2026-11-28", "2026-11-29")] == [0, 0, 1, 2]
