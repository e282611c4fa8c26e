"""Signs of tampering as log-likelihood ratios: rare and timely ones count, common and old ones do not."""

from __future__ import annotations

import pytest

from core.attribution.tamper_signs import CAP, sign_log_ratios
from core.signs import MeterSign, SignKind

DAY = 86_400.0
METERS = [f"flat-{k}" for k in range(8)]
ONSET, NOW = (100 * DAY, 100.5 * DAY), 120 * DAY


def say(*signs: MeterSign, loss_w: float = 300.0) -> list[float]:
    return sign_log_ratios(signs, METERS, ONSET, NOW, loss_w).tolist()


def at(day: float, kind: SignKind, meter: int = 2, value: float = 0.0) -> MeterSign:
    return MeterSign(METERS[meter], day * DAY, kind, value)


def test_a_cover_opened_at_the_onset_counts_for_its_meter_alone() -> None:
    ratios = say(at(99, SignKind.COVER_OPENED))
    # 6.5 days about the onset at 0.03 a year: 0.00053 by chance, against 0.35.
    assert ratios[2] == pytest.approx(6.0, abs=0.5)
    assert ratios[:2] + ratios[3:] == [0.0] * 7


@pytest.mark.parametrize("day", [60, 95, 110])
def test_a_cover_opened_at_another_time_says_nothing(day: float) -> None:
    assert say(at(day, SignKind.COVER_OPENED)) == [0.0] * 8


def test_a_sign_that_stays_counts_after_the_onset_and_less_the_longer_it_had_time_to_come() -> None:
    late = say(at(115, SignKind.REVERSE_ENERGY))[2]
    assert late > 0
    soon = sign_log_ratios([at(102, SignKind.REVERSE_ENERGY)], METERS, ONSET, 103 * DAY, 300.0)[2]
    assert late < soon


def test_a_power_failure_is_weak_and_of_the_whole_building_nothing() -> None:
    alone = say(at(100, SignKind.POWER_FAILURE))[2]
    assert 1 < alone < 4
    assert say(*(at(100, SignKind.POWER_FAILURE, meter=k) for k in range(8))) == [0.0] * 8


def test_repeats_of_one_sign_count_once_and_a_flood_is_no_crowd() -> None:
    once = say(at(100, SignKind.POWER_FAILURE))
    assert say(*(at(100 + k / 3000, SignKind.POWER_FAILURE) for k in range(50))) == once


def test_hidden_power_must_fit_what_is_missing() -> None:
    fits = say(at(101, SignKind.VOLTAGE_DROP, value=320.0))[2]
    far = say(at(101, SignKind.VOLTAGE_DROP, value=9000.0))[2]
    current = say(at(101, SignKind.NEUTRAL_CURRENT, value=320.0 / 230.0))[2]
    assert far < fits == pytest.approx(current)


def test_no_sign_is_proof() -> None:
    assert say(*(at(100, kind) for kind in SignKind))[2] == CAP


def test_other_meters_and_other_kinds_are_passed_over() -> None:
    assert say(MeterSign("main", 100 * DAY, SignKind.COVER_OPENED), at(100, SignKind.CLOCK_CHANGED)) == [0.0] * 8
