"""What can go wrong between the agent and a meter; each class answers "who acts next?".

Poor but honest values are no errors: they are a `Quality` flag on the reading.
"""

from __future__ import annotations


class MeterError(Exception):
    """Base of everything that reading a meter may raise.

    The message names the meter, the OBIS code where there is one, what was expected, what came, and what to do.
    """

    def __init__(self, message: str, *, meter: str | None = None, obis: str | None = None) -> None:
        where = " ".join(part for part in (meter, obis) if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.meter = meter
        self.obis = obis


class TransportError(MeterError):
    """The port or the connection failed: reopen it, and back off if that fails."""


class ResponseTimeout(MeterError):
    """The meter said nothing in time: retry once, then go on to the next meter.

    `heard` if something came, but nothing whole: the line is at fault, and the meter is alive.
    """

    def __init__(self, message: str, *, meter: str | None = None, obis: str | None = None, heard: bool = False) -> None:
        super().__init__(message, meter=meter, obis=obis)
        self.heard = heard


class RemoteProtocolError(MeterError):
    """The meter broke the protocol, or refused the association: drop it and associate again."""


class LocalProtocolError(MeterError):
    """We broke the protocol: a bug of ours, to be logged loudly and never retried."""


class SecurityError(RemoteProtocolError):
    """A wrong tag, a replayed counter, a plain reply in a ciphered association: drop it, count it, report it."""


class AccessDenied(MeterError):
    """The meter refused our credentials or rights: stop, because retries can lock a meter.

    `proven` if the refusal came under the meter's own keys. Any other could be anybody's on the line.
    """

    def __init__(
        self, message: str, *, meter: str | None = None, obis: str | None = None, proven: bool = False
    ) -> None:
        super().__init__(message, meter=meter, obis=obis)
        self.proven = proven


class IdentityMismatch(MeterError):
    """Another meter answered than the one that is expected here: take nothing of it, and have a person look."""


class RegisterUnavailable(MeterError):
    """The meter has no such object, or not now: flag the register and read the others."""
