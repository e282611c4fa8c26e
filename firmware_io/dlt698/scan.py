"""Finds the DL/T 698.45 meters of a line: who answers a wildcard address. It changes nothing in them."""

from __future__ import annotations

from contextlib import suppress

from firmware_io.asking import exchange
from firmware_io.asking.exchange import Asker, Question, Timing
from firmware_io.clock import Clock
from firmware_io.dlt698 import apdu
from firmware_io.dlt698 import frame as wire
from firmware_io.dlt698.frame import Frame
from firmware_io.driver import Line
from firmware_io.errors import ResponseTimeout

ADDRESS = 0x40010200  # communication address
OCTETS = 6  # of an address: twelve digits, as meters have them
ONE_ANSWER_OCTETS = 52  # an address of up to 16 octets, or a refusal, with its wake-up octets
PIID = 1


def search(line: Line, timing: Timing, clock: Clock) -> list[str]:
    """All meters of a line with addresses of twelve digits; see `exchange.search`.

    Raises:
        TransportError: the line failed.
    """
    asker = Asker("search", timing, clock.now)

    def ask(pattern: bytes) -> str | None:
        request = Frame(pattern, wire.REQUEST, apdu.get(PIID, [ADDRESS])).encode()

        def answers(reply: Frame) -> bool:
            return reply.is_response and wire.covers(pattern, reply.address)

        with suppress(ResponseTimeout):
            question = Question(request, wire.parse, answers, wire.LONGEST, "its address")
            return asker.ask(line, question, repeats=0).frame.address[::-1].hex()
        return None

    return exchange.search(asker, line, timing, ask, OCTETS, ONE_ANSWER_OCTETS)
