"""One zone in the pipeline: its monitor, its columns among those of all meters, and its balances.

It owns how a zone's rows are cut out of the rows of all meters, and what is said of each. It refuses to know time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from agent.alerts.condition import EXPORT_UNREAD, Fault, clock_words
from agent.pipeline.step import Balance
from core.arrays import Z95, Floats
from core.balance import _balance
from core.balance.rows import ZoneRows
from core.monitor.zone_monitor import ZoneMonitor
from core.registers.align import AlignedRows, Aligner, Flag
from core.registers.booked import StoredHistory

REBUILD_ROWS = 1024  # of the stored history at once: bounds what a start takes in memory


@dataclass(slots=True)
class PipelineZone:
    """A monitor and where its meters stand among the columns.

    edge_wh2: variance at the end of the last row as it was read; the monitor may know more of it since.
    """

    monitor: ZoneMonitor
    columns: NDArray[np.int32]
    sign: Floats
    edge_wh2: float | None = None

    def rows(self, aligned: AlignedRows) -> tuple[ZoneRows, NDArray[np.bool_], Floats]:
        """The zone's rows, which sub-meters were missed, and the share of meters read."""
        rows, read = ZoneRows.empty(aligned.ends_s, len(self.columns) - 1), np.empty(len(aligned))
        _balance.residual_rows(
            aligned.energy_wh, aligned.sd_wh, aligned.lost_wh2, aligned.flags, self.columns, self.sign, rows, read
        )
        flags = aligned.flags[:, self.columns[1:]]
        # A coarse register that stands is booked by estimate until a whole step is: from then on nothing flows.
        guessed = ((flags & np.uint8(Flag.STANDS)) > 0) & (rows.subs_wh != 0)
        missed = guessed | ((flags & np.uint8(Flag.MISSED)) > 0)
        return rows, missed, read

    def short_rows(self, aligned: AlignedRows) -> tuple[ZoneRows, NDArray[np.bool_]]:
        """The zone's rows, and which of its meters were missed, the main meter first."""
        rows, _, _ = self.rows(aligned)
        return rows, (aligned.flags[:, self.columns] & np.uint8(Flag.MISSED)) > 0

    def faults(self, meters: Sequence[str]) -> dict[str, Fault]:
        """Meters, of the columns' `meters`, that are found to be at fault: how bad, and in words."""
        found: dict[str, Fault] = {m: ("warning", clock_words(off_s)) for m, off_s in self.monitor.clocks().items()}
        if self.monitor.export_unread:
            found[meters[self.columns[0]]] = "info", EXPORT_UNREAD.format(self.monitor.zone.id)
        return found

    def past(
        self, aligner: Aligner, history: StoredHistory, kept: int, first: int, count: int
    ) -> tuple[ZoneRows, NDArray[np.bool_], Floats]:
        """Rows `first` .. `count` - 1 of all time from the first `kept` stored rows, some at a time.

        Raises:
            ValueError: rows are missing.
        """
        start = kept - (count - first)
        before = start - 1 if first else start  # the first row of all has nothing before it
        ends_s = history.times_s[max(0, before) : kept]
        if before < 0 or np.any(np.abs(np.diff(ends_s) - aligner.interval_s) > 1e-3):
            raise ValueError("the stored rows have a hole or are too few")
        parts = []
        for at in range(start, kept, REBUILD_ROWS):
            stop = min(at + REBUILD_ROWS, kept)
            lead = at - 1 if first or at > start else at
            ends, booked, flags = history.times_s[lead:stop], history.wh[lead:stop], history.flags[lead:stop]
            sd = history.sd_wh[lead:stop].astype(np.float64)
            if lead == at:
                ends = np.concatenate([ends[:1] - aligner.interval_s, ends])
                booked = np.concatenate([booked[:1], booked])  # it starts the count: it has no energy
                sd, flags = np.concatenate([sd[:1], sd]), np.concatenate([flags[:1], flags])
            parts.append(self.rows(aligner.rebuild(ends, booked, sd, flags)))
        rows = [part for part, _, _ in parts]
        columns = [field.name for field in fields(ZoneRows)]
        whole = ZoneRows(*(np.concatenate([getattr(part, name) for part in rows]) for name in columns))
        self.edge_wh2 = float(whole.boundary_wh2[-1] + whole.gap_wh2[-1]) if len(whole) else None
        return whole, np.concatenate([missed for _, missed, _ in parts]), np.concatenate([read for _, _, read in parts])

    def balances(self, rows: ZoneRows, read: Floats, step_s: float) -> list[Balance]:
        """The balances of rows that the monitor has just judged; their own uncertainty is that of both boundaries."""
        monitor, count = self.monitor, len(rows)
        stop = monitor.history.count
        start = max(monitor.history.first, stop - count)
        edge = rows.boundary_wh2 + rows.gap_wh2
        # A row in which a meter answers again ends what was estimated before it.
        variance = edge + np.append(edge[0] if self.edge_wh2 is None else self.edge_wh2, edge[:-1]) + rows.lost_wh2
        self.edge_wh2 = float(edge[-1])
        kept = slice(count - (stop - start), None)
        rows, read, variance = rows[kept], read[kept], variance[kept]
        loss = monitor.history.expected(start, stop)
        return [
            Balance(
                monitor.zone.id,
                float(rows.ends_s[k]) - step_s,
                float(rows.ends_s[k]),
                float(rows.main_wh[k]) / 1000,
                float(rows.main_wh[k] - rows.residual_wh[k]) / 1000,
                float(loss[k]) / 1000,
                float(rows.residual_wh[k] - loss[k]) / 1000,
                Z95 * float(variance[k]) ** 0.5 / 1000,
                float(read[k]),
            )
            for k in range(len(rows))
        ]
