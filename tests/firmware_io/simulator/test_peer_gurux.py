"""The gurux-dlms client reads the simulated meter: another implementation's view of frames, APDUs, ciphers, objects.

GPL code, a development dependency only. Its known faults are worked round here: it checks no authentication tag, so
the fault it would miss is not tried with it; a window above 1 breaks it, so none is offered.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

pytest.importorskip("gurux_dlms")

from gurux_dlms import GXByteBuffer, GXReplyData
from gurux_dlms.enums import Authentication, InterfaceType, ObjectType, Security
from gurux_dlms.objects import GXDLMSObject, GXDLMSProfileGeneric
from gurux_dlms.secure import GXDLMSSecureClient

from firmware_io import obis
from firmware_io.simulator.line.bus import NullModem

FLAT = "flat-1"
SECURITIES = ["none", "lls", "hls-gmac"]
FORMS = ["hls-md5", "hls-sha1", "hls-sha256", "gmac-authenticated", "gmac-encrypted"]  # tried over one framing
KINDS = {
    "none": Authentication.NONE,
    "lls": Authentication.LOW,
    "hls-md5": Authentication.HIGH_MD5,
    "hls-sha1": Authentication.HIGH_SHA1,
    "hls-sha256": Authentication.HIGH_SHA256,
}
POLICIES = {"gmac-authenticated": Security.AUTHENTICATION, "gmac-encrypted": Security.ENCRYPTION}


class Gurux:
    """Their client on our line."""

    def __init__(self, bench, security: str, framing: str = "hdlc") -> None:
        self.modem = NullModem(bench.site.lines["line"], bench.clock.move)
        spec = bench.meters[1]
        kind = KINDS.get(security, Authentication.HIGH_GMAC)
        wrapper = framing == "wrapper"
        address = spec.address if wrapper else GXDLMSSecureClient.getServerAddress(1, spec.address)
        interface = InterfaceType.WRAPPER if wrapper else InterfaceType.HDLC
        self.client = GXDLMSSecureClient(True, spec.client, address, kind, spec.password, interface)
        if security == "hls-sha256":
            self.client.ciphering.systemTitle = spec.system_title
        if kind == Authentication.HIGH_GMAC:
            self.client.ciphering.security = POLICIES.get(security, Security.AUTHENTICATION_ENCRYPTION)
            self.client.ciphering.systemTitle = spec.system_title
            self.client.ciphering.blockCipherKey = spec.encryption_key
            self.client.ciphering.authenticationKey = spec.authentication_key
            self.client.ciphering.invocationCounter = 1

    def ask(self, frames) -> GXReplyData:
        """Send what their client made, and feed it what comes until it is content."""
        reply = GXReplyData()
        for frame in frames if isinstance(frames, list) else [frames]:
            self._exchange(frame, reply)
            while reply.isMoreData():
                self._exchange(self.client.receiverReady(reply), reply)
        assert not reply.error, reply.getErrorMessage()
        return reply

    def _exchange(self, frame, reply: GXReplyData) -> None:
        self.modem.write(bytes(frame))
        buffer = GXByteBuffer()
        notify = GXReplyData()
        while not self.client.getData(buffer, reply, notify):
            octets = self.modem.read(4096, self.modem.monotonic() + 2)
            assert octets, "the simulated meter is silent"
            buffer.set(octets)

    def associate(self) -> None:
        if self.client.interfaceType == InterfaceType.HDLC:
            self.client.parseUAResponse(self.ask(self.client.snrmRequest()).data)
        for request in self.client.aarqRequest():
            reply = self.ask(request)
        self.client.parseAareResponse(reply.data)
        if self.client.isAuthenticationRequired:
            for request in self.client.getApplicationAssociationRequest():
                reply = self.ask(request)
            self.client.parseApplicationAssociationResponse(reply.data)

    def read(self, item: GXDLMSObject, attribute: int):
        reply = self.ask(self.client.read(item, attribute))
        return self.client.updateValue(item, attribute, reply.value)

    def find(self, kind: ObjectType, name) -> GXDLMSObject:
        item = self.client.objects.findByLN(kind, str(name))
        assert item is not None, f"{name} is not in the object list"
        return item

    def leave(self) -> None:
        if self.client.interfaceType == InterfaceType.HDLC:
            self.ask(self.client.disconnectRequest(True))


@pytest.fixture(
    params=[(s, f) for f in ("hdlc", "wrapper") for s in SECURITIES] + [(s, "hdlc") for s in FORMS],
    ids=lambda p: "-".join(p),
)
def gurux(request, make_bench, secured):
    security, framing = request.param
    bench = make_bench(framing=framing, timezone="Europe/Berlin", meter=secured(security))
    peer = Gurux(bench, security, framing)
    peer.associate()
    peer.client.parseObjects(peer.ask(peer.client.getObjectsRequest()).data, True)
    yield bench, peer
    peer.leave()


def test_object_list_registers_clock_and_list(gurux, start_s):
    bench, peer = gurux
    assert len(peer.client.objects) >= 25
    energy = peer.find(ObjectType.REGISTER, obis.ENERGY_IMPORT)
    peer.read(energy, 3)
    peer.read(energy, 2)
    meter = bench.site.meters[FLAT]
    assert str(energy.unit) == "30"
    assert energy.value == pytest.approx(meter.energy_wh(bench.clock.now())[0], abs=20)  # their value is scaled
    serial = peer.find(ObjectType.DATA, obis.SERIAL_NUMBER)
    assert peer.read(serial, 2) == "CHM00000002"
    clock = peer.find(ObjectType.CLOCK, obis.CLOCK)
    peer.read(clock, 2)
    assert abs(clock.time.value.timestamp() - bench.clock.now()) < 2
    volt = peer.find(ObjectType.REGISTER, obis.VOLTAGE[0])
    peer.read(volt, 3)
    listed = [(energy, 2), (volt, 2)]
    values = []
    for request in peer.client.readList(listed):
        values += peer.ask(request).value
    peer.client.updateValues(listed, values)
    assert 200 < volt.value < 250


def test_profile_by_range_and_by_entry(gurux, start_s):
    bench, peer = gurux
    profile = peer.find(ObjectType.PROFILE_GENERIC, obis.LOAD_PROFILE)
    assert isinstance(profile, GXDLMSProfileGeneric)
    peer.read(profile, 3)
    peer.read(profile, 4)
    assert profile.capturePeriod == 900
    assert str(profile.captureObjects[0][0].logicalName) == str(obis.CLOCK)
    first, last = (datetime.fromtimestamp(start_s + at, UTC) for at in (-6 * 3600, -3600))
    reply = peer.ask(peer.client.readRowsByRange(profile, first, last))
    peer.client.updateValue(profile, 2, reply.value)
    assert len(profile.buffer) == 21
    meter = bench.site.meters[FLAT]
    for k, row in enumerate(profile.buffer):
        at = start_s - 6 * 3600 + 900 * k
        assert row[0].value.timestamp() == at
        assert row[2] in (meter.energy_wh(at)[0], meter.energy_wh(at)[0] / 10)  # scaled where they know the scaler
    reply = peer.ask(peer.client.readRowsByEntry(profile, 1, 5))
    peer.client.updateValue(profile, 2, reply.value)
    assert len(profile.buffer) == 5


def test_event_log_and_clock_shift(gurux, start_s):
    bench, peer = gurux
    clock = peer.find(ObjectType.CLOCK, obis.CLOCK)
    peer.ask(clock.shiftTime(peer.client, 90))
    assert bench.site.meters[FLAT].clock.offset_s(bench.clock.now()) == pytest.approx(90, abs=0.01)
    log = peer.find(ObjectType.PROFILE_GENERIC, obis.EVENT_LOG_STANDARD)
    peer.read(log, 3)
    peer.read(log, 2)
    assert [row[1] for row in log.buffer] == [2, 4, 5]  # power up at installation, clock before and after


def test_wrong_password_is_refused(make_bench, secured):
    bench = make_bench(meter=secured("lls"))
    peer = Gurux(bench, "lls")
    peer.client.password = b"guess"
    with pytest.raises(Exception, match=r"(?i)authentication|rejected|failure"):
        peer.associate()
