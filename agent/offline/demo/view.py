"""How the demo shows itself: a live table on a terminal, plain lines in a pipe. It only draws what it is given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.status.snapshot import Snapshot
from agent.status.text import balance_line, when
from agent.wire.events import AlertEvent


@dataclass(slots=True)
class Scene:
    """What is known at one moment, for the screen."""

    elapsed_s: float = 0.0
    stage: str = ""
    snapshot: Snapshot | None = None
    said: list[str] = field(default_factory=list)


class Screen(Protocol):
    """Where the demo is shown."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, scene: Scene) -> None:
        """The state as of now."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def screen() -> Screen:
    """A live table where there is a terminal and rich, else plain lines."""
    if sys.stdout.isatty():
        try:
            return _Live()
        except ImportError:
            pass
    return _Plain()


class _Plain:
    """One line for each simulated interval that is new, at most one a second."""

    def __init__(self) -> None:
        self._shown_s = float("-inf")
        self._key: object = None

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, scene: Scene) -> None:
        snapshot = scene.snapshot
        if snapshot is None or scene.elapsed_s - self._shown_s < 1.0:
            return
        balances = snapshot.balances
        key = (snapshot.phase, balances[0].end if balances else None)
        if key == self._key:
            return
        self._key, self._shown_s = key, scene.elapsed_s
        if not balances:
            self.say(f"[{scene.elapsed_s:5.1f} s] {when(snapshot.now_s)}  {snapshot.phase}")
            return
        self.say(f"[{scene.elapsed_s:5.1f} s] {when(balances[0].end.timestamp())}  {balance_line(balances[0])}")

    def close(self) -> None:
        pass


class _Live:
    """A table that is drawn anew twice a second."""

    def __init__(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        from agent.status.dashboard import building

        self._text, self._group, self._building = Text, Group, building
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def show(self, scene: Scene) -> None:
        parts: list[Any] = [self._text(f"{scene.elapsed_s:5.1f} s  {scene.stage}", style="bold")]
        if scene.snapshot is not None:
            parts.append(self._building(scene.snapshot))
        self._live.update(self._group(*parts))

    def close(self) -> None:
        self._live.stop()


def alert_lines(topic: str, event: AlertEvent, say: Callable[[str], None]) -> None:
    """Print an alert as the subscriber received it, and in words."""
    alert = event.data
    say("")
    say(f"  MQTT {topic}")
    say(f"    {alert.state} revision {alert.revision}, {alert.severity}: {alert.kind} in {event.subject}")
    if alert.loss_w is not None and alert.loss_w_interval is not None:
        low, high = alert.loss_w_interval
        say(f"    missing       {alert.loss_w:.0f} W ({low:.0f} to {high:.0f} W)")
    say(f"    since         {alert.onset:%a %d %b %H:%M} UTC")
    for suspect in (alert.suspects or [])[:3]:
        how = f"  ({suspect.mechanism})" if suspect.mechanism else ""
        say(f"    {suspect.meter:<13} {100 * suspect.probability:.0f} %{how}")
    if alert.upstream_probability is not None:
        say(f"    unmetered     {100 * alert.upstream_probability:.0f} %")
    if alert.unexplained_probability is not None:
        say(f"    none of these {100 * alert.unexplained_probability:.0f} %")
    say("")
