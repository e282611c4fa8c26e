"""Endurance in accelerated time: no growth of memory, files or threads. `make soak` runs a year, the suite two days."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

DAYS = int(os.environ.get("CHECKMETER_SOAK_DAYS", "2"))
DAY_CYCLES = 96


def usage(store: Path) -> dict[str, float]:
    gc.collect()
    return {
        "rss_mb": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "store_mb": sum(f.stat().st_size for f in store.parent.glob(store.name + "*")) / 1e6,
    }


@pytest.mark.timeout(7200)
def test_nothing_grows(make_rig) -> None:
    rig = make_rig(
        '[detection]\nguard_days = 1\n[[simulation.fault]]\nkind = "silence"\nmeter = "flat-2"\nprobability = 0.01\n',
        history_days=20,
        poll_s=900,
    )
    rig.catch_up()
    store = Path(rig.config.store.path)
    seen = []
    for day in range(DAYS):
        rig.cycles(DAY_CYCLES)
        # The utility takes everything: what waits must not be what grows.
        rig.store.delete([o.id for o in rig.store.pending(10_000, list(range(5)))])
        if day % max(1, DAYS // 12) == 0 or day == DAYS - 1:
            seen.append(usage(store))
            print(f"day {day + 1:4d}", {name: round(value, 1) for name, value in seen[-1].items()}, flush=True)
    settled, last = seen[len(seen) // 3], seen[-1]
    assert last["files"] <= settled["files"]
    assert last["threads"] == settled["threads"]
    assert last["rss_mb"] - settled["rss_mb"] < 8  # the simulated meters' own registers are 2 MB of a year
    assert last["store_mb"] < 60
    assert rig.thread.cycles >= DAYS * DAY_CYCLES - 2
    assert rig.inbox.empty()
    assert len(rig.thread._carried) == 0
