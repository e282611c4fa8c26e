"""Client channel and server link over a line that does everything a line can do wrong. No unit is ever wrong.

Both roles of the link are at work; the application at the server's end says back what it was told.
"""

from __future__ import annotations

import random

import pytest

from firmware_io.dlms.hdlc.framer import Address, Frame, encode_frame
from firmware_io.dlms.hdlc.link import ClientLink, Parameters
from firmware_io.dlms.session.channel import HdlcChannel
from firmware_io.errors import RemoteProtocolError, ResponseTimeout
from firmware_io.spec import Timing

SERVER = Address.server(1, 17)
CLIENT = Address.client(16)
TIMING = Timing(timeout_s=2.0, inter_octet_s=0.1, octet_s=10 / 9600)


def channel_over(wire, window: int = 1, size: int = 128) -> HdlcChannel:
    return HdlcChannel(wire, ClientLink(SERVER, CLIENT, Parameters(size, size, window, window)), TIMING)


@pytest.mark.parametrize("window", [1, 3, 7])
def test_every_unit_arrives_whole_or_not_at_all(make_wire, dirt, window: int) -> None:
    kind, there, back = dirt
    chance = random.Random(window)
    wire = make_wire(lambda pdu: pdu[::-1], there, back, limits=Parameters(100, 120, window, window))
    channel = channel_over(wire, window)
    opened, answered = False, 0
    for number in range(150):
        said = number.to_bytes(4, "big") + chance.randbytes(chance.choice((3, 20, 250, 900)))
        try:
            if not opened:
                channel.open()
                opened = True
            channel.send(said)
            assert channel.receive() == said[::-1]
            answered += 1
        except (ResponseTimeout, RemoteProtocolError):
            opened = False
    assert answered == 150 if kind in ("clean", "one octet", "doubled", "rubbish") else answered >= 40
    assert wire.time_s < 150 * 25


def test_no_unit_is_wrong_in_ten_thousand_noisy_frames(make_wire) -> None:
    noise = random.Random(7)

    def spoil(octets: bytes) -> list[tuple[float, bytes]]:
        spoiled = bytearray(octets)
        for _ in range(sum(noise.random() < 0.0315 for _ in range(len(octets) // 4))):  # BER 1e-3
            spoiled[noise.randrange(len(spoiled))] ^= 1 << noise.randrange(8)
        return [(0.0, bytes(spoiled))]

    wire = make_wire(lambda pdu: b"answer to " + pdu, spoil, spoil)
    channel = channel_over(wire)
    opened, answered, number = False, 0, 0
    while channel.traffic.exchanges < 5_000:  # a frame each way
        number += 1
        question = b"question %d" % number
        try:
            if not opened:
                channel.open()
                opened = True
            channel.send(question)
            assert channel.receive() == b"answer to " + question
            answered += 1
        except (ResponseTimeout, RemoteProtocolError):
            opened = False
    assert answered > 1_000
    assert channel.traffic.corrupt_frames > 200
    wire.there = wire.back = lambda octets: [(0.0, octets)]  # the noise stops, and the meter is read again
    channel.open()
    channel.send(b"well?")
    assert channel.receive() == b"answer to well?"


def test_a_silent_meter_costs_two_timeouts_and_no_more(make_wire) -> None:
    wire = make_wire(lambda pdu: pdu, there=lambda octets: [])
    with pytest.raises(ResponseTimeout, match="no answer to SNRM"):
        channel_over(wire).open()
    assert wire.time_s == pytest.approx(4.0, abs=0.2)


def test_a_corrupt_reply_is_asked_for_again_after_a_short_silence(make_wire) -> None:
    wire = make_wire(lambda pdu: pdu)
    channel = channel_over(wire)
    channel.open()
    spoil = [True]

    def once(octets: bytes) -> list[tuple[float, bytes]]:
        spoiled = octets[:-4] + b"\x00" + octets[-3:] if spoil.pop() else octets
        spoil.append(False)
        return [(0.0, spoiled)]

    wire.back = once
    before_s = wire.time_s
    channel.send(b"hello meter")
    assert channel.receive() == b"hello meter"
    assert channel.traffic.corrupt_frames == 1
    assert wire.time_s - before_s < 0.3


def test_an_echo_and_foreign_frames_change_nothing(make_wire) -> None:
    wire = make_wire(lambda pdu: pdu)
    write = wire.write

    def echoing(octets: bytes) -> None:
        wire.inject(octets)
        write(octets)

    wire.write = echoing
    channel = channel_over(wire)
    channel.open()
    for number in range(20):
        channel.send(b"%d" % number)
        assert channel.receive() == b"%d" % number
    assert channel.traffic.foreign_frames == 21


def test_a_babbling_line_does_not_hold_us(make_wire) -> None:
    wire = make_wire(lambda pdu: None)
    channel = channel_over(wire)
    channel.open()
    wire.there = lambda octets: []
    for i in range(20_000):
        wire.inject(b"\x7e\xa7\x00\x55", delay_s=0.01 * i)
    before_s = wire.time_s
    channel.send(b"anybody there?")
    with pytest.raises(ResponseTimeout):
        channel.receive()
    assert wire.time_s - before_s < 15


def test_a_push_in_the_middle_is_a_unit_of_its_own(make_wire) -> None:
    wire = make_wire(lambda pdu: b"reply")
    channel = channel_over(wire)
    channel.open()
    wire.pushes.append(b"push")
    channel.send(b"request")
    assert [channel.receive(), channel.receive()] == [b"push", b"reply"]


def test_a_meter_that_has_dropped_the_link_says_so(make_wire) -> None:
    wire = make_wire(lambda pdu: pdu)
    channel = channel_over(wire)
    channel.open()
    wire.link.drop()
    channel.send(b"still there?")
    with pytest.raises(RemoteProtocolError, match="DM"):
        channel.receive()
    channel.open()
    channel.send(b"and now?")
    assert channel.receive() == b"and now?"


@pytest.mark.parametrize("answer", ["takes nothing", "takes it and is silent", "wants it again"])
def test_a_meter_that_answers_and_never_gets_on_does_not_hold_us(make_wire, answer: str) -> None:
    wire = make_wire(lambda pdu: pdu)
    channel = channel_over(wire)
    channel.open()
    control = {"takes nothing": 0x11, "takes it and is silent": 0x31, "wants it again": 0x19}[answer]
    supervisory = encode_frame(Frame(CLIENT.encode(), SERVER.encode(), control))
    wire.link.handle = lambda frame: wire.inject(supervisory, 0.01) or []
    before_s = wire.time_s
    channel.send(b"well?")
    with pytest.raises((RemoteProtocolError, ResponseTimeout)):
        channel.receive()
    assert wire.time_s - before_s < 5
