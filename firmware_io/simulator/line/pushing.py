"""What a simulated meter pushes by itself: a DataNotification of its serial number and register, protected somehow.

`Pusher` sends it every so often, to a listening client or onto the line; the form is the scenario's choice.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import Attribute, DataNotification, EventNotification
from firmware_io.dlms.protection.elliptic import PublicKey
from firmware_io.dlms.protection.general import Keyring, sign
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.simulator.building.scenario import PushForm
from firmware_io.simulator.meter.keys import private_key
from firmware_io.simulator.meter.meter import SimulatedMeter

SEND_S = 2.0


def plain_push(meter: SimulatedMeter, form: PushForm) -> bytes:
    """The push itself."""
    now = meter.now()
    energy = meter.energy_data(meter.energy_wh(now)[0], now)
    if form == "event":
        return EventNotification(meter.clock.date_time(now), Attribute(3, obis.ENERGY_IMPORT, 2), energy).encode()
    body = axdr.structure(axdr.octet_string(meter.serial_number().encode()), energy)
    return DataNotification(1, meter.clock.date_time(now), body).encode()


def push_of(meter: SimulatedMeter, next_counter: Callable[[], int], form: PushForm) -> bytes:
    """The push as it leaves the meter: plain where the meter has no keys for the form."""
    plain, identity, keys = plain_push(meter, form), meter.identity, meter.keys
    signing = private_key(identity.number, identity.signing_suite)
    ring = Keyring(
        identity.suite or (2 if len(keys.encryption) == 32 else 0),
        identity.system_title,
        keys.authentication or None,
        keys.encryption or None,
        keys.broadcast or None,
        keys.master or None,
        signing=signing,
        agreement=signing,
        peer_agreement=PublicKey.load(identity.client_agreement_key) if identity.client_agreement_key else None,
    )
    if form == "signed":
        return sign(ring, plain, identity.client_title, time=meter.clock.date_time(meter.now()))
    if not keys.encryption or form == "plain":
        return plain
    ciphering = Ciphering(
        keys.encryption,
        keys.authentication,
        identity.system_title,
        next_counter,
        identity.client_title,
        policy=identity.policy,
        suite=identity.suite,
        keys=ring,
    )
    match form:
        case "general" | "event":
            return ciphering.protect(plain, "general")
        case "ciphered-signed":
            return sign(ring, ciphering.protect(plain, "general"), identity.client_title)
    return ciphering.protect_general(plain, form, b"\x01")


class Pusher:
    """Pushes of some meters, every `period_s` of the host's time, until it is stopped."""

    def __init__(self, pushes: Sequence[Callable[[], None]], period_s: float, name: str) -> None:
        self._pushes, self._period_s = pushes, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pusher-{name}", daemon=True)

    def start(self) -> None:
        """Begin, after one period."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            for push in self._pushes:
                with suppress(OSError):  # nobody listens
                    push()


def send_to(address: str, octets: bytes) -> None:
    """One unit to a listening client. Raises: OSError: nobody is there."""
    parts = urlsplit(address)
    where = (parts.hostname or "", parts.port or 0)
    if parts.scheme == "udp":
        with socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto(octets, where)
        return
    with socket.create_connection(where, SEND_S) as connection:
        connection.sendall(octets)
