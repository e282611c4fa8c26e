"""The xDLMS services as values, and how each is written (IEC 62056-53/-5-3, logical names).

Named tuples with an `encode`; reading them back is in `apdu`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

from firmware_io.dlms import _codec
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, counted, encode_length
from firmware_io.errors import LocalProtocolError
from firmware_io.obis import ObisCode


class DataAccessResult(enum.IntEnum):
    """Why an attribute could not be read or written."""

    SUCCESS = 0
    HARDWARE_FAULT = 1
    TEMPORARY_FAILURE = 2
    READ_WRITE_DENIED = 3
    OBJECT_UNDEFINED = 4
    OBJECT_CLASS_INCONSISTENT = 9
    OBJECT_UNAVAILABLE = 11
    TYPE_UNMATCHED = 12
    SCOPE_OF_ACCESS_VIOLATED = 13
    DATA_BLOCK_UNAVAILABLE = 14
    LONG_GET_ABORTED = 15
    NO_LONG_GET_IN_PROGRESS = 16
    LONG_SET_ABORTED = 17
    NO_LONG_SET_IN_PROGRESS = 18
    DATA_BLOCK_NUMBER_INVALID = 19
    OTHER_REASON = 250

    @classmethod
    def _missing_(cls, value: object) -> DataAccessResult:
        return cls.OTHER_REASON  # manufacturers add their own


class ActionResult(enum.IntEnum):
    """How a method ended."""

    SUCCESS = 0
    HARDWARE_FAULT = 1
    TEMPORARY_FAILURE = 2
    READ_WRITE_DENIED = 3
    OBJECT_UNDEFINED = 4
    OBJECT_CLASS_INCONSISTENT = 9
    OBJECT_UNAVAILABLE = 11
    TYPE_UNMATCHED = 12
    SCOPE_OF_ACCESS_VIOLATED = 13
    DATA_BLOCK_UNAVAILABLE = 14
    LONG_ACTION_ABORTED = 15
    NO_LONG_ACTION_IN_PROGRESS = 16
    OTHER_REASON = 250

    @classmethod
    def _missing_(cls, value: object) -> ActionResult:
        return cls.OTHER_REASON


_SERVICE_ERRORS = {
    1: "operation not possible",
    2: "service not supported",
    3: "other reason",
    4: "PDU too long",
    5: "deciphering error",
    6: "invocation counter error",
}
_ERROR_GROUPS = {
    0: "application-reference",
    1: "hardware-resource",
    2: "vde-state",
    3: "service",
    4: "definition",
    5: "access",
    6: "initiate",
    7: "load-data-set",
    8: "change-scope",
    9: "task",
}


class Attribute(NamedTuple):
    """One attribute (or, in an ACTION, one method) of one object."""

    class_id: int
    name: ObisCode
    number: int

    def encode(self) -> bytes:
        """Nine octets: class, logical name, number (Integer8; what is above 127 is written as the octet it is).

        Raises:
            LocalProtocolError: class or number does not fit.
        """
        if not (0 <= self.class_id <= 0xFFFF and -0x80 <= self.number <= 0xFF):
            raise LocalProtocolError(f"{self}: out of range, so it would be another one")
        return self.class_id.to_bytes(2, "big") + bytes(self.name) + bytes((self.number & 0xFF,))

    def __str__(self) -> str:
        return f"{self.name} (class {self.class_id}) #{self.number}"


class Selection(NamedTuple):
    """Selective access: which selector, and its parameters."""

    selector: int
    parameters: Data


class GetRequest(NamedTuple):
    """GET.request normal. `invoke` is the whole octet: number, service class, priority."""

    invoke: int
    attribute: Attribute
    selection: Selection | None = None

    def encode(self) -> bytes:
        invoke, attribute, selection = self
        if selection is None:
            return _codec.encode_get(invoke, attribute)
        return bytes((0xC0, 1, invoke)) + attribute.encode() + _selection(selection)


class GetNext(NamedTuple):
    """GET.request next: the block numbered `block` has come, send the one behind it."""

    invoke: int
    block: int

    def encode(self) -> bytes:
        return bytes((0xC0, 2, self.invoke)) + self.block.to_bytes(4, "big")


class GetListRequest(NamedTuple):
    """GET.request with list."""

    invoke: int
    items: tuple[tuple[Attribute, Selection | None], ...]

    def encode(self) -> bytes:
        items = b"".join(a.encode() + _selection(s) for a, s in self.items)
        return bytes((0xC0, 3, self.invoke)) + encode_length(len(self.items)) + items


class GetResponse(NamedTuple):
    """GET.response normal."""

    invoke: int
    result: Data | DataAccessResult

    def encode(self) -> bytes:
        return bytes((0xC4, 1, self.invoke)) + encode_result(self.result)


class GetBlock(NamedTuple):
    """GET.response with data block: a part of the octets of a long reply, or why there is none."""

    invoke: int
    last: bool
    block: int
    payload: bytes | DataAccessResult

    def encode(self) -> bytes:
        return bytes((0xC4, 2, self.invoke, self.last)) + self.block.to_bytes(4, "big") + _raw_result(self.payload)


class GetListResponse(NamedTuple):
    """GET.response with list."""

    invoke: int
    results: tuple[Data | DataAccessResult, ...]

    def encode(self) -> bytes:
        return bytes((0xC4, 3, self.invoke)) + encode_results(self.results)


class SetRequest(NamedTuple):
    """SET.request normal."""

    invoke: int
    attribute: Attribute
    selection: Selection | None
    value: Data

    def encode(self) -> bytes:
        head = bytes((0xC1, 1, self.invoke)) + self.attribute.encode()
        return head + _selection(self.selection) + axdr.encode(self.value)


class SetFirstBlock(NamedTuple):
    """SET.request with first data block."""

    invoke: int
    attribute: Attribute
    selection: Selection | None
    last: bool
    block: int
    payload: bytes

    def encode(self) -> bytes:
        head = bytes((0xC1, 2, self.invoke)) + self.attribute.encode() + _selection(self.selection)
        return head + _block(self.last, self.block, self.payload)


class SetBlock(NamedTuple):
    """SET.request with data block."""

    invoke: int
    last: bool
    block: int
    payload: bytes

    def encode(self) -> bytes:
        return bytes((0xC1, 3, self.invoke)) + _block(self.last, self.block, self.payload)


class SetResponse(NamedTuple):
    """SET.response normal."""

    invoke: int
    result: DataAccessResult

    def encode(self) -> bytes:
        return bytes((0xC5, 1, self.invoke, self.result))


class SetBlockResponse(NamedTuple):
    """SET.response to a block that is not the last."""

    invoke: int
    block: int

    def encode(self) -> bytes:
        return bytes((0xC5, 2, self.invoke)) + self.block.to_bytes(4, "big")


class SetLastBlockResponse(NamedTuple):
    """SET.response to the last block."""

    invoke: int
    result: DataAccessResult
    block: int

    def encode(self) -> bytes:
        return bytes((0xC5, 3, self.invoke, self.result)) + self.block.to_bytes(4, "big")


class ActionRequest(NamedTuple):
    """ACTION.request normal."""

    invoke: int
    method: Attribute
    parameters: Data | None = None

    def encode(self) -> bytes:
        parameters = b"\x00" if self.parameters is None else b"\x01" + axdr.encode(self.parameters)
        return bytes((0xC3, 1, self.invoke)) + self.method.encode() + parameters


class ActionResponse(NamedTuple):
    """ACTION.response normal; `reply` is None where the method returns nothing."""

    invoke: int
    result: ActionResult
    reply: Data | DataAccessResult | None = None

    def encode(self) -> bytes:
        reply = b"\x00" if self.reply is None else b"\x01" + encode_result(self.reply)
        return bytes((0xC7, 1, self.invoke, self.result)) + reply


class DataNotification(NamedTuple):
    """What a meter pushes by itself. `time` is empty or a date-time of 12 octets."""

    invoke: int
    time: bytes
    body: Data

    def encode(self) -> bytes:
        head = b"\x0f" + self.invoke.to_bytes(4, "big") + counted(self.time)
        return head + axdr.encode(self.body)


class EventNotification(NamedTuple):
    """EventNotification.request: one attribute, unasked."""

    time: bytes
    attribute: Attribute
    value: Data

    def encode(self) -> bytes:
        time = b"\x01" + counted(self.time) if self.time else b"\x00"
        return b"\xc2" + time + self.attribute.encode() + axdr.encode(self.value)


class ExceptionResponse(NamedTuple):
    """exception-response: the meter understood no service. `counter` only with an invocation counter error (6)."""

    state: int
    service: int
    counter: int | None = None

    def encode(self) -> bytes:
        counter = b"" if self.counter is None else self.counter.to_bytes(4, "big")
        return bytes((0xD8, self.state, self.service)) + counter

    def __str__(self) -> str:
        state = {1: "service not allowed", 2: "service unknown"}.get(self.state, f"state {self.state}")
        service = _SERVICE_ERRORS.get(self.service, f"service {self.service}")
        return f"{state}, {service}" + ("" if self.counter is None else f", it expects {self.counter}")


class ServiceError(NamedTuple):
    """confirmed-service-error: which service failed, in which group of reasons, and the reason."""

    service: int
    group: int
    reason: int

    def encode(self) -> bytes:
        return bytes((0x0E, self.service, self.group, self.reason))

    def __str__(self) -> str:
        group = _ERROR_GROUPS.get(self.group, f"group {self.group}")
        return f"service {self.service}: {group} error {self.reason}"


Apdu: TypeAlias = (
    GetRequest
    | GetNext
    | GetListRequest
    | GetResponse
    | GetBlock
    | GetListResponse
    | SetRequest
    | SetFirstBlock
    | SetBlock
    | SetResponse
    | SetBlockResponse
    | SetLastBlockResponse
    | ActionRequest
    | ActionResponse
    | DataNotification
    | EventNotification
    | ExceptionResponse
    | ServiceError
)


def encode_results(results: tuple[Data | DataAccessResult, ...]) -> bytes:
    """The results of a GET with list; a server sends them in blocks when they are longer than a PDU."""
    return encode_length(len(results)) + b"".join(map(encode_result, results))


def _selection(selection: Selection | None) -> bytes:
    if selection is None:
        return b"\x00"
    return bytes((1, selection.selector)) + axdr.encode(selection.parameters)


def encode_result(result: Data | DataAccessResult) -> bytes:
    """Data, or why there is none."""
    if isinstance(result, Data):
        return b"\x00" + axdr.encode(result)
    return bytes((1, result))


def _raw_result(payload: bytes | DataAccessResult) -> bytes:
    if isinstance(payload, bytes):
        return b"\x00" + counted(payload)
    return bytes((1, payload))


def _block(last: bool, block: int, payload: bytes) -> bytes:
    return bytes((last,)) + block.to_bytes(4, "big") + counted(payload)
