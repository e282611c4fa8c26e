"""Tables, networks and model files for the tests of the compact model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.offline.tflite_writer import write
from core.model_file import FORMAT, SEAL_KEY, Network, digest

CLASSICAL_HEADER = "power_usage_decline_level,line_loss_rate,warning_num,is_theft"


@pytest.fixture(scope="session")
def classical_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the classical form: 291 customers, 40 thieves, three integer features that overlap."""
    rng = np.random.default_rng(7)
    theft = rng.permutation(np.repeat([1, 0], [40, 251]))
    decline = np.clip(rng.poisson(np.where(theft, 5.2, 2.3)), 0, 10)
    loss = (rng.random(291) < np.where(theft, 0.85, 0.46)).astype(int)
    warnings = np.clip(rng.poisson(np.where(theft, 2.1, 1.0)), 0, 4)
    path = tmp_path_factory.mktemp("tables") / "classical.csv"
    rows = np.column_stack([decline, loss, warnings, theft])
    path.write_text(CLASSICAL_HEADER + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


@pytest.fixture(scope="session")
def network() -> Network:
    """Five features, seven hidden units."""
    rng = np.random.default_rng(3)
    mean = rng.normal(size=5).astype(np.float32).astype(float)
    return Network(mean, ((rng.normal(size=(7, 5)), rng.normal(size=7)), (rng.normal(size=(1, 7)), rng.normal(size=1))))


@pytest.fixture(scope="session")
def metadata(network: Network) -> dict[str, Any]:
    """Metadata that goes with `network`."""
    inputs = np.random.default_rng(4).normal(size=(16, 5)).astype(np.float32)
    return {
        "format": FORMAT,
        "features": [f"feature_{i}" for i in range(5)],
        "threshold": 0.5,
        "scaling": {"mean": network.mean.tolist()},
        "golden": {"inputs": inputs.tolist(), "outputs": network.predict(inputs.astype(float)).tolist()},
    }


@pytest.fixture(scope="session")
def content(network: Network, metadata: dict[str, Any]) -> bytes:
    """A whole, valid model file."""
    return write(network, metadata)


@pytest.fixture(scope="session")
def reseal() -> Callable[[bytes], bytes]:
    """Seal changed bytes again, as an attacker would: what is left is what the structure check sees."""

    def again(changed: bytes) -> bytes:
        at = changed.index(SEAL_KEY) + len(SEAL_KEY)
        return changed[:at] + digest(changed, at) + changed[at + 64 :]

    return again
