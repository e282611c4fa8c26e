"""Each mistake of wiring or configuration is found in a building that has it, and a good building is passed."""

from __future__ import annotations

import numpy as np
import pytest

from core.commissioning import LEAST_ROWS, MAIN, Mistake, examine

INTERVAL_S = 900.0
FLATS = 12


def building(seed: int, days: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Main [T] and sub-meters [T, FLATS] in kWh: spiky loads, burden, copper, class errors, registers of 10 Wh."""
    rng = np.random.default_rng(seed)
    rows = days * 96
    hour = np.arange(rows) % 96 / 4
    evening = np.exp(-(((hour[:, None] - rng.uniform(17, 21, FLATS)) / 3) ** 2))
    level = rng.lognormal(-1.3, 0.5, FLATS)
    true = level * (0.4 + 1.5 * evening) * rng.lognormal(0, 0.6, (rows, FLATS)) / 4
    true += (rng.random((rows, FLATS)) < 0.02) * rng.uniform(0.2, 0.6, (rows, FLATS))
    total = true.sum(axis=1)
    main = total + 0.0006 * FLATS / 4 + 0.012 * total**2 / total.mean()
    registers = np.cumsum(true * (1 + rng.normal(0, 0.004, FLATS)), axis=0)
    shown = np.diff(np.floor(registers * 100) / 100, axis=0, prepend=0.0)
    return main, shown


@pytest.mark.parametrize("seed", range(5))
def test_a_good_building_adds_up(seed: int) -> None:
    verdict = examine(*building(seed), INTERVAL_S)
    assert verdict.adds_up
    assert verdict.findings == ()
    assert verdict.copper == pytest.approx(0.012, abs=0.006)


def first(main: np.ndarray, subs: np.ndarray) -> tuple[Mistake, int | None, float]:
    """The first finding, which must explain most of the remainder."""
    finding = examine(main, subs, INTERVAL_S).findings[0]
    return finding.mistake, finding.column, finding.amount


@pytest.mark.parametrize("seed", [1, 2])
class TestOneMistake:
    """Everything else is right."""

    def test_forgotten_ct_ratio_of_a_sub_meter(self, seed: int) -> None:
        main, subs = building(seed)
        subs[:, 3] /= 30
        assert first(main, subs) == (Mistake.CT_RATIO, 3, 30.0)

    def test_forgotten_ct_ratio_of_the_main_meter(self, seed: int) -> None:
        main, subs = building(seed)
        assert first(main / 40, subs) == (Mistake.CT_RATIO, MAIN, 40.0)

    def test_wh_taken_for_kwh(self, seed: int) -> None:
        main, subs = building(seed)
        subs[:, 5] *= 1000
        assert first(main, subs) == (Mistake.UNIT, 5, 0.001)

    def test_wrong_sign(self, seed: int) -> None:
        main, subs = building(seed)
        subs[:, 6] *= -1
        assert first(main, subs) == (Mistake.WRONG_SIGN, 6, -1.0)

    def test_a_meter_of_another_zone(self, seed: int) -> None:
        main, subs = building(seed)
        stranger = building(seed + 50)[1][:, 0]
        assert first(main, np.column_stack([subs, stranger]))[:2] == (Mistake.NOT_IN_ZONE, FLATS)

    def test_one_meter_under_two_names(self, seed: int) -> None:
        main, subs = building(seed)
        mistake, column, twin = first(main, np.column_stack([subs, subs[:, 2]]))
        assert mistake is Mistake.DOUBLED
        assert {column, int(twin)} == {2, FLATS}

    def test_a_clock_an_hour_slow(self, seed: int) -> None:
        main, subs = building(seed)
        subs[:, 7] = np.roll(subs[:, 7], 4)
        assert first(main, subs) == (Mistake.CLOCK, 7, 3600.0)

    def test_a_steady_load_without_a_meter(self, seed: int) -> None:
        main, subs = building(seed)
        mistake, column, watts = first(main + 0.5 / 4, subs)
        assert (mistake, column) == (Mistake.COMMON_LOAD, None)
        assert watts == pytest.approx(500, rel=0.15)

    def test_a_flat_without_a_meter(self, seed: int) -> None:
        main, subs = building(seed)
        flat = int(subs.sum(axis=0).argmax())
        watts = subs[:, flat].mean() * 4000
        mistake, column, spare_w = first(main, np.delete(subs, flat, axis=1))
        assert (mistake, column) == (Mistake.UNREAD_METER, None)
        assert spare_w == pytest.approx(watts, rel=0.5)


def test_two_mistakes_are_found_one_after_the_other() -> None:
    main, subs = building(9)
    subs[:, 3] /= 30
    subs[:, 7] *= -1
    found = {(f.mistake, f.column) for f in examine(main, subs, INTERVAL_S).findings}
    assert found == {(Mistake.CT_RATIO, 3), (Mistake.WRONG_SIGN, 7)}


def test_what_is_left_after_mending_is_small() -> None:
    main, subs = building(4)
    good = examine(main, subs, INTERVAL_S)
    subs[:, 1] /= 20
    bad = examine(main, subs, INTERVAL_S)
    assert bad.remainder_w == pytest.approx(good.remainder_w, rel=0.25)
    assert bad.mean_w > 20 * good.remainder_w / 4


def test_unread_intervals_are_left_out() -> None:
    main, subs = building(4)
    subs[100:140, 2] = np.nan
    main[300] = np.nan
    assert examine(main, subs, INTERVAL_S).adds_up


def test_too_little_is_refused() -> None:
    main, subs = building(1)
    with pytest.raises(ValueError, match=f"at least {LEAST_ROWS}"):
        examine(main[: LEAST_ROWS - 1], subs[: LEAST_ROWS - 1], INTERVAL_S)
