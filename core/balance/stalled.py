"""Rows in which registers answered and stood still although energy flowed: they were not read anew.

A data concentrator or a converter that has lost its meters goes on answering with its last values. Where all sub-meters
of a zone stand still while the main meter counts, or several that stopped together, or the main meter while the sub-
meters count, nothing is known of what was used until they move again. One sub-meter that stands still may be a theft:
that is known only when it catches up, by more than its flat can draw; then what it gained flowed in the rows before. It
owns which rows those are. It refuses to know alarms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from core.arrays import Bools, Floats, Ints
from core.balance.history import History
from core.balance.rows import ZoneRows

NOTHING_WH = 0.01  # less is what interpolating between two equal registers leaves
SUBS_LEAST = 4  # fewer may stand still of themselves
UNUSUAL = 2.0  # times the longest that a sub-meter stood still in the day before
STEPS = 2.0  # the main meter counts more than so many steps of every sub-meter's register: some had to move
MAIN_H = 1.0  # of the zone's load that the sub-meters count while the main meter stands still
CATCH_UP_H = 3.0  # a sub-meter that stood still for less is not looked at
CATCH_UP = 1.5  # times the most that it ever counted in a row is more than its flat draws
CATCH_UP_DAYS = 14  # so many days before it stood still tell what it counts
CATCH_UP_SHARE = 0.25  # of what those days used in such a time, at least
SHAPE = 0.25  # standard deviation of what had flowed by some row of the run, as a share of all that was caught up
MOST_H = 24.0  # longer, and it is told as what it looks like: whoever reads the meters has to know


def without_stalled(
    rows: ZoneRows, missed: Bools, before: ZoneRows, moves: Bools, steps_wh: float, load_w: float, row_h: float
) -> tuple[ZoneRows, Bools]:
    """`rows` [T] and what was `missed` [T, N], with stalled rows as rows of a gap.

    before: rows that precede them, two days. moves: `moved` of both. steps_wh: sum of the steps of
    the sub-meters' registers.
    """
    if rows.subs_wh.shape[1] < SUBS_LEAST:
        return rows, missed
    known = len(before)
    main = np.concatenate([before.main_wh, rows.main_wh])
    subs = np.concatenate([before.subs_wh.sum(axis=1), rows.subs_wh.sum(axis=1)])
    zero = ~moves
    main_still = np.abs(main) < NOTHING_WH
    # Of rows that were found to be stalled, see below; a row in which the main meter caught up has no gap of its own.
    main_still[:known] |= (main[:known] == subs[:known]) & (before.gap_wh2 >= subs[:known] ** 2)
    most = round(MOST_H / row_h)
    behind_subs = _open(zero.all(axis=1) & (main > 0.0), main, STEPS * steps_wh, most)
    behind_main = _open(main_still & (subs > 0.0), subs, MAIN_H * load_w, most)
    not_read = (behind_subs > 0.0)[known:, None] | np.zeros_like(missed)
    for at, start, subs_at in _stopped_together(zero, known, most):
        behind_subs[at] = max(behind_subs[at], float(main[start : at + 1].sum()))
        not_read[at - known, subs_at] = True
    open_wh = (behind_subs + behind_main)[known:]
    # What the main meter adds where it catches up flowed before: copper is lost as the sub-meters say.
    stalled = behind_main > 0.0
    spread = (stalled | np.append(False, stalled[:-1]))[known:]
    if not open_wh.any() and not spread.any():
        return rows, missed
    gap = rows.gap_wh2 + open_wh**2
    main_wh = np.where(spread, subs[known:], rows.main_wh)
    return replace(rows, main_wh=main_wh, gap_wh2=gap), missed | not_read


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Sub-meter `sub` stood still from row `start` of all time on, and had counted by row `stop` what had flowed."""

    sub: int
    start: int
    stop: int


def moved(energy: Floats, unread: Bools) -> Bools:
    """Where registers moved [T, N]; what was estimated while one was not read is nothing that it showed."""
    if unread.any():
        at = np.maximum.accumulate(np.where(unread, -1, np.arange(len(unread))[:, None]), axis=0)
        total = np.cumsum(energy, axis=0)
        read = np.where(at < 0, 0.0, np.take_along_axis(total, np.maximum(at, 0), axis=0))
        energy = np.diff(read, axis=0, prepend=0.0)
    moves: Bools = np.abs(energy) >= NOTHING_WH
    return moves


