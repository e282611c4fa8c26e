"""Our codec against those of gurux-dlms and dlms-cosem, in both directions, made in the test's own run.

Neither is a run-time dependency: they are independent evidence, because a client and a server of one house share
one codec and one misunderstanding.
"""

from __future__ import annotations

import contextlib
import datetime
import io
from typing import Any

import pytest
from gurux_dlms import GXByteBuffer, GXDLMSClient, GXReplyData
from gurux_dlms.enums import Authentication, Conformance, InterfaceType, Security
from gurux_dlms.GXDLMSSettings import GXDLMSSettings
from gurux_dlms.objects import GXDLMSCaptureObject, GXDLMSClock, GXDLMSProfileGeneric, GXDLMSRegister
from gurux_dlms.secure import GXDLMSSecureClient

from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.apdu.decode import Attribute, GetResponse
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.hdlc.framer import Address, Frame, Framer, encode_frame
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.dlms.session.wrapper import Unit
from firmware_io.obis import CLOCK, ENERGY_IMPORT, LOAD_PROFILE

EK, AK = bytes(range(16)), bytes(range(0xD0, 0xE0))
OURS, THEIRS = b"CHK\x00\x00\x00\x00\x01", b"CHM\x00\x00\x00\x00\x02"
SERVER, CLIENT = Address.server(1, 17), Address.client(16)
REGISTER = Attribute(3, ENERGY_IMPORT, 2)


@pytest.fixture
def gurux() -> GXDLMSClient:
    client = GXDLMSClient(True, 16, 1 << 7 | 17, Authentication.NONE, None, InterfaceType.HDLC)
    client.negotiatedConformance = Conformance.MULTIPLE_REFERENCES | Conformance.GET | Conformance.SELECTIVE_ACCESS
    return client


def expect_next(client: GXDLMSClient, control: int) -> None:
    """Make the client's sequence numbers such that this control field is due."""
    after, receive = GXDLMSSettings.increaseSendSequence, GXDLMSSettings.increaseReceiverSequence
    client.settings.receiverFrame = next(n for n in range(0, 256, 2) if receive(after(n)) == control)
    client.settings.senderFrame = 0x10


def read_by_gurux(client: GXDLMSClient, octets: bytes) -> Any:
    reply = GXReplyData()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it deciphers
        client.getData(GXByteBuffer(octets), reply, None)
    return reply


def reply_frame(unit: bytes) -> bytes:
    return encode_frame(Frame(CLIENT.encode(), SERVER.encode(), 0x30, b"\xe6\xe7\x00" + unit))


def unit_of(octets: bytes) -> bytes:
    [frame] = Framer().receive(bytes(octets))
    assert (frame.destination, frame.source) == (SERVER.encode(), CLIENT.encode())
    assert encode_frame(frame) == bytes(octets)
    return frame.information[3:]


class TestGurux:
    def test_its_requests_are_ours(self, gurux: GXDLMSClient) -> None:
        [normal] = gurux.read(GXDLMSRegister("1.0.1.8.0.255"), 2)
        request = decode.decode(unit_of(normal))
        assert request == decode.GetRequest(request.invoke, REGISTER)
        assert request.encode() == unit_of(normal)
        [[listed]] = gurux.readList([(GXDLMSRegister("1.0.1.8.0.255"), 2), (GXDLMSClock(), 2)])
        asked = decode.decode(unit_of(listed))
        assert asked == decode.GetListRequest(asked.invoke, ((REGISTER, None), (Attribute(8, CLOCK, 2), None)))
        assert asked.encode() == unit_of(listed)

    def test_its_selections_are_ours(self, gurux: GXDLMSClient) -> None:
        load = GXDLMSProfileGeneric("1.0.99.1.0.255")
        load.captureObjects.append((GXDLMSClock(), GXDLMSCaptureObject(2, 0)))
        [by_entry] = gurux.readRowsByEntry(load, 1, 10)
        request = decode.decode(unit_of(by_entry))
        assert request.selection == profile.by_entry(1, 10)
        first = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
        framed = gurux.readRowsByRange(load, first, first + datetime.timedelta(days=1))
        request = decode.decode(unit_of(framed[0]))
        assert request.attribute == Attribute(7, LOAD_PROFILE, 2)
        selector, parameters = request.selection
        restriction, from_, to, chosen = parameters.value
        assert selector == 1
        assert profile.Column.decode(restriction) == profile.Column(Attribute(8, CLOCK, 2))
        decoded = [MeterTime.decode(bound.value) for bound in (from_, to)]
        assert [time.local_s for time in decoded if time] == [first.timestamp(), first.timestamp() + 86400]
        assert chosen.value == ()

    @pytest.mark.parametrize(("security", "password"), [(Authentication.NONE, None), (Authentication.LOW, "12345678")])
    def test_its_aarq_is_ours(self, security: Authentication, password: str | None) -> None:
        client = GXDLMSClient(True, 16, 1 << 7 | 17, security, password, InterfaceType.HDLC)
        octets = unit_of(client.aarqRequest()[0])
        request = acse.AssociationRequest.decode(octets)
        assert request.encode() == octets
        assert request.authentication == (password.encode() if password else None)
        assert acse.InitiateRequest.decode(request.user_information).encode() == request.user_information

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (axdr.uint32(1234567), 1234567),
            (axdr.int32(-7), -7),
            (axdr.uint64(2**63), 2**63),
            (axdr.int16(-2), -2),
            (axdr.visible_string("abc"), "abc"),
            (axdr.array([axdr.uint8(1), axdr.uint8(2)]), [1, 2]),
        ],
    )
    def test_it_reads_our_replies(self, gurux: GXDLMSClient, value: axdr.Data, expected: object) -> None:
        expect_next(gurux, 0x30)
        unit = GetResponse(0xC1, value).encode()
        reply = read_by_gurux(
            gurux, encode_frame(Frame(CLIENT.encode(), SERVER.encode(), 0x30, b"\xe6\xe7\x00" + unit))
        )
        assert reply.value == expected

    def test_it_reads_our_aare(self, gurux: GXDLMSClient) -> None:
        accepted = acse.InitiateResponse(acse.Conformance.GET | acse.Conformance.SET, 512).encode()
        expect_next(gurux, 0x30)
        reply = read_by_gurux(gurux, reply_frame(acse.AssociationResponse(0, 0, accepted).encode()))
        gurux.parseAareResponse(reply.data)
        assert gurux.maxReceivePDUSize == 512

    def test_ciphered_requests_both_ways(self) -> None:
        client = secure_client()
        unit = unit_of(client.read(GXDLMSRegister("1.0.1.8.0.255"), 2)[0])
        assert unit[0] == 0xC8
        meter = Ciphering(EK, AK, THEIRS, iter(range(1, 9)).__next__, OURS)
        request = decode.decode(meter.open(unit))
        assert request.attribute == REGISTER
        reply = meter.protect(GetResponse(request.invoke, axdr.uint32(1234567)).encode())
        expect_next(client, 0x30)
        assert read_by_gurux(client, reply_frame(reply)).value == 1234567

    def test_the_wrapper(self) -> None:
        client = GXDLMSClient(True, 16, 1, Authentication.NONE, None, InterfaceType.WRAPPER)
        octets = bytes(client.read(GXDLMSRegister("1.0.1.8.0.255"), 2)[0])
        assert Unit(16, 1, octets[8:]).encode() == octets


