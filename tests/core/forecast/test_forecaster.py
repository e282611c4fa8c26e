"""The forecast of one zone: causal to the last bit, better than the usual rules, calibrated, finite whatever comes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from core.forecast.calendar import Calendar
from core.forecast.forecaster import STALE_DAYS, Forecaster, step_of
from core.forecast.window import DAYS

DAY_S = 86_400.0
START_S = 1_704_067_200.0


def octets(forecast):
    """All of a forecast as bytes."""
    return pickle.dumps(forecast)


# -- causal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_day", [8, 29, 64, 75])
def test_the_same_readings_cut_short_give_the_same_earlier_forecasts_octet_for_octet(loads, run, cut_day):
    load = loads(80)
    whole = run(load, capacity_w=15_000.0)
    short = run(load[: cut_day * 48], capacity_w=15_000.0)
    assert short.said[7] is not None
    assert [octets(f) for f in short.said] == [octets(f) for f in whole.said[:cut_day]]


def test_what_comes_later_changes_nothing_that_was_said_before(loads, run):
    load = loads(40)
    other = load.copy()
    other[30 * 48 :] *= 3
    a, b = run(load), run(other)
    assert [octets(f) for f in a.said[:31]] == [octets(f) for f in b.said[:31]]
    assert octets(a.said[31]) != octets(b.said[31])


def test_in_what_portions_readings_come_does_not_matter(loads):
    load = loads(20) / 2
    ends = START_S + 1800.0 * np.arange(1, len(load) + 1)
    at_once, one_by_one = (Forecaster("house", 1800.0, Calendar()) for _ in range(2))
    at_once.add(ends, load)
    for k in range(len(load)):
        one_by_one.add(ends[k : k + 1], load[k : k + 1])
    assert octets(at_once.forecast(ends[-1])) == octets(one_by_one.forecast(ends[-1]))


def test_asking_changes_nothing(loads):
    load = loads(20) / 2
    ends = START_S + 1800.0 * np.arange(1, len(load) + 1)
    asked, silent = (Forecaster("house", 1800.0, Calendar()) for _ in range(2))
    for k in range(len(load)):
        for forecaster in (asked, silent):
            forecaster.add(ends[k : k + 1], load[k : k + 1])
        asked.forecast(ends[k])
    assert octets(asked.forecast(ends[-1])) == octets(silent.forecast(ends[-1]))


# -- good -----------------------------------------------------------------------------------------------------------


def test_it_beats_the_usual_rules_and_its_bands_hold_on_buildings_with_weather_and_weekdays(loads, run):
    ours, week, seven, inside, peak_error, mean_peak_error, peak_inside = ([] for _ in range(7))
    for seed in range(4):
        load = loads(150, seed=seed)
        said, days = run(load).said, load.reshape(-1, 48)
        for day in range(60, 150):
            f, y = said[day], days[day]
            ours.append(np.abs(f.mean_w[:48] - y).mean())
            week.append(np.abs(days[day - 7] - y).mean())
            seven.append(np.abs(days[day - 7 : day].mean(axis=0) - y).mean())
            inside.append(((f.quantiles_w[0, :48] <= y) & (y <= f.quantiles_w[-1, :48])).mean())
            peak_error.append(f.peak.power_w / y.max() - 1)
            mean_peak_error.append(f.mean_w[:48].max() / y.max() - 1)
            peak_inside.append(f.peak.interval_w[0] <= y.max() <= f.peak.interval_w[1])
    assert np.mean(ours) < 0.95 * np.mean(seven) < np.mean(week)
    assert 0.88 <= np.mean(inside) <= 0.92
    assert abs(np.mean(peak_error)) < 0.015
    assert np.mean(mean_peak_error) < -0.05  # why the peak needs a head of its own
    assert 0.85 <= np.mean(peak_inside) <= 0.95


def test_the_second_day_is_told_too_and_less_surely(loads, run):
    f = run(loads(60)).next
    assert len(f.mean_w) == 96
    width = f.quantiles_w[-1] - f.quantiles_w[0]
    assert width[48:].mean() > 0.9 * width[:48].mean()


def test_during_the_day_the_next_hours_follow_what_is_measured_now(loads):
    load = loads(41)
    load[40 * 48 : 40 * 48 + 24] *= 1.5
    ends = START_S + 1800.0 * np.arange(1, len(load) + 1)
    forecaster = Forecaster("house", 1800.0, Calendar())
    forecaster.add(ends[: 40 * 48], load[: 40 * 48] / 2)
    midnight = forecaster.forecast(ends[40 * 48 - 1])
    forecaster.add(ends[40 * 48 : 40 * 48 + 24], load[40 * 48 : 40 * 48 + 24] / 2)
    noon = forecaster.forecast(ends[40 * 48 + 23])
    assert noon.mean_w[0] > 1.05 * midnight.mean_w[24]
    np.testing.assert_allclose(noon.mean_w[24:48], midnight.mean_w[48:72], rtol=1e-9)


def test_a_capacity_is_passed_with_the_probability_that_the_load_gives_it(loads, run):
    load = loads(120)
    peaks = load.reshape(-1, 48).max(axis=1)
    probabilities = {
        capacity_w: run(load, capacity_w=capacity_w).next.over_capacity.probability
        for capacity_w in (0.7 * peaks.min(), float(np.median(peaks)), 1.5 * peaks.max())
    }
    low, middle, high = probabilities.values()
    assert low > 0.99
    assert high < 0.01
    assert 0.05 < middle < 0.95
    over = run(load, capacity_w=0.7 * peaks.min()).next.over_capacity
    assert 1800 <= over.duration_s < DAY_S / 2
    assert run(load).next.over_capacity is None


def test_the_peak_time_is_a_distribution_about_the_evening(loads, run):
    f = run(loads(60)).next
    hours = (np.arange(48) + 0.5) / 2
    assert f.peak.time_probability[(hours > 17) & (hours < 21)].sum() > 0.8
    assert 17 <= (f.peak.start_s - f.issued_s) / 3600 <= 21
    assert f.trough.power_w < f.mean_w.mean() < f.peak.power_w


# -- little or bad input -----------------------------------------------------------------------------------------------


def test_nothing_is_said_before_seven_days_and_then_with_a_flag_and_a_wide_band(loads, run):
    said = run(loads(60)).said
    assert all(f is None for f in said[:7])
    assert "warming_up" in said[7].flags
    assert said[7].days == 7
    assert "warming_up" not in said[40].flags

    def width(f):
        return float((f.quantiles_w[-1] - f.quantiles_w[0]).mean())

    assert width(said[7]) > 1.2 * width(said[45])


def test_days_without_readings_widen_the_band_then_nothing_is_said_until_there_are_readings_again(loads, run, sane):
    load = loads(100)
    load[50 * 48 : 80 * 48] = np.nan
    said = run(load).said
    assert [day for day in range(7, 100) if said[day] is None] == list(range(50 + STALE_DAYS, 81))
    for f in said[7:]:
        if f is not None:
            sane(f)
    before, after = (float((said[day].quantiles_w[-1] - said[day].quantiles_w[0]).mean()) for day in (50, 52))
    assert after > 1.3 * before
    assert {"gaps", "stale"} <= set(said[52].flags)
    assert said[50].flags == ()
    assert "gaps" in said[82].flags
    assert "stale" not in said[82].flags


@pytest.mark.parametrize("silent_days", [1, 2, 10, 40, 62, 300])
def test_however_long_nothing_was_read_no_figure_runs_away_and_no_fuse_is_accused(loads, sane, silent_days):
    """A load that rose until its meter fell silent: what follows from expectations alone must not rise with them."""
    load = loads(40) * np.repeat(np.linspace(0.6, 1.4, 40), 48)
    ends = START_S + 1800.0 * np.arange(1, len(load) + 1)
    forecaster = Forecaster("house", 1800.0, Calendar(), capacity_w=12 * load.max())
    forecaster.add(ends, load / 2)
    said = []
    for day in range(40, 40 + silent_days):
        said.append(forecaster.forecast(START_S + day * DAY_S))
        forecaster.add(ends[:48] + day * DAY_S, np.full(48, np.nan))
    for day in range(40 + silent_days, 50 + silent_days):
        said.append(forecaster.forecast(START_S + day * DAY_S))
        forecaster.add(ends[:48] + day * DAY_S, load[-48:] / 2)
    assert said[-1] is not None, "it learns anew"
    for f in said:
        if f is not None:
            sane(f)
            assert max(f.quantiles_w.max(), f.mean_w.max(), f.peak.interval_w[1]) <= 4 * load.max()
            assert f.mean_w.max() <= 2.5 * load.max()
            assert f.over_capacity.probability == 0


def test_without_rows_at_all_for_a_month_it_goes_on_too_and_after_a_season_it_begins_again(loads, sane):
    load = loads(40) / 2
    ends = START_S + 1800.0 * np.arange(1, len(load) + 1)
    forecaster = Forecaster("house", 1800.0, Calendar())
    forecaster.add(ends, load)
    forecaster.add(ends[:48] + 70 * DAY_S, load[:48])
    after = forecaster.forecast(START_S + 71 * DAY_S)
    sane(after)
    assert "gaps" in after.flags
    forecaster.add(ends[:48] + 300 * DAY_S, load[:48])
    assert forecaster.forecast(START_S + 301 * DAY_S) is None


@pytest.mark.parametrize("bad", ["holes", "zeros", "spikes", "negative", "constant"])
def test_whatever_the_readings_are_the_figures_are_finite(loads, run, sane, bad):
    load, rng = loads(60), np.random.default_rng(5)
    if bad == "holes":
        load[rng.random(len(load)) < 0.4] = np.nan
    elif bad == "zeros":
        load[rng.random(len(load)) < 0.5] = 0.0
    elif bad == "spikes":
        load[rng.integers(0, len(load), 20)] = 1e9
    elif bad == "negative":
        load -= 12_000.0
    else:
        load[:] = 0.0
    said = [f for f in run(load, capacity_w=15_000.0).said if f is not None]
    assert len(said) > 40
    for f in said:
        sane(f)
        assert 0 <= f.over_capacity.probability <= 1


def test_infinite_energy_is_not_taken(loads, run, sane):
    load = loads(30)
    load[20 * 48 + 5] = np.inf
    sane(run(load).next)


def test_where_energy_flows_back_the_trough_is_below_zero(loads, run, sane):
    load = loads(90)
    hour = (np.arange(len(load)) % 48 + 0.5) / 2
    sun = np.random.default_rng(3).uniform(0.3, 1, 90).repeat(48)
    load -= 25_000 * sun * np.clip(np.cos((hour - 12.5) / 5 * np.pi / 2), 0, None) * (np.abs(hour - 12.5) < 5)
    f = run(load).next
    sane(f)
    assert f.trough.power_w < -2_000
    assert 10 <= (f.trough.start_s - f.issued_s) / 3600 <= 15


def test_new_tenants_are_learned_within_two_weeks(loads, run):
    load = loads(80)
    load[50 * 48 :] *= 4.0
    said, days = run(load).said, load.reshape(-1, 48)
    error = [np.abs(said[d].mean_w[:48] - days[d]).mean() / days[d].mean() for d in (51, 70)]
    assert error[1] < 0.2 < error[0]


def test_readings_that_come_twice_or_late_are_ignored(loads):
    load = loads(20) / 2
    ends = START_S + 1800.0 * np.arange(1, len(load) + 1)
    once, twice = (Forecaster("house", 1800.0, Calendar()) for _ in range(2))
    once.add(ends, load)
    twice.add(ends, load)
    twice.add(ends[-100:], 5 * load[-100:])
    assert octets(once.forecast(ends[-1])) == octets(twice.forecast(ends[-1]))


def test_energy_found_stolen_is_not_learned_as_saved(loads, run):
    load = loads(60)
    shown = load.copy()
    shown[45 * 48 :] -= 3_000.0
    truth, deceived, told = run(load), run(shown), run(shown)
    told.forecaster.restate(START_S + 45 * DAY_S, START_S + 60 * DAY_S, 3_000.0)
    want = truth.next.mean_w.mean()
    assert deceived.next.mean_w.mean() < 0.9 * want
    assert told.next.mean_w.mean() == pytest.approx(want, rel=0.02)


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before_s", "after_s"), [(3600.0, 7200.0), (7200.0, 3600.0)])
def test_when_clocks_change_people_are_followed_not_the_sun(loads, sane, before_s, after_s):
    change_s = START_S + 40 * DAY_S + 3600
    calendar = Calendar((change_s,), (before_s, after_s))
    load = loads(50).reshape(-1, 48)
    local = np.concatenate([load, load[-1:]]).ravel()
    times = START_S + 1800.0 * np.arange(48 * 48)
    place = ((times + np.where(times < change_s, before_s, after_s) - START_S) // 1800).astype(int)
    lived = local[place]  # what people who live by their clocks draw, at UTC instants
    forecaster = Forecaster("house", 1800.0, calendar)
    forecaster.add(times + 1800.0, lived / 2)
    issued_s = float(times[-1] + 1800)
    f = forecaster.forecast(issued_s)
    sane(f)
    peak_local_h = ((f.peak.start_s + after_s) % DAY_S) / 3600
    assert 17.5 <= peak_local_h <= 20.5


def test_the_forecast_over_a_clock_change_has_all_its_steps(loads, sane):
    change_s = START_S + 30 * DAY_S + 12 * 3600
    load = loads(30) / 2
    forecaster = Forecaster("house", 1800.0, Calendar((change_s,), (0.0, 3600.0)))
    forecaster.add(START_S + 1800.0 * np.arange(1, len(load) + 1), load)
    f = forecaster.forecast(START_S + 30 * DAY_S)
    sane(f)
    assert f.mean_w.shape == (96,)
    assert f.quantiles_w.shape == (19, 96)


def test_a_holiday_is_forecast_like_a_sunday(loads, run):
    load = loads(64).reshape(-1, 48)
    load[6::7] *= 0.6
    friday = int(START_S // DAY_S) + 60  # 2024-03-01
    plain = run(load[:60].ravel()).next
    festive = run(load[:60].ravel(), calendar=Calendar(holidays=frozenset([friday]))).next
    assert festive.mean_w[:48].mean() < 0.85 * plain.mean_w[:48].mean()


@pytest.mark.parametrize(
    ("interval_s", "step_s"),
    [(60, 900), (900, 900), (1200, 1200), (1800, 1800), (3600, 3600), (7200, None), (86_400, None)],
)
def test_the_step_is_the_interval_but_a_quarter_hour_at_least(interval_s, step_s):
    assert step_of(interval_s) == step_s
    if step_s is None:
        with pytest.raises(ValueError, match="divide an hour"):
            Forecaster("house", interval_s, Calendar())


def test_minute_readings_are_forecast_in_quarter_hours(loads, sane):
    load = loads(10, step_s=60.0)
    forecaster = Forecaster("house", 60.0, Calendar())
    forecaster.add(START_S + 60.0 * np.arange(1, len(load) + 1), load / 60)
    f = forecaster.forecast(START_S + 10 * DAY_S)
    sane(f)
    assert f.step_s == 900
    assert len(f.mean_w) == 192
    assert f.mean_w.mean() == pytest.approx(load.mean(), rel=0.1)


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_what_is_kept_does_not_grow_over_a_year(loads, run):
    fresh, old = run(loads(DAYS + 40)).forecaster, run(loads(365)).forecaster
    assert len(pickle.dumps(old)) < 1.05 * len(pickle.dumps(fresh))
    assert len(pickle.dumps(old)) < 1_000_000
