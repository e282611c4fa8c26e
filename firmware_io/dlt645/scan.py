"""Finds the DL/T 645 meters of a line: who answers a wildcard address. It changes nothing in them."""

from __future__ import annotations

from contextlib import suppress

from firmware_io.clock import Clock
from firmware_io.dlt645 import frame as wire
from firmware_io.dlt645 import registers as table
from firmware_io.dlt645.frame import Frame
from firmware_io.driver import Line
from firmware_io.errors import ResponseTimeout
from firmware_io.exchange import Asker, Question, Timing

MAX_FOUND = 250  # meters of one search
ONE_ANSWER_OCTETS = 32  # of an energy, with its wake-up octets
SEVERAL_OCTETS = 8  # heard without a frame in them: answers that have collided


def identify_address(line: Line, timing: Timing, clock: Clock, pattern: bytes = wire.ANYBODY) -> str | None:
    """The address of the only meter on a line that a pattern is meant for, by "read address" (2007 clause 7.4).

    None when nobody answers, or several do at once.

    Raises:
        TransportError: the line failed.
    """
    return _ask_address(Asker("line", timing, clock.now), line, wire.READ_ADDRESS, pattern)


def search(line: Line, timing: Timing, clock: Clock) -> list[str]:
    """All 2007 meters of a line, by wildcard addresses; changes nothing in them.

    Where several answer at once, the next pair of digits from the right is tried: a hundred questions for each pair
    in which meters differ. Consecutive numbers, as a house's meters have them, are found with the first hundred.

    Raises:
        TransportError: the line failed.
    """
    asker = Asker("search", timing, clock.now)
    found: list[str] = []
    patterns = [wire.ANYBODY]
    while patterns and len(found) < MAX_FOUND:
        pattern = patterns.pop(0)
        heard = asker.traffic.received_octets
        address = _ask_address(asker, line, wire.READ, pattern)
        if address is not None:
            if address not in found:
                found.append(address)
            asker.rest(line, timing.inter_octet_s)  # one that is quicker may be heard whole before the others
            if asker.traffic.received_octets - heard <= ONE_ANSWER_OCTETS:
                continue
        wild = [place for place, octet in enumerate(pattern) if octet == wire.ANYBODY[0]]
        if asker.traffic.received_octets - heard >= SEVERAL_OCTETS and wild:
            pairs = (wire.to_bcd(pair, 1) for pair in range(100))
            patterns += [pattern[: wild[0]] + pair + pattern[wild[0] + 1 :] for pair in pairs]
    return found


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
