"""What the rows say of each flat: the thief's old life comes back when the missing energy is given to him."""

from __future__ import annotations

import numpy as np
import pytest

from core.attribution.flat_evidence import FLAT, ZONE, gather
from core.attribution.rows import Onset, Rows
from core.attribution.scene import stage

SLOTS, FLATS, DAYS, ONSET, THIEF = 48, 8, 42, 28, 3


def homes(seed: int = 0) -> np.ndarray:
    """Wh a row [time, flat]: each flat with hours and days of its own."""
    rng = np.random.default_rng(seed)
    hour = np.arange(DAYS * SLOTS) % SLOTS / 2
    load = np.empty((DAYS * SLOTS, FLATS))
    for flat in range(FLATS):
        peak, level = rng.uniform(7, 22), rng.uniform(60, 250)
        shape = 0.4 + 1.6 * np.exp(-0.5 * (((hour - peak + 12) % 24 - 12) / 2.0) ** 2)
        mood = np.repeat(rng.lognormal(0, 0.25, DAYS), SLOTS)
        load[:, flat] = level * shape * mood * rng.gamma(2.0, 0.5, len(hour))
    return load


def scene(shown: np.ndarray, used: np.ndarray, tap: np.ndarray | float = 0.0):
    at = np.arange(DAYS * SLOTS)
    residual = (used - shown).sum(1) + tap + np.random.default_rng(9).normal(0, 3, len(at))
    rows = Rows(
        shown, residual, np.full(len(at) + 1, 9.0), 20_000 + at // SLOTS, at % SLOTS, SLOTS,
        np.zeros(shown.shape, np.bool_), np.full(FLATS, 1.0),
    )  # fmt: skip
    start = ONSET * SLOTS
    return stage(rows, Onset(start, start, start))


def bypass(shown: np.ndarray) -> None:
    shown[ONSET * SLOTS :, THIEF] = 0.0


def weekends(shown: np.ndarray) -> None:
    day = 20_000 + np.arange(len(shown)) // SLOTS
    shown[(np.arange(len(shown)) >= ONSET * SLOTS) & ((day + 3) % 7 >= 5), THIEF] = 0.0


def half(shown: np.ndarray) -> None:
    shown[ONSET * SLOTS :, THIEF] *= 0.5


@pytest.mark.parametrize("steal", [bypass, weekends, half])
@pytest.mark.parametrize(
    ("name", "least"), [("restored_quantiles", True), ("restored_days", True), ("fall_share", False)]
)
def test_the_thief_stands_out(steal, name: str, least: bool) -> None:
    used = homes()
    shown = used.copy()
    steal(shown)
    column = gather(scene(shown, used)).flat[:, FLAT.index(name)]
    assert (np.argmin(column) if least else np.argmax(column)) == THIEF


def test_a_weekend_thief_wins_the_days_on_which_something_is_missing() -> None:
    used = homes(1)
    shown = used.copy()
    weekends(shown)
    found = gather(scene(shown, used))
    assert found.zone[ZONE.index("active_share")] == pytest.approx(2 / 7, abs=0.05)
    assert found.flat[:, FLAT.index("day_contrast")].argmax() == THIEF


def test_a_steady_tap_restores_nobody() -> None:
    used = homes(2)
    tap = np.where(np.arange(len(used)) >= ONSET * SLOTS, 150.0, 0.0)
    found = gather(scene(used.copy(), used, tap))
    assert found.flat[:, FLAT.index("restored_days")].min() > 0
    assert found.zone[ZONE.index("block_scatter")] < -1.5


def test_a_surplus_is_read_with_the_sign_turned_round() -> None:
    used = homes(3)
    shown = used.copy()
    shown[ONSET * SLOTS :, THIEF] *= 1.6
    found = gather(scene(shown, used), surplus=True)
    assert found.flat[:, FLAT.index("restored_days")].argmin() == THIEF
    assert found.flat[:, FLAT.index("fall_share")].argmax() == THIEF


def test_all_is_finite_and_bounded_with_holes_and_a_day_only() -> None:
    used = homes(4)
    shown = used.copy()
    bypass(shown)
    whole = scene(shown, used)
    rows = ONSET * SLOTS + 5
    for stop in (rows, rows + SLOTS, len(used)):
        at = np.arange(stop)
        residual = (used - shown).sum(1)[:stop].copy()
        residual[-3:] = np.nan
        cut = Rows(
            shown[:stop], residual, np.full(stop + 1, 9.0), 20_000 + at // SLOTS, at % SLOTS, SLOTS,
            np.zeros((stop, FLATS), np.bool_), np.full(FLATS, 1.0),
        )  # fmt: skip
        found = gather(stage(cut, Onset(ONSET * SLOTS, ONSET * SLOTS, ONSET * SLOTS)))
        assert np.isfinite(found.flat).all()
        assert np.abs(found.flat).max() < 30
        assert np.isfinite(found.zone).all()
    assert gather(whole).flat.shape == (FLATS, len(FLAT))


def test_the_order_of_the_flats_does_not_matter() -> None:
    used = homes(5)
    shown = used.copy()
    half(shown)
    order = np.random.default_rng(0).permutation(FLATS)
    one, other = gather(scene(shown, used)), gather(scene(shown[:, order], used[:, order]))
    assert other.flat == pytest.approx(one.flat[order], abs=1e-9)
    assert other.zone == pytest.approx(one.zone, abs=1e-9)
