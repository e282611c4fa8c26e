"""What one transaction writes: letters (one message each, as rows), merged so that no key stands twice, and no moment.

Of a zone's intervals that overlap the one that came first stays, of those that come together the one that begins first,
and the shorter of two that begin at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple, cast

from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table

Day = tuple[int, int]  # a zone's key, and days since the epoch
Span = tuple[int, int]  # an interval's start and its length, seconds

# For a zone's day whose intervals have been looked at: it takes rows of any length.
LOOKED_AT_DAY = replace(BALANCE_DAY, guard="")

BalanceRow = tuple[int, int, int, int | None, int | None, int | None, int | None, int | None, int]  # as in BALANCE


class Letter(NamedTuple):
    """One message and the rows that it becomes; `packet_id` is what is acknowledged after COMMIT."""

    packet_id: int
    topic: bytes
    payload: bytes
    rows: tuple[tuple[Table, Row], ...]


def merged(letters: Iterable[Letter]) -> dict[Table, list[Row]]:
    """The letters' rows by table, sorted by key: two replicas then lock in the same order and cannot deadlock.

    Balances of one start and several lengths stay beside each other: which of them counts is for `apart` to say.
    """
    tables: dict[Table, dict[Row, Row]] = {}
    for letter in letters:
        for table, row in letter.rows:
            rows = tables.setdefault(table, {})
            key = row[: 3 if table is BALANCE else table.keys]
            if key not in rows or (table.merge == "newest" and row[-1] > rows[key][-1]):  # type: ignore[operator]  # guards: int
                rows[key] = row
    return {table: [rows[key] for key in sorted(rows)] for table, rows in tables.items()}


def day_of(balance: Row) -> Day:
    """The zone's day to which an interval belongs."""
    zone_key, start_s = cast(BalanceRow, balance)[:2]
    return zone_key, start_s // DAY_S


def day_rows(balances: Sequence[Row]) -> list[Row]:
    """What these intervals add to their days; an interval without a residual counts, but adds no energy.

    The last column is the one length on whose grid they lie, 0 if they have none in common: intervals of one grid
    cannot overlap, so nobody has to look at them.
    """
    days: dict[Day, list[int]] = {}
    for row in cast(Sequence[BalanceRow], balances):
        zone_key, start_s, seconds, main_j, sum_j, technical_j, residual_j, _, _ = row
        end_s = start_s + seconds
        step_s = 0 if start_s % DAY_S % seconds else seconds
        if main_j is None or sum_j is None or technical_j is None or residual_j is None:
            seconds = main_j = sum_j = technical_j = residual_j = 0
        key = zone_key, start_s // DAY_S
        totals = days.get(key)
        if totals is None:
            days[key] = [1, seconds, main_j, sum_j, technical_j, residual_j, end_s, step_s]
        else:
            totals[0] += 1
            totals[1] += seconds
            totals[2] += main_j
            totals[3] += sum_j
            totals[4] += technical_j
            totals[5] += residual_j
            totals[6] = max(totals[6], end_s)
            if totals[7] != step_s:
                totals[7] = 0
    return [(*key, *days[key]) for key in sorted(days)]


def apart(balances: Sequence[Row], stored: Mapping[Day, Sequence[Span]]) -> tuple[list[Row], list[Row], dict[Day, int]]:
    """Of rows in the order of their keys, those that overlap nothing, and those that do; and the days' lengths.

    `stored` holds every interval of the days that are to be looked at; rows of other days pass, and rows that are
    stored already are neither. A day's length is what `day_rows` would say of all that it holds then.
    """
    kept: list[Row] = []
    overlapping: list[Row] = []
    steps: dict[Day, int] = {}
    sorted_days: dict[Day, tuple[list[int], list[int], set[Span]]] = {}
    taken_until: dict[Day, int] = {}  # the end of the last row that was kept; the next ones begin no earlier
    for day, spans in stored.items():
        in_order = sorted(spans)
        latest_ends = list(accumulate((start_s + seconds for start_s, seconds in in_order), max))
        sorted_days[day] = [start_s for start_s, _ in in_order], latest_ends, set(in_order)
        lengths = {0 if start_s % DAY_S % seconds else seconds for start_s, seconds in in_order}
        if lengths:
            steps[day] = lengths.pop() if len(lengths) == 1 else 0
    for row in balances:
        day = day_of(row)
        if day not in sorted_days:
            kept.append(row)
            continue
        start_s, seconds = cast(BalanceRow, row)[1:3]
        starts, latest_ends, present = sorted_days[day]
        if (start_s, seconds) in present:
            continue
        before = bisect_left(starts, start_s + seconds)
        if (before and latest_ends[before - 1] > start_s) or taken_until.get(day, start_s) > start_s:
            overlapping.append(row)
            continue
        kept.append(row)
        taken_until[day] = start_s + seconds
        step_s = 0 if start_s % DAY_S % seconds else seconds
        steps[day] = step_s if steps.get(day, step_s) == step_s else 0
    return kept, overlapping, steps


assert BALANCE.names[:7] == ("zone_key", "start_s", "seconds", "main_j", "sum_j", "technical_j", "residual_j")
assert BALANCE_DAY.names[2:] == (
    "intervals",
    "known_s",
    "main_j",
    "sum_j",
    "technical_j",
    "residual_j",
    "last_end_s",
    "step_s",
)