def secure_client() -> GXDLMSSecureClient:
    client = GXDLMSSecureClient(True, 16, 1 << 7 | 17, Authentication.HIGH_GMAC, None, InterfaceType.HDLC)
    client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
    client.ciphering.blockCipherKey, client.ciphering.authenticationKey = EK, AK
    client.ciphering.systemTitle = OURS
    client.settings.sourceSystemTitle = THEIRS
    client.settings.connected = 3
    return client


class TestDlmsCosem:
    """It checks the tag, so that it is the better witness for ciphering."""

    def test_ciphering_both_ways(self) -> None:
        from dlms_cosem.security import SecurityControlField, decrypt, encrypt

        control = SecurityControlField(0, authenticated=True, encrypted=True)
        plain = decode.GetRequest(0xC1, REGISTER).encode()
        ours = Ciphering(EK, AK, OURS, iter(range(7, 9)).__next__, THEIRS)
        sealed = ours.protect(plain)
        assert sealed[:2] + sealed[2:7] == b"\xc8\x1e\x30\x00\x00\x00\x07"
        assert bytes(decrypt(control, OURS, 7, EK, sealed[7:], AK)) == plain
        theirs = encrypt(control, THEIRS, 9, EK, b"\xc4" + plain[1:], AK)
        body = b"\x30\x00\x00\x00\x09" + theirs
        assert ours.open(b"\xcc" + bytes((len(body),)) + body) == b"\xc4" + plain[1:]

    def test_gmac(self) -> None:
        from dlms_cosem.security import SecurityControlField, gmac

        challenge = b"challenge of sixteen octets"[:16]
        ours = Ciphering(EK, AK, OURS, iter(range(7, 9)).__next__, THEIRS)
        proof = ours.prove(challenge)
        control = SecurityControlField(0, authenticated=True, encrypted=False)
        assert proof[5:] == gmac(control, OURS, 7, EK, AK, challenge)
        theirs = b"\x10\x00\x00\x00\x05" + gmac(control, THEIRS, 5, EK, AK, challenge)
        ours.verify(theirs, challenge)
        assert ours.peer_counter == 5

    def test_aarq_and_aare(self) -> None:
        from dlms_cosem.protocol import acse as theirs

        initiate = acse.InitiateRequest(acse.Conformance(0x1A9D), 1024).encode()
        ours = acse.AssociationRequest(acse.Context.LN, acse.Mechanism.LLS, initiate, None, b"12345678")
        request = theirs.ApplicationAssociationRequest.from_bytes(ours.encode())
        assert request.authentication_value == b"12345678"
        assert request.user_information.content.client_max_receive_pdu_size == 1024
        again = acse.AssociationRequest.decode(request.to_bytes())
        assert (again.mechanism, again.authentication) == (acse.Mechanism.LLS, b"12345678")

    def test_responses_with_list(self) -> None:
        from dlms_cosem.protocol.xdlms import GetResponseFactory

        octets = decode.GetBlock(0xC1, False, 1, b"abc").encode()
        block = GetResponseFactory.from_bytes(octets)
        assert (block.block_number, bytes(block.data)) == (1, b"abc")
        assert block.to_bytes() == octets
