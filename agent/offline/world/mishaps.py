"""What befalls a building in which nobody steals: registers that stand still, a main meter that is wired wrongly,
feed-in that it does not take off, polls that fail for days, and people who move.

Owns how each of them changes what flows or what is read. Refuses to know who is at fault and what a detector makes of
it. Nothing here draws energy, but a tap may begin in the very week in which a flat falls empty.
"""

from __future__ import annotations

import numpy as np

from agent.offline.world.climate import F64
from agent.offline.world.network import Riser

HELD, MOVES = "register held", "many move"
FEED_IN = ("feed-in counted", "feed-in not counted")
PHASES = ("main phase reversed", "main phases crossed")
UNREAD = "main unread"
MISHAPS = (HELD, MOVES, *FEED_IN, *PHASES, UNREAD)

# A concentrator that repeats its last value, or a radio meter out of reach: until somebody looks, a night to a weekend.
HELD_H = (10.0, 60.0)
UNREAD_DAYS = (1.0, 10.0)  # a fuse, a modem, a contract: until the next visit
# Of the building's mean load, the roof's peak. Three times the mean load over a year is about what a roof of a house
# of some floors can carry (IEA PVPS Task 7: 0.4 m2 of roof for each m2 of ground; 0.2 kWp a m2).
ROOF = (1.0, 5.0)
EMPTY_W = (0.0, 60.0)  # what an empty flat still draws: nothing, or a fridge, a router and standby
ABOUT_DAYS = 4.0  # a tap and a removal this far apart are called coincident
# A repair reaches half of the installations with a fault of wiring that others find first.
REPAIRED = 0.5


def hold(rng: np.random.Generator, columns_wh: F64, onset: int, row_h: float) -> None:
    """One or two sub-meters' registers [time + 1, flat] stand still from about `onset` on, and catch up."""
    rows, flats = columns_wh.shape
    for flat in rng.permutation(flats)[: int(rng.choice([1, 1, 2]))]:
        start = onset + int(rng.uniform(0, 24 / row_h))
        for _ in range(int(rng.choice([1, 1, 2, 4]))):
            stop = start + int(rng.uniform(*HELD_H) / row_h)
            if stop >= rows:
                return
            columns_wh[start:stop, flat] = columns_wh[start, flat]
            start = stop + int(rng.uniform(0.5, 8) * 24 / row_h)


def unread(rng: np.random.Generator, main_wh: F64, onset: int, row_h: float) -> None:
    """The main meter [time + 1] does not answer for some days, once or twice; its register goes on."""
    start = onset
    for _ in range(int(rng.choice([1, 1, 2]))):
        stop = start + int(rng.uniform(*UNREAD_DAYS) * 24 / row_h)
        main_wh[start : min(stop, len(main_wh) - 1)] = np.nan
        start = stop + int(rng.uniform(2, 8) * 24 / row_h)


def wired_wrongly(rng: np.random.Generator, kind: str, riser: Riser, flow_wh: F64, head_wh: F64, onset: int) -> F64:
    """What a main meter [time] measures with one current turned round, or two phases' currents exchanged.

    Turned round, a phase counts backwards. Exchanged, each current meets a voltage 120 degrees off: at a power factor
    of 1 it counts minus a half (VDE-AR-N 4400; any book on checks of meter wiring). From the onset on, or until then:
    somebody finds and mends it.
    """
    if riser.three_phase:
        share = np.full((len(head_wh), 3), 1 / 3)
    else:
        by_phase = np.column_stack([np.maximum(flow_wh[:, riser.phase == k], 0).sum(1) for k in range(3)])
        share = by_phase / np.maximum(by_phase.sum(1, keepdims=True), 1e-9)
    first = int(rng.integers(3))
    if kind == PHASES[0]:
        lost = 2.0 * share[:, first]
    else:
        lost = (1.5 + rng.uniform(-0.3, 0.3)) * (share[:, first] + share[:, (first + 1) % 3])
    wrong = np.arange(len(head_wh)) < onset
    if rng.random() >= REPAIRED:
        wrong = ~wrong
    return np.asarray(np.where(wrong, np.maximum(head_wh * (1 - lost), 0.0), head_wh))


def roof(rng: np.random.Generator, sun: F64, load_wh: F64, onset: int) -> F64:
    """Generation [time] of one large roof behind one flat's meter, from the onset on or ever since."""
    peak = rng.uniform(*ROOF) * float(load_wh.mean())
    running = np.arange(len(sun)) >= (onset if rng.random() < 0.7 else 0)
    return np.asarray(peak * sun * running)


def fed_in(kind: str, head_wh: F64, onset: int) -> F64:
    """What a main meter [time] shows that counts feed-in as consumption, or that stands still meanwhile."""
    shown = np.abs(head_wh) if kind == FEED_IN[0] else np.maximum(head_wh, 0.0)
    return np.where(np.arange(len(head_wh)) >= onset, shown, head_wh)


def vacate(rng: np.random.Generator, true_wh: F64, flat: int, row: int, row_h: float, until: int) -> None:
    """`flat` of `true_wh` [time, flat] falls empty at `row`: at once, to nothing or to what runs by itself."""
    left = float(rng.choice([0.0, rng.uniform(*EMPTY_W)])) * row_h
    true_wh[row:until, flat] = left * rng.uniform(0.8, 1.2, until - row)


def about(rng: np.random.Generator, onset: int, slots: int, rows: int) -> int:
    """A row within ABOUT_DAYS of the onset, by day rather than by night: people leave by day."""
    day = onset // slots + int(np.clip(round(rng.normal(0, 1.5)), -ABOUT_DAYS, ABOUT_DAYS))
    return int(np.clip(day * slots + rng.uniform(7, 21) / 24 * slots, 1, rows - 2))
