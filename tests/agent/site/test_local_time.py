"""Standard time of the site, on both sides of the equator."""

from __future__ import annotations

import pytest

from agent.site.local_time import offset_s


@pytest.mark.parametrize(
    ("timezone", "hours"),
    [
        ("UTC", 0),
        ("Europe/Berlin", 1),
        ("Europe/Dublin", 0),
        ("Asia/Shanghai", 8),
        ("America/Los_Angeles", -8),
        ("Asia/Kolkata", 5.5),
        ("Australia/Sydney", 10),
        ("Pacific/Auckland", 12),
        ("America/Santiago", -4),
    ],
)
def test_it_is_the_offset_without_daylight_saving(timezone: str, hours: float) -> None:
    assert offset_s(timezone) == hours * 3600
