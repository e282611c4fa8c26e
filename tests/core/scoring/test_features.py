"""The features by their definitions, on days made by hand."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray

from core.attribution.attribute import STATISTICS
from core.balance.history import History
from core.balance.rows import ZoneRows
from core.scoring.features import CLASSICAL, FEATURES, NO_EVIDENCE, Day, Loss, ZoneFeatures
from core.scoring.zone_scores import PRIOR_LIMIT, ZoneScores, prior_log_odds, probability
from core.signs import MeterSign, SignKind

SLOTS = 24
F64 = NDArray[np.float64]


def column(rows: F64, name: str) -> F64:
    return rows[:, FEATURES.index(name)]


def day(sub_wh: F64, main_wh: F64 | None = None, signs: F64 | None = None, missed: F64 | None = None) -> Day:
    count = sub_wh.shape[1]
    return Day(
        sub_wh,
        sub_wh.sum(axis=1) if main_wh is None else main_wh,
        np.zeros(sub_wh.shape, bool) if missed is None else missed,
        np.zeros(count) if signs is None else signs,
    )


def flat_days(daily_wh: F64) -> ZoneFeatures:
    """Days [days, N] of constant power."""
    zone = ZoneFeatures(daily_wh.shape[1])
    for energies in daily_wh:
        zone.add(day(np.tile(energies / SLOTS, (SLOTS, 1))))
    return zone


def decline_by_definition(daily: F64) -> int:
    """The source's words, literally: k_j is the slope over 11 days, here those up to j; count k_j < k_{j-1}."""
    slope = {j: np.polyfit(np.arange(11), daily[j - 10 : j + 1], 1)[0] for j in range(10, len(daily))}
    last = len(daily) - 1
    return sum(slope[j] < slope[j - 1] for j in range(last - 9, last + 1))


@pytest.mark.parametrize("seed", range(5))
def test_power_usage_decline_level_is_the_definition(seed: int) -> None:
    daily = np.random.default_rng(seed).gamma(4, 2000, (40, 3))
    found = column(flat_days(daily).rows(), "power_usage_decline_level")
    assert found.tolist() == [decline_by_definition(daily[:, j]) for j in range(3)]


def test_decline_does_not_count_what_is_not_known() -> None:
    daily = np.random.default_rng(1).gamma(4, 2000, (30, 2))
    daily[:, 1] = np.nan
    assert column(flat_days(daily).rows(), "power_usage_decline_level")[1] == 0
    assert column(flat_days(daily[:9]).rows(), "power_usage_decline_level").tolist() == [0, 0]


@pytest.mark.parametrize(("growth", "expected"), [(1.005, 0), (1.02, 1), (0.9, 0)])
def test_line_loss_rate_is_a_growth_of_over_one_percent(growth: float, expected: int) -> None:
    zone = ZoneFeatures(2)
    subs = np.full((SLOTS, 2), 100.0)
    for number in range(10):
        rate = 0.04 * (growth if number >= 5 else 1.0)
        zone.add(day(subs, subs.sum(axis=1) / (1 - rate)))
    assert column(zone.rows(), "line_loss_rate").tolist() == [expected, expected]


def test_warning_num_is_todays_and_warnings_fade_after_a_month() -> None:
    zone = ZoneFeatures(2)
    subs = np.full((SLOTS, 2), 100.0)
    zone.add(day(subs, signs=np.array([2.0, 0.0])))
    assert column(zone.rows(), "warning_num").tolist() == [2, 0]
    zone.add(day(subs))
    assert column(zone.rows(), "warning_num").tolist() == [0, 0]
    assert column(zone.rows(), "warnings_30d").tolist() == pytest.approx([np.log(3), 0])
    for _ in range(30):
        zone.add(day(subs))
    assert column(zone.rows(), "warnings_30d").tolist() == [0, 0]


def lives(seed: int, days: int, flats: int = 4) -> F64:
    return np.random.default_rng(seed).gamma(2.0, 100.0, (days, SLOTS, flats))


