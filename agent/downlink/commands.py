"""Commands from the backend: who may give them, which there are, and that each is carried out once.

It owns the checks and the durable memory of what was commanded; what a command does is in a table
of handlers that the service fills in. There is no command that runs a program, and none may be added that does.

A command is checked in this order: size, form, key and signature, form of the command, target, time, arguments. It is
written down before it is carried out, and again with its answer. So the same command that comes again (MQTT's QoS 1
delivers at least once; an attacker may replay) gets the same answer and does nothing; one that was interrupted by a
restart is answered as failed and not begun anew, or a `reload` that ends the agent would end it for ever.

What concerns the alert book is carried out by the pipeline's thread: its answer is written in the commit that holds its
effect, and the message is acknowledged after that. So `done` is true for good, and a kill before it loses nothing: the
broker delivers the command again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec

from agent.alerts.book import AlertBook
from agent.downlink.live_view import VIEW_MAX_S
from agent.keys.signing import KeyRing, Unauthorised
from agent.pipeline.inbox import BookRequest, Outcome
from agent.store.commit import Answered, Commit
from agent.store.messages import result_message
from agent.store.store import Store
from agent.wire.codec import decode, encode
from agent.wire.downlink import MAX_COMMAND_BYTES, Command, CommandResult, Signed
from agent.wire.events import AlertEvent
from agent.wire.topics import Address
from agent.wire.values import Id, Order, Time, WireError, utc

log = logging.getLogger(__name__)

SKEW = timedelta(minutes=5)  # between the backend's clock and ours
LIFETIME = timedelta(days=1)  # the longest: bounds how long an id must be remembered
ANSWERS, ANSWERS_S = 30, 60.0  # refusals answered: bounds what somebody without a key can make us send
RESEND_MAX = 1000
WEATHER_MAX = 1800  # temperatures in one command: the hours of 75 days
_BEGUN = b"begun"


class CommandFailed(Exception):
    """The command was right, but could not be carried out; the text says why, fit to be sent back."""


class NoArguments(Order, frozen=True, kw_only=True):
    """No arguments."""


class Report(Order, frozen=True, kw_only=True):
    """`report`: the evidence of an alert, of the whole case or of [since, until]."""

    alert_id: Id
    since: Time | None = None
    until: Time | None = None


class Resend(Order, frozen=True, kw_only=True):
    """`resend`: the alert and tamper events measured in [since, until], newest first."""

    since: Time
    until: Time


class Acknowledge(Order, frozen=True, kw_only=True):
    """`acknowledge`: somebody takes care of an alert; with a `reason` its loss is a normal load of the building."""

    alert_id: Id
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class SetMode(Order, frozen=True, kw_only=True):
    """`set-mode`: `maintenance` holds back alerts of meters and buses while people work on them, until a time."""

    mode: Literal["normal", "maintenance"]
    until: Time | None = None


class LiveArguments(Order, frozen=True, kw_only=True):
    """`live`: a zone's balance each second for `for_s` seconds (0 ends it); with `meters` each meter's power too."""

    zone: Id
    for_s: Annotated[float, msgspec.Meta(ge=0, le=VIEW_MAX_S)] = 300.0
    meters: bool = False


class WeatherArguments(Order, frozen=True, kw_only=True):
    """`weather`: outdoor temperatures in degrees Celsius, one each `interval_s` from `start` on.

    Those of instants before now count as measured, later ones as expected.
    """

    start: Time
    interval_s: Annotated[int, msgspec.Meta(ge=300, le=3600)] = 3600
    outdoor_c: Annotated[
        list[Annotated[float, msgspec.Meta(ge=-60, le=60)]], msgspec.Meta(min_length=1, max_length=WEATHER_MAX)
    ]


ARGUMENTS: Mapping[str, type[Order]] = {
    "ping": NoArguments,
    "snapshot": NoArguments,
    "report": Report,
    "resend": Resend,
    "acknowledge": Acknowledge,
    "set-mode": SetMode,
    "reload": NoArguments,
    "live": LiveArguments,
    "weather": WeatherArguments,
}


# Given the arguments (a struct of ARGUMENTS) and who commands; returns what goes into the answer's `result`.
Handler = Callable[[Any, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class BookChange:
    """What a command does to the alert book: `act` does it, `result` goes into the answer.

    `act` raises CommandFailed where it cannot be done.
    """

    act: Callable[[AlertBook], list[AlertEvent]]
    result: dict[str, Any] = field(default_factory=dict)


BookHandler = Callable[[Any, str], BookChange]


class CommandDesk:
    """Takes what comes on `cmd/req`, and queues an answer on `cmd/res` for each.

    Args:
        handlers: for `snapshot`, `report`, `acknowledge`, `set-mode`, `reload`, `live`; one that is missing is refused.
            `ping` and `resend` are done here.
        now: UTC seconds.
        book_handlers: for `acknowledge` and `set-mode`.
        give: hands a request to the thread that owns the alert book; False if it has no room.
    """

    def __init__(
        self,
        address: Address,
        keys: KeyRing,
        store: Store,
        now: Callable[[], float],
        handlers: Mapping[str, Handler],
        book_handlers: Mapping[str, BookHandler] | None = None,
        give: Callable[[BookRequest], bool] = lambda _request: False,
    ) -> None:
        self._address = address
        self._keys = keys
        self._store = store
        self._now = now
        self._handlers: dict[str, Handler] = {"ping": self._ping, "resend": self._resend, **handlers}
        self._book_handlers = book_handlers or {}
        self._give = give
        self._refusals: deque[float] = deque(maxlen=ANSWERS)

    def handle(self, payload: bytes, done: Callable[[], None] = lambda: None) -> CommandResult | None:
        """Check, carry out, answer; the answer is in the outbox when this returns.

        None: a refusal too many, or the answer comes with the commit of the alert book. `done` is called when the
        message need not come again.
        """
        now_s = self._now()
        result = self._judge(payload, now_s, done)
        if result is None:
            return None
        answered = self._answer(result, now_s)
        done()
        return result if answered else None

    def _answer(self, result: CommandResult, now_s: float) -> bool:
        """Queue an answer; False if it is a refusal too many."""
        if result.status == "refused":
            log.warning("command refused: %s", result.reason)
            if len(self._refusals) == ANSWERS and abs(now_s - self._refusals[0]) < ANSWERS_S:
                return False
            self._refusals.append(now_s)
        self._store.commit(Commit([result_message(result)]), now_s)
        return True

    def _judge(self, payload: bytes, now_s: float, done: Callable[[], None]) -> CommandResult | None:
        """The checks in their order; None if the alert book's thread answers."""
        refused = _refusal(now_s)
        try:
            text = self._keys.open(payload, "command", MAX_COMMAND_BYTES)
            command = decode(Command, text)
            if not command.by:
                command = msgspec.structs.replace(command, by=f"key {decode(Signed, payload, MAX_COMMAND_BYTES).key}")
        except (WireError, Unauthorised) as error:
            return refused(None, str(error))
        now = utc(now_s)
        if command.target != self._address.target:
            return refused(command, f"it is for {command.target}, this is {self._address.target}")
        if command.issued > now + SKEW:
            return refused(
                command, f"issued at {command.issued.isoformat()}, but the gateway's clock says {now.isoformat()}"
            )
        if command.expires <= now:
            return refused(
                command, f"expired at {command.expires.isoformat()}; the gateway's clock says {now.isoformat()}"
            )
        if command.expires - command.issued > LIFETIME:
            return refused(command, f"it lives longer than the {LIFETIME.days} day that is allowed")
        try:
            arguments = msgspec.convert(command.args, ARGUMENTS[command.name])
        except msgspec.ValidationError as error:
            return refused(command, f"arguments of {command.name}: {error}")
        if isinstance(arguments, Resend | Report) and _backwards(arguments):
            return refused(command, f"arguments of {command.name}: since is after until; give the earlier time first")
        try:
            if command.name in self._book_handlers:
                return self._hand_over(command, arguments, now_s, done)
            return self._once(command, arguments, now_s)
        except sqlite3.Error as error:
            return refused(command, f"it cannot be written down now: {error}")

    def _once(self, command: Command, arguments: Order, now_s: float) -> CommandResult:
        """Carry out a command that is right, unless it was before.

        Raises:
            sqlite3.Error: it cannot be remembered, and nothing was done.
        """
        handler = self._handlers.get(command.name)
        if handler is None:
            return _refusal(now_s)(command, f"{command.name} is not available on this gateway")
        before = self._before(command, now_s)
        if before is not None:
            return before
        expires_s = command.expires.timestamp()
        self._store.note_command(command.id, expires_s, _BEGUN, now_s)
        log.info("command %s %s by %s", command.name, command.id, command.by)
        try:
            result = _answer(command, "done", now_s, None, handler(arguments, command.by))
        except CommandFailed as error:
            result = _answer(command, "failed", now_s, str(error))
        except Exception as error:  # a bug in a handler is answered, and must not end the thread that reads meters
            log.exception("command %s", command.name)
            result = _answer(command, "failed", now_s, f"{type(error).__name__}: {error}")
        self._store.note_command(command.id, expires_s, encode(result), now_s)
        return result

    def _before(self, command: Command, now_s: float) -> CommandResult | None:
        """What was answered to this command before; None if it is new."""
        before = self._store.answer_of(command.id)
        if before is None:
            return None
        try:
            return decode(CommandResult, before)
        except WireError:  # _BEGUN, or a damaged answer: in any case it must not be carried out again
            return _answer(command, "failed", now_s, "interrupted by a restart; not begun again")

    def _hand_over(
        self, command: Command, arguments: Order, now_s: float, done: Callable[[], None]
    ) -> CommandResult | None:
        """Have the thread of the alert book carry it out, and answer in the same commit."""
        before = self._before(command, now_s)
        if before is not None:
            return before
        try:
            change = self._book_handlers[command.name](arguments, command.by)
        except CommandFailed as error:
            return _answer(command, "failed", now_s, str(error))
        expires_s = command.expires.timestamp()

        def act(book: AlertBook) -> Outcome:
            repeated = self._before(command, now_s)  # it may have come twice before its first turn
            if repeated is not None:
                return Outcome(messages=[result_message(repeated)])
            events: list[AlertEvent] = []
            try:
                events = change.act(book)
                result = _answer(command, "done", self._now(), None, change.result)
            except CommandFailed as error:
                result = _answer(command, "failed", self._now(), str(error))
            except Exception as error:  # a bug must not end the pipeline, or the command would come again for ever
                log.exception("command %s", command.name)
                result = _answer(command, "failed", self._now(), f"{type(error).__name__}: {error}")
            return Outcome(events, [result_message(result)], [Answered(command.id, expires_s, encode(result))])

        log.info("command %s %s by %s", command.name, command.id, command.by)
        if not self._give(BookRequest(act, done)):
            return _answer(command, "failed", now_s, "the gateway is busy; send a new command later")
        return None

    def _ping(self, _arguments: NoArguments, _by: str) -> dict[str, Any]:
        waiting = self._store.counters
        return {"queued": waiting.messages, "queued_bytes": waiting.bytes}

    def _resend(self, arguments: Resend, _by: str) -> dict[str, Any]:
        queued = self._store.resend(arguments.since.timestamp(), arguments.until.timestamp(), RESEND_MAX)
        return {"queued": queued, "limit": RESEND_MAX}


def _backwards(arguments: Resend | Report) -> bool:
    """Whether a span of time ends before it begins."""
    return arguments.since is not None and arguments.until is not None and arguments.since > arguments.until


def _refusal(now_s: float) -> Callable[[Command | None, str], CommandResult]:
    def refused(command: Command | None, reason: str) -> CommandResult:
        return _answer(command, "refused", now_s, reason)

    return refused


def _answer(
    command: Command | None,
    status: Literal["done", "refused", "failed"],
    now_s: float,
    reason: str | None,
    result: dict[str, Any] | None = None,
) -> CommandResult:
    return CommandResult(
        id=None if command is None else command.id,
        name=None if command is None else command.name,
        status=status,
        time=utc(now_s),
        reason=None if reason is None else reason[:500],
        result=result or {},
    )
