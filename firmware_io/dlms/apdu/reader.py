"""What all APDUs are read with: parts of the application layer in the order in which they come."""

from __future__ import annotations

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.services import Attribute, DataAccessResult, Selection
from firmware_io.errors import RemoteProtocolError
from firmware_io.obis import ObisCode

MAX_ITEMS = 255  # of one request or reply with list


class Reader:
    """A cursor over the octets of one APDU; every step checks that the octets are there."""

    __slots__ = ("octets", "offset")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.offset = 0

    def take(self, count: int, what: str) -> bytes:
        """The next `count` octets."""
        taken = axdr.take(self.octets, self.offset, count, what)
        self.offset += count
        return taken

    def octet(self, what: str) -> int:
        """The next octet."""
        return self.take(1, what)[0]

    def number(self, count: int, what: str) -> int:
        """An unsigned number of `count` octets."""
        return int.from_bytes(self.take(count, what), "big")

    def flag(self, what: str) -> bool:
        """An octet that is 0 or not."""
        return self.octet(what) != 0

    def length(self) -> int:
        """A length."""
        length, self.offset = axdr.decode_length(self.octets, self.offset)
        return length

    def counted(self, what: str) -> bytes:
        """Octets behind their length."""
        return self.take(self.length(), what)

    def count(self) -> int:
        """The number of items in a list, bounded."""
        count = self.length()
        if count > min(MAX_ITEMS, len(self.octets) - self.offset):
            raise RemoteProtocolError(f"a list of {count} items in {len(self.octets) - self.offset} octets")
        return count

    def value(self) -> Data:
        """One A-XDR value."""
        data, self.offset = axdr.decode_at(self.octets, self.offset)
        return data

    def attribute(self) -> Attribute:
        """Class, logical name, number (signed, as attribute 0 and negative ones exist)."""
        class_id = self.number(2, "class")
        name = ObisCode.from_bytes(self.take(6, "logical name"))
        return Attribute(class_id, name, int.from_bytes(self.take(1, "attribute"), "big", signed=True))

    def selection(self) -> Selection | None:
        """Selective access, if there is one."""
        if not self.flag("access selection"):
            return None
        return Selection(self.octet("selector"), self.value())

    def result(self) -> Data | DataAccessResult:
        """Data, or why there is none."""
        choice = self.octet("result")
        if choice == 0:
            return self.value()
        if choice == 1:
            return DataAccessResult(self.octet("data access result"))
        raise RemoteProtocolError(f"result choice {choice}: expected 0 (data) or 1 (data-access-result)")

    def finish(self) -> None:
        """Nothing may be left."""
        if self.offset != len(self.octets):
            raise RemoteProtocolError(f"{len(self.octets) - self.offset} octets are left over behind the APDU")
