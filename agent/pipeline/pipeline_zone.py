"""One zone in the pipeline: its monitor, its columns among those of all meters, and its balances.

It owns how a zone's rows are cut out of the rows of all meters, and what is said of each. It refuses to know time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.pipeline.step import Balance
from core.arrays import Z95, Floats
from core.balance import _balance
from core.balance.rows import ZoneRows
from core.monitor.zone_monitor import ZoneMonitor
from core.registers.align import AlignedRows, Flag


@dataclass(slots=True)
class PipelineZone:
    """A monitor and where its meters stand among the columns."""

    monitor: ZoneMonitor
    columns: NDArray[np.int32]
    sign: Floats

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

    def balances(self, rows: ZoneRows, read: Floats, step_s: float) -> list[Balance]:
        """The balances of rows that the monitor has just judged; their own uncertainty is that of both boundaries."""
        monitor, count = self.monitor, len(rows)
        stop = monitor.history.count
        start = max(monitor.history.first, stop - count)
        rows, read = rows[count - (stop - start) :], read[count - (stop - start) :]
        loss = monitor.history.expected(start, stop)
        edge = rows.boundary_wh2 + rows.gap_wh2
        before = edge[:1]
        if start > monitor.history.first:  # a row in which a meter answers again ends what was estimated before it
            last = monitor.history.rows(start - 1, start)
            before = last.boundary_wh2 + last.gap_wh2
        variance = edge + np.concatenate([before, edge[:-1]]) + rows.lost_wh2
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
