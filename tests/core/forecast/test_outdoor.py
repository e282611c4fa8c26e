"""Outdoor temperature: a gain where houses are heated, no harm where they are not, and no trust in a broken sensor."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from core.forecast.calendar import Calendar
from core.forecast.forecaster import Forecaster
from core.forecast.outdoor import KEPT, REGRESSORS, OutdoorTemperature
from tests.core.forecast import houses

START_S = 1_704_067_200.0
DAY_S = 86_400.0
DAYS, FIRST = 100, 50
MIDS_S = 900 + 1800.0 * np.arange(48)


def run(load_w, outdoor_c, *, told="nothing", until=DAYS, broken=None, ahead=0):
    """What was said at each midnight. `told`: measured or expected temperatures; `broken` ones from a day on; measured
    ones handed in `ahead` days early, as a replay in blocks does.
    """
    calendar = Calendar()
    outdoor = OutdoorTemperature(calendar)
    forecaster = Forecaster("house", 1800.0, calendar, outdoor=outdoor)
    load, warm, said = load_w.reshape(-1, 48), outdoor_c.reshape(-1, 48), []
    for day in range(until):
        at_s = START_S + day * DAY_S
        if told == "expected":
            coming = warm[day : day + 2].ravel()
            outdoor.expect(at_s + 900 + 1800.0 * np.arange(len(coming)), coming)
        if told != "nothing" and ahead and day % ahead == 0:
            coming = warm[day : day + ahead]
            for k, row in enumerate(coming):
                outdoor.measure(at_s + k * DAY_S + MIDS_S, row)
        said.append(forecaster.forecast(at_s) if day >= FIRST - 20 else None)
        if told != "nothing" and not ahead:
            row = warm[day] if broken is None or day < broken[0] else np.full(48, broken[1])
            outdoor.measure(at_s + MIDS_S, row)
        forecaster.add(at_s + 1800.0 * np.arange(1, 49), load[day] / 2)
    return said


def error(said, load_w, lead=0):
    """Mean absolute error of the curve by the mean load, from `FIRST` on."""
    load = load_w.reshape(-1, 48)
    days = range(FIRST, DAYS - 1)
    off = [np.abs(said[d].mean_w[48 * lead : 48 * lead + 48] - load[d + lead]).mean() for d in days]
    return float(np.mean(off) / load[FIRST:].mean())


def covered(said, load_w):
    """Share of the load within 5-95 %, from `FIRST` on."""
    days = zip(said[FIRST:], load_w.reshape(-1, 48)[FIRST:], strict=True)
    return float(np.mean([((f.quantiles_w[0, :48] <= y) & (y <= f.quantiles_w[-1, :48])).mean() for f, y in days]))


def width(forecast):
    """Mean width of the 90 % band over the first day, W."""
    return float((forecast.quantiles_w[-1] - forecast.quantiles_w[0])[:48].mean())


@pytest.fixture(scope="module")
def winter():
    """A dozen heated houses from January on, and the weather they stood in."""
    outdoor_c = houses.weather_c(DAYS, 3)
    return houses.load_w(outdoor_c, 12, 3), outdoor_c


@pytest.fixture(scope="module")
def without(winter):
    return run(*winter)


@pytest.fixture(scope="module")
def measured(winter):
    return run(*winter, told="measured")


def test_heated_houses_are_forecast_better_by_what_was_measured_and_much_better_by_what_is_expected(
    winter, without, measured
):
    load, _ = winter
    expected = run(*winter, told="expected")
    plain = error(without, load)
    assert error(measured, load) < 0.98 * plain
    assert error(expected, load) < 0.8 * plain
    assert error(expected, load, lead=1) < 0.8 * error(without, load, lead=1)
    # Sixty days in which a winter ends are not enough for 90 % to show, neither with temperatures nor without.
    assert covered(expected, load) > covered(without, load) - 0.05
    assert all(f.flags == () for f in expected[FIRST:])


@pytest.mark.parametrize("heated", [True, False])
def test_temperatures_that_say_nothing_of_the_load_do_no_harm(heated):
    outdoor_c = houses.weather_c(DAYS, 4)
    load = houses.load_w(outdoor_c, 12, 4, heating_w=6000.0 if heated else 0.0)
    foreign = np.random.default_rng(9).normal(10, 8, len(outdoor_c))
    assert error(run(load, foreign, told="expected"), load) < 1.015 * error(run(load, foreign), load)


def test_without_temperatures_the_forecast_is_octet_for_octet_what_it_is_without_a_place_for_them(winter, without):
    load, _ = winter
    plain = Forecaster("house", 1800.0, Calendar())
    plain.add(START_S + 1800.0 * np.arange(1, 30 * 48 + 1), load[: 30 * 48] / 2)
    assert pickle.dumps(plain.forecast(START_S + 30 * DAY_S)) == pickle.dumps(without[30])


def test_measured_temperatures_of_days_to_come_are_not_used_even_when_they_are_handed_in_early(winter, measured):
    early = run(*winter, told="measured", until=40, ahead=7)
    assert [pickle.dumps(f) for f in early] == [pickle.dumps(f) for f in measured[:40]]


@pytest.mark.parametrize("reading", [np.nan, -127.0, 85.0, 3276.7, np.inf])
def test_what_no_thermometer_shows_is_not_taken(reading):
    outdoor = OutdoorTemperature(Calendar())
    outdoor.measure(START_S + MIDS_S, np.full(48, reading))
    assert outdoor.rows() == ({}, {})


def test_a_sensor_that_stops_widens_the_band_and_is_flagged(winter, without, measured):
    load, _ = winter
    said = run(*winter, told="measured", until=88, broken=(80, -127.0))
    assert "temperature_stale" not in said[80].flags
    for day in range(81, 88):
        assert "temperature_stale" in said[day].flags
        assert np.isfinite(said[day].quantiles_w).all()
    wide, narrow, plain = (np.mean([width(f[day]) for day in range(81, 88)]) for f in (said, measured, without))
    assert wide > 1.02 * narrow
    assert wide > 0.95 * plain, "about as wide as without any temperature"
    missed, plain = (
        np.mean([np.abs(f[d].mean_w[:48] - load.reshape(-1, 48)[d]).mean() for d in range(81, 88)])
        for f in (said, without)
    )
    assert missed == pytest.approx(plain, rel=0.05)


def test_a_sensor_that_comes_back_is_used_again(winter):
    load, outdoor_c = winter
    gap = outdoor_c.copy()
    gap[70 * 48 : 74 * 48] = np.nan
    said = run(load, gap, told="measured", until=90)
    assert [d for d in range(60, 90) if "temperature_stale" in said[d].flags] == [71, 72, 73, 74]


def test_one_hour_without_a_temperature_costs_nothing(winter):
    load, outdoor_c = winter
    gap = outdoor_c.copy()
    gap[70 * 48 + 4 : 70 * 48 + 6] = np.nan
    said = run(load, gap, told="measured", until=73)
    assert "temperature_stale" not in said[71].flags


def test_what_is_kept_of_temperatures_is_bounded():
    outdoor = OutdoorTemperature(Calendar())
    for day in range(400):
        times_s = START_S + day * DAY_S + MIDS_S
        outdoor.measure(times_s, np.full(48, 10.0))
        outdoor.expect(times_s + DAY_S, np.full(48, 10.0))
    assert [len(rows) for rows in outdoor.rows()] == [KEPT, KEPT]
    last = int(START_S // DAY_S) + 399
    assert outdoor.regressors(last + 1, last, 48).shape == (48, REGRESSORS)
    assert outdoor.regressors(last + 300, last + 299, 48) is None
