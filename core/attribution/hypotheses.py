"""A list of explanations of one residual, in the one form that the kernel weighs.

An explanation says of every row t: residual_t = mean_t + scale_t * x_t + design_t * theta, with x the unit deviation
of a hidden household load and theta the one positive unknown that the rows settle.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log

import numpy as np

from core.arrays import Floats
from core.attribution._attribution import log_positive
from core.attribution.residual_noise import BalanceNoise, evidence

NOBODY = -1
WILDNESS = (0.25, 0.5, 0.75, 1.1, 1.6)  # how far a hidden load's spread is from what its history says
# The rows' evidence counts for so much of itself, after months and at once: loads are not Gaussian, rows are not
# independent, and what the explanations get wrong they get wrong every day. Estimated, see docs/attribution.md.
TEMPER, TEMPER_AT_ONCE, TEMPER_DAYS = 0.3, 0.6, 7.0


@dataclass(slots=True)
class Explanations:
    """A growing list over T rows; `flat` is NOBODY for a loss ahead of all meters."""

    rows: int
    flat: list[int] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    log_prior: list[float] = field(default_factory=list)
    mean: list[Floats] = field(default_factory=list)
    scale: list[Floats] = field(default_factory=list)
    design: list[Floats] = field(default_factory=list)
    theta: list[float] = field(default_factory=list)
    theta_sd: list[float] = field(default_factory=list)
    design_variance: list[float] = field(default_factory=list)
    zero: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.zero = np.zeros(self.rows)

    def add(
        self,
        flat: int,
        name: str,
        log_prior: float,
        *,
        theta: float,
        theta_sd: float,
        design: Floats | None = None,
        mean: Floats | None = None,
        scale: Floats | None = None,
        design_variance: float = 0.0,
    ) -> None:
        """One more; what is left out is zero. `design_variance`: of the design's cumulative energy at a boundary."""
        zero = self.zero
        self.flat.append(flat)
        self.name.append(name)
        self.log_prior.append(log_prior)
        self.mean.append(zero if mean is None else mean)
        self.scale.append(zero if scale is None else scale)
        self.design.append(zero if design is None else design)
        self.theta.append(theta)
        self.theta_sd.append(theta_sd)
        self.design_variance.append(design_variance)

    def hidden(
        self,
        flat: int,
        name: str,
        log_prior: float,
        *,
        load: Floats,
        spread: Floats,
        theta_sd: float,
        mean: Floats | None = None,
    ) -> None:
        """A household's load behind the residual, calmer or wilder than `spread` says; theta is its level."""
        for wildness in WILDNESS:
            share = log_prior - log(len(WILDNESS))
            self.add(flat, name, share, mean=mean, design=load, scale=wildness * spread, theta=1.0, theta_sd=theta_sd)

    def part(self, k: int, theta: float) -> Floats:
        """What explanation `k` expects of the rows [T], but for the deviation of a hidden load."""
        return np.asarray(self.mean[k] + self.design[k] * theta)

    def take(self, other: Explanations, k: int, log_prior: float = 0.0) -> None:
        """Explanation `k` of another list, with `log_prior` added to its own."""
        self.add(
            other.flat[k], other.name[k], other.log_prior[k] + log_prior, mean=other.mean[k], scale=other.scale[k],
            design=other.design[k], theta=other.theta[k], theta_sd=other.theta_sd[k],
            design_variance=other.design_variance[k],
        )  # fmt: skip

    def only(self, k: int) -> Explanations:
        """A list of explanation `k` alone."""
        out = Explanations(self.rows)
        out.take(self, k)
        return out

    def beside(self, scale: Floats) -> Explanations:
        """The same, each with one more hidden load of `scale` [T]."""
        return replace(self, scale=[np.hypot(own, scale) for own in self.scale])


def weigh(
    what: Explanations, residual_wh: Floats, noise: BalanceNoise, slots: int, days: float
) -> tuple[Floats, Floats]:
    """Log posterior weight [H] of each explanation (not normalised), and theta's mean [H].

    `days` after the onset set how far the evidence is tempered: the same for all that is compared.
    """
    if not what.flat:
        return np.zeros(0), np.zeros(0)
    fit, mean, sd = evidence(
        residual_wh,
        noise,
        slots,
        what.mean,
        what.scale,
        what.design,
        what.theta,
        what.theta_sd,
        what.design_variance,
    )
    # The filter lets theta be negative, nature does not: its positive share, after over before.
    before, after = np.empty(len(mean)), np.empty(len(mean))
    log_positive(np.array(what.theta, dtype=float), np.array(what.theta_sd, dtype=float), before)
    log_positive(mean, sd, after)
    return temper(days) * fit + np.array(what.log_prior) + after - before, mean


def temper(days: float) -> float:
    """What the rows' evidence counts after so many days."""
    return TEMPER + (TEMPER_AT_ONCE - TEMPER) / (1 + days / TEMPER_DAYS)
