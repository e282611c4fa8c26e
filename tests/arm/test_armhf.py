"""The short form of `make test-armhf`: kernels built for 32-bit ARM and their tests run under qemu.

The root comes from the cache (tests/arm/root.sh): making one takes a quarter of an hour, and no test run should start
with that. Where there is none, or no qemu, or no root's rights, the test is skipped and says what to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
ROOTS = Path(os.environ.get("CHECKMETER_ROOTS") or CACHE / "checkmeter" / "roots")
TIMEOUT_S = 1500  # half a minute of a free machine; the limit is for a busy one


def _may_run() -> str | None:
    """Why nothing of ARM can run here, or None."""
    if shutil.which("qemu-arm-static") is None:
        return "qemu-arm-static is not on the PATH (Debian: qemu-user-static)"
    if not (ROOTS / "armhf" / "srv" / "venv" / ".made-for").exists():
        return f"no armhf root in {ROOTS}: `make test-armhf` makes one"
    if os.geteuid() != 0:
        return "a change of root needs root"
    return None


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.xdist_group("armhf")
@pytest.mark.skipif(_may_run() is not None, reason=str(_may_run()))
def test_kernels_are_built_for_32_bits_and_pass_their_tests() -> None:
    done = subprocess.run(
        [HERE / "check.sh", "armhf", "short"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert " passed" in done.stdout
