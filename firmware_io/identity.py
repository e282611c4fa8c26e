"""Whose answer is it? The serial number by which values are taken, and when another one is an exchange of the meter.

It reads nothing: a driver tells it every serial number that came with an answer. A value enters a balance only from the
meter that was configured or first identified. Another meter on its address is a conflict, unless it is the only one
that answers for a long while: then the meter was exchanged. A meter whose serial number is in the site file is
exchanged there, by a person.
"""

from __future__ import annotations

import enum

# In a row. Two meters that answer alternately, each with an even chance, come to this by chance once in a million runs.
EXCHANGE_ANSWERS = 20
CONFLICT_ANSWERS = 1000  # in a row, where both were heard already


class Whose(enum.Enum):
    """Who gave an answer."""

    OURS = enum.auto()
    EXCHANGED = enum.auto()  # another meter than before; it is ours from now on
    FOREIGN = enum.auto()


class ExpectedMeter:
    """The serial number of one meter on its bus; `configured` holds whatever answers."""

    def __init__(self, configured: str | None = None) -> None:
        self._configured = configured is not None
        self.serial = configured
        self._other: str | None = None
        self._answers = 0  # of the other one, since ours was last heard
        self._conflict = False

    def heard(self, serial: str) -> Whose:
        """Judge an answer that came with this serial number."""
        if self.serial is None or serial == self.serial:
            self.serial = serial
            self._conflict = self._conflict or self._answers > 0  # it is still there: the other one is no successor
            self._other, self._answers = None, 0
            return Whose.OURS
        self._answers = self._answers + 1 if serial == self._other else 1
        self._other = serial
        if self._configured or self._answers < (CONFLICT_ANSWERS if self._conflict else EXCHANGE_ANSWERS):
            return Whose.FOREIGN
        self.serial, self._other, self._answers, self._conflict = serial, None, 0, False
        return Whose.EXCHANGED
