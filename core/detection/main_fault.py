"""Whether it is the main meter that errs: what is unexplained follows the loads of many flats at once.

It owns the shape of a wrong main meter in a balance. It refuses to know alarms, and who tells a meter's fault. A
current transformer on another phase, reversed or shorted, makes the main meter count the flats of one phase twice and
those of another not at all: what is unexplained is then a sum of the flats' own, each with its factor. A theft follows
one flat, or none. A main meter that is slow in all phases alike does not look like that.
"""

from __future__ import annotations

import numpy as np

from core.arrays import Floats

FLATS_LEAST = 5
ROWS_EACH = 2  # for each flat: fewer rows tell nothing
LEFT_MOST = 0.15  # of the variance: the flats together leave no more
FEW, FEW_LEAVE = 3, 0.3  # the best three of them leave more: no two or three thieves


def follows_the_flats(subs_wh: Floats, unexplained_wh: Floats) -> bool:
    """Whether unexplained energy [T] is made of the energy of many flats [T, N], each with its own factor.

    By least squares, and by the best flats one after the other (matching pursuit, Mallat & Zhang 1993).
    """
    rows, flats = subs_wh.shape
    power = float(unexplained_wh @ unexplained_wh)
    if flats < FLATS_LEAST or rows < ROWS_EACH * flats or power <= 0.0:
        return False

    def left(columns: list[int]) -> float:
        part = subs_wh[:, columns]
        rest = unexplained_wh - part @ np.linalg.lstsq(part, unexplained_wh, rcond=None)[0]
        return float(rest @ rest) / power * rows / (rows - len(columns))

    if left(list(range(flats))) > LEFT_MOST:
        return False
    few: list[int] = []
    for _ in range(FEW):
        few.append(min((j for j in range(flats) if j not in few), key=lambda j: left([*few, j])))
    return left(few) > FEW_LEAVE
