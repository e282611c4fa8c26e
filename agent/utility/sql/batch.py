"""What one transaction writes: letters (one message each, as rows), merged so that no key stands twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table

BalanceRow = tuple[int, int, int, int | None, int | None, int | None, int | None, int | None, int]  # as in BALANCE


class Letter(NamedTuple):
    """One message and the rows that it becomes; `packet_id` is what is acknowledged after COMMIT."""

    packet_id: int
    topic: bytes
    payload: bytes
    rows: tuple[tuple[Table, Row], ...]


def merged(letters: Iterable[Letter]) -> dict[Table, list[Row]]:
    """The letters' rows by table, sorted by key: two replicas then lock in the same order and cannot deadlock."""
    tables: dict[Table, dict[Row, Row]] = {}
    for letter in letters:
        for table, row in letter.rows:
            rows = tables.setdefault(table, {})
            key = row[: table.keys]
            if key not in rows or (table.merge == "newest" and row[-1] > rows[key][-1]):  # type: ignore[operator]  # guards: int
                rows[key] = row
    return {table: [rows[key] for key in sorted(rows)] for table, rows in tables.items()}


def day_rows(balances: Sequence[Row]) -> list[Row]:
    """What these intervals add to their days; an interval without a residual counts, but adds no energy."""
    days: dict[tuple[int, int], list[int]] = {}
    for row in cast(Sequence[BalanceRow], balances):
        zone_key, start_s, seconds, main_j, sum_j, technical_j, residual_j, _, _ = row
        end_s = start_s + seconds
        if main_j is None or sum_j is None or technical_j is None or residual_j is None:
            seconds = main_j = sum_j = technical_j = residual_j = 0
        key = zone_key, start_s // DAY_S
        totals = days.get(key)
        if totals is None:
            days[key] = [1, seconds, main_j, sum_j, technical_j, residual_j, end_s]
        else:
            totals[0] += 1
            totals[1] += seconds
            totals[2] += main_j
            totals[3] += sum_j
            totals[4] += technical_j
            totals[5] += residual_j
            totals[6] = max(totals[6], end_s)
    return [(*key, *days[key]) for key in sorted(days)]


assert BALANCE.names[:7] == ("zone_key", "start_s", "seconds", "main_j", "sum_j", "technical_j", "residual_j")
assert BALANCE_DAY.names[2:] == ("intervals", "known_s", "main_j", "sum_j", "technical_j", "residual_j", "last_end_s")
