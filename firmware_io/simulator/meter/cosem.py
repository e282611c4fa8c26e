"""COSEM objects as a server keeps them: classes, attributes that are computed when asked, and methods.

It knows the interface classes of IEC 62056-62 that a meter needs, and nothing of links or ciphers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import ActionResult, Attribute, DataAccessResult, Selection
from firmware_io.dlms.cosem.profile import Column
from firmware_io.obis import ObisCode
from firmware_io.reading import Unit

Get = Callable[[Selection | None], Data | DataAccessResult]
Put = Callable[[Data], DataAccessResult]
Method = Callable[[Data | None], tuple[ActionResult, Data | None]]


@dataclass(frozen=True, slots=True)
class CosemObject:
    """One object. Attribute 1, the logical name, is there by itself."""

    class_id: int
    name: ObisCode
    attributes: Mapping[int, Get]
    version: int = 0
    writable: Mapping[int, Put] = field(default_factory=dict)
    methods: Mapping[int, Method] = field(default_factory=dict)
    public: bool = False  # readable without authentication

    def get(self, number: int, selection: Selection | None) -> Data | DataAccessResult:
        """The value of an attribute, or why there is none."""
        if number == 1:
            return axdr.octet_string(bytes(self.name))
        attribute = self.attributes.get(number)
        return DataAccessResult.OBJECT_UNDEFINED if attribute is None else attribute(selection)

    def entry(self) -> Data:
        """This object in an object list: class, version, name, access rights."""
        numbers = sorted({1, *self.attributes, *self.writable})
        rights = [
            axdr.structure(axdr.int8(n), axdr.enumeration(3 if n in self.writable else 1), axdr.NULL) for n in numbers
        ]
        methods = [axdr.structure(axdr.int8(n), axdr.boolean(True)) for n in sorted(self.methods)]
        return axdr.structure(
            axdr.uint16(self.class_id),
            axdr.uint8(self.version),
            axdr.octet_string(bytes(self.name)),
            axdr.structure(axdr.array(rights), axdr.array(methods)),
        )


def constant(value: Data) -> Get:
    """An attribute that never changes."""
    return lambda _: value


def plain(read: Callable[[], Data]) -> Get:
    """An attribute without selective access."""
    return lambda _: read()


def scaler_unit(scaler: int, unit: Unit) -> Data:
    """Attribute 3 of a register."""
    return axdr.structure(axdr.int8(scaler), axdr.enumeration(unit))


def data(name: ObisCode, read: Callable[[], Data], *, public: bool = False) -> CosemObject:
    """Class 1."""
    return CosemObject(1, name, {2: plain(read)}, public=public)


def register(name: ObisCode, read: Callable[[], Data], scaler: Callable[[], Data]) -> CosemObject:
    """Class 3."""
    return CosemObject(3, name, {2: plain(read), 3: plain(scaler)})


def compact_data(
    name: ObisCode, captured: Sequence[tuple[Attribute, Callable[[], Data]]], *, spoiled: Callable[[], bool]
) -> CosemObject:
    """Class 62, captured whenever its buffer is read; `spoiled`: the buffer does not fit its template."""

    def values() -> list[bytes]:
        return [axdr.encode(read()) for _, read in captured]

    def buffer() -> Data:
        octets = b"".join(encoded[1:] for encoded in values())
        return axdr.octet_string(octets[:-1] if spoiled() else octets)

    return CosemObject(
        62,
        name,
        {
            2: plain(buffer),
            3: constant(axdr.array(Column(attribute).encode() for attribute, _ in captured)),
            4: constant(axdr.uint8(1)),
            5: plain(lambda: axdr.octet_string(bytes((Tag.STRUCTURE, len(captured), *(v[0] for v in values()))))),
            6: constant(axdr.enumeration(1)),  # captured when it is read
        },
        version=1,
    )


class Objects:
    """The objects of one logical device, in the order of its object list."""

    def __init__(self, objects: list[CosemObject]) -> None:
        self._objects = {o.name: o for o in objects}

    def __iter__(self) -> Iterator[CosemObject]:
        return iter(self._objects.values())

    def find(self, class_id: int, name: ObisCode) -> CosemObject | DataAccessResult:
        """The object, or how the meter refuses."""
        found = self._objects.get(name)
        if found is None:
            return DataAccessResult.OBJECT_UNDEFINED
        return found if found.class_id == class_id else DataAccessResult.OBJECT_CLASS_INCONSISTENT

    def list(self, *, public_only: bool) -> Data:
        """Attribute 2 of the association."""
        return axdr.array(o.entry() for o in self._objects.values() if o.public or not public_only)