def test_usage_change_is_against_the_neighbours() -> None:
    loads = lives(1, 80)
    loads[66:] *= 0.6  # a mild spring for all
    loads[66:, :, 2] *= 0.5  # and one who fell further
    zone = ZoneFeatures(4)
    for rows in loads:
        zone.add(day(rows))
    change = column(zone.rows(), "usage_change")
    assert change[2] == pytest.approx(np.log(0.5), abs=0.15)
    assert np.abs(np.delete(change, 2)).max() < 0.15


def test_before_is_frozen_while_a_loss_is_latched() -> None:
    loads = lives(2, 200)
    loads[60:, :, 1] *= 0.3
    zone = ZoneFeatures(4)
    for number, rows in enumerate(loads):
        zone.add(day(rows))
        zone.latch(number - 60.0 if number > 61 else None)
        if number == 64:  # judged by the days since the onset alone
            assert column(zone.rows(), "usage_change")[1] == pytest.approx(np.log(0.3), abs=0.25)
    assert column(zone.rows(), "usage_change")[1] == pytest.approx(np.log(0.3), abs=0.15)
    zone.latch(None)  # cleared: what is usual now is the past
    assert column(zone.rows(), "usage_change")[1] == pytest.approx(0.0, abs=0.15)


def test_artificial_registers_show() -> None:
    loads = lives(3, 80, 5)
    loads[66:, :, 0] = loads[66:, :, 0].mean()  # one value
    loads[66:, :, 1] = np.resize(loads[40:47, :, 1], (14, SLOTS))  # a recorded week
    loads[66:, :6, 2] = 0.0  # nothing by night
    loads[66:, :, 3] = np.minimum(loads[66:, :, 3], 150.0)  # a ceiling
    zone = ZoneFeatures(5)
    for rows in loads:
        zone.add(day(rows))
    rows = zone.rows()
    assert column(rows, "spread_change").argmin() == 0
    assert column(rows, "weekly_repeat").argmax() == 1
    assert column(rows, "zero_change").tolist() == pytest.approx([0, 0, 0.25, 0, 0])
    assert column(rows, "peak_share")[3] > 3 * column(rows, "peak_share")[4]


def test_the_residual_looks_like_the_flat_that_hides_half() -> None:
    loads = lives(4, 40)
    zone = ZoneFeatures(4)
    for rows in loads:
        hidden_wh = rows[:, 2] + np.random.default_rng(0).normal(0, 20, SLOTS)
        zone.add(day(rows, rows.sum(axis=1) + hidden_wh))
    likeness = column(zone.rows(), "loss_likeness")
    assert likeness.argmax() == 2
    assert likeness[2] > 1.5


def loss() -> Loss:
    statistics = np.zeros((4, len(STATISTICS)))
    statistics[:, STATISTICS.index("log_evidence")] = [9.0, -2.0, 4.0, -30.0]
    statistics[:, STATISTICS.index("deficit_w")] = [200.0, 0.0, 10.0, -5.0]
    statistics[:, STATISTICS.index("level_ratio")] = [0.5, 1.0, 0.0, 2.0]
    return Loss(200.0, np.array([0.9, 0.01, 0.05, 0.0]), 0.04, statistics)


def test_evidence_enters_only_with_an_alarm() -> None:
    zone = ZoneFeatures(4)
    for rows in lives(5, 30):
        zone.add(day(rows))
    quiet = zone.rows()
    for name, neutral in NO_EVIDENCE.items():
        assert (column(quiet, name) == neutral).all(), name
    assert column(zone.rows(None, np.array([0.5, 0.0, 1.0, 0.9])), "past_suspicion").tolist() == pytest.approx(
        [0.0, -8.0, 8.0, np.log(9)]
    )
    alarmed = zone.rows(loss())
    assert (column(alarmed, "alarm") == 1).all()
    assert column(alarmed, "theft_log_odds")[0] == pytest.approx(np.log(9))
    assert column(alarmed, "evidence_lead").tolist() == pytest.approx(np.arcsinh([5.0, -11.0, -5.0, -39.0]))
    assert column(alarmed, "deficit_share")[0] == pytest.approx(1.0)
    assert column(alarmed, "shown_share")[0] == pytest.approx(np.log(0.5))
    same = [FEATURES.index(name) for name in FEATURES if name not in NO_EVIDENCE]
    assert np.array_equal(quiet[:, same], alarmed[:, same])


