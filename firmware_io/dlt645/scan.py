"""Finds the DL/T 645 meters of a line: who answers a wildcard address. It changes nothing in them."""

from __future__ import annotations

from contextlib import suppress

from firmware_io.asking import exchange
from firmware_io.asking.exchange import Asker, Question, Timing
from firmware_io.clock import Clock
from firmware_io.dlt645 import frame as wire
from firmware_io.dlt645 import registers as table
from firmware_io.dlt645.frame import Frame
from firmware_io.driver import Line
from firmware_io.errors import ResponseTimeout

ONE_ANSWER_OCTETS = 32  # of an energy, with its wake-up octets


def identify_address(line: Line, timing: Timing, clock: Clock, pattern: bytes = wire.ANYBODY) -> str | None:
    """The address of the only meter on a line that a pattern is meant for, by "read address" (2007 clause 7.4).

    None when nobody answers, or several do at once.

    Raises:
        TransportError: the line failed.
    """
    return _ask_address(Asker("line", timing, clock.now), line, wire.READ_ADDRESS, pattern)


def search(line: Line, timing: Timing, clock: Clock) -> list[str]:
    """All 2007 meters of a line, by wildcard addresses; changes nothing in them.

    See `exchange.search`.

    Raises:
        TransportError: the line failed.
    """
    asker = Asker("search", timing, clock.now)
    return exchange.search(
        asker, line, timing, lambda pattern: _ask_address(asker, line, wire.READ, pattern), 6, ONE_ANSWER_OCTETS
    )


def _ask_address(asker: Asker, line: Line, control: int, pattern: bytes) -> str | None:
    """Who answers a wildcard address: "read address", or a read of the energy, which all take abbreviated."""
    identifier = b"" if control == wire.READ_ADDRESS else table.di_octets(table.IMPORT.di, 2007)
    request = Frame(pattern, control, identifier).encode()

    def answers(reply: Frame) -> bool:
        return reply.control & ~wire.ABNORMAL == control | wire.REPLY and wire.covers(pattern, reply.address)

    with suppress(ResponseTimeout):
        question = Question(request, wire.parse, answers, wire.LONGEST, "its address")
        return wire.digits_of(asker.ask(line, question, repeats=0).frame.address)
    return None
