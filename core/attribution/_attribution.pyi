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
