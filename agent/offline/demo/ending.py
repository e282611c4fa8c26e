"""How the demo ends: whatever ends its first process ends all that it has started.

It owns signals and what a child does when its parent is gone. It knows no process by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator
from types import FrameType

_ENDS = (signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded here: between fork and exec nothing may be imported.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP unwind the stack, as Ctrl-C does, so that every `finally` ends what it began."""

    def leave(number: int, _frame: FrameType | None) -> None:
        for one in _ENDS:
            signal.signal(one, signal.SIG_IGN)  # a second one would break off the clearing up
        raise SystemExit(128 + number)

    # Who was started to outlive its terminal (nohup) ignores SIGHUP, and shall go on doing so.
    before = {one: signal.getsignal(one) for one in _ENDS if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def die_with_parent() -> None:
    """For a child between fork and exec: SIGTERM when the parent is gone, even by SIGKILL (prctl(2); Linux only).

    A program that changes its user forgets it, as Mosquitto does when root starts it.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
