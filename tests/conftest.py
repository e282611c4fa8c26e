"""Rules for every test: no thread survives it, and a missing tool skips only where a skip is allowed. Model files for
the tests of the compact model, on the gateway and on the workstation.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.offline.training.tflite_writer import write
from core.scoring.model_file import FORMAT, SEAL_KEY, Network, digest

TOOLS = {
    "mosquitto": ("mosquitto", "/usr/sbin/mosquitto"),
    "chromium": ("chromium", "/usr/bin/chromium"),
    "mariadb": ("mariadbd", "/usr/sbin/mariadbd"),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tool is missing, or fail it where CHECKMETER_REQUIRE_ALL forbids the skip."""
    for marker, candidates in TOOLS.items():
        if item.get_closest_marker(marker) and not any(shutil.which(c) for c in candidates):
            reason = f"{marker} is not installed: on Debian, apt-get install {marker}"
            if os.environ.get("CHECKMETER_REQUIRE_ALL"):
                pytest.fail(reason)
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def no_thread_survives():
    """Fail a test that leaves a thread of its own behind."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        left = [
            t for t in threading.enumerate() if t not in before and t.is_alive() and not t.name.startswith("execnet")
        ]
        if not left:
            return
        time.sleep(0.01)
    pytest.fail(f"threads left behind: {[t.name for t in left]}")


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
