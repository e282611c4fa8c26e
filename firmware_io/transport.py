"""Moves octets between us and a line, under a deadline: a serial port or a TCP connection.

It knows no frames. A transport has its own time (`monotonic`), because its waiting is done by the host: an
accelerated clock for a simulated building must not make a real line look dead.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import termios
import time
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

import serial
from serial.rs485 import RS485Settings

from firmware_io.errors import TransportError
from firmware_io.spec import BusSpec

CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 5.0
MAX_DATAGRAM = 65_535
PORT_FOLDERS = ("/dev/checkmeter", "/dev/serial/by-id")
# USB adapters and the on-board UARTs of ARM gateways; ttyS is left out: most of them are ports that nobody soldered.
PORT_PATTERNS = ("ttyUSB*", "ttyACM*", "ttyAMA*", "ttymxc*", "ttySTM*", "ttySC*", "ttyO*", "ttyLP*")


class Transport(Protocol):
    """A half-duplex octet stream; only one thread uses it."""

    def read(self, max_octets: int, deadline: float) -> bytes:
        """At least one octet as soon as there is one, or nothing at `deadline` (seconds of `monotonic`).

        Raises:
            TransportError: the port or the connection is gone.
        """

    def write(self, octets: bytes) -> None:
        """Hand all octets to the line.

        Raises:
            TransportError: the port or the connection is gone, or takes nothing any more.
        """

    def close(self) -> None:
        """Let the port go; never raises, and may be called twice."""

    def monotonic(self) -> float:
        """The time that deadlines of `read` are in, seconds."""


@runtime_checkable
class Adjustable(Protocol):
    """A transport whose line can be set to another speed while it is open."""

    def adjust(self, baud: int, data_bits: Literal[7, 8], parity: str) -> None:
        """From the next octet on. Raises: TransportError: the port does not do that."""


class Serial:
    """A serial port, opened for us alone: 8 data bits, 1 stop bit.

    With parity, an octet whose parity is wrong is dropped: a sum of eight bits, which is all that some protocols
    have, would let many a wrong frame through, and a frame that lacks an octet never passes. A pseudo-terminal has
    no parity bit, and refuses one.

    Raises:
        TransportError: the port cannot be opened.
    """

    def __init__(self, port: str, baud: int = 9600, parity: str = "N", *, rs485: bool = False) -> None:
        self._name = port
        wanted = f"{baud} Bd 8{parity}1"
        self._pty = os.path.realpath(port).startswith("/dev/pts/")
        if self._pty:
            parity = "N"
        try:
            self._port = serial.Serial(
                port, baud, parity=parity, timeout=0, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
            if parity != "N":
                attributes = termios.tcgetattr(self._port.fileno())
                attributes[0] |= termios.INPCK | termios.IGNPAR
                termios.tcsetattr(self._port.fileno(), termios.TCSANOW, attributes)
        except (OSError, ValueError, termios.error) as error:
            raise TransportError(f"cannot open serial port {port} at {wanted}: {_why(error)}{_others(port)}") from error
        if rs485:
            try:
                self._port.rs485_mode = RS485Settings()
            except (OSError, ValueError) as error:
                self._port.close()
                raise TransportError(
                    f"serial port {port} cannot turn an RS-485 line round ({error}): remove rs485 = true if its "
                    "adapter does that by itself, as USB adapters do"
                ) from error
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            self._port.set_low_latency_mode(True)  # USB adapters otherwise hold octets back for 16 ms

    def read(self, max_octets: int, deadline: float) -> bytes:
        try:
            return _read_ready(self._port.fileno(), max_octets, deadline)
        except (OSError, ValueError) as error:
            raise TransportError(f"serial port {self._name} failed on read: {error}; is it plugged in?") from error

    def write(self, octets: bytes) -> None:
        try:
            self._port.write(octets)
        except (OSError, ValueError) as error:
            raise TransportError(f"serial port {self._name} failed on write: {error}; is it plugged in?") from error

    def adjust(self, baud: int, data_bits: Literal[7, 8], parity: str) -> None:
        """See `Adjustable`. A pseudo-terminal has neither parity nor fewer bits."""
        try:
            self._port.flush()  # what was said at the old speed has left
            self._port.baudrate = baud
            if not self._pty:
                self._port.bytesize, self._port.parity = data_bits, parity
        except (OSError, ValueError, termios.error) as error:
            raise TransportError(
                f"serial port {self._name} does not do {baud} Bd {data_bits}{parity}1: {error}"
            ) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._port.close()

    def monotonic(self) -> float:
        return time.monotonic()


def _why(error: Exception) -> str:
    """The cause once: pyserial says it twice."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _others(port: str) -> str:
    """The ports that there are, where the one asked for is not."""
    if os.path.exists(port):
        return ""
    there = [str(p) for p in serial_ports()]
    return f"; the ports here: {', '.join(there[:8])}" if there else "; there is no serial port here: is it plugged in?"


