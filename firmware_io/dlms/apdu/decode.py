"""xDLMS application protocol data units (IEC 62056-53/-5-3, logical names), in both directions.

Octets in, named tuples out; the way back is in `services`, whose names are here too. Which one may come when is the
association's business; ciphered ones are opened by `security` first. Association requests and their answers are in
`acse`.

A reply is taken only when its octets are used up exactly: what is left over means that they were not what they
seem to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from firmware_io.dlms import _codec
from firmware_io.dlms.apdu import services
from firmware_io.dlms.apdu.access import AccessRequest, AccessResponse
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.lists import (
    ActionBlock,
    ActionListRequest,
    ActionListResponse,
    ActionNext,
    SetListRequest,
    SetListResponse,
)
from firmware_io.dlms.apdu.reader import MAX_ITEMS, Reader
from firmware_io.dlms.apdu.services import (
    ActionRequest,
    ActionResponse,
    ActionResult,
    Attribute,
    DataAccessResult,
    DataNotification,
    EventNotification,
    ExceptionResponse,
    GetBlock,
    GetListRequest,
    GetListResponse,
    GetNext,
    GetRequest,
    GetResponse,
    Selection,
    ServiceError,
    SetBlock,
    SetBlockResponse,
    SetFirstBlock,
    SetLastBlockResponse,
    SetRequest,
    SetResponse,
    encode_results,
)
from firmware_io.errors import RemoteProtocolError

__all__ = [
    "MAX_ITEMS",
    "AccessRequest",
    "AccessResponse",
    "ActionBlock",
    "ActionListRequest",
    "ActionListResponse",
    "ActionNext",
    "ActionRequest",
    "ActionResponse",
    "ActionResult",
    "Apdu",
    "Attribute",
    "DataAccessResult",
    "DataNotification",
    "EventNotification",
    "ExceptionResponse",
    "GetBlock",
    "GetListRequest",
    "GetListResponse",
    "GetNext",
    "GetRequest",
    "GetResponse",
    "Selection",
    "ServiceError",
    "SetBlock",
    "SetBlockResponse",
    "SetFirstBlock",
    "SetLastBlockResponse",
    "SetListRequest",
    "SetListResponse",
    "SetRequest",
    "SetResponse",
    "decode",
    "decode_results",
    "encode_results",
]


Apdu: TypeAlias = (
    services.Apdu
    | AccessRequest
    | AccessResponse
    | ActionBlock
    | ActionListRequest
    | ActionListResponse
    | ActionNext
    | SetListRequest
    | SetListResponse
)


def decode(octets: bytes) -> Apdu:
    """The one APDU that `octets` are: all of them.

    Raises:
        RemoteProtocolError: unknown, malformed, cut short, or octets are left over.
    """
    reading = _codec.decode_get_response(octets, GetResponse, Data)
    if reading is not None:
        return reading
    listed = _codec.decode_get_list(octets, GetListResponse, Data, DataAccessResult)
    if listed is not None:
        return listed
    reader = Reader(octets)
    tag = reader.octet("APDU tag")
    choice = reader.octet("APDU choice") if tag in _CHOICES else 0
    read = _READERS.get((tag, choice))
    if read is None:
        raise RemoteProtocolError(f"APDU {octets[:2].hex()} is unknown or not supported")
    apdu = read(reader)
    reader.finish()
    return apdu


def decode_results(octets: bytes) -> tuple[Data | DataAccessResult, ...]:
    """The results of a GET with list that came in blocks.

    Raises:
        RemoteProtocolError: malformed.
    """
    reader = Reader(octets)
    results = tuple(reader.result() for _ in range(reader.count()))
    reader.finish()
    return results


def _get_list_request(r: Reader) -> GetListRequest:
    invoke = r.octet("invoke-id")
    return GetListRequest(invoke, tuple((r.attribute(), r.selection()) for _ in range(r.count())))


def _get_block(r: Reader) -> GetBlock:
    invoke, last, block = r.octet("invoke-id"), r.flag("last block"), r.number(4, "block number")
    choice = r.octet("result")
    if choice == 1:
        return GetBlock(invoke, last, block, DataAccessResult(r.octet("data access result")))
    if choice:
        raise RemoteProtocolError(f"block result choice {choice}: expected 0 (octets) or 1 (data-access-result)")
    return GetBlock(invoke, last, block, r.counted("block"))


def _set_first_block(r: Reader) -> SetFirstBlock:
    invoke, attribute, selection = r.octet("invoke-id"), r.attribute(), r.selection()
    last, block = r.flag("last block"), r.number(4, "block number")
    return SetFirstBlock(invoke, attribute, selection, last, block, r.counted("block"))


def _set_block(r: Reader) -> SetBlock:
    invoke, last, block = r.octet("invoke-id"), r.flag("last block"), r.number(4, "block number")
    return SetBlock(invoke, last, block, r.counted("block"))


def _set_last_block_response(r: Reader) -> SetLastBlockResponse:
    invoke, result = r.octet("invoke-id"), DataAccessResult(r.octet("result"))
    return SetLastBlockResponse(invoke, result, r.number(4, "block number"))


def _action_request(r: Reader) -> ActionRequest:
    return ActionRequest(r.octet("invoke-id"), r.attribute(), r.value() if r.flag("parameters") else None)


def _action_response(r: Reader) -> ActionResponse:
    invoke, result = r.octet("invoke-id"), ActionResult(r.octet("action result"))
    return ActionResponse(invoke, result, r.result() if r.flag("return parameters") else None)


def _time(octets: bytes) -> bytes:
    if len(octets) not in (0, 12):
        raise RemoteProtocolError(f"a date-time of {len(octets)} octets; expected 12 or none")
    return octets


def _data_notification(r: Reader) -> DataNotification:
    return DataNotification(r.number(4, "long invoke-id"), _time(r.counted("date-time")), r.value())


def _event_notification(r: Reader) -> EventNotification:
    time = _time(r.counted("date-time")) if r.flag("date-time") else b""
    return EventNotification(time, r.attribute(), r.value())


def _exception_response(r: Reader) -> ExceptionResponse:
    state, service = r.octet("state error"), r.octet("service error")
    return ExceptionResponse(state, service, r.number(4, "counter") if service == 6 else None)


_CHOICES = frozenset((0xC0, 0xC1, 0xC3, 0xC4, 0xC5, 0xC7))
_READERS: dict[tuple[int, int], Callable[[Reader], Apdu]] = {
    (0xC0, 1): lambda r: GetRequest(r.octet("invoke-id"), r.attribute(), r.selection()),
    (0xC0, 2): lambda r: GetNext(r.octet("invoke-id"), r.number(4, "block number")),
    (0xC0, 3): _get_list_request,
    (0xC1, 1): lambda r: SetRequest(r.octet("invoke-id"), r.attribute(), r.selection(), r.value()),
    (0xC1, 2): _set_first_block,
    (0xC1, 3): _set_block,
    (0xC1, 4): SetListRequest.read,
    (0xC2, 0): _event_notification,
    (0xC3, 1): _action_request,
    (0xC3, 2): ActionNext.read,
    (0xC3, 3): ActionListRequest.read,
    (0xC4, 1): lambda r: GetResponse(r.octet("invoke-id"), r.result()),
    (0xC4, 2): _get_block,
    (0xC5, 1): lambda r: SetResponse(r.octet("invoke-id"), DataAccessResult(r.octet("result"))),
    (0xC5, 2): lambda r: SetBlockResponse(r.octet("invoke-id"), r.number(4, "block number")),
    (0xC5, 3): _set_last_block_response,
    (0xC5, 5): SetListResponse.read,
    (0xC7, 1): _action_response,
    (0xC7, 2): ActionBlock.read,
    (0xC7, 3): ActionListResponse.read,
    (0x0E, 0): lambda r: ServiceError(r.octet("service"), r.octet("group"), r.octet("reason")),
    (0x0F, 0): _data_notification,
    (0xD8, 0): _exception_response,
    (0xD9, 0): AccessRequest.read,
    (0xDA, 0): AccessResponse.read,
}
