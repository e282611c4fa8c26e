"""The time for all meters of a line at once: SET of the clock without an answer, to the all-station address.

What it reaches is not known: a broadcast has no reply. Meters take it plain or, where they cipher, under the broadcast
key that all of them share. Only HDLC has such an address; behind a wrapper gateway there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import SetRequest
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.hdlc.flow import LLC_COMMAND, UI
from firmware_io.dlms.hdlc.framer import ALL_STATION, Address, frame_octets
from firmware_io.dlms.meter.reader import CLOCK
from firmware_io.dlms.protection.context import ciphering_of
from firmware_io.dlms.protection.security import BROADCAST_KEY
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import LocalProtocolError

UNCONFIRMED = 0x01  # invoke-id 1, no answer wanted


def clock_request(time: MeterTime) -> bytes:
    """The APDU that sets a clock and wants no answer."""
    return SetRequest(UNCONFIRMED, CLOCK, None, axdr.octet_string(time.encode())).encode()


def ciphered(spec: DlmsSpec, apdu: bytes, next_counter: Callable[[], int]) -> bytes:
    """The APDU under the broadcast key. Raises: LocalProtocolError: the site file has none for this meter."""
    if spec.broadcast_key is None:
        raise LocalProtocolError(f"meter {spec.id} ciphers: a broadcast to it needs its broadcast_key in the site file")
    ciphering = ciphering_of(replace(spec, encryption_key=spec.broadcast_key), next_counter)
    return ciphering.protect(apdu, "general", flags=BROADCAST_KEY)


def frame(client: int, apdu: bytes, octets: int = 2) -> bytes:
    """The octets on the line: unnumbered information to all stations, in the form of address that the line has."""
    address = {
        1: Address(ALL_STATION),
        2: Address(ALL_STATION, ALL_STATION, 2),
        4: Address(0x3FFF, 0x3FFF, 4),
    }[octets]
    return frame_octets(address.encode(), Address.client(client).encode(), UI, LLC_COMMAND + apdu, False)
