"""Who answers on a port, whatever it speaks, as `scan` shows it and a first site file has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from agent.cli.meter import scan_others
from agent.cli.meter.scan_others import FoundMeter
from agent.cli.notes import note
from agent.site.first_site import Answer
from firmware_io.dlms.meter.scan import PARITIES, Found, Parity
from firmware_io.driver import Trace


def of_dlms(meter: Found) -> Answer:
    """A DLMS meter."""
    return Answer(meter.port, meter.baud, meter.address, meter.parity, meter.framing, meter.octets, meter.serial)


def of_other(meter: FoundMeter, port: str, protocol: str, parity: str | None = None) -> Answer:
    """A meter of another protocol."""
    return Answer(
        port,
        meter.baud,
        meter.address,
        parity or scan_others.PARITY[protocol],
        serial=meter.serial,
        protocol=protocol,
        keys=meter.keys,
        fitting=meter.fitting,
    )


def find_others(
    port: str,
    protocol: str,
    bauds: Sequence[int],
    parity: str | None,
    limits: tuple[int | None, int | None],
    trace: Trace | None = None,
    *,
    tell: Callable[[FoundMeter], None] = lambda meter: None,
) -> list[FoundMeter]:
    """Meters that do not speak DLMS, at the first speed at which somebody answers; each is told as it is found."""
    first, last = 1 if limits[0] is None else limits[0], scan_others.LAST_UNIT if limits[1] is None else limits[1]
    for baud in (9600,) if port.startswith("tcp://") else bauds or scan_others.BAUDS[protocol]:
        note(f"{port} at {baud} Bd")
        found = scan_others.find(protocol, port, baud, parity or scan_others.PARITY[protocol], first, last, trace, tell)
        if found:
            return found
    return []


def parities_of(parity: str | None) -> tuple[Parity, ...]:
    """The parities to try a DLMS line with."""
    return PARITIES if parity is None else (cast(Parity, parity),)
