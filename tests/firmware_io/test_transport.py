"""Serial ports and TCP connections as they are, and the wrapper channel over a transport of its own time."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import tty
from collections.abc import Iterator

import pytest

from firmware_io.dlms.session.channel import WrapperChannel
from firmware_io.dlms.session.wrapper import Unit, Unwrapper
from firmware_io.errors import LocalProtocolError, RemoteProtocolError, ResponseTimeout, TransportError
from firmware_io.spec import BusSpec, Timing
from firmware_io.transport import Serial, Tcp, open_transport


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The far end of a pseudo-terminal, and the port's name."""
    far, near = pty.openpty()
    tty.setraw(near)
    yield far, os.ttyname(near)
    for fd in (far, near):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


class TestSerial:
    def test_octets_go_both_ways_and_reading_ends_with_the_first_ones(self, terminal: tuple[int, str]) -> None:
        far, name = terminal
        port = Serial(name, 9600)
        port.write(bytes(range(256)))
        assert os.read(far, 300) == bytes(range(256))
        os.write(far, b"\x7e\xa0")
        assert port.read(100, port.monotonic() + 600) == b"\x7e\xa0"  # not at the deadline, but as soon as it is there
        port.close()
        port.close()

    def test_silence_ends_at_the_deadline(self, terminal: tuple[int, str]) -> None:
        port = Serial(terminal[1])
        started = port.monotonic()
        assert port.read(100, started + 0.05) == b""
        assert port.monotonic() >= started + 0.05
        assert port.read(100, started) == b""  # a deadline that is over
        port.close()

    def test_a_port_that_cannot_turn_the_line_round_says_what_to_do(self, terminal: tuple[int, str]) -> None:
        with pytest.raises(TransportError, match="remove rs485 = true"):
            open_transport(BusSpec("line", terminal[1], rs485=True))
        Serial(terminal[1]).close()  # and it was let go

    def test_a_port_belongs_to_one(self, terminal: tuple[int, str]) -> None:
        port = Serial(terminal[1])
        with pytest.raises(TransportError, match="cannot open serial port"):
            Serial(terminal[1])
        port.close()

    def test_a_port_that_goes_away(self, terminal: tuple[int, str]) -> None:
        far, name = terminal
        port = Serial(name)
        os.close(far)
        with pytest.raises(TransportError, match="is it plugged in"):
            port.read(100, port.monotonic() + 1)
        port.close()
        for use in (lambda: port.read(1, port.monotonic() + 1), lambda: port.write(b"x")):
            with pytest.raises(TransportError):
                use()

    def test_a_port_that_is_not_there(self) -> None:
        with pytest.raises(TransportError, match="/dev/nowhere"):
            open_transport(BusSpec("line", "/dev/nowhere"))


class TestTcp:
    def test_octets_go_both_ways_until_the_other_end_hangs_up(self, listener: socket.socket) -> None:
        line = open_transport(BusSpec("line", f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
        assert isinstance(line, Tcp)
        far, _ = listener.accept()
        line.write(b"there")
        assert far.recv(100) == b"there"
        far.sendall(b"back")
        assert line.read(100, line.monotonic() + 5) == b"back"
        assert line.read(100, line.monotonic() + 0.02) == b""
        far.close()
        with pytest.raises(TransportError, match="hung up"):
            line.read(100, line.monotonic() + 5)
        line.close()
        line.close()

    def test_nobody_there(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        listener.close()
        with pytest.raises(TransportError, match=f"cannot connect to tcp://127.0.0.1:{port}"):
            Tcp("127.0.0.1", port)

    @pytest.mark.parametrize("port", ["tcp://", "tcp://host", "tcp://host:port", "tcp://host:99999"])
    def test_an_address_that_is_none(self, port: str) -> None:
        with pytest.raises(TransportError, match="tcp://"):
            open_transport(BusSpec("line", port))


class Pipe:
    """A transport that says what it was told to, one piece at a time, in time of its own."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:
        self.pieces = list(pieces)
        self.written: list[tuple[float, bytes]] = []
        self.time_s = 0.0

    def read(self, max_octets: int, deadline: float) -> bytes:
        if self.pieces and self.pieces[0][0] <= deadline:
            at_s, octets = self.pieces.pop(0)
            self.time_s = max(self.time_s, at_s)
            return octets
        self.time_s = max(self.time_s, deadline)
        return b""

    def write(self, octets: bytes) -> None:
        self.written.append((self.time_s, octets))

    def close(self) -> None: ...

    def monotonic(self) -> float:
        return self.time_s


def wrapped(pipe: Pipe, **options: float) -> WrapperChannel:
    return WrapperChannel(pipe, 16, 1, Timing(2.0, 0.1, 0.0), **options)


class TestWrapper:
    """IEC 62056-47: version 1, ports of source and destination, length."""

    def test_the_header(self) -> None:
        assert Unit(16, 1, b"\xc0\x01").encode() == bytes.fromhex("0001001000010002c001")
        with pytest.raises(LocalProtocolError):
            Unit(16, 1, bytes(0x10000)).encode()

    def test_units_are_cut_out_wherever_the_stream_is_cut(self) -> None:
        units = [Unit(1, 16, bytes(n)) for n in (0, 1, 300)]
        stream = b"".join(unit.encode() for unit in units)
        for step in (1, 7, 8, 1000):
            unwrapper = Unwrapper()
            found = [u for i in range(0, len(stream), step) for u in unwrapper.receive(stream[i : i + step])]
            assert found == units

    @pytest.mark.parametrize("header", ["0002000100100000", "7ea0210001000100"])
    def test_what_is_no_header_is_refused(self, header: str) -> None:
        with pytest.raises(RemoteProtocolError, match="no wrapper header"):
            Unwrapper().receive(bytes.fromhex(header))
        with pytest.raises(RemoteProtocolError, match="at most 100 octets"):
            Unwrapper(max_unit=100).receive(Unit(1, 16, bytes(101)).encode())

    def test_a_reply_in_pieces_behind_units_for_others(self) -> None:
        stream = Unit(2, 16, b"not ours").encode() + Unit(1, 17, b"nor this").encode() + Unit(1, 16, b"ours").encode()
        channel = wrapped(Pipe((0.1, stream[:20]), (1.5, stream[20:30]), (3.0, stream[30:])))
        channel.open()
        channel.send(b"question")
        assert channel.receive() == b"ours"
        assert channel.traffic.foreign_frames == 2

    def test_silence(self) -> None:
        pipe = Pipe()
        channel = wrapped(pipe)
        channel.send(b"question")
        with pytest.raises(ResponseTimeout):
            channel.receive()
        assert pipe.time_s == 2.0

    def test_a_trickle_does_not_hold_us(self) -> None:
        pipe = Pipe(*((n * 1.0, Unit(9, 9, b"x").encode()) for n in range(1, 1000)))
        channel = wrapped(pipe)
        channel.send(b"question")
        with pytest.raises(ResponseTimeout):
            channel.receive()
        assert pipe.time_s < 70

    def test_a_meter_that_needs_rest_gets_it(self) -> None:
        pipe = Pipe((0.1, Unit(1, 16, b"one").encode()), (0.9, Unit(1, 16, b"two").encode()))
        channel = wrapped(pipe, min_gap_s=0.5)
        for expected in (b"one", b"two"):
            channel.send(b"question")
            assert channel.receive() == expected
        assert [at_s for at_s, _ in pipe.written] == pytest.approx([0.0, 0.6])