def test_all_features_are_finite_whatever_is_missing() -> None:
    zone = ZoneFeatures(4)
    assert np.isfinite(zone.rows(loss())).all()
    rng = np.random.default_rng(6)
    for number, rows in enumerate(lives(6, 90)):
        holes = rows.copy()
        holes[rng.random(rows.shape) < 0.3] = np.nan
        if number % 3 == 0:
            holes[:] = np.nan
        holes[:, 3] = 0.0
        zone.add(day(holes, np.where(rng.random(SLOTS) < 0.5, np.nan, 1.0), missed=rng.random(rows.shape) < 0.3))
        zone.latch(3.0 if number > 70 else None)
        assert np.isfinite(zone.rows(loss())).all()


@pytest.mark.parametrize("offset_s", [0.0, -5 * 3600.0, 8 * 3600.0])
@pytest.mark.parametrize("onset", [None, 90 * SLOTS, 60 * SLOTS])
def test_a_restored_state_goes_on_the_same(offset_s: float, onset: int | None) -> None:
    """Restored at any row of the day from 70 days of rows: every later feature is the same, bit for bit."""
    subs, rng = [f"flat-{j}" for j in range(4)], np.random.default_rng(7)
    loads = lives(7, 110).reshape(-1, 4)
    history = History(70 * SLOTS, 4)
    one, other = (ZoneScores(subs, 1.0, offset_s) for _ in range(2))
    signs = [MeterSign("flat-2", 93 * 86_400.0, SignKind.MAGNETIC_FIELD)]
    restored_at = 100 * SLOTS + 11
    for start in range(0, len(loads), 7):
        part = loads[start : start + 7]
        ends_s = 3600.0 * (1.0 + np.arange(start, start + len(part)))
        zeros = np.zeros(len(part))
        quiet = dict.fromkeys((field.name for field in fields(ZoneRows)), zeros)
        rows = ZoneRows(**quiet | {"ends_s": ends_s, "main_wh": part.sum(axis=1), "subs_wh": part})
        history.append(rows, rng.random(part.shape) < 0.05, zeros)
        latched = onset if onset is not None and history.count > onset + 30 else None
        one.follow(history, signs, latched)
        if history.count >= restored_at and other.features._days == 0:
            other.restore(history, signs, latched, one.features.before)
        if history.count > restored_at:
            other.follow(history, signs, latched)
            assert np.array_equal(one.rows(loss()), other.rows(loss()))
    assert other.features._days > 60
    assert column(one.rows(None), "warnings_30d").tolist() == pytest.approx([0, 0, np.log(2), 0])


class Straight:
    """A scorer whose log-odds are one feature."""

    def __init__(self, name: str) -> None:
        self.features = (name,)

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return (1 / (1 + np.exp(-rows[:, 0]))).astype(np.float32)


def test_the_prior_knows_nothing_of_the_balance() -> None:
    rows = np.zeros((3, len(FEATURES)))
    rows[:, FEATURES.index("theft_log_odds")] = [5.0, -5.0, 0.0]
    assert probability(Straight("theft_log_odds"), rows)[0] == pytest.approx(0.9933, abs=1e-3)
    assert prior_log_odds(Straight("theft_log_odds"), rows).tolist() == [0, 0, 0]
    rows[:, FEATURES.index("warnings_30d")] = [2.0, 0.0, -20.0]
    assert prior_log_odds(Straight("warnings_30d"), rows).tolist() == pytest.approx([2, 0, -PRIOR_LIMIT], abs=1e-5)


def test_the_classical_features_come_first() -> None:
    assert FEATURES[:3] == CLASSICAL
    assert len(set(FEATURES)) == len(FEATURES)
