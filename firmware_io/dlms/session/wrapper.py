"""The wrapper of IEC 62056-47: eight octets in front of each unit on a TCP connection.

TCP does not corrupt and does not lose, so that a wrong header means that we are not talking to a meter: there is
nothing to search for, and the connection is closed.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io.errors import LocalProtocolError, RemoteProtocolError

VERSION = 1
HEADER_OCTETS = 8
MAX_UNIT = 0xFFFF


class Unit(NamedTuple):
    """One unit: `source` and `destination` are wrapper ports, 16 for the public client, 1 for the management device."""

    source: int
    destination: int
    pdu: bytes

    def encode(self) -> bytes:
        """Raises: LocalProtocolError: longer than the length field can say."""
        if len(self.pdu) > MAX_UNIT:
            raise LocalProtocolError(f"a unit of {len(self.pdu)} octets; the wrapper allows {MAX_UNIT}")
        return (
            b"".join(n.to_bytes(2, "big") for n in (VERSION, self.source, self.destination, len(self.pdu))) + self.pdu
        )


class Unwrapper:
    """Cuts units out of a stream; holds one unit at most and one read."""

    def __init__(self, max_unit: int = MAX_UNIT) -> None:
        self._max_unit = max_unit
        self._buffer = bytearray()

    def receive(self, octets: bytes) -> list[Unit]:
        """Add what came and return the units that are complete now.

        Raises:
            RemoteProtocolError: the header is no header, or announces too much.
        """
        self._buffer += octets
        units: list[Unit] = []
        while len(self._buffer) >= HEADER_OCTETS:
            version, source, destination, length = (
                int.from_bytes(self._buffer[i : i + 2], "big") for i in range(0, HEADER_OCTETS, 2)
            )
            if version != VERSION or length > self._max_unit:
                head = bytes(self._buffer[:HEADER_OCTETS])
                self._buffer.clear()
                raise RemoteProtocolError(f"{head.hex()} is no wrapper header of at most {self._max_unit} octets")
            if len(self._buffer) < HEADER_OCTETS + length:
                break
            units.append(Unit(source, destination, bytes(self._buffer[HEADER_OCTETS : HEADER_OCTETS + length])))
            del self._buffer[: HEADER_OCTETS + length]
        return units
