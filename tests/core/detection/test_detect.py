"""The onset search: finds what was put in, keeps its rate on noise of its own kind, and says how sure it is."""

from __future__ import annotations

import numpy as np
import pytest

from core.detection.bins import BLOCKS
from core.detection.errors import RowErrors
from core.detection.glr import weigh_all_day, weigh_block
from core.detection.noise import Noise, learn_noise
from core.detection.threshold import threshold
from core.evidence import Evidence, LossKind, Residual
from core.monitor.zone_tree import nesting, smallest

ROW_H = 0.5
DAY = 48
LOAD_W = 16_000.0


def unexplained(rng, days, weather_w=8.0, boundary_wh=30.0):
    """Cumulative unexplained energy with an Ornstein-Uhlenbeck weather of 4.5 days and boundary errors; variance."""
    rows = days * DAY
    keep = np.exp(-ROW_H / 108.0)
    steps = rng.normal(0, weather_w * np.sqrt(1 - keep**2), rows)
    power = np.empty(rows)
    last = rng.normal(0, weather_w)
    for k in range(rows):
        last = keep * last + steps[k]
        power[k] = last
    booked = np.concatenate([[0.0], np.cumsum(power * ROW_H)])
    return booked + rng.normal(0, boundary_wh, rows + 1), np.full(rows + 1, boundary_wh**2)


def none(booked):
    """No errors but the boundaries'."""
    return ()


def steal(booked, from_row, power_w):
    rows = np.arange(len(booked))
    return booked + np.maximum(0, rows - from_row) * power_w * ROW_H


NOISE = Noise(weather_w2=64.0, level_w2=4.0, quarter_w2=4.0, rough_w2h=40.0, days=50)


@pytest.mark.parametrize(("power_w", "age_days"), [(400.0, 0.25), (120.0, 1.0), (60.0, 3.0), (45.0, 14.0)])
def test_a_loss_is_found_with_its_onset_and_power(power_w, age_days):
    booked, variance = unexplained(np.random.default_rng(1), 60)
    onset = len(booked) - 1 - round(age_days * DAY)
    found = weigh_all_day(
        steal(booked, onset, power_w), variance, np.zeros_like(booked), none(booked), ROW_H, NOISE, 0.1
    ).finding()
    assert found.excess > 1
    assert found.near_h <= age_days * 24 <= found.far_h
    assert found.young_h <= age_days * 24 <= found.old_h
    assert found.power_w == pytest.approx(power_w, abs=25)
    assert weigh_all_day(booked, variance, np.zeros_like(booked), none(booked), ROW_H, NOISE, 0.1).finding().excess < 1


def test_a_surplus_is_the_same_with_the_sign_turned():
    booked, variance = unexplained(np.random.default_rng(2), 60)
    less = steal(booked, len(booked) - DAY * 2, -100.0)
    lost = np.zeros_like(booked)
    assert weigh_all_day(less, variance, lost, none(booked), ROW_H, NOISE, 0.1).finding(-1.0).excess > 1
    assert weigh_all_day(less, variance, lost, none(booked), ROW_H, NOISE, 0.1).finding().excess < 1


def test_evenings_only_are_found_in_their_quarter_of_the_day_and_sooner():
    booked, variance = unexplained(np.random.default_rng(3), 60, weather_w=15.0)
    hour = (np.arange(len(booked)) - 1) % DAY // 2
    evenings = (hour >= 18) & (np.arange(len(booked)) > len(booked) - 10 * DAY)
    stolen = booked + np.cumsum(np.where(evenings, 110.0, 0.0) * ROW_H)
    noise = Noise(225.0, 4.0, 4.0, 40.0, 50)
    lost = np.zeros_like(booked)
    block = weigh_block(stolen, variance, lost, none(booked), ROW_H, noise, 0.1).finding()
    assert block.excess > 1
    assert block.age_h == 10 * 24
    assert block.power_w == pytest.approx(110, abs=30)
    assert block.excess > weigh_all_day(stolen, variance, lost, none(booked), ROW_H, noise, 0.1).finding().excess


def test_energy_lost_with_a_replaced_meter_is_no_finding():
    booked, variance = unexplained(np.random.default_rng(4), 60)
    row = len(booked) - 20
    jump = booked + np.where(np.arange(len(booked)) >= row, 3000.0, 0.0)
    known = np.where(np.arange(len(booked)) >= row, 2000.0**2, 0.0)
    assert weigh_all_day(jump, variance, np.zeros_like(booked), none(booked), ROW_H, NOISE, 0.1).finding().excess > 1
    assert weigh_all_day(jump, variance, known, none(booked), ROW_H, NOISE, 0.1).finding().excess < 1


