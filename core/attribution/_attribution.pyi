import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

def log_evidence(
    residual: Floats,
    variance: Floats,
    slow: Floats,
    mean: Floats,
    scale: Floats,
    design: Floats,
    theta: Floats,
    theta_var: Floats,
    design_var: Floats,
    rho: float,
    slow_var: float,
    slow_phi: float,
    nu: float,
    drift: float,
    evidence: Floats,
    theta_mean: Floats,
    theta_after: Floats,
) -> None: ...
def log_quiet(
    residual: Floats,
    variance: Floats,
    slow: Floats,
    factors: Floats,
    shares: Floats,
    slow_phi: float,
    nu: float,
    evidence: Floats,
) -> None:
    """Log evidence that nothing is missing, under several sizes of the balance's noise.

    Args:
        residual: [T], Wh; NaN where unknown.
        variance: [T + 1], Wh^2; of the boundaries' errors.
        slow: [T], Wh; what the slow error is a share of.
        factors: [F]; on the variance.
        shares: [S]; standard deviation of the slow error as a share of `slow`.
        slow_phi: correlation of the slow error from row to row.
        nu: degrees of freedom of an innovation.
        evidence: [F, S], filled in place.

    Raises:
        ValueError: shapes do not agree.
    """

def log_positive(mean: Floats, sd: Floats, out: Floats) -> None:
    """Log probability that a Gaussian is positive, held above that of 1e-6; [H] each, `out` is filled in place.

    Raises:
        ValueError: shapes do not agree.
    """