class Tcp:
    """A TCP connection to a meter or to a serial device server.

    Raises:
        TransportError: nobody answers at that address.
    """

    def __init__(self, host: str, port: int) -> None:
        self._name = f"tcp://{host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.settimeout(WRITE_TIMEOUT_S)
        except OSError as error:
            raise TransportError(f"cannot connect to {self._name}: {error}") from error

    def read(self, max_octets: int, deadline: float) -> bytes:
        try:
            return _read_ready(self._socket.fileno(), max_octets, deadline)
        except (OSError, ValueError) as error:
            raise TransportError(f"{self._name} failed on read: {error}") from error

    def write(self, octets: bytes) -> None:
        try:
            self._socket.sendall(octets)
        except OSError as error:
            raise TransportError(f"{self._name} failed on write: {error}") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def monotonic(self) -> float:
        return time.monotonic()


class Udp:
    """A UDP peer: each unit is a datagram, and may be lost.

    Raises:
        TransportError: there is no such address.
    """

    def __init__(self, host: str, port: int) -> None:
        self._name = f"udp://{host}:{port}"
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.connect(address)  # what comes from elsewhere is not heard
            self._socket.setblocking(False)  # a datagram with a wrong check sum is gone when it is read
        except OSError as error:
            raise TransportError(f"cannot reach {self._name}: {error}") from error

    def read(self, max_octets: int, deadline: float) -> bytes:
        """One datagram, whole whatever `max_octets` says."""
        try:
            ready, _, _ = select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))
            return self._socket.recv(MAX_DATAGRAM) if ready else b""
        except (ConnectionRefusedError, BlockingIOError):
            return b""  # nobody listens just now, or it was none after all: that is silence
        except (OSError, ValueError) as error:
            raise TransportError(f"{self._name} failed on read: {error}") from error

    def write(self, octets: bytes) -> None:
        try:
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):  # lost, as any datagram may be
                self._socket.send(octets)
        except OSError as error:
            raise TransportError(f"{self._name} failed on write: {error}") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def monotonic(self) -> float:
        return time.monotonic()


def serial_ports() -> list[Path]:
    """The serial ports of this machine by their most lasting names: ours, then udev's, then the kernel's."""
    named = [p for folder in PORT_FOLDERS for p in sorted(Path(folder).glob("*"))]
    seen = {p.resolve() for p in named}
    plain = [p for pattern in PORT_PATTERNS for p in sorted(Path("/dev").glob(pattern)) if p.resolve() not in seen]
    return named + plain


def open_transport(spec: BusSpec) -> Transport:
    """Open the line that `spec.port` names.

    Raises:
        TransportError: it cannot be opened, or the address is malformed.
    """
    if not spec.networked:
        return Serial(spec.port, spec.baud, spec.parity, rs485=spec.rs485)
    parts = urlsplit(spec.port)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TransportError(f"bus {spec.id}: {spec.port}: {error}") from error
    if not host or port is None:
        raise TransportError(f"bus {spec.id}: {spec.port} is not of the form tcp://host:port")
    return Udp(host, port) if parts.scheme == "udp" else Tcp(host, port)


def _read_ready(fd: int, max_octets: int, deadline: float) -> bytes:
    """Octets of a file descriptor, or nothing at the deadline. End of file is an error: a line has none."""
    ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        return b""
    octets = os.read(fd, max_octets)
    if not octets:
        raise OSError("the other end hung up")
    return octets
