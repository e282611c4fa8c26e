"""The trace shows what passes and never a secret."""

from __future__ import annotations

import pytest

from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.hdlc.framer import Address
from firmware_io.dlms.hdlc.link import ClientLink, Parameters, Received, ServerLink
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.dlms.session.trace import Tracer
from firmware_io.dlms.session.wrapper import Unit
from firmware_io.obis import ENERGY_IMPORT

SERVER, CLIENT = Address.server(1, 17), Address.client(16)
PASSWORD = b"open sesame 17"
INITIATE = acse.InitiateRequest(acse.Conformance.GET, 512).encode()
AARQ = acse.AssociationRequest(acse.Context.LN, acse.Mechanism.LLS, INITIATE, None, PASSWORD).encode()
GET = decode.GetRequest(0xC1, Attribute(3, ENERGY_IMPORT, 2)).encode()


def conversation(units: list[bytes], size: int = 128, password: bytes = PASSWORD) -> list[str]:
    """The lines that a trace of these requests, each answered with a value, would show."""
    lines: list[str] = []
    tracer = Tracer(lines.append, [password, None])
    client = ClientLink(SERVER, CLIENT, Parameters(size, size, 1, 1))
    server = ServerLink(SERVER, CLIENT, Parameters(size, size, 1, 1))
    from firmware_io.dlms.hdlc.framer import Framer

    def turns() -> None:
        there, back = Framer(), Framer()
        while octets := client.take():
            tracer(True, octets)
            for frame in there.receive(octets):
                for event in server.handle(frame):
                    if isinstance(event, Received):
                        server.send(decode.GetResponse(0xC1, axdr.uint32(7)).encode())
            reply = server.take()
            for octet in reply:
                tracer(False, bytes((octet,)))
            for frame in back.receive(reply):
                client.handle(frame)

    client.connect()
    turns()
    for unit in units:
        client.send(unit)
        turns()
    return lines


def test_frames_and_what_they_mean() -> None:
    lines = conversation([GET])
    text = "\n".join(lines)
    assert "16 -> 1/17  SNRM P/F Parameters(transmit_size=128" in text
    assert "1/17 -> 16  UA P/F" in text
    assert "GetRequest(invoke=193, attribute=Attribute(class_id=3, name=1.0.1.8.0.255, number=2)" in text
    assert "GetResponse(invoke=193, result=Data(tag=6, value=7))" in text
    assert [line for line in lines if line.startswith("> ")][1].startswith("> 7EA0")


@pytest.mark.parametrize("size", [32, 40, 48, 56, 64, 128])
@pytest.mark.parametrize("password", [PASSWORD, b"\x00\x01\xfe binary", b"'quoted\"\\"])
def test_a_password_is_nowhere_however_it_is_segmented(size: int, password: bytes) -> None:
    aarq = acse.AssociationRequest(acse.Context.LN, acse.Mechanism.LLS, INITIATE, None, password).encode()
    text = "\n".join(conversation([aarq, GET], size, password))
    assert "AssociationRequest(" in text
    assert "**" in text
    for start in range(len(password) - 3):  # not even four octets of it
        assert password[start : start + 4].hex() not in text.lower()
    assert repr(password)[2:-1] not in text


def test_a_changed_password_is_masked_in_a_set() -> None:
    text = "\n".join(
        conversation(
            [decode.SetRequest(0xC1, Attribute(15, ENERGY_IMPORT, 7), None, axdr.octet_string(b"new one")).encode()]
        )
    )
    assert "SetRequest of 1.0.1.8.0.255 (class 15) #7: **" in text


def test_ciphered_units_are_named_and_not_opened() -> None:
    key = bytes(range(16))
    sealed = Ciphering(key, key, b"CHK\x00\x00\x00\x00\x01", lambda: 7).protect(GET)
    assert "ciphered 0xc8, counter 7, 25 octets" in "\n".join(conversation([sealed]))


def test_noise_and_nonsense_are_shown_and_never_raise() -> None:
    lines: list[str] = []
    tracer = Tracer(lines.append, [])
    tracer(False, b"\x00\x55" * 3000)
    tracer(False, b"\x7e\xa0\x07\x03")
    tracer(True, b"\x7e")
    assert any("octets without a whole frame" in line for line in lines)
    assert len("".join(lines)) < 20_000


def test_the_wrapper() -> None:
    lines: list[str] = []
    tracer = Tracer(lines.append, [PASSWORD], "wrapper")
    tracer(True, Unit(16, 1, AARQ).encode())
    tracer(False, Unit(1, 16, b"\xff\xff").encode())
    tracer(False, b"\x00\x09 no header")
    text = "\n".join(lines)
    assert "16 -> 1: AssociationRequest" in text
    assert PASSWORD.hex() not in text.lower()
    assert "1 -> 16: not understood" in text
    assert "no wrapper header" in text
