"""What the ingest counts, as a Prometheus text file that is replaced whole, and what "healthy" means of it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_HELP = {
    "messages": ("counter", "messages received from the broker"),
    "balances": ("counter", "balances that were new"),
    "repeated": ("counter", "balances that were in the store already"),
    "letters_dead": ("counter", "messages put aside as dead letters, by kind of reason"),
    "batches": ("counter", "transactions committed"),
    "commit_seconds": ("counter", "time spent in transactions"),
    "store_waits": ("counter", "times that a transaction had to wait for the store and be tried again"),
    "connections": ("counter", "connections made to the broker"),
    "unacknowledged": ("gauge", "messages received and not yet committed"),
    "newest_interval_seconds": ("gauge", "end of the balance written last, UTC seconds"),
    "progress_seconds": ("gauge", "last time that the loop went round with broker and store in order, UTC seconds"),
}


@dataclass(slots=True)
class Metrics:
    """The counts since the start of one replica."""

    replica: str
    messages: int = 0
    balances: int = 0
    repeated: int = 0
    letters_dead: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    commit_seconds: float = 0.0
    store_waits: int = 0
    connections: int = 0
    unacknowledged: int = 0
    newest_interval_seconds: int = 0
    progress_seconds: float = 0.0

    def text(self) -> str:
        """The Prometheus text format."""
        lines = []
        for name, (kind, meaning) in _HELP.items():
            full = f"checkmeter_ingest_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} {kind}"]
            value = getattr(self, name)
            if isinstance(value, Counter):
                lines += [
                    f'{full}{{replica="{self.replica}",reason="{reason}"}} {value[reason]}' for reason in sorted(value)
                ]
            else:
                lines.append(f'{full}{{replica="{self.replica}"}} {value:.15g}')
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that no reader sees half of it."""
        new = path.with_suffix(path.suffix + ".new")
        new.write_text(self.text())
        os.replace(new, path)


def progress_seconds(text: str) -> float | None:
    """The last sign of progress in a metrics file; None if it holds none."""
    for line in text.splitlines():
        if line.startswith("checkmeter_ingest_progress_seconds{"):
            return float(line.rsplit(" ", 1)[1])
    return None
