"""Whose answer is it? The serial number by which values are taken, and when another one is an exchange of the meter.

It reads nothing: a driver tells it every serial number that came with an answer. A value enters a balance only from the
meter that was configured or first identified. Another meter on its address is a conflict, unless it is the only one
that answers for a long while: then the meter was exchanged. A meter whose serial number is in the site file is
exchanged there, by a person. Whom we have believed first is kept over a restart (`FileSerials`): else whoever answers
first after it, of two meters at one address, would be believed.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import threading
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

# In a row. Two meters that answer alternately, each with an even chance, come to this by chance once in a million runs.
EXCHANGE_ANSWERS = 20
CONFLICT_ANSWERS = 1000  # in a row, where both were heard already


class Whose(enum.Enum):
    """Who gave an answer."""

    OURS = enum.auto()
    EXCHANGED = enum.auto()  # another meter than before; it is ours from now on
    FOREIGN = enum.auto()


class Serials(Protocol):
    """Who was believed at which place (a bus and an address on it)."""

    def at(self, place: str) -> str | None:
        """The serial number that was believed last; None where nobody was."""

    def keep(self, place: str, serial: str) -> None:
        """From now on it is that one. Never raises: not to know it after a restart is no reason not to read."""


class FileSerials:
    """Serial numbers in a small JSON file. Making one never fails; a damaged file is begun anew, and that is said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._serials: dict[str, str] = {}
        try:
            kept = json.loads(path.read_text("utf-8"))
            if not isinstance(kept, dict) or not all(isinstance(serial, str) for serial in kept.values()):
                raise ValueError("expected a table of serial numbers")
            self._serials = kept
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read (%s): whoever answers first is believed, as at a first start", path, error)

    def at(self, place: str) -> str | None:
        """See `Serials`."""
        with self._lock:
            return self._serials.get(place)

    def keep(self, place: str, serial: str) -> None:
        """See `Serials`."""
        with self._lock:
            self._serials[place] = serial
            fresh = self._path.with_suffix(".new")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with fresh.open("w", encoding="utf-8") as file:
                    json.dump(self._serials, file, indent=0)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(fresh, self._path)
            except OSError as error:
                log.warning("%s: %s; after a restart whoever answers first is believed", fresh, error)
                with contextlib.suppress(OSError):
                    fresh.unlink(missing_ok=True)


class ExpectedMeter:
    """The serial number of one meter on its bus; `configured` holds whatever answers."""

    def __init__(self, configured: str | None = None, serials: Serials | None = None, place: str = "") -> None:
        """`serials` keeps who was believed at a `place`."""
        self._configured = configured is not None
        self._serials, self._place = serials, place
        self.serial = configured if configured is not None or serials is None else serials.at(place)
        self._other: str | None = None
        self._answers = 0  # of the other one, since ours was last heard
        self._conflict = False

    def heard(self, serial: str) -> Whose:
        """Judge an answer that came with this serial number."""
        if self.serial is None or serial == self.serial:
            self._believe(serial)
            self._conflict = self._conflict or self._answers > 0  # it is still there: the other one is no successor
            self._other, self._answers = None, 0
            return Whose.OURS
        self._answers = self._answers + 1 if serial == self._other else 1
        self._other = serial
        if self._configured or self._answers < (CONFLICT_ANSWERS if self._conflict else EXCHANGE_ANSWERS):
            return Whose.FOREIGN
        self._believe(serial)
        self._other, self._answers, self._conflict = None, 0, False
        return Whose.EXCHANGED

    def _believe(self, serial: str) -> None:
        if serial != self.serial and self._serials is not None and not self._configured:
            self._serials.keep(self._place, serial)
        self.serial = serial
