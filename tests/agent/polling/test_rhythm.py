"""When cycles begin: what is asked for is kept, whatever the wall clock does, and boundaries fall into their middle."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from agent.polling.late_rows import LateRows
from agent.polling.rhythm import Rhythm


def run(rhythm: Rhythm, cycles: int, takes_s, wall_s=lambda now_s: 1e9 + now_s) -> list[float]:
    """The instants at which cycles begin that take so long."""
    now_s, began = 12.3, []
    for n in range(cycles):
        rhythm.begins(now_s)
        began.append(now_s)
        now_s += takes_s(n)
        rhythm.ended(now_s)
        now_s = rhythm.next_s(now_s, wall_s(now_s)) + 0.001  # a wait that is a little late
    return began


def test_every_cycle_is_kept_and_lateness_does_not_add_up() -> None:
    rhythm = Rhythm(1.0)
    began = run(rhythm, 1000, lambda _: 0.4)
    assert (began[-1] - began[0]) / 999 == pytest.approx(1.0, abs=0.002)
    assert rhythm.kept_s == pytest.approx(1.0, abs=0.01)


def test_boundaries_come_to_lie_in_the_middle_of_a_cycle() -> None:
    """So that a meter without a load profile is read where intervals end."""
    began = run(Rhythm(60.0), 100, lambda _: 20.0)
    for start_s in began[1:]:
        middle_s = 1e9 + start_s + 10.0
        assert abs((middle_s + 30.0) % 60.0 - 30.0) < 0.5


def test_a_wall_clock_that_trembles_by_a_second_costs_no_cycle() -> None:
    shaken = random.Random(4)
    began = run(Rhythm(1.0), 1000, lambda _: 0.3, lambda now_s: 1e9 + now_s + shaken.uniform(-1.0, 1.0))
    assert 999 / (began[-1] - began[0]) >= 0.98
    gaps = [b - a for a, b in pairwise(began[1:])]  # the first one sets the phase
    assert max(gaps) < 1.02


def test_what_the_wire_cannot_keep_is_told_and_not_made_up_for_by_bursts() -> None:
    rhythm = Rhythm(1.0)
    began = run(rhythm, 200, lambda n: 3.0 if n < 100 else 0.3)
    gaps = [b - a for a, b in pairwise(began[1:])]
    assert min(gaps) > 0.98
    slow = Rhythm(1.0)
    run(slow, 50, lambda _: 3.0)
    assert slow.kept_s == pytest.approx(3.0, abs=0.01)


def test_rows_are_awaited_once_a_boundary_and_asked_for_when_the_meters_clock_must_have_reached_it() -> None:
    rows = LateRows(900.0, {"a": 0.0, "b": 0.0, "dumb": 0.0}, {"b": 3600.0})
    rows.period_s["dumb"] = 3600.0
    assert rows.awaited(899.0, lambda _: False) == {}
    assert rows.awaited(901.0, lambda meter: meter == "x") == {"a": 900.0}
    assert rows.awaited(902.0, lambda _: False) == {}
    assert rows.due(914.0) is None
    assert rows.due(916.0) == ("a", 1.0, 900.0)
    assert rows.due(917.0) is None
    assert rows.awaited(3601.0, lambda _: False) == {"a": 3600.0, "b": 3600.0, "dumb": 3600.0}
    assert rows.due(3950.0) is None  # too late: the boundary is closed
