"""SET and ACTION with list, and what an ACTION returns in blocks (IEC 62056-53/-5-3), in both directions."""

from __future__ import annotations

from typing import NamedTuple

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import NULL, Data, Tag, counted, encode_length
from firmware_io.dlms.apdu.reader import Reader
from firmware_io.dlms.apdu.services import ActionResult, Attribute, DataAccessResult, encode_result
from firmware_io.errors import RemoteProtocolError


class SetListRequest(NamedTuple):
    """SET.request with list: attributes, and a value for each; no selective access."""

    invoke: int
    items: tuple[tuple[Attribute, Data], ...]

    def encode(self) -> bytes:
        count = encode_length(len(self.items))
        names = b"".join(attribute.encode() + b"\x00" for attribute, _ in self.items)
        return bytes((0xC1, 4, self.invoke)) + count + names + count + b"".join(axdr.encode(v) for _, v in self.items)

    @classmethod
    def read(cls, r: Reader) -> SetListRequest:
        """Raises: RemoteProtocolError: malformed."""
        invoke = r.octet("invoke-id")
        names = []
        for _ in range(r.count()):
            names.append(r.attribute())
            if r.selection() is not None:
                raise RemoteProtocolError("SET with list and selective access is not supported")
        return cls(invoke, tuple(zip(names, _values(r, len(names)), strict=True)))


class SetListResponse(NamedTuple):
    """SET.response with list."""

    invoke: int
    results: tuple[DataAccessResult, ...]

    def encode(self) -> bytes:
        return bytes((0xC5, 5, self.invoke)) + encode_length(len(self.results)) + bytes(self.results)

    @classmethod
    def read(cls, r: Reader) -> SetListResponse:
        """Raises: RemoteProtocolError: malformed."""
        invoke = r.octet("invoke-id")
        return cls(invoke, tuple(DataAccessResult(r.octet("result")) for _ in range(r.count())))


class ActionListRequest(NamedTuple):
    """ACTION.request with list: methods, and parameters for each, null where there are none."""

    invoke: int
    items: tuple[tuple[Attribute, Data | None], ...]

    def encode(self) -> bytes:
        count = encode_length(len(self.items))
        names = b"".join(method.encode() for method, _ in self.items)
        values = b"".join(axdr.encode(NULL if value is None else value) for _, value in self.items)
        return bytes((0xC3, 3, self.invoke)) + count + names + count + values

    @classmethod
    def read(cls, r: Reader) -> ActionListRequest:
        """Raises: RemoteProtocolError: malformed."""
        invoke = r.octet("invoke-id")
        names = [r.attribute() for _ in range(r.count())]
        values = [None if value.tag == Tag.NULL else value for value in _values(r, len(names))]
        return cls(invoke, tuple(zip(names, values, strict=True)))


class ActionListResponse(NamedTuple):
    """ACTION.response with list; what a method returns is None where it returns nothing."""

    invoke: int
    results: tuple[tuple[ActionResult, Data | DataAccessResult | None], ...]

    def encode(self) -> bytes:
        head = bytes((0xC7, 3, self.invoke)) + encode_length(len(self.results))
        return head + b"".join(
            bytes((result,)) + (b"\x00" if reply is None else b"\x01" + encode_result(reply))
            for result, reply in self.results
        )

    @classmethod
    def read(cls, r: Reader) -> ActionListResponse:
        """Raises: RemoteProtocolError: malformed."""
        invoke, results = r.octet("invoke-id"), []
        for _ in range(r.count()):
            result = ActionResult(r.octet("action result"))
            results.append((result, r.result() if r.flag("return parameters") else None))
        return cls(invoke, tuple(results))


class ActionNext(NamedTuple):
    """ACTION.request next-pblock: that block of the reply has come, send the one behind it."""

    invoke: int
    block: int

    def encode(self) -> bytes:
        return bytes((0xC3, 2, self.invoke)) + self.block.to_bytes(4, "big")

    @classmethod
    def read(cls, r: Reader) -> ActionNext:
        """Raises: RemoteProtocolError: malformed."""
        return cls(r.octet("invoke-id"), r.number(4, "block number"))


class ActionBlock(NamedTuple):
    """ACTION.response with pblock: a part of a long reply, which is what the method returns, or a list of that."""

    invoke: int
    last: bool
    block: int
    payload: bytes

    def encode(self) -> bytes:
        head = bytes((0xC7, 2, self.invoke, self.last)) + self.block.to_bytes(4, "big")
        return head + counted(self.payload)

    @classmethod
    def read(cls, r: Reader) -> ActionBlock:
        """Raises: RemoteProtocolError: malformed."""
        return cls(r.octet("invoke-id"), r.flag("last block"), r.number(4, "block number"), r.counted("block"))


def _values(r: Reader, expected: int) -> list[Data]:
    count = r.count()
    if count != expected:
        raise RemoteProtocolError(f"{expected} names, {count} values")
    return [r.value() for _ in range(count)]
