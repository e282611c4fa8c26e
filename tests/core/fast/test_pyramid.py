"""Rows of many lengths: exact at every length, bounded whatever the shortest one is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from core.fast.pyramid import Pyramid, lengths


@pytest.mark.parametrize("shortest_s", [1.0, 5.0, 10.0, 12.0, 60.0, 100.0, 180.0, 300.0, 900.0])
def test_each_length_divides_the_next_up_to_a_quarter_of_an_hour(shortest_s):
    found = lengths(shortest_s)
    assert (found[0], found[-1]) == (shortest_s, 900.0)
    assert all(b % a == 0 and b > a for a, b in pairwise(found))
    assert len(found) <= 4


def test_energies_of_any_length_are_the_same_whatever_was_forgotten():
    rng = np.random.default_rng(1)
    wh = np.cumsum(rng.gamma(1.0, 5.0, (20_000, 3)), axis=0)
    ends_s = 10.0 * np.arange(1, 20_001)
    pyramid = Pyramid(10.0, 3, rows=300, span_s=1e6)
    at = 0
    while at < len(wh):  # in parts of any size, also of more than is kept
        size = int(rng.integers(1, 700))
        pyramid.append(ends_s[at : at + size], wh[at : at + size])
        at += size
    assert lengths(10.0) == [10.0, 150.0, 900.0]
    for back_s, step_s in ((1000.0, 10.0), (40_000.0, 150.0), (190_000.0, 900.0)):
        wanted_s = ends_s[-1] - back_s
        time_s, figures = pyramid.at(wanted_s)
        assert 0.0 <= wanted_s - time_s < step_s
        assert np.array_equal(figures, wh[round(time_s / 10) - 1])
    assert pyramid.at(ends_s[-1] - 300 * 900.0) is None
    times_s, figures = pyramid.newest(500.0)
    assert times_s.tolist() == ends_s[-51:].tolist()
    assert np.array_equal(figures, wh[-51:])
    pyramid.clear()
    assert pyramid.at(1e9) is None


def test_a_second_takes_no_more_room_than_a_minute():
    sizes = [sum(level.figures.nbytes for level in Pyramid(step_s, 205)._levels) / 1e6 for step_s in (1.0, 10.0, 60.0)]
    assert max(sizes) < 8.0
