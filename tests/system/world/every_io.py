"""Every write and sync of a store's life fails once, or from then on; after each, a power cut. Run over the shim.

    python every_io.py FOLDER [STRIDE]

Prints one line of figures, or the first violation and exits 1.
"""

from __future__ import annotations

import errno
import logging
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from disk import Disk

from agent.store.commit import Answered, Commit
from agent.store.messages import Message, Priority
from agent.store.store import Store
from core.registers.booked import HistoryRow

T0 = 1_767_225_600.0
ALL = tuple(Priority)
ALERT = (Priority.ALERT,)


def message(key: str, priority: Priority = Priority.ALERT) -> Message:
    suffix = "event/alert" if priority is Priority.ALERT else "balance/b"
    return Message(suffix, key.encode().ljust(900, b"."), "checkmeter.alert.v1", priority, key, T0)


def row(n: int) -> HistoryRow:
    return HistoryRow(T0 + 900 * n, np.full(30, 1.0 * n), np.zeros(30), np.zeros(30, np.uint8))


class Life:
    """What a store goes through, and what it has promised so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.promised: set[str] = set()  # committed, and neither sent nor held
        self.sent: set[str] = set()
        self.answered = False

    def run(self) -> None:
        store = Store(self.path, T0, outbox_bytes=60_000)
        meters = [f"m{n}" for n in range(30)]
        waiting: set[str] = set()
        for n in range(12):
            key = f"a{n}"
            waiting.add(key)
            answers = [Answered("c-1", T0 + 600, b"{}")] if n == 3 else []
            done = store.commit(
                Commit(
                    [message(key), message(f"b{n}", Priority.BALANCE)],
                    {"alerts": str(n).encode() * 2000},
                    meters,
                    [row(8 * n + k) for k in range(8)],
                    answers,
                ),
                T0 + n,
            )
            if done and store.volatile is None:
                self.promised |= waiting
                waiting.clear()
                self.answered |= n >= 3
            if n % 4 == 3:
                batch = store.pending(2, ALERT)
                if store.delete([o.id for o in batch]):
                    self.sent |= {o.message.key for o in batch}
                else:
                    self.sent |= {o.message.key for o in batch}  # sent all the same; it may be sent again
            if n == 6:
                store.refused(next((o.id for o in store.pending(1, ALL)), 0))
            store.tick(T0 + 10 * n)
        store.close()


def check(life: Life, path: Path, what: str) -> None:
    """Open without faults: all that was promised is there, and it works."""
    store = Store(path, T0 + 100)
    assert store.volatile is None, f"{what}: {store.volatile}"
    found = {o.message.key for o in store.pending(1000, ALERT)}
    lost = life.promised - life.sent - found
    assert not lost, f"{what}: committed and lost: {sorted(lost)}; replaced: {store.replaced}"
    invented = found - {f"a{n}" for n in range(12)}
    assert not invented, f"{what}: invented: {invented}"
    assert not life.answered or store.answer_of("c-1") == b"{}", f"{what}: the answer to a command is lost"
    assert store.commit(Commit([message("after")]), T0 + 101), f"{what}: nothing can be committed any more"
    assert "after" in {o.message.key for o in store.pending(1000, ALERT)}, what
    store.close()


def main() -> int:
    logging.disable(logging.CRITICAL)
    folder, stride = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    disk = Disk(folder / "dry")
    (folder / "dry").mkdir()
    before = disk.operations
    Life(folder / "dry" / "s.sqlite").run()
    count = disk.operations - before
    runs = 0
    for error in (errno.EIO, errno.ENOSPC):
        for at in range(0, count + 1, stride):
            for failures in (1, 1_000_000_000):
                often = "once" if failures == 1 else "from then on"
                what = f"operation {at} of {count}, {errno.errorcode[error]}, {often}"
                here, left = folder / f"run{runs}", folder / f"left{runs}"
                here.mkdir()
                disk.watch(here)
                disk.fail(at, failures, error)
                life = Life(here / "s.sqlite")
                try:
                    life.run()
                except Exception as raised:
                    print(f"{what}: {type(raised).__name__}: {raised}")
                    raise
                finally:
                    disk.heal()
                shutil.copytree(here, left)
                disk.power_cut(at, left)
                disk.watch(folder / "nothing")
                check(life, here / "s.sqlite", what)
                check(life, left / "s.sqlite", f"{what}, then a power cut")
                shutil.rmtree(here)
                shutil.rmtree(left)
                runs += 1
    print(f"{runs} runs over {count} operations of the disk, each with a power cut: nothing committed was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
