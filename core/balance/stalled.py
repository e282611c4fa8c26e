"""Rows in which registers answered and stood still although energy flowed: they were not read anew.

A data concentrator or a converter that has lost its meters goes on answering with its last values. Where every
sub-meter of a zone stands still while the main meter counts, or the main meter while the sub-meters do, nothing is
known of what was used until they move again. One sub-meter that stands still may be a theft: that is known only when it
catches up, by more than its flat can draw; then what it gained flowed in the rows before. It owns which rows those are.
It refuses to know alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from core.arrays import Bools, Floats
from core.balance.history import History
from core.balance.rows import ZoneRows

SUBS_LEAST = 4  # fewer may stand still of themselves
STEPS = 2.0  # the main meter counts more than so many steps of every sub-meter's register: some had to move
MAIN_H = 1.0  # of the zone's load that the sub-meters count while the main meter stands still
CATCH_UP_H = 3.0  # a sub-meter that stood still for less is not looked at
CATCH_UP = 1.5  # times the most that it ever counted in a row is more than its flat draws
CATCH_UP_DAYS = 14  # so many days before it stood still tell what it counts
CATCH_UP_SHARE = 0.25  # of what those days used in such a time, at least
SHAPE = 0.25  # standard deviation of what had flowed by some row of the run, as a share of all that was caught up
MOST_H = 24.0  # longer, and it is told as what it looks like: whoever reads the meters has to know


def without_stalled(
    rows: ZoneRows, missed: Bools, before: ZoneRows, steps_wh: float, load_w: float, row_h: float
) -> tuple[ZoneRows, Bools]:
    """`rows` [T] and what was `missed` [T, N], with stalled rows as rows of a gap.

    before: rows that precede them, as they were read, of which the last `MOST_H` count. steps_wh: sum of the steps of
    the sub-meters' registers.
    """
    if rows.subs_wh.shape[1] < SUBS_LEAST:
        return rows, missed
    known = len(before)
    main = np.concatenate([before.main_wh, rows.main_wh])
    subs = np.concatenate([before.subs_wh.sum(axis=1), rows.subs_wh.sum(axis=1)])
    still = np.concatenate([(before.subs_wh == 0.0).all(axis=1), (rows.subs_wh == 0.0).all(axis=1)])
    main_still = main == 0.0
    # Of rows that were found to be stalled, see below; a row in which the main meter caught up has no gap of its own.
    main_still[:known] |= (main[:known] == subs[:known]) & (before.gap_wh2 >= subs[:known] ** 2)
    most = round(MOST_H / row_h)
    behind_subs = _open(still & (main > 0.0), main, STEPS * steps_wh, most)
    behind_main = _open(main_still & (subs > 0.0), subs, MAIN_H * load_w, most)
    open_wh = (behind_subs + behind_main)[known:]
    # What the main meter adds where it catches up flowed in all these rows: copper, too, is lost as the sub-meters say.
    stalled = behind_main > 0.0
    spread = (stalled | np.append(False, stalled[:-1]))[known:]
    if not open_wh.any() and not spread.any():
        return rows, missed
    gap = rows.gap_wh2 + open_wh**2
    main_wh = np.where(spread, subs[known:], rows.main_wh)
    return replace(rows, main_wh=main_wh, gap_wh2=gap), missed | (behind_subs[known:] > 0.0)[:, None]


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Sub-meter `sub` stood still in rows start .. stop - 1 of all time, and counted in row `stop` what had flowed."""

    sub: int
    start: int
    stop: int


def moves_again(before: ZoneRows, rows: ZoneRows, row_h: float) -> Bools:
    """Rows [T] in which a sub-meter moves that stood still for some hours, or for all of `before`."""
    still = math.ceil(CATCH_UP_H / row_h)
    moved = np.concatenate([before.subs_wh, rows.subs_wh]) != 0.0
    last = np.maximum.accumulate(np.where(moved, np.arange(len(moved))[:, None], -1), axis=0)
    known = len(before)
    was = np.vstack([np.full((1, moved.shape[1]), -1), last])[known : known + len(rows)]
    since = np.arange(known, known + len(rows))[:, None] - 1 - was
    again: Bools = (moved[known:] & (since >= still)).any(axis=1)
    return again


def catch_ups(history: History, stop: int, row_h: float) -> list[CatchUp]:
    """Those that end in row `stop`."""
    least = math.ceil(CATCH_UP_H / row_h)
    day_rows = round(24 / row_h)
    if stop - least <= history.first:
        return []
    subs = history.rows(stop - least, stop + 1).subs_wh
    found = []
    for sub in np.flatnonzero((subs[-1] > 0.0) & ~subs[:-1].any(axis=0)):
        gained = float(subs[-1, sub])
        kept = max(history.first, stop - CATCH_UP_DAYS * day_rows)
        column = history.rows(kept, stop).subs_wh[:, sub]
        moving = np.flatnonzero(column)
        if not len(moving):
            continue
        start = kept + int(moving[-1]) + 1
        usual = column[: start - kept]
        if gained > CATCH_UP * usual.max() and gained > CATCH_UP_SHARE * usual.mean() * (stop - start):
            found.append(CatchUp(int(sub), start, stop))
    return found


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