def test_a_car_that_is_charged_from_now_on_is_no_theft_but_the_same_energy_without_a_load_is():
    booked, variance = unexplained(np.random.default_rng(7), 60)
    rows = len(booked) - 1
    hour = np.arange(rows) % DAY // 2
    charged = (hour < 4) & (np.arange(rows) >= rows - 10 * DAY)
    lost_wh = np.where(charged, 500.0 * ROW_H, 0.0)
    more = booked + np.concatenate([[0.0], np.cumsum(lost_wh)])
    zero = np.zeros_like(booked)
    assert weigh_all_day(more, variance, zero, none(booked), ROW_H, NOISE, 0.1).finding().excess > 1
    assert weigh_all_day(more, variance, zero, (RowErrors(lost_wh[:, None]),), ROW_H, NOISE, 0.1).finding().excess < 1
    elsewhere = (RowErrors(np.roll(lost_wh, -20 * DAY)[:, None]),)
    assert weigh_all_day(more, variance, zero, elsewhere, ROW_H, NOISE, 0.1).finding().excess > 1


def test_the_promised_rate_holds_on_noise_of_its_own_kind():
    """Looked at twice a day over 13 building-years of Gaussian noise, whose size is learned: no alarm at 0.1 a year."""
    rng = np.random.default_rng(5)
    alarms = looks = 0
    for _ in range(40):
        booked, variance = unexplained(rng, 180)
        learned_from = slice(0, 50 * DAY + 1, DAY // BLOCKS)
        noise = learn_noise(booked[learned_from], variance[learned_from], LOAD_W, 2.0, 2.0)
        lost = np.zeros_like(booked)
        for stop in range(60 * DAY, 180 * DAY, 24):
            part = slice(stop - 56 * DAY, stop + 1)
            found = weigh_all_day(
                booked[part], variance[part], lost[part], none(booked[part]), ROW_H, noise, 0.1
            ).finding()
            alarms += found.excess >= 1
            looks += 1
    assert looks > 9000
    assert alarms == 0


def learned(quarters_w, boundary_wh=0.0, uncertain=()):
    """Noise that is learned from the mean power of quarters [K, BLOCKS]."""
    booked = np.concatenate([[0.0], np.cumsum(quarters_w.ravel() * 24 / BLOCKS)])
    variance = np.full(len(booked), boundary_wh**2)
    variance[list(uncertain)] = 1e12
    return learn_noise(booked, variance, LOAD_W, 1.0, 1.0)


def test_noise_is_the_building_s_own_with_a_prior_and_without_outliers():
    rng = np.random.default_rng(6)
    quiet = learned(rng.normal(0, 3, (60, BLOCKS)))
    loud = learned(rng.normal(0, 60, (60, BLOCKS)))
    nothing = learned(np.empty((0, BLOCKS)))
    assert quiet.weather_w2 < nothing.weather_w2 < loud.weather_w2
    assert quiet.days == 60
    values = rng.normal(0, 3, (60, BLOCKS))
    spoilt = values.copy()
    spoilt[30] = 5000.0
    assert learned(spoilt, uncertain=[43]).weather_w2 < 1.6 * learned(values).weather_w2
    assert learned(spoilt, uncertain=[43]).days == 59


def test_what_boundaries_err_is_not_learned_as_weather():
    booked = np.random.default_rng(7).normal(0, 300.0, 60 * BLOCKS + 1)
    told = learn_noise(booked, np.full(len(booked), 300.0**2), LOAD_W, 1.0, 1.0)
    untold = learn_noise(booked, np.zeros(len(booked)), LOAD_W, 1.0, 1.0)
    assert told.weather_w2 < 0.2 * untold.weather_w2
    assert told.rough_w2h < 0.2 * untold.rough_w2h


def test_thresholds_rise_with_looks_with_strictness_and_with_ignorance():
    assert threshold(3.0, 1.0, 0.1, 60) > threshold(24.0, 1.0, 0.1, 60) > threshold(24.0 * 28, 1.0, 0.1, 60)
    assert threshold(24.0, 1.0, 0.01, 60) > threshold(24.0, 1.0, 1.0, 60)
    assert threshold(24.0, 1.0, 0.1, 4) > 1.2 * threshold(24.0, 1.0, 0.1, 60)


def evidence(zone, loss_w, active=True, kind=LossKind.NON_TECHNICAL_LOSS):
    return Evidence(
        zone, 0.0, active, 1, kind, 0.0, (0.0, 0.0), loss_w, (0.0, 0.0), 0.0, (), 0.0, Residual(0.0, 0.0, 0.0, 0.0), 1.0
    )


def test_an_outer_zone_is_silent_about_what_inner_zones_explain():
    tree = nesting({"all": ("m", frozenset("abcd")), "left": ("l", frozenset("ab")), "right": ("r", frozenset("cd"))})
    assert tree == {"all": ("left", "right"), "left": (), "right": ()}
    last = {}
    assert smallest(evidence("left", 100.0), tree, last)
    assert not smallest(evidence("all", 110.0), tree, last)
    assert smallest(evidence("all", 300.0), tree, last), "more than the inner zone explains"
    assert smallest(evidence("all", 100.0), tree, last), "once told, it goes on being told"
    assert smallest(evidence("all", 0.0, active=False), tree, last)
    assert not smallest(evidence("all", 0.0, active=False), tree, last), "its end is told once"
    assert smallest(evidence("all", 50.0, kind=LossKind.BALANCE_SURPLUS), tree, last)
