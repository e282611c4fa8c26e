"""The multidrop line: octets take their time, everybody hears everybody, and what is bounded stays bounded."""

from __future__ import annotations

import pytest

from firmware_io.dlms.hdlc.framer import Address, Frame, Framer, encode_frame
from firmware_io.dlms.hdlc.link import DM, FINAL, SNRM, UA
from firmware_io.dlms.session.channel import open_channel
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.session import Session
from firmware_io.simulator.building.scenario import Fault, Simulation
from firmware_io.simulator.line.bus import MAX_PENDING, Multidrop
from firmware_io.simulator.line.station import MAX_LINKS

OCTET_S = 10 / 9600
TURNAROUND_S = 0.02
CLIENT = Address.client(16).encode()


def server(address: int) -> bytes:
    return Address.server(1, address).encode()


def question(address: int, control: int = SNRM | FINAL, client: bytes = CLIENT) -> bytes:
    return encode_frame(Frame(server(address), client, control))


def everything(line: Multidrop, until_s: float = 1e9) -> list[tuple[float, bytes]]:
    return [(arrived.time_s, arrived.octets) for arrived in line.due(until_s)]


def test_an_answer_comes_when_its_octets_have_passed(make_bench):
    line = make_bench().site.lines["line"]
    asked = question(17)
    line.receive(asked, 100.0)
    portions = everything(line)
    answer = b"".join(octets for _, octets in portions)
    (frame,) = Framer().receive(answer)
    assert frame.control == UA | FINAL
    question_end = 100.0 + len(asked) * OCTET_S
    assert portions[-1][0] == pytest.approx(question_end + TURNAROUND_S + len(answer) * OCTET_S)
    passed = 0
    for time_s, octets in portions:
        passed += len(octets)
        assert time_s == pytest.approx(question_end + TURNAROUND_S + passed * OCTET_S)
    assert max(len(octets) for _, octets in portions) * OCTET_S < 0.01


def test_a_question_in_pieces_is_one_question(make_bench):
    line = make_bench().site.lines["line"]
    for place, octet in enumerate(question(17)):
        line.receive(bytes((octet,)), 100.0 + place * OCTET_S)
    assert everything(line)


def test_a_question_with_a_hole_in_it_is_none(make_bench):
    line = make_bench().site.lines["line"]
    asked = question(17)
    line.receive(asked[:5], 100.0)
    line.receive(asked[5:], 100.2)
    assert not everything(line)
    line.receive(asked, 101.0)
    assert everything(line)


def test_nobody_answers_for_another(make_bench):
    line = make_bench().site.lines["line"]
    line.receive(question(99), 100.0)
    assert not everything(line)


def test_a_meter_without_a_link_says_so(make_bench):
    line = make_bench().site.lines["line"]
    line.receive(question(17, 0x10), 100.0)
    (frame,) = Framer().receive(b"".join(octets for _, octets in everything(line)))
    assert frame.control == DM | FINAL


def test_links_of_one_meter_are_bounded(make_bench):
    bench = make_bench()
    line = bench.site.lines["line"]
    for number in range(1, 100):
        line.receive(question(17, client=Address.client(number).encode()), float(number))
    station = next(s for s in line.stations if server(17) in s.addresses)
    assert len(station._links) == MAX_LINKS


def test_what_a_client_never_reads_is_bounded(make_bench):
    line = make_bench().site.lines["line"]
    for number in range(3000):
        line.receive(question(17), float(number))
    assert len(line.due(1e9)) <= MAX_PENDING
    assert line.dropped > 0


def test_noise_for_ever_is_survived(make_bench):
    line = make_bench().site.lines["line"]
    for number in range(200):
        line.receive(bytes((number * 7 + k * 31) % 256 for k in range(997)), 1 + number)
    line.receive(question(17), 500.0)
    assert everything(line)


def test_an_echo_is_heard_before_the_answer(make_bench):
    fault = Fault(kind="echo")
    line = make_bench(Simulation(seed=5, history_days=2, installed="-10d", fault=[fault])).site.lines["line"]
    line.receive(question(17), 100.0)
    assert b"".join(octets for _, octets in everything(line)).startswith(question(17))


def test_two_associations_on_one_line_do_not_disturb_each_other(make_bench):
    bench = make_bench()
    transport = bench.plug(bench.spec)
    sessions = [Session(spec, open_channel(transport, bench.spec, spec), MemoryCounters()) for spec in bench.meters[:3]]
    for session in sessions:
        session.connect()
    for _ in range(3):
        for session in sessions:
            session.keep_alive()


def test_a_closed_connection_takes_its_answers_with_it(make_bench):
    line = make_bench(framing="wrapper").site.lines["line"]
    line.receive(b"\x00\x01\x00\x10\x00\x11\x00\x01\x60", 1.0, "first")
    assert line.next_due_s() is not None
    line.forget("first")
    assert line.next_due_s() is None
