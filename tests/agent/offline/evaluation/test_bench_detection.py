"""Judging claims, and the two baselines on buildings that they must and must not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.offline.evaluation.baselines import daily_cusum, percent_rule
from agent.offline.evaluation.bench_detection import Claim, by_kind, claims_of, false_alarms_a_year, judge, summary
from agent.offline.evaluation.virtual_buildings import DAY_S, START_S, Building, Plan
from core.evidence import Evidence, LossKind, Residual, Suspect

FLATS, DAYS, PER_DAY = 6, 120, 24


def building(theft: str | None = "scaled", onset_day: int = 80, stolen: float = 0.5, thief: int = 2) -> Building:
    """Six flats, hourly registers without any error; the thief hides a share of its use."""
    rng = np.random.default_rng(1)
    load = rng.gamma(4, 100, (DAYS * PER_DAY, FLATS))
    shown = load.copy()
    onset = None if theft is None else onset_day * PER_DAY
    if onset is not None:
        shown[onset:, thief] *= 1 - stolen
    times = START_S + 3600.0 * np.arange(DAYS * PER_DAY + 1)
    registers = np.concatenate([np.zeros((1, FLATS)), np.cumsum(shown, axis=0)])
    main = np.concatenate([[0.0], np.cumsum(load.sum(axis=1) * 1.01)])
    return Building(
        Plan(FLATS, DAYS, theft, onset_day), times, main, registers, 1.0, (), () if theft is None else (thief,),
        None if onset is None else float(times[onset]), (load - shown).sum(axis=1), 2400.0,
    )  # fmt: skip


def at(day: float, *, raised: bool = True, first: int = 2, probability: float = 0.95, nobody: float = 0.01) -> Claim:
    others = tuple((j, 0.01) for j in range(FLATS) if j != first)
    return Claim(START_S + day * DAY_S, raised, 210.0, ((first, probability), *others), nobody)


SUSPICION = [0.0, 0.1, 0.9, 0.0, 0.0, 0.2]


def test_the_last_revision_within_the_horizon_counts() -> None:
    claims = [at(82, first=4), at(90, raised=False), at(115, raised=False, first=1)]
    verdict = judge(building(), claims, SUSPICION)
    assert verdict.detected
    assert verdict.delay_days == pytest.approx(2.0)
    assert (verdict.first, verdict.in_three, verdict.named_rightly) == (True, True, True)
    assert verdict.loss_error == pytest.approx(0.05, abs=0.05)
    assert verdict.false_alarms == 0


def test_an_alarm_before_the_onset_is_false_and_none_after_is_a_miss() -> None:
    verdict = judge(building(), [at(40)], SUSPICION)
    assert (verdict.detected, verdict.false_alarms) == (False, 1)
    assert verdict.quiet_days == pytest.approx(80)
    late = judge(building(onset_day=80), [at(111)], SUSPICION)
    assert late.detected is False


def test_nobody_ahead_of_the_thief_is_not_the_first() -> None:
    verdict = judge(building(), [at(85, probability=0.3, nobody=0.6)], SUSPICION)
    assert (verdict.first, verdict.in_three, verdict.named) == (False, True, None)


def test_a_quiet_building_only_has_false_alarms() -> None:
    verdict = judge(building(None), [at(10), at(11, raised=False), at(60)], SUSPICION)
    assert (verdict.false_alarms, verdict.detected) == (2, None)
    assert false_alarms_a_year([verdict]) == pytest.approx((2 / (DAYS / 365), DAYS / 365))


def test_from_the_start_the_horizon_is_longer() -> None:
    verdict = judge(building(onset_day=0), [at(40)], SUSPICION)
    assert verdict.detected
    assert verdict.from_start
    assert verdict.false_alarms == 0


def test_claims_are_raised_once_an_episode_and_cleared_ones_are_none() -> None:
    def evidence(day: float, episode: int, *, active: bool = True, kind: LossKind = LossKind.BYPASS) -> Evidence:
        time_s = START_S + day * DAY_S
        suspects = (Suspect("b", 0.9), Suspect("a", 0.1))
        return Evidence("z", time_s, active, episode, kind, time_s, (time_s, time_s), 5.0, (4.0, 6.0), 1.0, suspects,
                        0.0, Residual(1.0, 1.0, 0.1, 0.1), 1.0)  # fmt: skip

    items = [evidence(1, 1), evidence(2, 1), evidence(3, 1, active=False), evidence(4, 2),
             evidence(5, 1, kind=LossKind.BALANCE_SURPLUS)]  # fmt: skip
    claims = claims_of(items, ("a", "b"))
    assert [c.raised for c in claims] == [True, False, True, True]
    assert claims[0].suspects == ((1, 0.9), (0, 0.1))


def test_the_daily_cusum_finds_a_plain_theft_and_its_thief() -> None:
    alarms = daily_cusum(building(stolen=0.8))
    assert alarms
    assert START_S + 80 * DAY_S < alarms[0].time_s < START_S + 90 * DAY_S
    assert alarms[-1].suspicion.argmax() == 2
    assert alarms[-1].suspicion.sum() == pytest.approx(1)
    assert alarms[-1].loss_w == pytest.approx(0.8 * 400, rel=0.1)


def test_the_percent_rule_sees_only_what_is_large() -> None:
    assert percent_rule(building(stolen=0.9))
    assert percent_rule(building(stolen=0.1)) == []
    assert percent_rule(building(None)) == []


def test_a_gap_in_the_registers_is_no_alarm() -> None:
    quiet = building(None)
    quiet.subs_wh[70 * PER_DAY : 73 * PER_DAY, 1] = np.nan
    assert percent_rule(quiet) == []


def test_the_tables_say_what_was_judged() -> None:
    verdicts = [judge(building(), [at(82)], SUSPICION), judge(building(None), [at(9)], SUSPICION)]
    verdicts.append(judge(replace(building(), plan=Plan(FLATS, DAYS, "clipped", 80)), [], SUSPICION))
    text = str(summary([verdicts, verdicts, verdicts]))
    assert "0.50" in text.splitlines()[1]  # one of two thefts found
    assert "1.000" in text  # household AUC
    kinds = str(by_kind(verdicts))
    assert "scaled" in kinds
    assert "clipped" in kinds
