"""What the wire has to know of a bus, whatever protocol its meters speak: frozen, from the site file.

Meters have a specification of their own in their protocol's room. How often a bus is polled is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class BusSpec:
    """One half-duplex line: a serial port (`/dev/ttyUSB0`), a TCP link (`tcp://host:port`), or UDP (`udp://`)."""

    id: str
    port: str
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    timeout_s: float = 2.0  # until the first octet of a reply
    inter_octet_s: float = 0.1  # silence inside a reply that makes it a torn one
    opening: Literal["mode-e"] | None = None  # how the link is opened: IEC 62056-21 first, `baud` is the highest then
    listen: str | None = None  # where its meters push to
    rs485: bool = False  # the port's driver turns the line round by RTS (TIOCSRS485)

    @property
    def networked(self) -> bool:
        """Whether the line's speed is not ours to know: TCP or UDP."""
        return self.port.startswith(("tcp://", "udp://"))


class Timing(NamedTuple):
    """Waits of a line, seconds."""

    timeout_s: float
    inter_octet_s: float
    octet_s: float

    @classmethod
    def of(cls, bus: BusSpec) -> Timing:
        """From the site's figures; over a network the line's speed is not ours to know."""
        bits = 10 if bus.parity == "N" else 11
        return cls(bus.timeout_s, bus.inter_octet_s, 0.0 if bus.networked else bits / bus.baud)
