"""Rules for every test: no thread survives it, and a missing tool skips only where a skip is allowed."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest

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
