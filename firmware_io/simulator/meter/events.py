"""What a simulated meter writes into its event logs, and when: codes as companion specifications (IDIS) number them."""

from __future__ import annotations

import enum
from typing import NamedTuple

from firmware_io.simulator.meter.faults import Faults


class Code(enum.IntEnum):
    """Event codes; those below 40 belong to the standard log, 40 to 99 to the fraud log."""

    POWER_DOWN = 1
    POWER_UP = 2
    CLOCK_OLD = 4
    CLOCK_NEW = 5
    CLOCK_INVALID = 6
    TERMINAL_COVER_REMOVED = 40
    TERMINAL_COVER_CLOSED = 41
    STRONG_FIELD = 42
    STRONG_FIELD_GONE = 43
    METER_COVER_REMOVED = 44
    METER_COVER_CLOSED = 45
    AUTHENTICATION_FAILED = 46
    PHASE_LOST = 82
    PHASE_BACK = 85
    CURRENT_REVERSED = 91


LOG_ENTRIES = 100  # what a log holds; older entries are overwritten

_PAIRS: dict[str, tuple[Code, Code | None]] = {
    "cover": (Code.METER_COVER_REMOVED, Code.METER_COVER_CLOSED),
    "terminal_cover": (Code.TERMINAL_COVER_REMOVED, Code.TERMINAL_COVER_CLOSED),
    "magnet": (Code.STRONG_FIELD, Code.STRONG_FIELD_GONE),
    "phase_loss": (Code.PHASE_LOST, Code.PHASE_BACK),
    "reverse": (Code.CURRENT_REVERSED, None),
    "clock_invalid": (Code.CLOCK_INVALID, None),
}


class Entry(NamedTuple):
    """One entry, by true time."""

    time_s: float
    code: int


class EventLog:
    """Both logs of one meter: what the scenario writes, and what happens while it runs."""

    def __init__(self, installed_s: float, faults: Faults, cover_opened_s: list[float]) -> None:
        entries = [Entry(installed_s, Code.POWER_UP)]
        for at in cover_opened_s:
            entries += [Entry(at - 300, Code.METER_COVER_REMOVED), Entry(at + 600, Code.METER_COVER_CLOSED)]
        for kind, (begin, end) in _PAIRS.items():
            for strike in faults.all(kind):  # type: ignore[arg-type]  # the keys are fault kinds
                entries.append(Entry(strike.onset_s, begin))
                if end is not None:
                    entries.append(Entry(strike.until_s, end))
        for strike in faults.all("log_overflow"):  # a door contact that chatters
            for n in range(2 * LOG_ENTRIES):
                code = Code.TERMINAL_COVER_CLOSED if n % 2 else Code.TERMINAL_COVER_REMOVED
                entries.append(Entry(strike.onset_s + 7 * n, code))
        self._planned = sorted(entries)
        self._happened: list[Entry] = []  # by what clients do; bounded as the meter's own log is

    def add(self, time_s: float, code: Code) -> None:
        """Something happened now."""
        self._happened = [*self._happened[1 - LOG_ENTRIES :], Entry(time_s, code)]

    def entries(self, fraud: bool, now_s: float) -> list[Entry]:
        """What one log holds now, oldest first."""
        past = sorted(
            entry
            for entry in (*self._planned, *self._happened)
            if entry.time_s <= now_s and (entry.code >= 40) == fraud
        )
        return past[-LOG_ENTRIES:]
