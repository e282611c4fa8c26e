"""The household model: a pure function of (seed, flat, time), and shaped like homes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firmware_io.simulator.building.household import MINUTES, WEEK_S, Household, _rectangles
from firmware_io.simulator.building.loads import CsvLoads, HouseholdLoads, household_energy
from firmware_io.simulator.building.weather import DAY_S, Weather

MONDAY = 1_735_516_800  # 2024-12-30 00:00 UTC


def test_a_week_is_the_same_whatever_was_asked_before_it() -> None:
    fresh, used = Household(7, 3, Weather(7)), Household(7, 3, Weather(7))
    for week in range(2865, 2872):
        used.power_w(week)
    np.testing.assert_array_equal(fresh.power_w(2869), used.power_w(2869))


def test_seed_and_flat_change_everything() -> None:
    base = Household(7, 3, Weather(7)).power_w(2869)
    assert not np.array_equal(base, Household(8, 3, Weather(7)).power_w(2869))
    assert not np.array_equal(base, Household(7, 4, Weather(7)).power_w(2869))


def test_energy_of_a_long_interval_is_the_sum_of_its_parts() -> None:
    fine = household_energy(5, 2, MONDAY + 7 * 60, 60, 30 * 400)
    coarse = household_energy(5, 2, MONDAY + 7 * 60, 1800, 400)
    np.testing.assert_allclose(fine.reshape(400, 30, 2).sum(1), coarse, rtol=1e-12)


def test_energy_is_that_of_the_power_a_meter_sees() -> None:
    loads = HouseholdLoads(5, 2)
    week = MONDAY // WEEK_S
    energy = household_energy(5, 2, week * WEEK_S, 900, 672)
    np.testing.assert_allclose(loads.power_w(1, week).sum() / 60_000, energy[:, 1].sum())


def test_rectangles_lose_no_energy_at_the_weeks_end() -> None:
    start = np.array([-100.0, 10.0, MINUTES - 5.0, 50.0])
    stop = np.array([-50.0, 20.0, MINUTES + 15.0, 50.0])
    total = _rectangles(start, stop, np.array([100.0, 200.0, 300.0, 999.0]))
    assert total.sum() == pytest.approx(50 * 100 + 10 * 200 + 20 * 300)
    assert total[0] == 300.0
    assert total[14:16].tolist() == [500.0, 200.0]
    assert total[-60] == 100.0


@pytest.fixture(scope="module")
def year() -> np.ndarray:
    """A year of half hours of 40 homes, in kW."""
    return household_energy(11, 40, MONDAY, 1800, 364 * 48) * 2


def test_homes_are_as_different_from_each_other_as_measured_ones(year: np.ndarray) -> None:
    mean = year.mean(0)
    assert 0.2 < mean.mean() < 0.6  # kW; flats in Europe: 0.2-0.5
    assert 0.5 < np.log(mean).std() < 0.95  # measured: 0.8


def test_a_day_has_a_quiet_night_and_an_evening_peak(year: np.ndarray) -> None:
    homes = year.reshape(-1, 48, 40).mean(0) / year.mean(0)
    shape = homes.mean(1)  # each home counts the same, whoever heats water at night
    assert shape[6:12].mean() < 0.75
    assert shape[36:42].mean() > 1.3
    assert shape[18:28].min() > 0.6


def test_within_a_home_the_tail_is_heavy_and_days_resemble_their_neighbours(year: np.ndarray) -> None:
    spread = year.std(0) / year.mean(0)
    assert 0.8 < np.median(spread) < 1.4  # measured: 0.98
    days = year.reshape(-1, 48, 40).mean(1)
    days = (days - days.mean(0)) / days.std(0)
    assert 0.35 < np.median((days[1:] * days[:-1]).mean(0)) < 0.7  # measured: 0.53
    assert np.median((days[7:] * days[:-7]).mean(0)) > 0.2  # measured: 0.40


def test_winter_takes_more_than_summer_and_some_homes_stand_empty(year: np.ndarray) -> None:
    months = year[: 360 * 48].reshape(12, -1).mean(1)
    assert months[0] > 1.2 * months[6]
    days = year.reshape(-1, 48, 40).mean(1)
    empty = (days < 0.4 * year.mean(0)).mean()
    assert 0.01 < empty < 0.15


def test_habits_follow_local_time() -> None:
    london, delhi = (
        np.mean(
            [
                HouseholdLoads(2, 30, Weather(2), zone).power_w(f, 2866).reshape(7, 24, 60).mean((0, 2))
                for f in range(30)
            ],
            0,
        )
        for zone in ("UTC", "Asia/Kolkata")
    )
    shifted = np.roll(london, -5)  # 18 h in Delhi is 12:30 UTC
    assert np.corrcoef(delhi, shifted)[0, 1] > 0.75 > np.corrcoef(delhi, london)[0, 1]


def test_weather_is_smooth_and_has_seasons() -> None:
    weather = Weather(4)
    hours = weather.temperature_c(MONDAY + 3600.0 * np.arange(365 * 24))
    assert np.abs(np.diff(hours)).max() < 3.0
    assert hours[: 31 * 24].mean() < hours[180 * 24 : 211 * 24].mean() - 10
    assert weather.temperature_c(MONDAY + 50 * DAY_S)[0] == pytest.approx(hours[50 * 24])


def test_half_hours_that_are_not_whole_minutes_are_refused() -> None:
    with pytest.raises(ValueError, match="whole minutes"):
        household_energy(1, 1, MONDAY + 1, 1800, 2)


def write_csv(path: Path, rows: int, step_s: int = 1800, start_s: int = 2869 * WEEK_S) -> Path:
    lines = [f"{start_s + k * step_s},{k % 336 / 1000},{0.25}" for k in range(rows)]
    path.write_text("\n".join(["time,a,b", *lines]) + "\n")
    return path


def test_loads_from_a_file_repeat_in_whole_weeks(tmp_path: Path) -> None:
    loads = CsvLoads(write_csv(tmp_path / "loads.csv", 700), ["b", "a"])
    np.testing.assert_allclose(loads.power_w(0, 2869), 500.0)
    np.testing.assert_allclose(loads.power_w(1, 2900)[60:90], 2 / 1000 * 2000)


def test_a_file_may_begin_on_any_day(tmp_path: Path) -> None:
    start = 2869 * WEEK_S + 3 * DAY_S
    loads = CsvLoads(write_csv(tmp_path / "loads.csv", 2 * 336 + 5, start_s=start), ["a"])
    power = np.concatenate([loads.power_w(0, week) for week in (2867, 2868, 2869, 2870, 2871)])
    for row in (0, 1, 335, 336, 671):
        at = (start - 2867 * WEEK_S) // 60 + 30 * row
        np.testing.assert_allclose(power[at : at + 30], row % 336 * 2)
    np.testing.assert_allclose(power[:MINUTES], power[2 * MINUTES : 3 * MINUTES])


@pytest.mark.parametrize(
    ("rows", "step_s", "flats", "match"),
    [(700, 1800, ["c"], "no column 'c'"), (300, 1800, ["a"], "whole week"), (700, 1801, ["a"], "whole minutes")],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, rows: int, step_s: int, flats: list[str], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        CsvLoads(write_csv(tmp_path / "loads.csv", rows, step_s), flats)


def test_a_bad_number_in_a_file_names_its_line(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "loads.csv", 700)
    path.write_text(path.read_text().replace(",0.001,", ",x,", 1))
    with pytest.raises(ValueError, match=r"loads\.csv:3"):
        CsvLoads(path, ["a"])
