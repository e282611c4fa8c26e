"""What a meter refuses, as errors that tell one refusal from the other."""

from __future__ import annotations

from typing import TypeVar

from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.services import ActionResult, Attribute, DataAccessResult, ExceptionResponse, ServiceError
from firmware_io.errors import AccessDenied, RegisterUnavailable, RemoteProtocolError

_DENIED = (DataAccessResult.READ_WRITE_DENIED, DataAccessResult.SCOPE_OF_ACCESS_VIOLATED)

T = TypeVar("T")


class ServiceRefused(RemoteProtocolError):
    """The meter answered in good order that it does no such service."""


class MalformedData(RegisterUnavailable):
    """The reply to this very request came whole, but the data in it cannot be understood."""


class ExceptionResponseError(ServiceRefused):
    """The meter answered exception-response: it takes no such service in this state."""

    def __init__(self, response: ExceptionResponse) -> None:
        super().__init__(f"exception-response: {response}")
        self.response = response


class ServiceErrorResponse(ServiceRefused):
    """The meter answered confirmed-service-error."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(f"confirmed-service-error: {error}")
        self.error = error


class AssociationRefused(RemoteProtocolError):
    """The meter refused the association for a reason that is no matter of passwords or keys."""


class DataAccessError(RegisterUnavailable):
    """data-access-result: the attribute cannot be read or written; `result` says why."""

    def __init__(self, attribute: Attribute, result: DataAccessResult) -> None:
        super().__init__(f"{attribute}: {result.name.lower().replace('_', ' ')}")
        self.result = result


class ActionError(RegisterUnavailable):
    """The method did not succeed; `result` says why."""

    def __init__(self, method: Attribute, result: ActionResult) -> None:
        super().__init__(f"method {method}: {result.name.lower().replace('_', ' ')}")
        self.result = result


def expect(kind: type[T], reply: object) -> T:
    """The reply, if it is of that kind."""
    if isinstance(reply, kind):
        return reply
    raise RemoteProtocolError(f"expected {kind.__name__}, got {type(reply).__name__}")


def data_or_error(attribute: Attribute, result: Data | DataAccessResult) -> Data:
    """The value, or the error that stands in its place."""
    if isinstance(result, Data):
        return result
    if result in _DENIED:
        raise AccessDenied(f"{attribute}: {result.name.lower().replace('_', ' ')}; our client may not")
    raise DataAccessError(attribute, result)
