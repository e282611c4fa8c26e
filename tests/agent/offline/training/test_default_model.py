"""The recipe: what is right of a revision, what is counted, and that the file holds the network that was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.offline.training import default_model, episodes
from agent.offline.training.episodes import Episode, Revision
from agent.offline.training.set_net import Case, Net, Recipe, fit
from agent.offline.world.buildings import START_S, Building, Plan, make
from core.evidence import Evidence, LossKind, Residual
from core.scoring.model import load
from core.scoring.posterior import FEATURES, state

DAY_S = 86_400


@pytest.fixture(scope="module")
def bypassed() -> Building:
    return make((8, 2), Plan("bypass", 8, 40, 22, 0.05))


@pytest.fixture(scope="module")
def watched(bypassed: Building) -> Episode:
    return episodes.watch(bypassed, 7)


def evidence(at_day: float, loss_w: float = 200.0, kind: LossKind = LossKind.NON_TECHNICAL_LOSS) -> Evidence:
    residual = Residual(1.0, 1.0, 0.1, 0.1)
    at_s = START_S + at_day * DAY_S
    return Evidence("b", at_s, True, 1, kind, at_s, (at_s, at_s), loss_w, (0, 0), 1.0, (), 0.0, residual, 1.0)


def test_every_revision_has_the_thief_as_right(bypassed: Building, watched: Episode) -> None:
    assert watched.family == "zero"
    assert len(watched.revisions) >= 6
    for revision in watched.revisions:
        assert revision.case.rows.shape == (10, len(FEATURES))
        assert np.isfinite(revision.case.rows).all()
        assert np.flatnonzero(revision.case.right).tolist() == list(bypassed.guilty)
        assert revision.time_s > (bypassed.onset_s or 0)


def test_an_alarm_before_the_theft_is_none_of_these_or_common_load_and_then_nobody_can_say(bypassed: Building) -> None:
    early = START_S + 10 * DAY_S
    bare, lit = replace(bypassed, unmetered_w=5.0), replace(bypassed, unmetered_w=150.0)
    assert np.flatnonzero(episodes.truth(bare, evidence(12), early, False)).tolist() == [9]
    assert np.flatnonzero(episodes.truth(lit, evidence(12), early, False)).tolist() == [8]
    assert episodes.truth(bare, evidence(30), early, False) is None
    assert episodes.truth(bare, evidence(30), START_S + 23 * DAY_S, True) is None


def test_a_clock_is_none_of_these_and_a_tap_is_nobodys_or_his_behind_whose_line_it_hides() -> None:
    clock = make((8, 3), Plan("hour off", 8, 40, 22))
    late = START_S + 24 * DAY_S
    assert np.flatnonzero(episodes.truth(clock, evidence(25), late, False)).tolist() == [9]
    tap = make((8, 4), Plan("timer", 8, 40, 22))
    assert np.flatnonzero(episodes.truth(tap, evidence(25), late, False)).tolist() == [8]
    assert np.flatnonzero(episodes.truth(replace(tap, accepted=(3,)), evidence(25), late, False)).tolist() == [3, 8]
    turned = episodes.truth(tap, evidence(25, kind=LossKind.BALANCE_SURPLUS), late, False)
    assert np.flatnonzero(turned).tolist() == [9]


def told(names: list[int], right: int = 2) -> tuple[Episode, list[np.ndarray]]:
    """An episode of four flats in which these rows get 0.94, a day apart."""
    truth = np.zeros(6, np.bool_)
    truth[right] = True
    revisions, shares = [], []
    for day, name in enumerate(names):
        share = np.full(6, 0.012)
        share[name] = 0.94
        shares.append(share)
        revisions.append(
            Revision(Case(np.zeros((6, 1), np.float32), truth, 1), START_S + day * DAY_S, START_S, (False, 1))
        )
    return Episode(1, "bypass", "zero", tuple(revisions)), shares


def test_what_is_counted_of_a_talk_out_of_the_right_one() -> None:
    episode, shares = told([2, 2, 2, 1, 1])
    verdict = default_model.judge([episode], [shares])
    counts = verdict.first_alert, verdict.three_days, verdict.last_word, verdict.innocent_ever, verdict.renamed
    assert [(c.hits, c.of) for c in counts] == [(1, 1), (0, 1), (0, 1), (1, 1), (1, 1)]
    assert (verdict.named.hits, verdict.first.hits) == (0, 0)
    assert verdict.error == pytest.approx(abs(5 * 0.94 - 3) / 5)


def test_nobody_is_no_name() -> None:
    episode, shares = told([4, 4, 4, 4], right=4)
    verdict = default_model.judge([episode], [shares])
    assert (verdict.last_word.of, verdict.innocent_ever.hits) == (0, 0)
    assert (verdict.nobody.hits, verdict.first.hits, verdict.named.of) == (1, 1, 0)


def test_the_file_states_what_the_network_says(watched: Episode, tmp_path: Path) -> None:
    net = fit([r.case for r in watched.revisions], Recipe(hidden=(6, 4), epochs=3), 1)
    content = default_model.encode(net, 1.3, [watched], 1, {})
    model = load(content, FEATURES)
    rows = watched.revisions[-1].case.rows
    wanted = default_model.shares(net.logit(rows), 1.3)
    said = state(model, rows.astype(np.float64))
    assert said.probability == pytest.approx(wanted[:-2], abs=1e-4)
    assert said.nobody == pytest.approx(wanted[-2], abs=1e-4)
    assert default_model.encode(net, 1.3, [watched], 1, {}) == content


def test_what_is_sure_stays_sure_to_four_digits() -> None:
    """Logits of 12 and -12 go through a logistic in single precision."""
    weights = np.zeros((1, len(FEATURES)))
    weights[0, 0] = 1.0
    layers = ((np.vstack([weights, -weights]), np.zeros(2)), (np.array([[1.0, -1.0]]), np.zeros(1)))
    net = Net(np.zeros(len(FEATURES)), np.ones(len(FEATURES)), layers)
    rows = np.zeros((4, len(FEATURES)), np.float32)
    rows[:, 0] = [12.0, 4.0, -12.0, 0.0]
    case = Case(rows, np.array([True, False, False, False]), 1)
    episode = Episode(1, "bypass", "zero", (Revision(case, START_S, START_S, (False, 1)),))
    model = load(default_model.encode(net, 1.0, [episode], 1, {}), FEATURES)
    said = state(model, rows.astype(np.float64))
    assert 1 - said.probability[0] == pytest.approx(np.exp(-8.0), rel=0.02)
    assert said.nobody == pytest.approx(np.exp(-24.0), rel=0.02)


def test_families_are_left_out_once_each_and_all_of_them() -> None:
    members = [family for fold in default_model.FOLDS for family in fold]
    assert len(members) == len(set(members))
    assert set(members) == {episodes.family_of(kind) for kind in episodes.KINDS} - {episodes.HONEST}
