"""ACCESS (IEC 62056-5-3): many GETs, SETs and ACTIONs in one request, each with a result and data of its own."""

from __future__ import annotations

import enum
from typing import NamedTuple

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import NULL, Data, counted, encode_length
from firmware_io.dlms.apdu.reader import Reader
from firmware_io.dlms.apdu.services import ActionResult, Attribute, DataAccessResult, Selection
from firmware_io.errors import RemoteProtocolError


class AccessKind(enum.IntEnum):
    """What is done with an attribute or method."""

    GET = 1
    SET = 2
    ACTION = 3
    GET_SELECTED = 4
    SET_SELECTED = 5


class AccessItem(NamedTuple):
    """One thing to do; `value` is what is set, or a method's parameters."""

    kind: AccessKind
    attribute: Attribute
    value: Data = NULL
    selection: Selection | None = None


class AccessRequest(NamedTuple):
    """access-request. `invoke` has 32 bits: number, flags, service class and priority."""

    invoke: int
    items: tuple[AccessItem, ...]
    time: bytes = b""

    def encode(self) -> bytes:
        head = b"\xd9" + self.invoke.to_bytes(4, "big") + counted(self.time)
        return head + _specifications(self.items) + _data([item.value for item in self.items])

    @classmethod
    def read(cls, r: Reader) -> AccessRequest:
        """Raises: RemoteProtocolError: malformed."""
        invoke, time = r.number(4, "long invoke-id"), r.counted("date-time")
        items = _read_specifications(r)
        return cls(
            invoke, tuple(i._replace(value=v) for i, v in zip(items, _read_data(r, len(items)), strict=True)), time
        )


class AccessResponse(NamedTuple):
    """access-response: what each item brought, and how it ended."""

    invoke: int
    results: tuple[tuple[AccessKind, DataAccessResult | ActionResult, Data], ...]
    time: bytes = b""

    def encode(self) -> bytes:
        head = b"\xda" + self.invoke.to_bytes(4, "big") + counted(self.time)
        ends = b"".join(bytes((kind, result)) for kind, result, _ in self.results)
        data = _data([data for _, _, data in self.results])
        return head + b"\x00" + data + encode_length(len(self.results)) + ends

    @classmethod
    def read(cls, r: Reader) -> AccessResponse:
        """Raises: RemoteProtocolError: malformed."""
        invoke, time = r.number(4, "long invoke-id"), r.counted("date-time")
        if r.flag("specifications"):
            _read_specifications(r)
        data = [r.value() for _ in range(r.count())]
        if r.count() != len(data):
            raise RemoteProtocolError("access-response: as many results as data were expected")
        results = []
        for value in data:
            kind = _kind(r)
            result = r.octet("result")
            ended = ActionResult(result) if kind is AccessKind.ACTION else DataAccessResult(result)
            results.append((kind, ended, value))
        return cls(invoke, tuple(results), time)


def _kind(r: Reader) -> AccessKind:
    kind = r.octet("access specification")
    if kind not in tuple(AccessKind):
        raise RemoteProtocolError(f"access specification {kind}: expected 1 to 5")
    return AccessKind(kind)


def _specifications(items: tuple[AccessItem, ...]) -> bytes:
    parts = [encode_length(len(items))]
    for item in items:
        parts.append(bytes((item.kind,)) + item.attribute.encode())
        if item.selection is not None:
            parts.append(bytes((item.selection.selector,)) + axdr.encode(item.selection.parameters))
    return b"".join(parts)


def _read_specifications(r: Reader) -> list[AccessItem]:
    items = []
    for _ in range(r.count()):
        kind, attribute = _kind(r), r.attribute()
        selected = kind in (AccessKind.GET_SELECTED, AccessKind.SET_SELECTED)
        selection = Selection(r.octet("selector"), r.value()) if selected else None
        items.append(AccessItem(kind, attribute, NULL, selection))
    return items


def _data(values: list[Data]) -> bytes:
    return encode_length(len(values)) + b"".join(map(axdr.encode, values))


def _read_data(r: Reader, expected: int) -> list[Data]:
    count = r.count()
    if count != expected:
        raise RemoteProtocolError(f"access: {expected} specifications, {count} data")
    return [r.value() for _ in range(count)]
