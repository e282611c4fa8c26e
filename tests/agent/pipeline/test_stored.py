"""Stored load profiles of several buses become rows of all meters, whatever their periods."""

from __future__ import annotations

import numpy as np
import pytest

from agent.pipeline.stored_rows import PORTION_ROWS, PORTION_S, StoredRows, portions

T0 = 1_772_438_400.0


def profile(first: float, rows: int, *, period_s: float = 900.0, power_w: float = 400.0) -> dict[float, float]:
    """Registers of a steady load by time."""
    times = first + period_s * np.arange(rows)
    return dict(zip(times.tolist(), ((times - T0) / 3600 * power_w).tolist(), strict=True))


def whole(tables, meters, after_s=-np.inf):
    parts = list(portions(tables, meters, 900.0, after_s))
    assert all(times[-1] - times[0] < PORTION_S for times, _ in parts)
    return np.concatenate([times for times, _ in parts]), np.concatenate([rows for _, rows in parts])


def test_meters_that_remember_differently_long_stand_side_by_side() -> None:
    table = StoredRows(["a", "b", "c"], 900.0)
    table.add("b", profile(T0 + 9000, 490))
    table.add("a", profile(T0, 500, power_w=100.0))
    table.add("b", profile(T0 + 9000 + 490 * 900, 3))
    times, rows = whole([table], ["c", "a", "b"])
    np.testing.assert_array_equal(times, T0 + 900 * np.arange(503))
    assert np.isnan(rows[:, 0]).all()
    np.testing.assert_allclose(rows[:500, 1], 25.0 * np.arange(500))
    assert np.isnan(rows[500:, 1]).all()
    assert np.isnan(rows[:10, 2]).all()
    np.testing.assert_allclose(rows[10:, 2], 100.0 * np.arange(10, 503))


@pytest.mark.parametrize(("period_s", "every"), [(300.0, 1), (900.0, 1), (3600.0, 4)])
def test_a_row_says_what_the_register_was_at_its_own_boundary(period_s: float, every: int) -> None:
    table = StoredRows(["a", "b"], 900.0)
    table.add("a", profile(T0, 41))
    table.add("b", profile(T0, round(40 * 900 / period_s) + 1, period_s=period_s))
    times, rows = whole([table], ["a", "b"])
    np.testing.assert_array_equal(times, T0 + 900 * np.arange(41))
    np.testing.assert_allclose(rows[::every, 1], rows[::every, 0])


def test_a_stamp_a_little_off_is_the_boundarys_and_one_far_off_is_nobodys() -> None:
    table = StoredRows(["a"], 900.0)
    table.add("a", {T0 + 2: 1.0, T0 + 899: 2.0, T0 + 1900: 3.0})
    times, rows = whole([table], ["a"])
    np.testing.assert_array_equal(times, [T0, T0 + 900])
    np.testing.assert_array_equal(rows[:, 0], [1.0, 2.0])


def test_buses_are_joined_and_meters_of_no_zone_left_out() -> None:
    one, other = StoredRows(["main", "spare"], 900.0), StoredRows(["flat"], 900.0)
    one.add("main", profile(T0, 400))
    one.add("spare", profile(T0, 400))
    other.add("flat", profile(T0 + 900 * 200, 400))
    times, rows = whole([one, other], ["main", "flat"], after_s=T0 + 900 * 99)
    np.testing.assert_array_equal(times, T0 + 900 * np.arange(100, 600))
    np.testing.assert_array_equal(np.isfinite(rows[:, 0]), times < T0 + 900 * 400)
    np.testing.assert_array_equal(np.isfinite(rows[:, 1]), times >= T0 + 900 * 200)


def test_nothing_stored_is_no_row() -> None:
    assert list(portions([StoredRows(["a"], 900.0)], ["a"], 900.0)) == []


def test_short_intervals_come_in_small_portions() -> None:
    """A quarter of an hour between two stored rows is thirty rows of half a minute to the pipeline."""
    table = StoredRows(["a"], 30.0)
    table.add("a", profile(T0, 400))
    spans = [(times[-1] - times[0]) / 30.0 for times, _ in portions([table], ["a"], 30.0)]
    assert len(spans) > 10
    assert max(spans) <= PORTION_ROWS
