"""A poll in one read: the compact data of a meter (class 62), values without names and types that stand in a template.

It reads the template once and takes the buffer apart by it. What is captured is all that such a poll brings; whether
that is enough is for whoever configures it. Where the buffer does not fit its template, or says nothing about when it
was captured, it is left alone until the meter is looked at again, and the lists take over.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag, counted
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.meter.known import Known
from firmware_io.errors import RemoteProtocolError
from firmware_io.obis import ObisCode

CLASS = 62
BUFFER, CAPTURE_OBJECTS, TEMPLATE, CAPTURE_METHOD = 2, 3, 5, 6
EXPLICIT = 0  # captured when somebody calls the method, not when the buffer is read


class Captured(NamedTuple):
    """What one read brought: values by attribute, and when the meter captured them by its own clock, if it says so."""

    values: dict[Attribute, Data]
    time: MeterTime | None


class CompactData:
    """The compact data object `name` of a meter; `why` says why it is not used, where it is not."""

    def __init__(self, known: Known, name: ObisCode) -> None:
        self._known = known
        self.buffer = Attribute(CLASS, name, BUFFER)
        self._columns: tuple[profile.Column, ...] = ()
        self._template = b""
        self.why: str | None = "its template is not read yet"

    def prepare(self) -> None:
        """Read the template. Raises: MeterError: the meter does not answer, or is another one."""
        name = self.buffer.name
        numbers = (CAPTURE_OBJECTS, TEMPLATE, CAPTURE_METHOD)
        captured, template, method = self._known.read(Attribute(CLASS, name, number) for number in numbers)
        self.why = None
        try:
            if not isinstance(captured, Data) or not isinstance(template, Data) or template.tag != Tag.OCTET_STRING:
                raise RemoteProtocolError("it is not there, or not for us")
            self._columns, self._template = profile.columns(captured), template.value
        except RemoteProtocolError as error:
            self.why = f"compact data {name}: {error}"
            return
        timed = any(column.is_time for column in self._columns)
        if isinstance(method, Data) and method.value == EXPLICIT and not timed:
            self.why = f"compact data {name}: it is captured by a method, and without the time"

    def read(self) -> Captured | None:
        """What the meter shows now; None where the buffer cannot be used, and `why` says so.

        Raises:
            IdentityMismatch: another meter answered.
            MeterError: the meter does not answer, or not as it should.
        """
        if self.why is not None:
            return None
        attributes = [column.attribute for column in self._columns if column.element == 0]
        result, has_plate = self._known.read_with_plate(self.buffer, attributes)
        try:
            values = self._taken_apart(result)
        except RemoteProtocolError as error:
            self.why = f"compact data {self.buffer.name}: {error}"
            return None
        found = {c.attribute: v for c, v in zip(self._columns, values, strict=True) if c.element == 0}
        if has_plate is not None:
            self._known.judge(found.pop(has_plate))
        shown = next((v.value for c, v in zip(self._columns, values, strict=True) if c.is_time), None)
        try:
            time = MeterTime.decode(shown) if isinstance(shown, bytes) else None
        except RemoteProtocolError:
            time = None
        return Captured(found, time)

    def _taken_apart(self, result: object) -> tuple[Data, ...]:
        """A buffer is the content of a compact array of one element, whose type description is the template."""
        if not isinstance(result, Data) or not isinstance(result.value, bytes):
            raise RemoteProtocolError(f"expected its buffer, got {result}")
        content = result.value
        array = axdr.decode(bytes((Tag.COMPACT_ARRAY,)) + self._template + counted(content))
        if len(array.value) != 1 or array.value[0].tag != Tag.STRUCTURE:
            raise RemoteProtocolError("the buffer does not fit its template")
        values: tuple[Data, ...] = array.value[0].value
        if len(values) != len(self._columns):
            raise RemoteProtocolError(f"{len(self._columns)} captured objects, {len(values)} values")
        return values
