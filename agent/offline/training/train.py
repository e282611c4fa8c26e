"""The classical theft workflow: split, choose the regularisation, fit, calibrate, judge on the held part.

It owns the statistics of training and knows no files but the bytes of the model it makes. Everything that is
chosen (regularisation, calibration, threshold) is chosen by cross-validation inside the training part; the held
part is looked at once, for the figures. Where rows belong to groups (flats of a building), a group is on one side.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from agent.offline import metrics
from agent.offline.metrics import F64
from agent.offline.training.table import FeatureTable, SplitError
from agent.offline.training.tflite_writer import write
from core.scoring.model_file import FORMAT, GOLDEN_VECTORS, Network

Rows = NDArray[np.intp]
Kind = Literal["logistic", "mlp"]

FOLDS = 5
HIDDEN = 16
# L2 penalties per sum of squared weights, from next to none to very strong; the middle one is scikit-learn's default.
PENALTIES = {"logistic": (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0), "mlp": (1.0, 10.0, 30.0, 100.0)}
IMPORTANCE_REPEATS = 20
GOLDEN_COUNT = 2 * GOLDEN_VECTORS


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user sets."""

    model: Kind = "logistic"
    split: float = 0.8  # share of the rows to train on
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Platt:
    """Probability = logistic(slope * logit + intercept), fitted to out-of-fold logits (Platt, 1999)."""

    slope: float
    intercept: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model with all that its report says. `network` is calibrated; `held` are row numbers of the table."""

    settings: Settings
    network: Network
    scale: F64
    threshold: float
    penalty: float
    penalty_losses: dict[float, float]  # mean out-of-fold log loss in nat
    platt: Platt
    trained: Rows
    held: Rows
    held_probability: F64
    metrics: dict[str, float]
    importance: F64  # [features, repeats]: AUC lost on the held part when the feature is shuffled


def train(table: FeatureTable, settings: Settings) -> Trained:
    """Run the workflow. Raises SplitError where the split leaves a part without both classes.

    One BLAS thread, so that a run with the same seed gives the same octets on the same machine.
    """
    with threadpool_limits(limits=1):
        return _train(table, settings)


def _train(table: FeatureTable, settings: Settings) -> Trained:
    trained, held = split_rows(table, settings)
    # What the gateway computes in float32 is what is trained on.
    x, y = table.features.astype(np.float32).astype(np.float64), table.target
    group = None if table.group is None else table.group[trained]
    mean = x[trained].mean(axis=0).astype(np.float32).astype(np.float64)
    spread = x[trained].std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    inputs = (x - mean) / scale
    fit = _fit_logistic if settings.model == "logistic" else _fit_mlp
    folds = list(_folds(inputs[trained], y[trained], group, settings.seed))
    penalty, losses, logits = _choose_penalty(fit, inputs[trained], y[trained], folds, settings)
    platt = fit_platt(logits, y[trained])
    network = _assemble(fit(inputs[trained], y[trained], penalty, settings.seed), mean, scale, platt)
    outside = metrics.curve(y[trained], _logistic(platt.slope * logits + platt.intercept))
    threshold = float(np.clip(outside.threshold[np.argmax(outside.f1)], 0.01, 0.99))
    probability = network.predict(x[held])
    held_group = None if table.group is None else table.group[held]
    return Trained(
        settings,
        network,
        scale,
        threshold,
        penalty,
        losses,
        platt,
        trained,
        held,
        probability,
        _figures(y[held], probability, threshold, held_group, settings.seed),
        _importance(network, x[held], y[held], settings.seed),
    )


def split_rows(table: FeatureTable, settings: Settings) -> tuple[Rows, Rows]:
    """Row numbers of the training and the held part: stratified by the target, groups kept whole."""
    rows = np.arange(len(table.target))
    if table.group is None:
        trained, held = train_test_split(
            rows, train_size=settings.split, stratify=table.target, random_state=settings.seed
        )
    else:
        labels, group = np.unique(table.group, return_inverse=True)
        guilty = np.bincount(group, table.target, len(labels)) > 0
        rng = np.random.default_rng(settings.seed)
        chosen = np.zeros(len(labels), bool)
        for kind in (guilty, ~guilty):  # buildings with a thief and buildings without, the same share of each
            shuffled = rng.permutation(np.flatnonzero(kind))
            chosen[shuffled[: round(settings.split * len(shuffled))]] = True
        trained, held = rows[chosen[group]], rows[~chosen[group]]
    for name, part in (("training", trained), ("held", held)):
        if len(set(table.target[part])) < 2:
            raise SplitError(
                f"the {name} part ({len(part)} rows) has no two classes at --split {settings.split:g}: {_wanted(table)}"
            )
    return trained, held


def _wanted(table: FeatureTable) -> str:
    """What a table lacks that cannot be split."""
    if table.group is None:
        return "give more rows, or another split"
    kind, labels = table.group_name or "group", np.unique(table.group)
    guilty = np.unique(table.group[table.target == 1])
    other = "" if kind == "meter" else ", or use --group meter, which keeps only the rows of a meter together"
    if len(labels) == 1:
        return f"all rows are of one {kind} ({labels[0]}), so none can be held back: give tables of more{other}"
    if len(guilty) == 1:
        return (
            f"theft is known of one {kind} only ({guilty[0]}), so there is nothing to judge on: give more cases{other}"
        )
    if len(guilty) == len(labels):
        return f"every {kind} has a theft, so there is nothing to compare with: add some without{other}"
    return f"{len(guilty)} of {len(labels)} {kind}s with theft are too few for it: give more, or another split"


def _folds(x: F64, y: Rows, group: NDArray[np.str_] | None, seed: int) -> Iterator[tuple[Rows, Rows]]:
    most = int(min(y.sum(), len(y) - y.sum()))
    if group is None:
        yield from StratifiedKFold(max(2, min(FOLDS, most)), shuffle=True, random_state=seed).split(x, y)
        return
    thieves = len(np.unique(group[y == 1]))
    if thieves < 2:
        raise SplitError("theft is in one group of the training part only: cross-validation needs two or more")
    folds = StratifiedGroupKFold(max(2, min(FOLDS, thieves)), shuffle=True, random_state=seed)
    for fit, test in folds.split(x, y, group):
        if len(set(y[fit])) == 2:
            yield fit, test


Layers = tuple[tuple[F64, F64], ...]
Fit = Callable[[F64, Rows, float, int], Layers]


def _fit_logistic(x: F64, y: Rows, penalty: float, seed: int) -> Layers:
    model = LogisticRegression(C=1 / penalty, max_iter=1000).fit(x, y)
    return ((model.coef_, model.intercept_),)


def _fit_mlp(x: F64, y: Rows, penalty: float, seed: int) -> Layers:
    # L-BFGS: a few thousand weights, no learning rate to tune, the same result every time.
    model = MLPClassifier((HIDDEN,), solver="lbfgs", alpha=penalty, max_iter=400, max_fun=100_000, random_state=seed)
    with warnings.catch_warnings():  # 400 steps are where it may stop: cross-validation judges what they reached
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    return tuple((w.T, b) for w, b in zip(model.coefs_, model.intercepts_, strict=True))


def _choose_penalty(
    fit: Fit, x: F64, y: Rows, folds: list[tuple[Rows, Rows]], settings: Settings
) -> tuple[float, dict[float, float], F64]:
    """The penalty of least out-of-fold log loss, all losses, and the out-of-fold logits at the chosen one."""
    logits = {penalty: np.zeros(len(y)) for penalty in PENALTIES[settings.model]}
    for penalty, found in logits.items():
        for inside, outside in folds:
            layers = fit(x[inside], y[inside], penalty, settings.seed)
            found[outside] = Network(np.zeros(x.shape[1]), layers).logit(x[outside])
    losses = {penalty: log_loss(y, found) for penalty, found in logits.items()}
    best = min(losses, key=losses.__getitem__)
    return best, losses, logits[best]


def log_loss(truth: Rows, logit: F64) -> float:
    """Mean negative log-likelihood in nat."""
    return float(np.mean(np.logaddexp(0.0, np.where(truth == 1, -logit, logit))))


def fit_platt(logits: F64, truth: Rows) -> Platt:
    """Slope and intercept by Newton's method, with Platt's targets, which keep it finite on separable rows."""
    thefts = truth.sum()
    goal = np.where(truth == 1, (thefts + 1) / (thefts + 2), 1 / (len(truth) - thefts + 2))
    design = np.column_stack([logits, np.ones(len(logits))])
    beta = np.array([1.0, 0.0])
    for _ in range(100):
        p = _logistic(design @ beta)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (goal - p))
        beta += step * min(1.0, 5.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-10:
            break
    if beta[0] <= 0:  # worse than chance out of fold: a turned sign would only hide it
        beta = np.array([1.0, 0.0])
    before = metrics.calibration(truth, _logistic(logits)).ece
    after = metrics.calibration(truth, _logistic(design @ beta)).ece
    return Platt(float(beta[0]), float(beta[1]), before, after)


def _assemble(layers: Layers, mean: F64, scale: F64, platt: Platt) -> Network:
    """The network over raw features: scale in the first layer, calibration in the last."""
    folded = [(weights.copy(), bias.copy()) for weights, bias in layers]
    folded[0] = (folded[0][0] / scale, folded[0][1])
    folded[-1] = (folded[-1][0] * platt.slope, folded[-1][1] * platt.slope + platt.intercept)
    return Network(mean, tuple(folded))


def _logistic(logit: F64) -> F64:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -700, 700))))


def _figures(
    truth: Rows, probability: F64, threshold: float, group: NDArray[np.str_] | None, seed: int
) -> dict[str, float]:
    curve, named = metrics.curve(truth, probability), metrics.confusion(truth, probability, threshold)
    low, high = metrics.auc_interval(truth, probability, group, seed=seed)
    return {
        "auc": curve.auc(),
        "auc_low": low,
        "auc_high": high,
        "average_precision": curve.average_precision(),
        "ks": curve.ks(),
        "f1": named.f1,
        "precision": named.precision if named.true_positive + named.false_positive else 0.0,
        "recall": named.recall,
        "accuracy": named.accuracy,
        "ece": metrics.calibration(truth, probability).ece,
        "recall_at_fpr_0.001": curve.recall_at(0.001),
    }


def _importance(network: Network, x: F64, y: Rows, seed: int) -> F64:
    rng, base = np.random.default_rng(seed), metrics.auc(y, network.logit(x))
    lost = np.empty((x.shape[1], IMPORTANCE_REPEATS))
    shuffled = x.copy()
    for feature in range(x.shape[1]):
        for repeat in range(IMPORTANCE_REPEATS):
            shuffled[:, feature] = rng.permutation(x[:, feature])
            lost[feature, repeat] = base - metrics.auc(y, network.logit(shuffled))
        shuffled[:, feature] = x[:, feature]
    return lost


def encode(table: FeatureTable, result: Trained) -> bytes:
    """The .tflite file of a trained model, with everything inside that its user must know."""
    inputs = _golden_inputs(table.features[result.trained], table.target[result.trained], result.settings.seed)
    return write(
        result.network,
        {
            "format": FORMAT,
            "created_with": f"checkmeter {importlib.metadata.version('checkmeter')}",
            "model": result.settings.model,
            "features": list(table.names),
            "scaling": {"mean": result.network.mean.tolist(), "scale": result.scale.tolist()},
            "threshold": result.threshold,
            "calibration": {
                "method": "platt",
                "slope": result.platt.slope,
                "intercept": result.platt.intercept,
            },
            "training": {
                "sha256": table.sha256,
                "rows": len(result.trained),
                "thefts": int(table.target[result.trained].sum()),
                "held_rows": len(result.held),
                "held_thefts": int(table.target[result.held].sum()),
                "group": table.group_name,
                "split": result.settings.split,
                "seed": result.settings.seed,
                "penalty": result.penalty,
            },
            "metrics": {name: round(value, 6) for name, value in result.metrics.items()},
            "golden": {
                "inputs": [[float(f"{v:.9g}") for v in row] for row in inputs.tolist()],
                "outputs": result.network.predict(inputs.astype(np.float64)).tolist(),
            },
        },
    )


def _golden_inputs(x: F64, y: Rows, seed: int) -> NDArray[np.float32]:
    """Inputs that span the output: along the line from the innocent to the guilty mean, and around it.

    They are made up within the range of the training rows: nobody's own row leaves the workstation in a model file.
    """
    rng = np.random.default_rng(seed)
    low, high = x.min(axis=0), x.max(axis=0)
    innocent, guilty = x[y == 0].mean(axis=0), x[y == 1].mean(axis=0)
    along = innocent + np.linspace(-0.5, 2.0, GOLDEN_COUNT // 2)[:, None] * (guilty - innocent)
    around = rng.uniform(low, high, (GOLDEN_COUNT // 2, x.shape[1]))
    return np.clip(np.vstack([along, around]), low, high).astype(np.float32)
