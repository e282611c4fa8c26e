"""How a meter stands with its bus: what is a silence, what a refusal, and when it is its turn again."""

from __future__ import annotations

import math

import pytest

from firmware_io.standing import (
    DENIED_MAX_S,
    DENIED_MIN_S,
    FINAL_REFUSALS,
    GARBLED_PATIENCE,
    PATIENCE,
    PROBE_MAX_S,
    Standing,
)


def silent_at(now_s: float) -> Standing:
    standing = Standing()
    for _ in range(PATIENCE):
        standing.failed(now_s, heard=False)
    return standing


def test_silence_counts_from_its_first_failure() -> None:
    standing = Standing()
    standing.failed(10.0, heard=False)
    assert not standing.silent
    standing.failed(14.0, heard=False)
    assert standing.silent
    assert standing.silent_since_s == 10.0
    standing.answered()
    assert not standing.silent


def test_damaged_replies_are_signs_of_life_up_to_a_bound() -> None:
    standing = Standing()
    for n in range(GARBLED_PATIENCE - 1):
        standing.failed(float(n), heard=True)
    standing.failed(50.0, heard=False)  # one that is not even damaged
    assert not standing.silent
    standing.failed(51.0, heard=True)
    assert standing.silent


def test_probes_thin_out_with_the_length_of_the_silence() -> None:
    standing, now_s, probes = silent_at(0.0), 4.0, 0
    while now_s < 86_400:
        standing.probe_later(now_s, [standing])
        now_s, probes = standing.probe_at_s, probes + 1
    assert probes < 120
    standing.probe_later(1e7, [standing])
    assert standing.probe_at_s == 1e7 + PROBE_MAX_S


def test_meters_that_fell_silent_together_are_probed_one_after_the_other() -> None:
    group = [silent_at(0.0) for _ in range(5)]
    everybody = [*group, *[Standing() for _ in range(5)]]
    for standing in group:
        standing.ever_answered = True
        standing.probe_later(400.0, everybody)
    due = sorted(standing.probe_at_s for standing in group)
    assert due == pytest.approx([406.0, 412.0, 418.0, 424.0, 430.0])


def test_a_refusal_is_tried_again_later_and_later() -> None:
    standing, now_s, waits = Standing(), 0.0, []
    for _ in range(6):
        standing.refused(now_s, proven=False)
        waits.append(standing.left_alone_s(now_s))
        now_s += waits[-1]
        assert standing.left_alone_s(now_s) == 0.0
    assert waits[:3] == [DENIED_MIN_S, 2 * DENIED_MIN_S, 4 * DENIED_MIN_S]
    assert waits[-1] == DENIED_MAX_S


def test_only_repeated_refusals_under_the_meters_own_keys_are_final() -> None:
    standing = Standing()
    for n in range(FINAL_REFUSALS):
        assert not standing.final
        standing.refused(float(n), proven=True)
    assert standing.left_alone_s(1e9) == math.inf
    other = Standing()
    for proven in (True, False, True, False):
        other.refused(0.0, proven=proven)
    assert not other.final


def test_a_slow_meter_rests_in_proportion() -> None:
    standing = Standing()
    standing.took(3.0, [0.1, 0.2, 0.1], 100.0)
    assert standing.due_s == 124.0
    standing.took(0.3, [0.1, 0.2, 0.1], 200.0)
    assert standing.due_s == 0.0
    standing.took(3.0, [2.5, 2.8, 3.1], 300.0)  # they are all like that: the line is slow
    assert standing.due_s == 0.0
