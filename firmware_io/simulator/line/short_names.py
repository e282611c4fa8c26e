"""READ of a simulated meter that has short names: which object stands where, and long values in blocks."""

from __future__ import annotations

from collections.abc import Callable

from firmware_io.dlms.apdu import axdr, decode
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import DataAccessResult, Selection
from firmware_io.dlms.apdu.short_names import OBJECT_LIST, NextBlock, ReadRequest, ReadResponse, ValueBlock, Variable
from firmware_io.simulator.meter.cosem import Objects

BLOCK_OVERHEAD = 14


class ShortServices:
    """READ: objects by their place in the object list, each 256 short names behind the one before it."""

    def __init__(
        self,
        read: Callable[[decode.Attribute, Selection | None], Data | DataAccessResult],
        objects: Objects,
        room: int,
    ) -> None:
        self._read, self._room = read, room
        self._bases = {256 * n: (o.class_id, o.name) for n, o in enumerate(objects, 1)}
        self._versions = {o.name: o.version for o in objects}
        self._long: list[bytes] = []

    def answer(self, request: ReadRequest) -> bytes:
        """The plain answer."""
        alone = len(request.items) == 1
        return ReadResponse(tuple(self._one(item, alone=alone) for item in request.items)).encode()

    def _one(self, item: Variable | NextBlock, *, alone: bool) -> Data | DataAccessResult | ValueBlock:
        if isinstance(item, NextBlock):
            return self._block(item.block + 1)
        if item.name == OBJECT_LIST:
            value: Data | DataAccessResult = axdr.array(
                axdr.structure(
                    axdr.int16(base), axdr.uint16(c), axdr.uint8(self._versions[name]), axdr.octet_string(bytes(name))
                )
                for base, (c, name) in self._bases.items()
            )
        else:
            base, offset = item.name & 0xFF00, item.name & 0xFF
            if base not in self._bases or offset % 8:
                return DataAccessResult.OBJECT_UNDEFINED
            class_id, name = self._bases[base]
            value = self._read(decode.Attribute(class_id, name, offset // 8 + 1), item.selection)
        octets = axdr.encode(value) if isinstance(value, Data) else b""
        if alone and len(octets) > self._room - BLOCK_OVERHEAD:
            size = max(self._room - BLOCK_OVERHEAD, 8)
            self._long = [octets[at : at + size] for at in range(0, len(octets), size)]
            return self._block(1)
        return value

    def _block(self, number: int) -> DataAccessResult | ValueBlock:
        if not 1 <= number <= len(self._long):
            return DataAccessResult.DATA_BLOCK_NUMBER_INVALID
        return ValueBlock(number == len(self._long), number, self._long[number - 1])