def moves_again(moves: Bools, known: int, row_h: float) -> Bools:
    """Rows behind the first `known` of `moves` in which a sub-meter moves that stood still for hours; those behind."""
    still = _still_rows(row_h)
    at = np.arange(len(moves))[:, None]
    last = np.vstack([np.full((1, moves.shape[1]), -1), np.maximum.accumulate(np.where(moves, at, -1), axis=0)])
    again = (moves & (at - 1 - last[:-1] >= still)).any(axis=1)
    behind: Bools = (again | np.append(False, again[:-1]))[known:]
    return behind


def catch_ups(history: History, stop: int, row_h: float) -> list[CatchUp]:
    """Those that end in row `stop`: in it, or in it and the row before where reads do not meet the boundaries."""
    still, day_rows = _still_rows(row_h), round(24 / row_h)
    found: list[CatchUp] = []
    for width in (1, 2):
        first = stop - width + 1
        if first - 2 * still <= history.first:
            break
        begin = first - 2 * still
        moves = moved(history.rows(begin, stop + 1).subs_wh, history.missed(begin, stop + 1))[still:]
        for sub in np.flatnonzero(moves[still:].all(axis=0) & ~moves[:still].any(axis=0)):
            kept = max(history.first, first - CATCH_UP_DAYS * day_rows)
            column = history.rows(kept, first).subs_wh[:, [sub]]
            moving = np.flatnonzero(moved(column, history.missed(kept, first)[:, [sub]]))
            if not len(moving):
                continue
            start = kept + int(moving[-1]) + 1
            gained = float(history.rows(start, stop + 1).subs_wh[:, sub].sum())
            usual = column[: start - kept, 0]
            most = float(np.convolve(usual, np.ones(width)).max())
            stood = history.rows(start, first).subs_wh[:, sub]  # and not only unread: then its profile has been booked
            if (
                (stood < NOTHING_WH).sum() >= still
                and gained > CATCH_UP * most
                and gained > CATCH_UP_SHARE * usual.mean() * (first - start)
            ):
                found.append(CatchUp(int(sub), start, stop))
    return found


def _still_rows(row_h: float) -> int:
    return math.ceil(CATCH_UP_H / row_h)


def _stopped_together(zero: Bools, known: int, most: int) -> Iterator[tuple[int, int, Ints]]:
    """(row, first still row, sub-meters) where SUBS_LEAST of them stopped in one row, for longer than they ever do.

    zero: [T, N] of the rows before, which are `known`, and of those that are asked for. It depends on the 2 `most` rows
    before each alone.
    """
    at = np.arange(len(zero))[:, None]
    start = np.maximum.accumulate(np.where(zero, -1, at), axis=0) + 1
    lasts = zero & (at - start >= 1) & (at - start < most) & (start > 0)
    alike = np.sort(np.where(lasts, start, -1 - np.arange(zero.shape[1])), axis=1)
    behind = SUBS_LEAST - 1
    for row in known + np.flatnonzero((alike[known:, behind:] == alike[known:, :-behind]).any(axis=1)):
        starts, counts = np.unique(start[row, lasts[row]], return_counts=True)
        for first in starts[counts >= SUBS_LEAST]:
            subs = np.flatnonzero(lasts[row] & (start[row] == first))
            window = zero[max(0, first - most) : first, subs]
            subs = subs[row + 1 - first > UNUSUAL * _longest(window)]
            if len(subs) >= SUBS_LEAST:
                yield int(row), int(first), subs


def _longest(zero: Bools) -> Ints:
    """The longest run of zeros in each column [N] of `zero` [T, N]."""
    at = np.arange(1, len(zero) + 1)[:, None]
    last = np.maximum.accumulate(np.where(zero, 0, at), axis=0)
    longest: Ints = (at - last).max(axis=0, initial=0)
    return longest


def _open(still: Bools, flowed_wh: Floats, least_wh: float, most: int) -> Floats:
    """Energy that has flowed since the run of `still` rows began, where it is a stall; else 0 [T]."""
    out = np.zeros(len(still))
    if not still.any():
        return out
    edges = np.flatnonzero(np.diff(still, prepend=False, append=False))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        flowed = np.cumsum(flowed_wh[start:stop])[:most]
        out[start : start + len(flowed)] = np.where(flowed > least_wh, flowed, 0.0)
    return out
