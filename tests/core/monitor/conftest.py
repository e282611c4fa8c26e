"""A watched house: rows of the small honest building of tests/core, given to a monitor day by day."""

from __future__ import annotations

import numpy as np
import pytest

from core.monitor.spec import Settings, ZoneSpec
from core.monitor.zone_monitor import ZoneMonitor

FLATS, DAY, HOURS = 12, 48, 0.5


def zone(**more):
    return ZoneSpec("building", tuple(f"flat-{k}" for k in range(FLATS)), (1.0,) * FLATS, **more)


def watched(building, *, monitor=None, first=0, block=DAY, **settings):
    """The monitor after all rows of `building` from row `first` on, and its evidence."""
    monitor = monitor or ZoneMonitor(zone(), HOURS, Settings(**settings))
    rows = building.rows()
    evidence = []
    for start in range(first, len(rows), block):
        part = rows[start : start + block]
        evidence += monitor.step(part, np.zeros((len(part), FLATS), np.bool_), np.ones(len(part)))
    return monitor, evidence


@pytest.fixture(name="watched")
def _watched():
    return watched


@pytest.fixture
def since():
    """Power [T] that is taken from a day on, until another."""

    def power(rows, day, power_w, until=10**6):
        at = np.arange(rows) / DAY
        return np.where((at >= day) & (at < until), power_w, 0.0)

    return power
