"""The Debian package, built once for all tests of this folder (one xdist group, so that it is built once)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD_TIMEOUT_S = 900  # a compiler on a busy machine
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def debian_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this source tree, or that of CHECKMETER_DEB: what is released can be what was tested."""
    made = os.environ.get("CHECKMETER_DEB")
    if made:
        return Path(made).absolute()
    out = tmp_path_factory.mktemp("deb")
    words = [sys.executable, "-m", "agent.deploy.deb", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(done.stdout.strip().splitlines()[-1])
