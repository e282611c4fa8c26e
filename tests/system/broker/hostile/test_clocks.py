"""Clocks that lie to the real agent: no interval is lost in silence, no boundary runs ahead, SIGTERM is obeyed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.timeout(300)]
DAY_S = 86400
INTERVAL_S = 60
LIMIT_MB = 120.0


class Skewed:
    """A house whose agent has a wall clock of its own: `set` moves it, in seconds beside the true time."""

    def __init__(self, house: Any, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs a C compiler for the shim under the agent's clock")
        self.house = house
        self.file = folder / "skew"
        library = folder / "skewed_clock.so"
        source = Path(__file__).parent / "skewed_clock.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "SKEW_FILE": str(self.file)}
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set the agent's wall clock; `seconds` ahead of the true time."""
        beside = self.file.with_suffix(".new")
        beside.write_text(str(seconds))
        beside.replace(self.file)

    def start(self) -> None:
        self.house.start(**self.environment)

    def newest_s(self) -> float:
        """The end of the newest committed interval."""
        with sqlite3.connect(f"file:{self.house.store}?mode=ro", uri=True) as db:
            (newest,) = db.execute("SELECT max(time_s) FROM history").fetchone()
        return float(newest or 0.0)

    def goes_on(self, timeout_s: float = 2.5 * INTERVAL_S) -> None:
        """An interval that ends after now is committed, and none that lies ahead of the true time."""
        begun_s = time.time()
        self.house.until(lambda: self.newest_s() >= begun_s - INTERVAL_S / 2, timeout_s, "an interval of now is judged")
        assert self.newest_s() <= time.time() + INTERVAL_S

    def watch(self, seconds: float) -> float:
        """Let time pass; the largest memory meanwhile."""
        largest_mb, deadline_s = 0.0, time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            assert self.house.alive(), self.house.log()[-2000:]
            largest_mb = max(largest_mb, self.house.memory_mb())
            time.sleep(0.25)
        return largest_mb


@pytest.fixture
def skewed(house: Any, tmp_path: Path) -> Skewed:
    house.build(interval_s=INTERVAL_S)
    return Skewed(house, tmp_path)


@pytest.mark.parametrize("ahead_s", [3 * DAY_S, 400 * DAY_S, 36_500 * DAY_S, -1 * DAY_S])
def test_a_clock_that_is_wrong_for_twenty_seconds(skewed: Skewed, ahead_s: int) -> None:
    house = skewed.house
    skewed.start()
    house.until(lambda: house.state() == "online" and house.read(), 60.0, "online")
    skewed.set(ahead_s)
    house.until(lambda: house.state() == "degraded", 10.0, "degraded while the clock is wrong")
    snapshot = house.snapshot()
    assert "clock" in (snapshot.status.reason or "")
    assert snapshot.health.clock
    largest_mb = skewed.watch(20.0)
    assert skewed.newest_s() <= time.time() + INTERVAL_S
    skewed.set(0)
    house.until(lambda: house.state() == "online", 10.0, "online at once")
    skewed.goes_on()
    house.stop()
    print(f"{ahead_s / DAY_S:+.0f} d: {largest_mb:.0f} MB")
    assert largest_mb <= LIMIT_MB


def test_a_gateway_without_a_clock_takes_the_time_of_its_meters_until_it_is_set(skewed: Skewed) -> None:
    house = skewed.house
    skewed.set(-int(time.time()) + 2 * 365 * DAY_S)  # 1972
    skewed.start()
    house.until(house.read, 60.0, "read")
    house.until(lambda: house.state() == "degraded", 10.0, "degraded")
    skewed.goes_on()  # judged in the meters' time
    skewed.set(0)
    house.until(lambda: house.state() == "online", 10.0, "online once it is set")
    largest_mb = skewed.watch(5.0)
    skewed.goes_on()
    house.stop()
    assert largest_mb <= LIMIT_MB
    assert skewed.newest_s() <= time.time() + INTERVAL_S


def test_a_clock_that_is_wrong_at_a_restart(skewed: Skewed) -> None:
    """Started without a battery after a first run: time goes on from the store's last interval, then the meters'."""
    house = skewed.house
    skewed.start()
    house.until(house.read, 60.0, "read")
    skewed.goes_on()
    house.kill()
    skewed.set(-int(time.time()) + 100)
    skewed.start()
    house.until(house.read, 60.0, "read")
    skewed.goes_on()
    house.stop()
    assert skewed.newest_s() <= time.time() + INTERVAL_S


def test_boundaries_that_an_earlier_clock_put_ahead_are_put_aside(skewed: Skewed) -> None:
    """A first start three days ahead; the clock is set right; no interval stays ahead, and judging goes on."""
    house = skewed.house
    skewed.set(3 * DAY_S)
    skewed.start()
    house.until(house.read, 60.0, "read")
    house.until(lambda: skewed.newest_s() > time.time() + 2 * DAY_S, 200.0, "an interval ahead of the true time")
    skewed.set(0)
    house.until(lambda: skewed.newest_s() <= time.time() + INTERVAL_S, 30.0, "put aside")
    skewed.goes_on()
    house.until(lambda: house.state() == "online", 10.0, "online")
    house.stop()
