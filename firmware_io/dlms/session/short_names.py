"""Short names under an association that speaks of logical ones: a GET goes out as a READ, its answer comes back as one.

Which object stands where says the meter's object list, read once in an association. It is read-only: SET and ACTION
are refused here, but for the answer to a challenge. A READ has no invoke-id, so that a late answer cannot be told from
the right one: whoever loses one over a stream has to begin anew (the driver does).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from firmware_io.dlms.apdu import axdr, decode
from firmware_io.dlms.apdu.axdr import NULL, Data, Tag
from firmware_io.dlms.apdu.decode import ActionResult, Apdu, Attribute, DataAccessResult, Selection
from firmware_io.dlms.apdu.refusals import MalformedData, ServiceRefused
from firmware_io.dlms.apdu.short_names import (
    OBJECT_LIST,
    REPLY_TO_HLS,
    NextBlock,
    ReadRequest,
    ReadResponse,
    ValueBlock,
    Variable,
    address,
)
from firmware_io.dlms.session.blocks import LongValue
from firmware_io.errors import RegisterUnavailable, RemoteProtocolError
from firmware_io.obis import CURRENT_ASSOCIATION, ObisCode

MAX_OCTETS = 1 << 18  # of one value in blocks


class ShortNames:
    """The names of one meter; `exchange` sends a plain APDU and returns the plain answer, `monotonic` is the line's."""

    def __init__(self, exchange: Callable[[bytes], bytes], monotonic: Callable[[], float]) -> None:
        self._exchange, self._monotonic = exchange, monotonic
        self._bases: dict[tuple[int, ObisCode], int] | None = None

    def request(self, request: Apdu, invoke: int) -> Apdu:
        """Answer a request that speaks of logical names.

        Raises:
            RegisterUnavailable: not a GET; nothing was sent.
            MeterError: as an exchange, or the answer is none to a READ.
        """
        match request:
            case decode.GetRequest(_, attribute, selection):
                return decode.GetResponse(invoke, self._get(attribute, selection))
            case decode.GetListRequest(_, items):
                return decode.GetListResponse(invoke, self._get_list([attribute for attribute, _ in items]))
            case decode.ActionRequest(_, method, parameters) if method.name == CURRENT_ASSOCIATION:
                variable = Variable(REPLY_TO_HLS, Selection(0, NULL if parameters is None else parameters))
                (result,) = self._read([variable])
                if isinstance(result, Data):
                    return decode.ActionResponse(invoke, ActionResult.SUCCESS, result)
                return decode.ActionResponse(invoke, ActionResult.OTHER_REASON)
        raise RegisterUnavailable("a meter with short names is read only")

    def _get(self, attribute: Attribute, selection: Selection | None) -> Data | DataAccessResult:
        name = self._name(attribute)
        if name is None:
            return DataAccessResult.OBJECT_UNDEFINED
        (result,) = self._read([Variable(name, selection)])
        return self._joined(result) if isinstance(result, ValueBlock) else result

    def _get_list(self, attributes: list[Attribute]) -> tuple[Data | DataAccessResult, ...]:
        """What the meter does not have is not asked for."""
        names = [self._name(attribute) for attribute in attributes]
        asked = [Variable(name) for name in names if name is not None]
        results = iter(self._read(asked) if asked else [])
        found: list[Data | DataAccessResult] = []
        for name in names:
            result = DataAccessResult.OBJECT_UNDEFINED if name is None else next(results)
            if isinstance(result, ValueBlock):
                raise ServiceRefused("the meter answers a list in blocks: it is asked one by one")
            found.append(result)
        return tuple(found)

    def _name(self, attribute: Attribute) -> int | None:
        """The short name of an attribute; None if the meter does not have the object."""
        if self._bases is None:
            self._bases = self._object_list()
        base = self._bases.get((attribute.class_id, attribute.name))
        return None if base is None else address(base, attribute.number)

    def _object_list(self) -> dict[tuple[int, ObisCode], int]:
        (result,) = self._read([Variable(OBJECT_LIST)])
        objects = self._joined(result) if isinstance(result, ValueBlock) else result
        if not isinstance(objects, Data) or objects.tag != Tag.ARRAY:
            raise RemoteProtocolError(f"object list of short names: expected an array, got {objects}")
        bases = {}
        for item in objects.value:
            match item.plain():
                case [int(base), int(class_id), int(_), bytes(name)] if len(name) == 6:
                    bases[class_id, ObisCode.from_bytes(name)] = base & 0xFFFF
                case _:
                    raise RemoteProtocolError(f"object list of short names: {item}")
        return bases

    def _read(self, variables: Sequence[Variable | NextBlock]) -> tuple[Data | DataAccessResult | ValueBlock, ...]:
        octets = self._exchange(ReadRequest(tuple(variables)).encode())
        try:
            results = ReadResponse.decode(octets).results
        except RemoteProtocolError as error:
            raise MalformedData(str(error)) from error
        if len(results) != len(variables):
            raise RemoteProtocolError(f"{len(variables)} short names asked for, {len(results)} results came")
        return results

    def _joined(self, block: ValueBlock) -> Data | DataAccessResult:
        """A value that comes in blocks."""
        long = LongValue(self._monotonic, MAX_OCTETS)
        while (whole := long.add(block.block, block.payload, last=block.last)) is None:
            (following,) = self._read([NextBlock(block.block)])
            if isinstance(following, DataAccessResult):
                return following
            if not isinstance(following, ValueBlock):
                raise RemoteProtocolError(f"block {block.block + 1} of a short name was expected")
            block = following
        return axdr.decode(whole)
