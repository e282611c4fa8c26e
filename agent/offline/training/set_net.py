"""Trains the posterior's network: one logit a row, a softmax over each zone's rows, in NumPy.

Owns the network's gradient and its optimiser. Refuses to know what the rows mean. Loss: minus the logarithm of the
probability that the right rows get together (several may be right). AdamW (Loshchilov & Hutter 2019) with a one-cycle
rate, dropout on the inputs, few epochs: more make it surer of families that it does not know.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """One revision: rows [n, F], which of them are right [n], and the building that it is of."""

    rows: F32
    right: NDArray[np.bool_]
    building: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how gently."""

    hidden: tuple[int, int] = (32, 16)
    epochs: int = 10
    revisions: int = 4  # of each building in each epoch
    buildings: int = 48  # in a batch
    rate: float = 4e-3
    decay: float = 3e-3
    dropout: float = 0.25
    seeds: int = 2


@dataclass(frozen=True, slots=True)
class Net:
    """mean, scale [F]; layers of (weights [out, in], bias [out]); a logit is the last one's."""

    mean: F64
    scale: F64
    layers: tuple[tuple[F64, F64], ...]

    def logit(self, rows: F32 | F64) -> F64:
        """One logit [n] of rows [n, F]."""
        x = (rows - self.mean) / self.scale
        for weights, bias in self.layers[:-1]:
            x = np.maximum(x @ weights.T + bias, 0.0)
        weights, bias = self.layers[-1]
        return np.asarray((x @ weights.T + bias)[:, 0], np.float64)


def scaling(cases: Sequence[Case]) -> tuple[F64, F64]:
    """Mean and scale of all rows, each building counting the same."""
    table = np.concatenate([c.rows for c in cases]).astype(np.float64)
    sd = table.std(0)
    return table.mean(0), np.where(sd > 1e-6, sd, 1.0)


def fit(cases: Sequence[Case], recipe: Recipe, seed: int) -> Net:
    """The mean of `recipe.seeds` networks, as one wider network."""
    mean, scale = scaling(cases)
    return _mean([_fit_one(cases, recipe, (seed, k), mean, scale) for k in range(recipe.seeds)])


def _mean(nets: Sequence[Net]) -> Net:
    """One network whose logit is the mean of those of `nets`."""
    if len(nets) == 1:
        return nets[0]
    first = np.concatenate([n.layers[0][0] for n in nets]), np.concatenate([n.layers[0][1] for n in nets])
    sizes = [n.layers[1][0].shape for n in nets]
    second = np.zeros((sum(o for o, _ in sizes), sum(i for _, i in sizes)))
    row = column = 0
    for net, (o, i) in zip(nets, sizes, strict=True):
        second[row : row + o, column : column + i] = net.layers[1][0]
        row, column = row + o, column + i
    last = np.concatenate([n.layers[2][0] for n in nets], axis=1) / len(nets)
    bias = np.mean([n.layers[2][1] for n in nets], axis=0)
    return Net(
        nets[0].mean, nets[0].scale, (first, (second, np.concatenate([n.layers[1][1] for n in nets])), (last, bias))
    )


