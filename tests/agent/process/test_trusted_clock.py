"""Which time is believed: a table of what the wall clock, the store and the meters say."""

from __future__ import annotations

import threading

from agent.process.trusted_clock import HOLD_AT_START_S, HOLD_S, TrustedClock

T0 = 1_772_438_400.0
DAY_S = 86400.0


class Hands:
    """A wall clock and a monotonic one, both moved by hand."""

    def __init__(self, wall_s: float) -> None:
        self.wall_s, self.mono_s = wall_s, 1000.0

    def now(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.mono_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.move(timeout_s)
        return event.is_set()

    def move(self, seconds: float) -> None:
        self.wall_s += seconds
        self.mono_s += seconds


def made(wall_s: float = T0) -> tuple[Hands, TrustedClock]:
    hands = Hands(wall_s)
    return hands, TrustedClock(hands)


def test_it_follows_small_corrections_but_not_many_of_them() -> None:
    hands, clock = made()
    hands.wall_s += 30
    assert clock.now() == hands.wall_s
    for _ in range(10):  # a minute at a time, to creep away
        hands.wall_s += 59
        clock.now()
    assert clock.now() < T0 + 120
    assert clock.doubt is not None


def test_a_jump_that_returns_was_never_believed() -> None:
    hands, clock = made()
    for jump_s in (3 * DAY_S, -3 * DAY_S, 36_500 * DAY_S, -T0):
        hands.wall_s += jump_s
        hands.move(20.0)
        assert abs(clock.now() - (hands.wall_s - jump_s)) < 1
        assert clock.doubt is not None
        hands.wall_s -= jump_s
        assert clock.now() == hands.wall_s
        assert clock.doubt is None
    assert clock.steps == 0


def test_meters_confirm_a_jump_or_not() -> None:
    hands, clock = made()
    for _ in range(3):
        clock.witness(7200.0 + 100)
    hands.wall_s += 7200
    assert clock.now() == hands.wall_s  # they have said so all along
    hands.wall_s += 3 * DAY_S
    hands.move(100 * HOLD_S)
    assert abs(clock.now() - (hands.wall_s - 3 * DAY_S)) < 1  # however long it stands


def test_without_meters_clocks_a_jump_must_stand_and_its_return_is_believed_at_once() -> None:
    hands, clock = made()
    hands.wall_s += 7200
    clock.now()
    hands.move(HOLD_S - 1)
    assert clock.now() == hands.wall_s - 7200
    hands.move(2)
    assert clock.now() == hands.wall_s
    hands.move(10)
    hands.wall_s -= 7200
    assert clock.now() == hands.wall_s


def test_a_gateway_without_a_clock_waits_for_a_source() -> None:
    hands, clock = made(63_072_000.0)
    assert not clock.settled
    assert clock.doubt is not None
    clock.witness(T0 - hands.wall_s)
    assert clock.settled
    assert abs(clock.now() - T0) < 1
    assert clock.doubt is not None  # still: somebody should set it
    hands.wall_s = T0 + 50  # NTP
    assert clock.now() == hands.wall_s
    assert clock.doubt is None


def test_a_restart_goes_on_from_what_was_known() -> None:
    for wall_s in (63_072_000.0, T0 - 40 * DAY_S, T0 + 400 * DAY_S):
        hands, clock = made(wall_s)
        clock.remember(T0)
        assert abs(clock.now() - T0) < 1
        clock.witness(2 * DAY_S)  # the meters know how long we were away
        assert abs(clock.now() - (T0 + 2 * DAY_S)) < 1
        hands.move(100 * HOLD_S)
        assert abs(clock.now() - (T0 + 2 * DAY_S + 100 * HOLD_S)) < 1
    hands, clock = made(T0 + 400 * DAY_S)  # really away, and no meter has a clock
    clock.remember(T0)
    clock.now()
    hands.move(HOLD_AT_START_S + 1)
    assert clock.now() == hands.wall_s


def test_one_meter_that_is_wrong_among_others_decides_nothing() -> None:
    hands, clock = made()
    for offset_s in (1.0, -2.0, 40 * DAY_S, 3.0):
        clock.witness(offset_s)
    hands.wall_s += 40 * DAY_S
    assert abs(clock.now() - (hands.wall_s - 40 * DAY_S)) < 1
