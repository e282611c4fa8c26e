"""Finds meters on a line that nobody has documented: which address answers at which speed, and who it says it is.

One probe is an SNRM; who answers is asked for its serial number and name by the public client and released again.
It changes nothing in a meter.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from firmware_io import obis
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.meter.known import text_of
from firmware_io.dlms.session.channel import HdlcChannel, open_channel
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Trace
from firmware_io.errors import MeterError, RemoteProtocolError, ResponseTimeout, TransportError
from firmware_io.spec import BusSpec
from firmware_io.transport import Transport

BAUDS = (9600, 19200, 38400, 57600, 115200, 4800, 2400)
FIRST_ADDRESS = 16  # below are the reserved ones
LAST_ADDRESS = 125  # two octets; 126 and 127 call stations that have none, or all
ANSWER_S = 0.25  # meters answer a probe at once
PUBLIC_CLIENT = 16

Octets = Literal[1, 2, 4]
_NAMES = (Attribute(1, obis.SERIAL_NUMBER, 2), Attribute(1, obis.LOGICAL_DEVICE_NAME, 2))


@dataclass(frozen=True, slots=True)
class Found:
    """A meter that answered. `serial` and `name` are None where it tells them to nobody without a password."""

    baud: int
    address: int
    octets: Octets
    serial: str | None = None
    name: str | None = None
    note: str = ""


def probe(
    transport: Transport,
    bus: BusSpec,
    address: int,
    octets: Octets,
    *,
    client: int = PUBLIC_CLIENT,
    trace: Trace | None = None,
) -> Found | None:
    """Ask one address; None when nobody is there.

    Raises:
        TransportError: the line failed.
    """
    spec = DlmsSpec(f"address {address}", address, address_octets=octets, client=client)
    quick = BusSpec(bus.id, bus.port, bus.baud, bus.parity, min(bus.timeout_s, ANSWER_S), bus.inter_octet_s)
    channel = open_channel(transport, quick, spec, trace=trace, client=client, repeats=0)
    try:
        channel.open()
    except ResponseTimeout:
        return None
    except RemoteProtocolError as error:  # DM or rubbish: somebody is there
        heard = isinstance(channel, HdlcChannel) and channel.traffic.corrupt_frames == 0
        return Found(bus.baud, address, octets, note=str(error)) if heard else None
    with suppress(ResponseTimeout, RemoteProtocolError):
        channel.close()
    return _identify(transport, bus, spec, octets, trace)


def _identify(transport: Transport, bus: BusSpec, spec: DlmsSpec, octets: Octets, trace: Trace | None) -> Found:
    """Who is there, by what it tells the public client."""
    channel = open_channel(transport, bus, spec, trace=trace, client=spec.client)
    session = Session(spec, channel, MemoryCounters(), public=True)
    try:
        session.connect()
        serial, name = (text_of(result) for result in session.get_list(_NAMES))
        return Found(bus.baud, spec.address, octets, serial, name)
    except TransportError:
        raise
    except MeterError as error:
        return Found(bus.baud, spec.address, octets, note=str(error))
    finally:
        session.release()
