"""Finds meters on a line that nobody has documented: which address answers at which speed, and who it says it is.

One probe is an SNRM, or over the wrapper an association request of the public client; who answers is asked for its
serial number and name by the public client and released again. It changes nothing in a meter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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

BAUDS = (9600, 2400, 19200, 115200, 4800, 38400, 57600)  # the usual ones first
PARITIES: tuple[Literal["N", "E", "O"], ...] = ("N", "E")
FIRST_ADDRESS = 16  # below are the reserved ones
LAST_ADDRESS = 125  # two octets; 126 and 127 call stations that have none, or all
MOST_ADDRESS = 16_381
LAST_SERVER = 16  # of the wrapper: most meters and gateways number from 1
ANSWER_S = 0.25  # meters answer a probe at once
NETWORK_ANSWER_S = 1.0
PUBLIC_CLIENT = 16

Octets = Literal[1, 2, 4]
Parity = Literal["N", "E", "O"]
Framing = Literal["hdlc", "wrapper"]
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
    parity: Parity = "N"
    framing: Framing = "hdlc"
    port: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is tried on a port: one line setting, and the addresses at it."""

    framing: Framing
    baud: int
    parity: Parity
    tries: tuple[tuple[int, Octets], ...]  # address, and its octets


def attempts(
    port: str,
    *,
    framings: Sequence[Framing] = ("hdlc", "wrapper"),
    bauds: Sequence[int] = BAUDS,
    parities: Sequence[Parity] = PARITIES,
    octets: Sequence[Octets] = (2,),
    first: int = FIRST_ADDRESS,
    last: int = LAST_ADDRESS,
) -> list[Attempt]:
    """What to try on a port, the likeliest first. A TCP link has no speed, a serial port no wrapper."""
    tcp = port.startswith("tcp://")
    tries = [(a, form) for form in octets for a in range(first, last + 1) if form == 4 or a < 0x80]
    tries += [(a, 4) for a in range(max(first, 0x80), last + 1)] if 2 in octets and 4 not in octets else []
    settings = [(9600, PARITIES[0])] if tcp else [(baud, parity) for baud in bauds for parity in parities]
    found = []
    if tcp and "wrapper" in framings:
        servers = (
            range(1, LAST_SERVER + 1) if (first, last) == (FIRST_ADDRESS, LAST_ADDRESS) else range(first, last + 1)
        )
        found.append(Attempt("wrapper", 9600, "N", tuple((server, 2) for server in servers)))
    return found + [Attempt("hdlc", baud, parity, tuple(tries)) for baud, parity in settings if "hdlc" in framings]


def search(
    port: str,
    attempt: Attempt,
    open_transport: Callable[[BusSpec], Transport],
    *,
    step: Callable[[], None] = lambda: None,
    trace: Trace | None = None,
) -> Iterator[Found]:
    """Who answers at this setting; `step` is called after each address.

    Raises:
        TransportError: the port cannot be opened, or failed.
    """
    bus = BusSpec("scan", port, attempt.baud, attempt.parity)
    try:
        line = open_transport(bus)
    except TransportError:
        if attempt.parity == "N":
            raise
        return  # a port that has no parity; without one it was opened before
    try:
        for address, octets in attempt.tries:
            try:
                meter = probe(line, bus, address, octets, trace=trace, framing=attempt.framing)
            except TransportError:
                if not port.startswith("tcp://"):
                    raise
                if attempt.framing == "hdlc":
                    return  # it hangs up on frames: there is no HDLC behind this connection
                line.close()  # a server that closes the connection on an address that it does not have
                line, meter = open_transport(bus), None
            except RemoteProtocolError:
                meter = None  # noise, or two meters at one address: not one that could be named
            step()
            if meter is not None:
                baud = 0 if port.startswith("tcp://") else attempt.baud
                yield replace(meter, baud=baud, parity=attempt.parity, framing=attempt.framing, port=port)
    finally:
        line.close()


def probe(
    transport: Transport,
    bus: BusSpec,
    address: int,
    octets: Octets,
    *,
    client: int = PUBLIC_CLIENT,
    trace: Trace | None = None,
    framing: Framing = "hdlc",
) -> Found | None:
    """Ask one address; None when nobody is there.

    Raises:
        TransportError: the line failed.
    """
    spec = DlmsSpec(f"address {address}", address, address_octets=octets, client=client, framing=framing)
    answer_s = ANSWER_S if framing == "hdlc" else NETWORK_ANSWER_S
    quick = replace(bus, timeout_s=min(bus.timeout_s, answer_s))
    if framing == "wrapper":
        return _identify(transport, quick, spec, octets, trace)
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


def _identify(transport: Transport, bus: BusSpec, spec: DlmsSpec, octets: Octets, trace: Trace | None) -> Found | None:
    """Who is there, by what it tells the public client; over the wrapper nobody, if nothing comes."""
    channel = open_channel(transport, bus, spec, trace=trace, client=spec.client)
    session = Session(spec, channel, MemoryCounters(), public=True)
    try:
        session.connect()
        serial, name = (text_of(result) for result in session.get_list(_NAMES))
        return Found(bus.baud, spec.address, octets, serial, name)
    except TransportError:
        raise
    except ResponseTimeout as error:
        return None if spec.framing == "wrapper" else Found(bus.baud, spec.address, octets, note=str(error))
    except MeterError as error:
        return Found(bus.baud, spec.address, octets, note=str(error))
    finally:
        session.release()