def _fit_one(cases: Sequence[Case], recipe: Recipe, seed: tuple[int, int], mean: F64, scale: F64) -> Net:
    rng = np.random.default_rng(seed)
    by_building: dict[int, list[int]] = {}
    for k, case in enumerate(cases):
        by_building.setdefault(case.building, []).append(k)
    tables = [((c.rows - mean) / scale).astype(np.float32) for c in cases]
    sizes = [tables[0].shape[1], *recipe.hidden, 1]
    params: list[F32] = []
    for a, b in itertools.pairwise(sizes):
        params += [rng.normal(0, np.sqrt(2 / a), (b, a)).astype(np.float32), np.zeros(b, np.float32)]
    params[4] *= 0.3
    first = [np.zeros_like(p) for p in params]
    second = [np.zeros_like(p) for p in params]
    names = list(by_building)
    batches = -(-len(names) // recipe.buildings)
    total = batches * recipe.epochs
    step = 0
    for _ in range(recipe.epochs):
        rng.shuffle(names)
        for at in range(0, len(names), recipe.buildings):
            chosen: list[int] = []
            for name in names[at : at + recipe.buildings]:
                have = by_building[name]
                chosen += rng.choice(have, min(recipe.revisions, len(have)), replace=False).tolist()
            x = np.concatenate([tables[k] for k in chosen])
            right = np.concatenate([cases[k].right for k in chosen])
            zone = np.repeat(np.arange(len(chosen)), [len(tables[k]) for k in chosen])
            keep = rng.random((len(chosen), x.shape[1]), np.float32)[zone] >= recipe.dropout
            gradient = _gradient(params, x * (keep / np.float32(1 - recipe.dropout)), right, zone, len(chosen))
            step += 1
            part = step / total
            rate = recipe.rate * (part / 0.3 if part < 0.3 else 0.5 * (1 + np.cos(np.pi * (part - 0.3) / 0.7)))
            for k, g in enumerate(gradient):
                first[k] = 0.9 * first[k] + 0.1 * g
                second[k] = 0.99 * second[k] + 0.01 * g * g
                move = first[k] / (1 - 0.9**step) / (np.sqrt(second[k] / (1 - 0.99**step)) + 1e-8)
                params[k] = (params[k] - rate * (move + recipe.decay * params[k] * (k % 2 == 0) * 10)).astype(
                    np.float32
                )
    layers = tuple((params[k].astype(np.float64), params[k + 1].astype(np.float64)) for k in range(0, len(params), 2))
    return Net(mean, scale, layers)


def _gradient(params: Sequence[F32], x: F32, right: NDArray[np.bool_], zone: NDArray[np.intp], zones: int) -> list[F32]:
    w1, b1, w2, b2, w3, b3 = params
    h1 = np.maximum(x @ w1.T + b1, 0)
    h2 = np.maximum(h1 @ w2.T + b2, 0)
    p = softmax((h2 @ w3.T + b3)[:, 0], zone, zones)
    mass = np.bincount(zone, p * right, zones)
    target = np.where(right, p / np.maximum(mass[zone], 1e-12), 0.0)
    g3 = ((p - target) / zones).astype(np.float32)[:, None]
    g2 = (g3 @ w3) * (h2 > 0)
    g1 = (g2 @ w2) * (h1 > 0)
    return [g1.T @ x, g1.sum(0), g2.T @ h1, g2.sum(0), g3.T @ h2, g3.sum(0)]


def softmax(logit: F64 | F32, zone: NDArray[np.intp], zones: int) -> F64:
    """Probabilities [n] that sum to 1 within each zone."""
    most = np.full(zones, -np.inf)
    np.maximum.at(most, zone, logit)
    weight = np.exp(logit - most[zone])
    return np.asarray(weight / np.bincount(zone, weight, zones)[zone])


def log_loss(logits: Sequence[F64], cases: Sequence[Case], temperature: float) -> float:
    """Mean of minus the log probability of what is right, each building counting the same."""
    total: dict[int, float] = {}
    seen: dict[int, int] = {}
    for logit, case in zip(logits, cases, strict=True):
        x = logit / temperature
        x = x - x.max()
        value = float(np.log(np.exp(x).sum()) - np.log(max(float(np.exp(x[case.right]).sum()), 1e-30)))
        total[case.building] = total.get(case.building, 0.0) + value
        seen[case.building] = seen.get(case.building, 0) + 1
    return float(np.mean([total[b] / seen[b] for b in total]))


def temperature(logits: Sequence[F64], cases: Sequence[Case]) -> float:
    """The temperature at which the log loss of `logits` is least."""
    grid = np.exp(np.linspace(np.log(0.7), np.log(4.0), 36))
    return float(grid[int(np.argmin([log_loss(logits, cases, t) for t in grid]))])
