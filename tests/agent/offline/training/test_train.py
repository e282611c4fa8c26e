"""The classical workflow against scikit-learn's own, and through to the runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agent.offline import metrics
from agent.offline.training.table import FeatureTable, SplitError, TableError, read_table
from agent.offline.training.train import Settings, encode, fit_platt, split_rows, train
from core.scoring.model import load


@pytest.fixture(scope="module")
def table(classical_csv: Path) -> FeatureTable:
    return read_table(classical_csv)


def test_auc_over_many_splits_is_scikit_learns(table: FeatureTable) -> None:
    ours, theirs = [], []
    for seed in range(12):
        result = train(table, Settings(seed=seed))
        reference = make_pipeline(StandardScaler(), LogisticRegression())
        reference.fit(table.features[result.trained], table.target[result.trained])
        probability = reference.predict_proba(table.features[result.held])[:, 1]
        ours.append(result.metrics["auc"])
        theirs.append(roc_auc_score(table.target[result.held], probability))
    assert abs(np.mean(ours) - np.mean(theirs)) <= 0.005


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_the_file_computes_what_was_trained(table: FeatureTable, kind: str) -> None:
    result = train(table, Settings(model=kind))
    model = load(encode(table, result))
    scores = model.score(table.features.astype(np.float32))
    assert np.abs(scores - result.network.predict(table.features)).max() < 1e-5
    assert len(model.file.golden.outputs) >= 16
    assert np.ptp(model.file.golden.outputs) > 0.5
    assert model.file.metadata["training"]["sha256"] == table.sha256


def test_the_network_is_scikit_learns_model_but_for_the_calibration(table: FeatureTable) -> None:
    result = train(table, Settings())
    scaled = make_pipeline(StandardScaler(), LogisticRegression(C=1 / result.penalty, max_iter=1000))
    scaled.fit(table.features[result.trained], table.target[result.trained])
    logit = scaled.decision_function(table.features)
    assert np.allclose(
        result.network.logit(table.features), result.platt.slope * logit + result.platt.intercept, atol=1e-4
    )


def test_the_same_seed_gives_the_same_octets_and_another_does_not(table: FeatureTable) -> None:
    first = encode(table, train(table, Settings(seed=1)))
    assert encode(table, train(table, Settings(seed=1))) == first
    assert encode(table, train(table, Settings(seed=2))) != first


def test_the_split_is_stratified(table: FeatureTable) -> None:
    trained, held = split_rows(table, Settings(split=0.8, seed=3))
    assert len(trained) == 232
    assert sorted([*trained, *held]) == list(range(291))
    assert table.target[trained].sum() == 32


def test_a_group_is_on_one_side(table: FeatureTable) -> None:
    group = np.array([f"building-{i % 29}" for i in range(291)])
    grouped = replace(table, group=group, group_name="building")
    trained, held = split_rows(grouped, Settings(seed=3))
    assert not set(group[trained]) & set(group[held])
    assert len(set(group[held])) == pytest.approx(6, abs=1)
    assert train(grouped, Settings(seed=3)).metrics["auc"] > 0.7


def test_theft_in_one_group_only_is_refused(table: FeatureTable) -> None:
    group = np.where(table.target == 1, "guilty", np.arange(291).astype(str))
    with pytest.raises(TableError, match=r"held part .* has no two classes"):
        train(replace(table, group=group), Settings())


def test_measures_are_scikit_learns(table: FeatureTable) -> None:
    rng = np.random.default_rng(5)
    truth, score = rng.integers(0, 2, 400), np.round(rng.random(400), 2)  # with many ties
    curve = metrics.curve(truth, score)
    assert curve.auc() == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert curve.average_precision() == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    assert metrics.confusion(truth, score, 0.4).f1 == pytest.approx(f1_score(truth, score >= 0.4), abs=1e-12)
    weight = rng.integers(0, 4, 400)
    again = roc_auc_score(np.repeat(truth, weight), np.repeat(score, weight))
    assert metrics.curve(truth, score, weight).auc() == pytest.approx(again, abs=1e-12)


def test_the_bootstrap_interval_covers_what_it_should() -> None:
    """Two normals a sd apart have AUC 0.760; a 95 % interval holds it in most of 60 samples."""
    inside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = np.repeat([0, 1], [100, 40])
        low, high = metrics.auc_interval(truth, rng.normal(truth, 1.0), seed=seed, draws=200)
        inside += low <= 0.7602 <= high
    assert 52 <= inside <= 60


def test_calibration_error_of_a_calibrated_and_of_a_bold_prediction() -> None:
    rng = np.random.default_rng(6)
    probability = rng.random(20_000)
    truth = (rng.random(20_000) < probability).astype(int)
    assert metrics.calibration(truth, probability).ece < 0.015
    bold = np.where(probability > 0.5, 0.99, 0.01)
    assert metrics.calibration(truth, bold).ece == pytest.approx(0.24, abs=0.015)


def test_platt_scaling_finds_the_slope_it_was_given() -> None:
    rng = np.random.default_rng(8)
    logit = rng.normal(0, 2, 20_000)
    truth = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logit - 1)))).astype(int)
    found = fit_platt(logit, truth)
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.intercept == pytest.approx(-1, abs=0.06)
    assert found.ece_after < found.ece_before


def test_platt_scaling_stays_finite_on_separable_rows() -> None:
    found = fit_platt(np.repeat([-3.0, 3.0], 20), np.repeat([0, 1], 20))
    assert 0 < found.slope < 10


def test_the_useful_feature_is_the_important_one(table: FeatureTable) -> None:
    noise = np.random.default_rng(9).normal(size=(291, 1))
    wide = replace(table, names=(*table.names, "noise"), features=np.hstack([table.features, noise]))
    lost = train(wide, Settings()).importance.mean(axis=1)
    assert lost.argmax() == 0
    assert abs(lost[3]) < 0.03


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("building", lambda t: np.full(291, "b1"), r"all rows are of one building \(b1\).*--group meter"),
        ("meter", lambda t: np.full(291, "m1"), r"all rows are of one meter \(m1\).*tables of more$"),
        (
            "meter",
            lambda t: np.where(t.target == 1, "flat-302", np.arange(291).astype(str)),
            r"theft is known of one meter only \(flat-302\), so there is nothing to judge on",
        ),
    ],
)
def test_a_table_that_cannot_be_split_is_told_what_it_lacks(table: FeatureTable, name: str, labels, said: str) -> None:
    with pytest.raises(SplitError, match=said):
        train(replace(table, group=labels(table), group_name=name), Settings())


@pytest.mark.parametrize(
    ("group", "identifiers", "leaks"),
    [
        ("building", ("building", "meter", "day"), False),
        ("meter", ("building", "meter", "day"), False),
        ("day", ("building", "meter", "day"), True),
        (None, ("meter", "day"), True),
        (None, (), False),
    ],
)
def test_rows_of_one_meter_on_both_sides_are_warned_of(
    table: FeatureTable, group: str | None, identifiers: tuple[str, ...], leaks: bool
) -> None:
    found = replace(table, group_name=group, identifiers=identifiers).leaks
    assert (found is not None) == leaks
    assert not leaks or "flatter" in str(found)
