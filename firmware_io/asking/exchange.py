"""One question and its answer on a half-duplex line, under deadlines: what the protocols share that only ask.

It knows no protocol: a `Parser` says what stands at a place of the octets, a driver says which frame answers its
question. Three results are kept apart: a frame, octets that may still become one, and octets that never will.

Its timers:
- *gap*: silence that the protocol asks for ahead of a question; whatever comes in it belongs to nobody.
- *first octet*: `timeout_s` after our last octet has left; then the question is repeated, once.
- *silence*: `inter_octet_s` without an octet inside a reply; what is held then is judged as it stands.
- *turn*: the longest reply at the line's speed; nobody babbles longer than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from firmware_io._octets import Framer as Framer
from firmware_io._octets import Verdict as Verdict
from firmware_io.driver import Line, Traffic
from firmware_io.errors import ResponseTimeout
from firmware_io.spec import Timing as Timing

READ_OCTETS = 4096
MAX_FOUND = 250  # meters of one search
MAX_QUESTIONS = 30_000  # of one search: bounds noise that answers everything; 250 random numbers take about 10,000
SEVERAL_OCTETS = 8  # heard without a frame in them: answers that have collided
WILD = 0xAA  # an octet of an address that is any
MAX_DRAIN_OCTETS = 65_536  # of a line that never falls silent ahead of our question
OWED_S = 10.0  # no meter answers later than that; a gateway's queue may be so long
MAX_OWED = 64  # questions of one meter
GLITCH_OCTETS = 4  # so few are no reply gone bad, but the noise of a line that turns round


F = TypeVar("F")
Parser = Callable[[bytearray, int], "tuple[F, int] | Verdict"]  # octets and a place: the frame and where it ends


class Answer(NamedTuple, Generic[F]):
    """What answered, and between which two UTC seconds it was sampled."""

    frame: F
    asked_s: float
    heard_s: float


@dataclass(frozen=True, slots=True)
class Question(Generic[F]):
    """Octets to send, how replies are parsed, and which of the frames on the line answers.

    `frames` is how many frames make the answer: those after the first are collected by the caller with `Asker.ask`
    again. `longest` bounds the reply, octets.
    """

    octets: bytes
    parse: Parser[F]
    answers: Callable[[F], bool]
    longest: int
    what: str  # for the error message: the register, or the service


class Asker:
    """Asks the questions of one meter; the line is given with each."""

    def __init__(self, meter: str, timing: Timing, now: Callable[[], float], *, gap_s: float = 0.0) -> None:
        self._meter = meter
        self._timing = timing
        self._now = now
        self._gap_s = gap_s
        self._owed: dict[bytes, float] = {}  # questions without an answer, and when they were first asked
        self.traffic = Traffic()

    def ask(self, line: Line, question: Question[F], *, repeats: int = 1) -> Answer[F]:
        """Send and wait; repeat once on silence or a corrupt reply, not at all on a line that is probing.

        Raises:
            ResponseTimeout: no answer, or none that was whole.
            TransportError: the line failed.
        """
        first_asked_s = self._owed.pop(question.octets, float("-inf"))
        repeats = 0 if line.probing else repeats
        for attempt in range(repeats + 1):
            self.traffic.repeats += attempt > 0
            self._fall_silent(line)
            asked_s = self._now()
            # A late reply may answer an earlier attempt: that is when its value may have been sampled.
            if asked_s - first_asked_s > OWED_S:
                first_asked_s = asked_s
            self._write(line, question.octets)
            frame = self._listen(line, question)
            if frame is not None:
                return Answer(frame, first_asked_s, self._now())
        if len(self._owed) >= MAX_OWED:
            self._owed.clear()
        self._owed[question.octets] = first_asked_s
        raise ResponseTimeout(
            f"no answer to {question.what} within {self._timing.timeout_s} s, asked {repeats + 1} times",
            meter=self._meter,
        )

    def tell(self, line: Line, octets: bytes) -> None:
        """Send what nobody answers: a broadcast. Raises: TransportError."""
        self._fall_silent(line)
        self._write(line, octets)

    def rest(self, line: Line, pause_s: float) -> None:
        """Let time pass; what comes in it belongs to nobody. Raises: TransportError."""
        end = line.transport.monotonic() + pause_s
        while line.transport.monotonic() < end:
            self._heard(line, line.transport.read(READ_OCTETS, end))

    def _fall_silent(self, line: Line) -> None:
        """Throw away what came unasked, until the line has been silent for the gap."""
        transport, drained = line.transport, 0
        while drained < MAX_DRAIN_OCTETS:
            octets = transport.read(READ_OCTETS, transport.monotonic() + self._gap_s)
            if not octets:
                return
            self._heard(line, octets)
            drained += len(octets)

    def _write(self, line: Line, octets: bytes) -> None:
        if line.trace:
            line.trace(True, octets)
        self.traffic.exchanges += 1
        self.traffic.sent_octets += len(octets)
        line.transport.write(octets)

    def _heard(self, line: Line, octets: bytes) -> None:
        if octets:
            if line.trace:
                line.trace(False, octets)
            self.traffic.received_octets += len(octets)

    def _listen(self, line: Line, question: Question[F]) -> F | None:
        """The answer, or None when it is not there in time, or not whole."""
        transport, timing, traffic = line.transport, self._timing, self.traffic
        framer: Framer[F] = Framer(question.parse, 2 * question.longest + len(question.octets))
        first_octet = transport.monotonic() + len(question.octets) * timing.octet_s + timing.timeout_s
        turn_end = first_octet + max(2 * question.longest * timing.octet_s, timing.timeout_s)
        deadline, heard = first_octet, 0
        while True:
            octets = transport.read(READ_OCTETS, deadline)
            self._heard(line, octets)
            heard += len(octets)
            frames = framer.receive(octets) if octets else framer.idle()
            for frame in frames:
                if question.answers(frame):
                    return frame
                traffic.foreign_frames += 1
                heard = 0  # what is left over from it is not our reply gone bad
            now = transport.monotonic()
            if not octets or now >= turn_end:
                # After silence everything is judged: octets that made no frame were our reply, corrupt.
                corrupt = heard > GLITCH_OCTETS and not frames
                traffic.corrupt_frames += corrupt
                if corrupt or now >= first_octet or now >= turn_end:
                    return None
                deadline = first_octet
                continue
            silence = now + timing.inter_octet_s
            deadline = min(silence, turn_end) if framer.pending or heard > GLITCH_OCTETS else max(first_octet, now)


def search(
    asker: Asker, line: Line, timing: Timing, ask: Callable[[bytes], str | None], octets: int, one_octets: int
) -> list[str]:
    """All addresses of BCD octets, low one first, that answer wildcards; `ask` gives the one that a pattern brings.

    Where several answer at once, the next pair of digits from the right is tried: a hundred questions for each pair in
    which meters differ. Consecutive numbers, as a house's meters have them, are found with the first hundred. An answer
    of more than `one_octets` is not one meter's.

    Raises:
        TransportError: the line failed.
    """
    found: list[str] = []
    patterns = [bytes((WILD,)) * octets]
    for _ in range(MAX_QUESTIONS):
        if not patterns or len(found) >= MAX_FOUND:
            break
        pattern = patterns.pop(0)
        heard = asker.traffic.received_octets
        address = ask(pattern)
        if address is not None:
            if address not in found:
                found.append(address)
            asker.rest(line, timing.inter_octet_s)  # one that is quicker may be heard whole before the others
            if asker.traffic.received_octets - heard <= one_octets:
                continue
        wild = pattern.find(WILD)
        if asker.traffic.received_octets - heard >= SEVERAL_OCTETS and wild >= 0:
            pairs = (bytes((pair // 10 << 4 | pair % 10,)) for pair in range(100))
            patterns += [pattern[:wild] + pair + pattern[wild + 1 :] for pair in pairs]
    return found
