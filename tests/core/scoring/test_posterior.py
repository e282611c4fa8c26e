"""What is stated: shares of one, whatever the order of the flats; nothing where nothing can be computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.attribution.attribute import STATISTICS
from core.attribution.flat_evidence import FLAT, ZONE, FlatEvidence
from core.scoring.posterior import FEATURES, KEPT, REVISIONS, Findings, Memory, rows_of, state

FLATS = 7


def findings(seed: int = 0, flats: int = FLATS) -> Findings:
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.ones(flats + 1))
    return Findings(
        FlatEvidence(rng.normal(0, 1, (flats, len(FLAT))), rng.normal(0, 1, len(ZONE))),
        rng.normal(0, 10, (flats, len(STATISTICS))), probability[:-1], float(probability[-1]),
        (-10.0, -20.0, -15.0, -12.0), rng.normal(0, 1, flats), False,
    )  # fmt: skip


class Weighing:
    """A model whose logit is a fixed weighing of the rows."""

    features = FEATURES

    def __init__(self, factor: float = 0.3) -> None:
        self._weights = np.random.default_rng(1).normal(0, factor / np.sqrt(len(FEATURES)), len(FEATURES))

    def score(self, rows: np.ndarray) -> np.ndarray:
        return (1 / (1 + np.exp(-(rows @ self._weights)))).astype(np.float32)


def test_the_shares_sum_to_one_and_every_row_has_its_kind() -> None:
    rows = rows_of(findings(), Memory())
    assert rows.shape == (FLATS + 2, len(FEATURES))
    assert rows[:, -3:].sum(1).tolist() == [1.0] * (FLATS + 2)
    said = state(Weighing(), rows)
    assert said.probability.sum() + said.nobody + said.none == pytest.approx(1)
    assert (said.probability > 0).all()


def test_the_order_of_the_flats_does_not_matter() -> None:
    found, order = findings(), np.random.default_rng(3).permutation(FLATS)
    turned = replace(
        found, evidence=FlatEvidence(found.evidence.flat[order], found.evidence.zone),
        statistics=found.statistics[order], probability=found.probability[order], signs=found.signs[order],
    )  # fmt: skip
    one, other = state(Weighing(), rows_of(found, Memory())), state(Weighing(), rows_of(turned, Memory()))
    assert other.probability == pytest.approx(one.probability[order], rel=1e-5)
    assert other.nobody == pytest.approx(one.nobody, rel=1e-5)


def test_a_flat_leads_by_what_the_best_of_the_others_leaves_it() -> None:
    rows = rows_of(findings(), Memory())
    lead = rows[:FLATS, FEATURES.index("likelihoods_lead")]
    own = rows[:FLATS, FEATURES.index("likelihoods")]
    first, second = np.sort(own)[::-1][:2]
    assert lead.max() == pytest.approx(first - second)
    assert (lead > 0).sum() == 1
    assert rows[0, FEATURES.index("likelihoods_gap")] == pytest.approx(first - second)


def test_the_memory_is_bounded_and_holds_the_best_of_it() -> None:
    memory = Memory()
    for seed in range(3 * REVISIONS):
        rows = rows_of(findings(seed), memory)
    assert len(memory.kept) == REVISIONS
    most, mean = rows[:FLATS, FEATURES.index(f"{KEPT[-1]}_most")], rows[:FLATS, FEATURES.index(f"{KEPT[-1]}_mean")]
    own = [
        rows_of(findings(seed), Memory())[:FLATS, FEATURES.index(KEPT[-1])]
        for seed in range(2 * REVISIONS, 3 * REVISIONS)
    ]
    assert most == pytest.approx(np.max(own, axis=0))
    assert mean == pytest.approx(np.mean(own, axis=0))


def test_where_a_score_is_missing_nothing_is_claimed_of_anybody() -> None:
    class Broken(Weighing):
        def score(self, rows: np.ndarray) -> np.ndarray:
            return np.full(len(rows), np.nan, np.float32)

    said = state(Broken(), rows_of(findings(), Memory()))
    assert said.probability.sum() == 0
    assert said.none == 1


def test_a_zone_of_one_flat_has_rows_too() -> None:
    rows = rows_of(findings(flats=1), Memory())
    assert np.isfinite(rows).all()
    assert state(Weighing(), rows).probability.shape == (1,)
