"""Two losses at once: what one explanation leaves to another, each fitted in turn to what the other leaves.

Owns the weight of two explanations together. Knows nothing of onsets, signs and what is made of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from core.arrays import Floats
from core.attribution.hypotheses import Explanations, weigh
from core.attribution.scene import Scene

TRIED, ROUNDS = 3, 3


@dataclass(frozen=True, slots=True)
class Weighed:
    """Explanations with the log weight [H] that the rows give them, and theta [H]."""

    what: Explanations
    weight: Floats
    theta: Floats


def beside(scene: Scene, flats: Weighed, first: int, prior: float) -> float:
    """Log weight of `first` and of the likeliest flat beside it; -inf where no other comes into question."""
    own = [k for k, flat in enumerate(flats.what.flat) if flat == first]
    if not own:
        return -np.inf
    k = max(own, key=lambda k: float(flats.weight[k]))
    one, theta = flats.what.only(k), float(flats.theta[k])
    left = scene.residual_wh - one.part(0, theta)
    nothing = Explanations(one.rows)
    nothing.add(first, one.name[0], 0.0, scale=one.scale[0], theta=0.0, theta_sd=1e-6)
    alone = float(weigh(nothing, left, scene.noise, scene.slots, scene.days)[0][0])
    others = candidates(flats, first, log(prior / scene.sub_wh.shape[1]))
    if not others.flat:
        return -np.inf
    rough, _ = weigh(others.beside(one.scale[0]), left, scene.noise, scene.slots, scene.days)
    tried = [int(j) for j in np.argsort(-rough)[:TRIED]]
    weight = np.array([both(scene, one, others.only(j), theta) for j in tried])
    second = others.flat[tried[int(np.argmax(weight))]]
    of_second = float(np.logaddexp.reduce(weight[[others.flat[j] == second for j in tried]]))
    # What the first costs by itself, its prior and the freedom of its theta, is in its own weight.
    return float(flats.weight[k]) - alone + of_second


def candidates(flats: Weighed, first: int, log_prior: float) -> Explanations:
    """Of every other flat and mechanism the variant that the rows like best, at the prior of a second loss."""
    best: dict[tuple[int, str], int] = {}
    for j in np.argsort(flats.weight):
        if flats.what.flat[j] != first:
            best[flats.what.flat[j], flats.what.name[j]] = int(j)
    out = Explanations(flats.what.rows)
    for j in best.values():
        out.take(flats.what, j, log_prior)
    return out


def both(scene: Scene, one: Explanations, two: Explanations, theta: float) -> float:
    """Log weight of the second explanation beside the first, whose theta starts from `theta`."""
    weight, wide, other = np.zeros(1), two.beside(one.scale[0]), one.beside(two.scale[0])
    for _ in range(ROUNDS):
        left = scene.residual_wh - one.part(0, theta)
        weight, second = weigh(wide, left, scene.noise, scene.slots, scene.days)
        left = scene.residual_wh - two.part(0, float(second[0]))
        _, fitted = weigh(other, left, scene.noise, scene.slots, scene.days)
        theta = float(fitted[0])
    return float(weight[0])
