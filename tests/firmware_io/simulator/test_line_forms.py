"""Forms of a line: sign-on at an optical head, UDP, client addresses above 127, the time by broadcast."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from firmware_io import obis
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.hdlc.framer import Address
from firmware_io.dlms.meter.broadcast import frame
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.opening import ModeE
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import LocalProtocolError, RemoteProtocolError
from firmware_io.simulator.building.scenario import Fault, Simulation
from firmware_io.simulator.line.bus import NullModem
from firmware_io.simulator.line.optical import IDENTIFICATION, OpticalHead
from firmware_io.simulator.line.ports import LineThread, open_port
from firmware_io.spec import BusSpec
from firmware_io.transport import Serial, Udp, open_transport
from tests.firmware_io.lab import HostClock

FLAT = "flat-1"


def head_of(bench, inactivity_s: float = 120.0) -> OpticalHead:
    """Put an optical head in front of the bench's line."""
    head = bench.site.lines["line"] = OpticalHead(bench.site.lines["line"], inactivity_s)
    bench.spec = replace(bench.spec, opening="mode-e")
    bench.__post_init__()
    return head


class Slow(NullModem):
    """A line whose speed can be set; remembers to which."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.set: list[tuple[int, int, str]] = []

    def adjust(self, baud: int, data_bits: int, parity: str) -> None:
        self.set.append((baud, data_bits, parity))


# Mode E


def test_the_meter_is_called_before_each_link(make_bench):
    bench = make_bench(flats=1)
    head = head_of(bench)
    for _ in range(3):
        assert obis.ENERGY_IMPORT in {r.obis for r in bench.bus.poll(FLAT)}
    assert head.sign_ons == 1  # the link stays open between polls
    bench.session(FLAT).release()
    assert bench.bus.poll(FLAT)
    assert head.sign_ons == 2


def test_speeds_are_those_that_both_sides_know(make_bench):
    bench = make_bench(flats=1)
    head_of(bench)
    line = Slow(bench.site.lines["line"])
    for most, chosen in ((115_200, 9600), (9600, 9600), (4800, 4800), (2400, 2400), (200, 300)):
        line.set.clear()
        assert ModeE(most).sign_on(line) == chosen
        assert line.set == [(300, 7, "E"), (chosen, 8, "N")]
        line._move(line.monotonic() + 300)  # the head forgets it


def test_a_meter_that_stands_in_hdlc_still_is_read(make_bench):
    bench = make_bench(flats=1)
    head = head_of(bench, inactivity_s=3600.0)
    bench.bus.poll(FLAT)
    bench.bus.close()  # in good order: released
    bench.bus.poll(FLAT)
    assert head.sign_ons == 2
    bench.drivers[FLAT]._line = None  # the agent was killed: nobody released anything
    assert bench.bus.poll(FLAT)
    assert head.sign_ons == 2


@pytest.mark.parametrize("answer", [b"/CHM5CHECKMETER\r\n", b"/CHM9\\2X\r\n", b"hello world\r\n"])
def test_who_does_not_know_mode_e_is_said(answer):
    class Head:
        def __init__(self) -> None:
            self.answer, self.now = answer, 0.0

        def write(self, octets: bytes) -> None:
            assert octets == bytes.fromhex("af3f218d0a")  # /?! CR LF with even parity

        def read(self, max_octets: int, deadline: float) -> bytes:
            octets, self.answer = self.answer, b""
            self.now = deadline
            return octets

        def monotonic(self) -> float:
            return self.now

    with pytest.raises(RemoteProtocolError, match=r"mode E|expected a speed"):
        ModeE(9600).sign_on(Head())


def test_noise_now_and_then_does_not_hold_the_line():
    class Noise:
        now = 0.0

        def write(self, octets: bytes) -> None: ...

        def read(self, max_octets: int, deadline: float) -> bytes:
            self.now = min(deadline, self.now + 1.9)
            return b"x" if self.now < deadline else b""

        def monotonic(self) -> float:
            return self.now

    line = Noise()
    with pytest.raises(RemoteProtocolError, match="mode E"):
        ModeE(9600).sign_on(line)
    assert line.now < 10  # seconds of its own; each octet would be waited for as long as for the first


def test_mode_e_on_a_terminal(make_bench, tmp_path):
    bench = make_bench(flats=1)
    head = head_of(bench)
    head._line.octet_s = 0.0
    thread = LineThread("line", head, open_port(str(tmp_path / "head"), 0, "N"))
    thread.start()
    spec = BusSpec("line", str(tmp_path / "head"), baud=9600, opening="mode-e", timeout_s=1.0)
    driver = DlmsDriver(bench.meters[1], spec, HostClock(), MemoryCounters())
    bus = Bus(spec, [BusMeter(FLAT, driver)], open_transport, HostClock())
    try:
        assert obis.ENERGY_IMPORT in {r.obis for r in bus.poll(FLAT)}
    finally:
        bus.close()
        thread.stop()
    assert head.sign_ons == 1


def test_a_serial_port_takes_seven_bits_and_even_parity_where_it_has_them():
    master, slave = os.openpty()
    port = Serial(os.ttyname(slave), 300)
    try:
        port.adjust(300, 7, "E")  # a terminal has neither; its speed it has
        port.adjust(9600, 8, "N")
        assert port._port.baudrate == 9600
        port.write(IDENTIFICATION)
        assert os.read(master, 64) == IDENTIFICATION
    finally:
        port.close()
        os.close(master)
        os.close(slave)


# UDP


@pytest.mark.parametrize("kind", ["none", "hls-gmac"])
def test_the_wrapper_over_udp(kind, make_bench, secured):
    bench = make_bench(framing="wrapper", flats=1, meter=secured(kind))
    thread = LineThread("line", bench.site.lines["line"], open_port("udp://127.0.0.1:0", 0, "N"))
    thread.start()
    spec = BusSpec("line", thread.port.name, timeout_s=2.0)
    driver = DlmsDriver(bench.meters[1], spec, HostClock(), MemoryCounters())
    bus = Bus(spec, [BusMeter(FLAT, driver)], open_transport, HostClock())
    try:
        for _ in range(2):
            assert obis.ENERGY_IMPORT in {r.obis for r in bus.poll(FLAT)}
        profile = bus.read_profile(FLAT, bench.clock.now() - 86_400, bench.clock.now())
        assert len(profile) >= 96
    finally:
        bus.close()
        thread.stop()
    assert driver.associations == 1


def test_a_datagram_that_is_gone_when_it_is_read_is_silence(monkeypatch):
    """Of one with a wrong check sum select(2) speaks, and recv(2) does not."""
    line = Udp("127.0.0.1", 9)
    monkeypatch.setattr("select.select", lambda *_: ([line], [], []))
    try:
        assert line.read(16, line.monotonic() + 1) == b""
    finally:
        line.close()


def test_nobody_at_a_udp_port_is_silence():
    spec = BusSpec("line", "udp://127.0.0.1:9", timeout_s=0.2)
    driver = DlmsDriver(DlmsSpec("m", 1, framing="wrapper"), spec, HostClock(), MemoryCounters())
    bus = Bus(spec, [BusMeter("m", driver)], open_transport, HostClock())
    (poll,) = bus.poll_cycle()
    bus.close()
    assert "no answer" in str(poll.error)


# Client addresses


@pytest.mark.parametrize("framing", ["hdlc", "wrapper"])
@pytest.mark.parametrize("client", [127, 128, 16_383])
def test_clients_above_127(client, framing, make_bench):
    bench = make_bench(framing=framing, meter={"client": client})
    assert obis.ENERGY_IMPORT in {r.obis for r in bench.bus.poll(FLAT)}


def test_a_client_address_on_the_wire():
    assert [Address.client(n).encode().hex() for n in (16, 127, 128, 16_383)] == ["21", "ff", "0201", "feff"]
    with pytest.raises(LocalProtocolError):
        Address.client(16_384)


# The time by broadcast


@pytest.mark.parametrize(
    ("kind", "octets"), [("none", 0), ("lls", 4), ("gmac-broadcast", 0), ("ecdsa-1", 0), ("ecdsa-2", 0)]
)
def test_the_time_reaches_all_meters_of_the_line(kind, octets, make_bench, secured):
    key = {"broadcast_key": bytes(range(80, 96))}
    plan = secured("hls-gmac") | key if kind == "gmac-broadcast" else secured(kind)
    off = Simulation(seed=5, history_days=8, fault=[Fault(kind="clock_jump", amount=300.0, onset="-1h")])
    bench = make_bench(off, meter=plan | {"address_octets": octets})
    meters = bench.site.meters
    assert all(meter.clock.offset_s(bench.clock.now()) == 300 for meter in meters.values())

    def send(driver, line):
        _, convention = driver.read_meter_time(line)
        driver.broadcast_clock(line, bench.clock.now(), convention)

    for _ in range(2):
        bench.bus.use(FLAT, send)
    # Meters without ciphering take a plain one; a ciphered one is for those that share the key.
    reached = {name for name, meter in meters.items() if abs(meter.clock.offset_s(bench.clock.now())) < 1}
    assert reached == ({FLAT} if meters[FLAT].identity.encryption_key else set(meters))


def test_a_broadcast_to_meters_that_cipher_needs_their_key(make_bench, secured):
    bench = make_bench(meter=secured("hls-gmac"))
    with pytest.raises(LocalProtocolError, match="broadcast_key"):
        bench.bus.use(FLAT, lambda d, line: d.broadcast_clock(line, 0.0, d.read_meter_time(line)[1]))
    wrapper = make_bench(framing="wrapper")
    with pytest.raises(LocalProtocolError, match="no broadcast behind a wrapper"):
        wrapper.bus.use(FLAT, lambda d, line: d.broadcast_clock(line, 0.0, d.read_meter_time(line)[1]))


def test_octets_of_a_broadcast():
    assert frame(16, b"\xc1\x01")[1:7].hex() == "a00ffeff2103"
