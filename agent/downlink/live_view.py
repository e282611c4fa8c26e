"""Who asked for a live view, and until when: bounded in time, so that a view nobody ends does not go on for ever.

It owns the times and nothing else. The main thread's.
"""

from __future__ import annotations

from collections.abc import Iterable

VIEW_MAX_S = 3600.0  # of one command; whoever looks longer asks again


class LiveView:
    """The zones that are looked at. Times UTC seconds."""

    def __init__(self, zones: Iterable[str]) -> None:
        self._until_s = dict.fromkeys(zones, 0.0)
        self._meters_until_s = dict(self._until_s)

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones that can be looked at."""
        return tuple(self._until_s)

    def ask(self, zone: str, now_s: float, for_s: float, *, meters: bool) -> float:
        """Look at a zone for so long, at each of its meters too with `meters`; 0 ends it. Until when."""
        until_s = now_s + min(for_s, VIEW_MAX_S)
        self._until_s[zone] = until_s
        self._meters_until_s[zone] = until_s if meters else 0.0
        return until_s

    def asked(self, now_s: float) -> list[tuple[str, bool]]:
        """The zones that somebody looks at now, and whether at each meter; a clock that was set back ends a view."""
        return [
            (zone, self._meters_until_s[zone] > now_s)
            for zone, until_s in self._until_s.items()
            if now_s < until_s <= now_s + VIEW_MAX_S
        ]
