"""GET, SET and ACTION of a simulated meter: from a plain request to its plain answer, in blocks where it is long.

It knows neither association nor ciphers; what a client may do comes in as `Rights`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from firmware_io.dlms.apdu import axdr, decode
from firmware_io.dlms.apdu.access import AccessItem, AccessKind
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import ActionResult, DataAccessResult, Selection
from firmware_io.errors import RemoteProtocolError
from firmware_io.obis import ObisCode
from firmware_io.simulator.building.scenario import FaultKind
from firmware_io.simulator.line.short_names import ShortServices
from firmware_io.simulator.meter.cosem import CosemObject, Objects
from firmware_io.simulator.meter.meter import SimulatedMeter

BLOCK_OVERHEAD = 14
MALFORMED = b"\x08no type!"  # an octet string that the server turns into a type that there is not
MAX_SET_OCTETS = 4096  # a value written in blocks: bounds what a client can make us keep


ODD_VALUES: dict[FaultKind, Data] = {
    "odd_type": axdr.octet_string(b"\x08\xfd"),
    "nan": Data(axdr.Tag.FLOAT32, float("nan")),
    "malformed": axdr.octet_string(MALFORMED[1:]),
}


class Rights(NamedTuple):
    """What a client may do: all (`trusted`), or nothing but prove itself (`proving`), or read public objects."""

    trusted: bool = False
    proving: bool = False


@dataclass(slots=True)
class _Long:
    """A reply that goes out in blocks."""

    invoke: int
    octets: bytes
    position: int = 0
    block: int = 0

    def cut(self, size: int) -> bytes:
        """The next block."""
        payload = self.octets[self.position : self.position + size]
        self.position += len(payload)
        self.block += 1
        return payload

    @property
    def last(self) -> bool:
        """Whether that was the last."""
        return self.position >= len(self.octets)


@dataclass(slots=True)
class _LongSet:
    """A value that comes in in blocks."""

    attribute: decode.Attribute
    octets: bytearray = field(default_factory=bytearray)
    block: int = 0


class Services:
    """The services of one association; a new association has new ones."""

    def __init__(self, meter: SimulatedMeter, objects: Objects, rights: Rights, room: int) -> None:
        """`room` is the longest plain APDU that both sides take."""
        self.meter = meter
        self._objects = objects
        self._rights = rights
        self._room = room
        self._long: _Long | None = None
        self._long_set: _LongSet | None = None
        self.short = ShortServices(self._read, objects, room)

    def trust(self) -> None:
        """The client has proved itself."""
        self._rights = Rights(trusted=True)

    def answer(self, request: decode.Apdu) -> bytes:
        """The plain answer to a plain request."""
        if self.meter.faults.strikes("endless_blocks", self.meter.now()):
            block = request.block + 1 if isinstance(request, decode.GetNext) else 1
            if isinstance(request, decode.GetNext | decode.GetRequest | decode.GetListRequest):
                return decode.GetBlock(request.invoke, False, block, b"\x01").encode()
        match request:
            case decode.GetRequest(invoke, attribute, selection):
                self._long = None
                if selection and selection.selector == 1 and self.meter.faults.strikes("no_range", self.meter.now()):
                    return decode.ExceptionResponse(1, 2).encode()
                result = self._read(attribute, selection)
                return self._get(invoke, result)
            case decode.GetListRequest(invoke, items):
                self._long = None
                if self.meter.faults.strikes("no_list", self.meter.now()):
                    return decode.ExceptionResponse(1, 2).encode()
                results = [self._read(attribute, selection) for attribute, selection in items]
                partial = self.meter.faults.strikes("list_partial", self.meter.now())
                if partial:
                    names = [attribute.name for attribute, _ in items]
                    for at, name in enumerate(names):
                        if partial.obis is None or name == ObisCode.parse(partial.obis):
                            results[at] = DataAccessResult.TEMPORARY_FAILURE
                whole = decode.GetListResponse(invoke, tuple(results)).encode()
                return whole if len(whole) <= self._room else self._begin(invoke, decode.encode_results(tuple(results)))
            case decode.GetNext(invoke, block):
                return self._next(invoke, block)
            case decode.SetRequest(invoke, attribute, _, value):
                return decode.SetResponse(invoke, self._write(attribute, value)).encode()
            case decode.SetFirstBlock(_, attribute):
                self._long_set = _LongSet(attribute)
                return self._set_block(request.invoke, request.last, request.block, request.payload)
            case decode.SetBlock(invoke, last, block, payload):
                return self._set_block(invoke, last, block, payload)
            case decode.ActionRequest(invoke, method, parameters):
                result_code, reply = self._act(method, parameters)
                whole = decode.ActionResponse(invoke, result_code, reply).encode()
                if len(whole) <= self._room or reply is None:
                    return whole
                self._long = _Long(invoke, axdr.encode(reply))
                return self._action_block(invoke)
            case decode.ActionNext(invoke, block) if self._long is not None and self._long.block == block:
                return self._action_block(invoke)
            case decode.SetListRequest(invoke, values) if not self.meter.faults.strikes("no_list", self.meter.now()):
                ends = tuple(self._write(attribute, value) for attribute, value in values)
                return decode.SetListResponse(invoke, ends).encode()
            case decode.ActionListRequest(invoke, calls) if not self.meter.faults.strikes("no_list", self.meter.now()):
                ended = tuple(self._act(method, parameters) for method, parameters in calls)
                return decode.ActionListResponse(invoke, ended).encode()
            case decode.AccessRequest(invoke, access) if not self.meter.faults.strikes("no_access", self.meter.now()):
                return decode.AccessResponse(invoke, tuple(map(self._accessed, access))).encode()
            case _:
                return decode.ExceptionResponse(1, 2).encode()

    def _accessed(self, item: AccessItem) -> tuple[AccessKind, DataAccessResult | ActionResult, Data]:
        """One item of an ACCESS."""
        match item.kind:
            case AccessKind.GET | AccessKind.GET_SELECTED:
                value = self._read(item.attribute, item.selection)
                if isinstance(value, DataAccessResult):
                    return AccessKind.GET, value, axdr.NULL
                return AccessKind.GET, DataAccessResult.SUCCESS, value
            case AccessKind.ACTION:
                ended, reply = self._act(item.attribute, None if item.value.tag == axdr.Tag.NULL else item.value)
                return AccessKind.ACTION, ended, axdr.NULL if reply is None else reply
        return AccessKind.SET, self._write(item.attribute, item.value), axdr.NULL

    def _action_block(self, invoke: int) -> bytes:
        """The next part of what a method returned."""
        long = self._long
        assert long is not None
        payload = long.cut(max(self._room - BLOCK_OVERHEAD, 8))
        return decode.ActionBlock(invoke, long.last, long.block, payload).encode()

    def _get(self, invoke: int, result: Data | DataAccessResult) -> bytes:
        if isinstance(result, DataAccessResult):
            return decode.GetResponse(invoke, result).encode()
        octets = axdr.encode(result)
        if len(octets) + 4 <= self._room:
            return b"\xc4\x01" + bytes((invoke, 0)) + octets
        return self._begin(invoke, octets)

    def _begin(self, invoke: int, octets: bytes) -> bytes:
        self._long = _Long(invoke, octets)
        return self._block()

    def _next(self, invoke: int, block: int) -> bytes:
        long = self._long
        if long is None:
            return decode.GetBlock(invoke, True, block, DataAccessResult.NO_LONG_GET_IN_PROGRESS).encode()
        if block != long.block:
            self._long = None
            return decode.GetBlock(invoke, True, block, DataAccessResult.DATA_BLOCK_NUMBER_INVALID).encode()
        long.invoke = invoke
        return self._block()

    def _block(self) -> bytes:
        long = self._long
        assert long is not None
        payload = long.cut(max(self._room - BLOCK_OVERHEAD, 8))
        if long.last:
            self._long = None
        return decode.GetBlock(long.invoke, long.last, long.block, payload).encode()

    def _set_block(self, invoke: int, last: bool, block: int, payload: bytes) -> bytes:
        long = self._long_set
        if long is None:
            return decode.SetLastBlockResponse(invoke, DataAccessResult.NO_LONG_SET_IN_PROGRESS, block).encode()
        if block != long.block + 1 or len(long.octets) + len(payload) > MAX_SET_OCTETS:
            self._long_set = None
            return decode.SetLastBlockResponse(invoke, DataAccessResult.LONG_SET_ABORTED, block).encode()
        long.block = block
        long.octets += payload
        if not last:
            return decode.SetBlockResponse(invoke, block).encode()
        self._long_set = None
        try:
            result = self._write(long.attribute, axdr.decode(bytes(long.octets)))
        except RemoteProtocolError:
            result = DataAccessResult.TYPE_UNMATCHED
        return decode.SetLastBlockResponse(invoke, result, block).encode()

    # Objects

    def _find(self, attribute: decode.Attribute) -> CosemObject | DataAccessResult:
        undefined = self.meter.faults.at("undefined_object", self.meter.now())
        if undefined and (undefined.obis is None or ObisCode.parse(undefined.obis) == attribute.name):
            return DataAccessResult.OBJECT_UNDEFINED
        found = self._objects.find(attribute.class_id, attribute.name)
        if isinstance(found, CosemObject) and not (self._rights.trusted or found.public):
            return DataAccessResult.READ_WRITE_DENIED
        return found

    def _read(self, attribute: decode.Attribute, selection: Selection | None) -> Data | DataAccessResult:
        found = self._find(attribute)
        if isinstance(found, DataAccessResult):
            return found
        faults, now = self.meter.faults, self.meter.now()
        if selection is not None and faults.strikes("no_selection", now):
            return (
                DataAccessResult.SCOPE_OF_ACCESS_VIOLATED if selection.selector == 1 else DataAccessResult.OTHER_REASON
            )
        if attribute.number == 2:
            for kind, value in ODD_VALUES.items():
                strike = faults.at(kind, now)
                if strike and strike.obis is not None and ObisCode.parse(strike.obis) == attribute.name:
                    return value
        return found.get(attribute.number, selection)

    def _write(self, attribute: decode.Attribute, value: Data) -> DataAccessResult:
        found = self._find(attribute)
        if isinstance(found, DataAccessResult):
            return found
        put = found.writable.get(attribute.number)
        return DataAccessResult.READ_WRITE_DENIED if put is None or not self._rights.trusted else put(value)

    def _act(self, method: decode.Attribute, parameters: Data | None) -> tuple[ActionResult, Data | None]:
        found = self._find(method)
        if isinstance(found, DataAccessResult):
            return ActionResult(found), None
        call = found.methods.get(method.number)
        if call is None or not (self._rights.trusted or self._rights.proving):
            return ActionResult.READ_WRITE_DENIED, None
        return call(parameters)
