"""The dlms-cosem client reads the simulated meter: a second independent implementation.

Source-available, a development dependency only. Its known faults are worked round in the way it reads the line: it
waits for ever for a meter that is silent, and loses a frame with 0x7E in it or at its end.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

pytest.importorskip("dlms_cosem")

import structlog
from dlms_cosem import cosem, enumerations
from dlms_cosem.client import DlmsClient
from dlms_cosem.cosem.capture_object import CaptureObject
from dlms_cosem.cosem.selective_access import RangeDescriptor
from dlms_cosem.exceptions import DlmsClientException
from dlms_cosem.io import HdlcTransport, TcpTransport
from dlms_cosem.parsers import AssociationObjectListParser, ProfileGenericBufferParser
from dlms_cosem.security import (
    HighLevelSecurityGmacAuthentication,
    LowLevelSecurityAuthentication,
    NoSecurityAuthentication,
)
from dlms_cosem.utils import parse_as_dlms_data

from firmware_io import obis
from firmware_io.simulator.line.bus import NullModem

FLAT = "flat-1"
SECURITIES = ["none", "lls", "hls-gmac"]


@pytest.fixture(autouse=True)
def quiet():
    """It logs every frame, and the password."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Line:
    """Their idea of a port, on our line."""

    def __init__(self, bench) -> None:
        self._modem = NullModem(bench.site.lines["line"], bench.clock.move)
        self._held = bytearray()
        self.hdlc = None

    def connect(self) -> None:
        pass

    def disconnect(self) -> None:
        pass

    def send(self, octets: bytes) -> None:
        self._modem.write(bytes(octets))

    def recv(self, amount: int = 1) -> bytes:
        while len(self._held) < amount:
            octets = self._modem.read(4096, self._modem.monotonic() + 2)
            if not octets:
                raise TimeoutError("the simulated meter is silent")
            self._held += octets
        taken = bytes(self._held[:amount])
        del self._held[:amount]
        return taken

    def recv_until(self, end: bytes) -> bytes:
        """A whole frame, by its length field; their search for the closing flag is told where that is."""
        head = self.recv(3)
        frame = head + self.recv(((head[1] & 0x07) << 8 | head[2]) - 1)
        if self.hdlc is not None:
            self.hdlc.buffer_search_position = len(frame) - 1
        return frame


def client(bench, security: str, framing: str = "hdlc", password: bytes | None = None) -> DlmsClient:
    spec = bench.meters[1]
    line = Line(bench)
    if framing == "wrapper":
        transport = TcpTransport(spec.client, spec.address, line)
    else:
        transport = HdlcTransport(spec.client, 1, line, server_physical_address=spec.address)
        line.hdlc = transport.hdlc_connection
    if security == "none":
        return DlmsClient(transport, NoSecurityAuthentication())
    if security == "lls":
        return DlmsClient(transport, LowLevelSecurityAuthentication(password or spec.password))
    return DlmsClient(
        transport,
        HighLevelSecurityGmacAuthentication(challenge_length=16),
        encryption_key=spec.encryption_key,
        authentication_key=spec.authentication_key,
        client_system_title=spec.system_title,
        client_initial_invocation_counter=1,
        meter_initial_invocation_counter=0,
    )


def attribute(interface: enumerations.CosemInterface, name: obis.ObisCode, number: int) -> cosem.CosemAttribute:
    return cosem.CosemAttribute(interface, cosem.Obis(*name), number)


@pytest.fixture(params=[(s, f) for f in ("hdlc", "wrapper") for s in SECURITIES], ids=lambda p: "-".join(p))
def peer(request, make_bench, secured):
    security, framing = request.param
    bench = make_bench(framing=framing, timezone="Europe/Berlin", meter=secured(security))
    with client(bench, security, framing).session() as session:
        yield bench, session


def test_register_clock_and_list(peer):
    bench, session = peer
    register = enumerations.CosemInterface.REGISTER
    energy = parse_as_dlms_data(session.get(attribute(register, obis.ENERGY_IMPORT, 2)))
    meter = bench.site.meters[FLAT]
    assert energy * 10 == pytest.approx(meter.energy_wh(bench.clock.now())[0], abs=20)
    assert parse_as_dlms_data(session.get(attribute(register, obis.ENERGY_IMPORT, 3))) == [1, 30]
    wanted = [
        cosem.CosemAttributeWithSelection(attribute(register, name, 2), None)
        for name in (obis.ENERGY_IMPORT, obis.VOLTAGE[0])
    ]
    values = [item.value for item in session.get_many(wanted).response_data]
    assert 2000 < values[1] < 2600


def test_object_list(peer):
    _, session = peer
    octets = session.get(attribute(enumerations.CosemInterface.ASSOCIATION_LN, obis.CURRENT_ASSOCIATION, 2))
    objects = AssociationObjectListParser.parse_bytes(octets)
    assert len(objects) >= 25
    assert cosem.Obis(*obis.LOAD_PROFILE) in [o.logical_name for o in objects]


def test_profile_by_range_with_compressed_times(peer, start_s):
    bench, session = peer
    profile = attribute(enumerations.CosemInterface.PROFILE_GENERIC, obis.LOAD_PROFILE, 2)
    clock = attribute(enumerations.CosemInterface.CLOCK, obis.CLOCK, 2)
    status = cosem.CosemAttribute(enumerations.CosemInterface.DATA, cosem.Obis(0, 0, 96, 10, 1), 2)
    energy = attribute(enumerations.CosemInterface.REGISTER, obis.ENERGY_IMPORT, 2)
    first, last = (datetime.fromtimestamp(start_s + at, UTC) for at in (-2 * 86_400, 0))
    octets = session.get(profile, RangeDescriptor(CaptureObject(clock), first, last))
    rows = ProfileGenericBufferParser([clock, status, energy], 15).parse_bytes(octets)
    assert len(rows) == 193
    meter = bench.site.meters[FLAT]
    for k, row in enumerate(rows):
        at = start_s - 2 * 86_400 + 900 * k
        assert row[0].value.timestamp() == at
        assert row[2].value * 10 == meter.energy_wh(at)[0]


def test_wrong_password_is_refused(make_bench, secured):
    bench = make_bench(meter=secured("lls"))
    session = client(bench, "lls", password=b"guess")
    session.connect()
    with pytest.raises(DlmsClientException):
        session.associate()
