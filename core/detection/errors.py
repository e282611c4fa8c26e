"""What is not known of a balance and adds up over its rows: errors that a search must allow for, by stretches of rows.

It owns how each kind of error adds up. It refuses to know what is searched with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.arrays import Floats, Ints
from core.balance.losses import LossModel
from core.balance.rows import ZoneRows, window_sums


class Errors(Protocol):
    """Some independent errors of one standard deviation each."""

    def over(self, start: Ints, stop: Ints) -> tuple[Floats, Floats]:
        """What each of K errors adds to stretches of rows start .. stop - 1 [W, K], Wh; variance of the rest [W], Wh^2.

        The rest is anew in every row.
        """
        ...


@dataclass(frozen=True, slots=True)
class RowErrors:
    """Errors that are known row by row: errors_wh [T, K], and variance_wh2 [T] of what is anew in each."""

    errors_wh: Floats
    variance_wh2: Floats | None = None

    def over(self, start: Ints, stop: Ints) -> tuple[Floats, Floats]:
        sums = window_sums(self.errors_wh, start, stop)
        if self.variance_wh2 is None:
            return sums, np.zeros(len(start))
        return sums, window_sums(self.variance_wh2[:, None], start, stop)[:, 0]


@dataclass(frozen=True, slots=True)
class OwnCopper:
    """Copper that each flat's own power costs beyond the common estimate: where along the riser it lies nobody knows.

    Who else is on the phase at the time is another error of that size, anew each time a large load has run for
    `session_h`.
    """

    model: LossModel
    rows: ZoneRows
    session_h: float

    def over(self, start: Ints, stop: Ints) -> tuple[Floats, Floats]:
        own, square = self.model.own_in(self.rows, start, stop)
        sd = self.model.own_sd
        return own * sd, square * (sd**2 * max(1.0, self.session_h / self.model.hours))


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The errors of the loss model's coefficients, as they are."""

    model: LossModel
    rows: ZoneRows

    def over(self, start: Ints, stop: Ints) -> tuple[Floats, Floats]:
        return self.model.errors_in(self.rows, start, stop), np.zeros(len(start))


def sums(errors: tuple[Errors, ...], start: Ints, stop: Ints) -> tuple[Floats, Floats]:
    """All of them side by side [W, K], and the variance of the rest together [W]."""
    parts = [part.over(start, stop) for part in errors]
    if not parts:
        return np.zeros((len(start), 0)), np.zeros(len(start))
    return np.hstack([own for own, _ in parts]), np.asarray(sum(rest for _, rest in parts))
