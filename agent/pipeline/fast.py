"""Short rows beside those that are judged: aligned, and given to the watch for large losses in their time.

It owns the second alignment and the watches of all zones; the rows live in memory for hours and are in no checkpoint,
as what they tell is told and committed at once. It refuses to know alerts and the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from core.arrays import Bools, Floats
from core.balance.rows import ZoneRows
from core.fast.large_loss import LargeLoss
from core.fast.zone_watch import ZoneWatch
from core.monitor.zone_monitor import ZoneMonitor
from core.registers.align import AlignedRows, Aligner
from core.registers.samples import RegisterSample, RegisterSpec

POLLS = 1.5  # a row is so many polls long at least
LEAST_S = 60.0  # shorter rows alarm honest buildings: a coarse main register stands for rows, and errs alike in them
SLACK_S = 300.0  # what is no load over so long is taken for a jump of a register, however short a row
SEGMENT_S = 3 * 3600.0  # rows looked at in one go: between two marks of the monitor nothing that it knows changes


def short_rows_s(interval_s: float, row_s: float, poll_s: float = 0.0) -> float | None:
    """How long the short rows are where `interval_s` is asked for and rows of `row_s` are judged; None: none are.

    `poll_s`: how often the meters are read. A boundary needs a reading on either side.
    """
    least_s = max(LEAST_S, POLLS * poll_s)
    if interval_s >= row_s:
        return None
    parts = round(row_s / interval_s)
    step = next(n for n in range(1, parts + 1) if parts % n == 0 and n * interval_s >= min(least_s, row_s))
    return None if step == parts else step * interval_s


class FastRows:
    """The short rows of all zones; `zones`: each one's columns among the meters, the main meter's first."""

    def __init__(self, specs: Sequence[RegisterSpec], row_s: float, zones: Sequence[Sequence[int]]) -> None:
        self.row_s = row_s
        # In a minute, what a read brings too much of the next one is soon more than any load of that minute.
        slack = max(1.0, SLACK_S / row_s)
        self._specs = [replace(spec, limit_w=spec.limit_w * slack) for spec in specs]
        self._steps_wh = [[specs[column].resolution_wh for column in zone] for zone in zones]
        self.reset()

    def reset(self) -> None:
        """Forget everything that was fed."""
        self._aligner = Aligner(self._specs, self.row_s, short=True)
        self._watches = [ZoneWatch(self.row_s, steps_wh) for steps_wh in self._steps_wh]
        self._waiting: AlignedRows | None = None

    def feed(self, samples: Iterable[RegisterSample]) -> None:
        """Take register samples of any meters, in any order."""
        self._aligner.feed(samples)

    def feed_block(self, times_s: Floats, wh: Floats) -> None:
        """Take whole rows, where they are as short as these; what meters have stored is not."""
        if len(times_s) > 1 and np.median(np.diff(times_s)) <= 1.5 * self.row_s:
            at_s = np.rint(times_s / self.row_s) * self.row_s
            ends = np.abs(times_s - at_s) <= 0.1 * self.row_s
            self._aligner.feed_block(at_s[ends], wh[ends])
        else:
            self.reset()

    def close(self, now_s: float) -> None:
        """Align what is complete at `now_s`; `look` works it off."""
        self._waiting = self._aligner.close(now_s)

    @property
    def next_s(self) -> float | None:
        """The end of the first row that waits to be looked at."""
        return None if self._waiting is None or not len(self._waiting) else float(self._waiting.ends_s[0])

    def look(
        self,
        until_s: float,
        monitors: Sequence[ZoneMonitor],
        zone_rows: Callable[[int, AlignedRows], tuple[ZoneRows, Bools]],
    ) -> list[tuple[int, LargeLoss]]:
        """Work off the rows up to `until_s`: the first large loss of each zone, by the zone's number.

        `zone_rows` cuts a zone's rows out of those of all meters, and tells which of its meters were missed.
        """
        if self._waiting is None:
            return []
        part, self._waiting = self._waiting.split(until_s)
        if part is None:
            return []
        found = []
        for n, (watch, monitor) in enumerate(zip(self._watches, monitors, strict=True)):
            known = monitor.scene(self.row_s / 3600.0)
            loss = watch.step(*zone_rows(n, part), known, quiet=not monitor.watches_minutes)
            if loss is not None:
                found.append((n, loss))
        return sorted(found, key=lambda item: item[1].at_s)
