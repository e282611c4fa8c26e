"""A wrong clock is told from a theft by its shape: a peak and its mirror image, and nothing in the mean."""

from __future__ import annotations

import numpy as np
import pytest

from core.detection.clocks import clock_offsets

DAY, MARGIN, NOISE_WH = 48, 2, 15.0


def read_at(true_wh, rows_late):
    """What a meter shows whose registers are taken `rows_late` rows too late (-: too early)."""
    at = np.arange(len(true_wh) + 1.0)
    total = np.interp(at + rows_late, at, np.concatenate([[0.0], np.cumsum(true_wh)]))
    return np.diff(total)


def case(house, late, stolen_wh=0.0):
    true = house(4).subs_wh
    shown = true.copy()
    for flat, rows_late in late.items():
        shown[:, flat] = read_at(true[:, flat], rows_late)
    noise = np.random.default_rng(4).normal(0, NOISE_WH, len(true))
    left = (true - shown).sum(axis=1) + noise + stolen_wh
    inner = slice(MARGIN, len(true) - MARGIN)
    return clock_offsets(shown, left[inner], NOISE_WH**2, 0.5, MARGIN), left[inner]


def test_an_hour_and_a_quarter_of_an_hour_are_found_at_their_meters(house):
    found, left = case(house, {1: 2.0, 7: -2.0, 4: 0.5})
    assert set(found.offset_h) == {1, 4, 7}
    assert found.offset_h[1] == pytest.approx(1.0, abs=0.1)
    assert found.offset_h[7] == pytest.approx(-1.0, abs=0.1)
    assert found.offset_h[4] == pytest.approx(0.25, abs=0.1)
    assert np.square(left - found.part_wh).mean() < 0.1 * np.square(left).mean()


def test_right_clocks_and_thefts_are_none(house):
    assert case(house, {})[0].offset_h == {}
    assert case(house, {}, stolen_wh=100.0)[0].offset_h == {}
    own = np.random.default_rng(2).gamma(0.6, 300.0, 4 * DAY)
    assert case(house, {}, stolen_wh=own)[0].offset_h == {}
