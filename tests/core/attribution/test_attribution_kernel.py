"""The attribution kernel against what a page of linear algebra says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.attribution._attribution import log_evidence, log_positive, log_quiet

RHO, SLOW_VAR, PHI, GAUSSIAN = 0.6, 3.0, 0.98, 1e9


def run(y, v, slow, mean, scale, design, theta, theta_var, design_var=0.0, nu=GAUSSIAN, drift=0.0):
    """One explanation's evidence, theta and its variance."""
    out = np.empty(1), np.empty(1), np.empty(1)
    log_evidence(
        y, v, slow, mean[None], scale[None], design[None], np.array([theta]), np.array([theta_var]),
        np.array([design_var]), RHO, SLOW_VAR, PHI, nu, drift, *out,
    )  # fmt: skip
    return tuple(float(o[0]) for o in out)


@pytest.fixture
def problem():
    """Arguments with every term at work."""
    rng = np.random.default_rng(3)
    rows = 40
    return {
        "y": rng.normal(10, 30, rows),
        "v": rng.uniform(50, 300, rows + 1),
        "slow": rng.uniform(1, 3, rows),
        "mean": rng.normal(0, 5, rows),
        "scale": rng.uniform(0, 20, rows),
        "design": rng.uniform(0, 10, rows),
        "theta": 1.5,
        "theta_var": 0.7,
    }


def dense(p, design_var=0.0):
    """The covariance of y without theta, and y - mean."""
    rows = len(p["y"])
    lag = np.abs(np.subtract.outer(np.arange(rows), np.arange(rows)))
    v = p["v"] + design_var * p["theta"] ** 2
    steps = np.eye(rows, rows + 1, 1) - np.eye(rows, rows + 1)
    cov = steps @ np.diag(v) @ steps.T
    cov += np.outer(p["scale"], p["scale"]) * RHO**lag + SLOW_VAR * np.outer(p["slow"], p["slow"]) * PHI**lag
    return cov, p["y"] - p["mean"]


def log_gaussian(x, cov):
    sign, logdet = np.linalg.slogdet(2 * np.pi * cov)
    assert sign == 1
    return -0.5 * (logdet + x @ np.linalg.solve(cov, x))


def test_evidence_and_theta_are_those_of_the_dense_gaussian(problem) -> None:
    cov, x = dense(problem)
    d = problem["design"]
    whole = cov + problem["theta_var"] * np.outer(d, d)
    precision = 1 / problem["theta_var"] + d @ np.linalg.solve(cov, d)
    theta = (problem["theta"] / problem["theta_var"] + d @ np.linalg.solve(cov, x)) / precision
    fit, mean, variance = run(**problem)
    # Student's constant is taken at 1e9 degrees, where a difference of two large log-gammas costs some digits.
    assert fit == pytest.approx(log_gaussian(x - problem["theta"] * d, whole), abs=1e-3)
    assert mean == pytest.approx(theta, rel=1e-6)
    assert variance == pytest.approx(1 / precision, rel=1e-6)


def test_unknown_rows_cut_the_chain_of_boundary_errors(problem) -> None:
    problem["y"][[0, 7, 8, 39]] = np.nan
    known = ~np.isnan(problem["y"])
    cov, x = dense(problem)
    d = problem["design"]
    whole = (cov + problem["theta_var"] * np.outer(d, d))[np.ix_(known, known)]
    fit, _, _ = run(**problem)
    assert fit == pytest.approx(log_gaussian((x - problem["theta"] * d)[known], whole), abs=1e-3)


def test_the_design_s_own_error_widens_the_boundaries(problem) -> None:
    problem["theta_var"] = 1e-12
    cov, x = dense(problem, design_var=40.0)
    fit, _, _ = run(**problem, design_var=40.0)
    assert fit == pytest.approx(log_gaussian(x - problem["theta"] * problem["design"], cov), abs=1e-3)


def test_one_wild_row_does_not_carry_theta_away(problem) -> None:
    calm = run(**problem, nu=5.0)
    problem["y"][20] += 1e4
    robust, gaussian = run(**problem, nu=5.0), run(**problem)
    sd = calm[2] ** 0.5
    assert abs(robust[1] - calm[1]) < 2 * sd < abs(gaussian[1] - calm[1])


def test_drift_keeps_theta_open(problem) -> None:
    assert run(**problem, drift=0.01)[2] > run(**problem)[2]


def test_shapes_must_agree(problem) -> None:
    problem["v"] = problem["v"][:-1]
    with pytest.raises(ValueError, match="40 rows"):
        run(**problem)


def test_nothing_missing_weighs_the_same_in_the_small_filter_as_in_the_large_one():
    rng = np.random.default_rng(12)
    rows = 60
    residual, variance, slow = rng.normal(0, 30, rows), rng.uniform(50, 400, rows + 1), rng.uniform(4e3, 9e3, rows)
    residual[[7, 8]] = np.nan
    factors, shares, table = np.array([0.5, 2.0]), np.array([0.0006, 0.004]), np.empty((2, 2))
    log_quiet(residual, variance, slow, factors, shares, 0.98, 6.0, table)
    nothing, one, zero = np.zeros((1, rows)), np.full(1, 1e-12), np.zeros(1)
    for i, factor in enumerate(factors):
        for j, share in enumerate(shares):
            out = [np.empty(1) for _ in range(3)]
            log_evidence(
                residual, factor * variance, slow, nothing, nothing, nothing, zero, one, zero, 0.6, share**2, 0.98,
                6.0, 0.0, *out,
            )  # fmt: skip
            assert table[i, j] == pytest.approx(out[0][0], rel=1e-9)


def test_a_positive_share_is_the_gaussian_s_and_never_nothing():
    mean, sd, out = np.array([0.0, 3.0, -2.0, -50.0]), np.array([1.0, 2.0, 1.0, 1.0]), np.empty(4)
    log_positive(mean, sd, out)
    assert out == pytest.approx([math.log(0.5), math.log(0.9331928), math.log(0.0227501), math.log(1e-6)], rel=1e-5)
    with pytest.raises(ValueError, match="as many"):
        log_positive(mean, sd[:2], out)
