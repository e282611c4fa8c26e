"""Gives a simulated line a place to be plugged in: a pseudo-terminal, a serial port, or a listening TCP socket.

One thread a line. It waits for octets, for the time of the next answer, and to be stopped; it knows no meters.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import termios
import threading
import time
import tty
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import serial

from firmware_io.errors import RemoteProtocolError, TransportError
from firmware_io.simulator.line.bus import Due, Wires

READ_OCTETS = 4096
MAX_DATAGRAM = 65_535
MAX_CONNECTIONS = 256  # of one TCP line
IDLE_S = 0.5
PTY_WRITE_S = 0.2  # how long a client may leave its terminal full, before octets are lost
TCP_WRITE_S = 2.0
BACKLOG = 64


class Port(Protocol):
    """Where octets come from and go to."""

    name: str  # what a client has to open

    def sources(self) -> list[int]:
        """File descriptors that may have something."""

    def read(self, fd: int) -> tuple[object, bytes] | None:
        """Octets of one of them and their connection; empty octets: the connection is gone; None: nothing yet."""

    def write(self, connection: object, octets: bytes) -> None:
        """Hand octets over; what the other side does not take is lost, as on a wire."""

    def hang_up(self, connection: object) -> None:
        """End a connection that is of no use any more."""

    def close(self) -> None:
        """Give the place back."""


class Pty:
    """One end of a pseudo-terminal; `link` becomes a symbolic link to the other one.

    A client that has set the other end to another baud rate than `baud` is not understood, as on a wire.
    """

    def __init__(self, link: Path | None = None, baud: int | None = None) -> None:
        self._master, self._slave = os.openpty()  # our hold on the slave keeps the line alive between clients
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._speed = getattr(termios, f"B{baud}", None) if baud else None
        if self._speed is not None:
            attributes = termios.tcgetattr(self._slave)
            attributes[4] = attributes[5] = self._speed
            termios.tcsetattr(self._slave, termios.TCSANOW, attributes)
        self.name = os.ttyname(self._slave)
        self._link = link
        self._claim: int | None = None
        if link is not None:
            try:
                link.parent.mkdir(parents=True, exist_ok=True)
                self._claim = _claimed(link, self.name)
                if link.is_symlink():
                    link.unlink()  # of a simulator that was killed
                link.symlink_to(self.name)
            except OSError as error:
                self.close()
                raise TransportError(f"cannot make {link} a link to {self.name}: {error}") from error
            except TransportError:
                self.close()
                raise
            self.name = str(link)

    def sources(self) -> list[int]:
        return [self._master]

    def read(self, fd: int) -> tuple[object, bytes] | None:
        try:
            octets = os.read(fd, READ_OCTETS)
        except BlockingIOError:
            return None
        if self._speed is not None and termios.tcgetattr(self._slave)[4] != self._speed:
            octets = bytes(len(octets))  # the flags are gone, whatever else comes through
        return None, octets

    def write(self, connection: object, octets: bytes) -> None:
        deadline = time.monotonic() + PTY_WRITE_S
        while octets:
            with contextlib.suppress(BlockingIOError):
                octets = octets[os.write(self._master, octets) :]
            if octets:  # the terminal holds four kilooctets: more, and somebody has to read first
                wait_s = deadline - time.monotonic()
                if wait_s <= 0 or not select.select([], [self._master], [], wait_s)[1]:
                    return

    def hang_up(self, connection: object) -> None:
        """A wire does not hang up."""

    def close(self) -> None:
        if self._link is not None and self._link.is_symlink():
            with contextlib.suppress(OSError):
                if os.readlink(self._link) == os.ttyname(self._slave):
                    self._link.unlink()
        if self._claim is not None and self._link is not None:
            with contextlib.suppress(OSError):
                _claim_of(self._link).unlink()
            os.close(self._claim)
        os.close(self._master)
        os.close(self._slave)


class SerialPort:
    """A real serial port: the far end of an adapter pair in a laboratory."""

    def __init__(self, device: str, baud: int, parity: str) -> None:
        self.name = device
        try:
            self._port = serial.Serial(device, baud, parity=parity, timeout=0, write_timeout=1, exclusive=True)
        except (OSError, ValueError) as error:
            raise TransportError(f"cannot open serial port {device} at {baud} Bd: {error}") from error

    def sources(self) -> list[int]:
        return [int(self._port.fileno())]

    def read(self, fd: int) -> tuple[object, bytes] | None:
        octets = self._port.read(READ_OCTETS)
        return (None, octets) if octets else None

    def write(self, connection: object, octets: bytes) -> None:
        with contextlib.suppress(serial.SerialTimeoutException):
            self._port.write(octets)

    def hang_up(self, connection: object) -> None:
        """A wire does not hang up."""

    def close(self) -> None:
        self._port.close()


class TcpPort:
    """A listening socket on which any number of clients find the line."""

    def __init__(self, host: str, port: int) -> None:
        try:
            self._listener = socket.create_server((host, port), backlog=BACKLOG)
        except OSError as error:
            raise TransportError(f"cannot listen on tcp://{host}:{port}: {error}") from error
        self._listener.setblocking(False)
        self.name = f"tcp://{host}:{self._listener.getsockname()[1]}"
        self._clients: dict[int, socket.socket] = {}

    def sources(self) -> list[int]:
        return [self._listener.fileno(), *self._clients]

    def read(self, fd: int) -> tuple[object, bytes] | None:
        if fd == self._listener.fileno():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                if len(self._clients) >= MAX_CONNECTIONS:
                    client.close()
                    return None
                client.settimeout(TCP_WRITE_S)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[client.fileno()] = client
            return None
        try:
            return fd, self._clients[fd].recv(READ_OCTETS)
        except OSError:
            return fd, b""

    def write(self, connection: object, octets: bytes) -> None:
        client = self._clients.get(connection) if isinstance(connection, int) else None
        if client is not None:
            try:
                client.sendall(octets)
            except OSError:  # it does not read: its connection ends, and is found ended by the next look at it
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def hang_up(self, connection: object) -> None:
        client = self._clients.pop(connection, None) if isinstance(connection, int) else None
        if client is not None:
            client.close()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._listener.close()


class UdpPort:
    """A UDP port; each address that has sent something is a connection."""

    def __init__(self, host: str, port: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind((host, port))
        except OSError as error:
            raise TransportError(f"cannot listen on udp://{host}:{port}: {error}") from error
        self._socket.setblocking(False)
        self.name = f"udp://{host}:{self._socket.getsockname()[1]}"

    def sources(self) -> list[int]:
        return [self._socket.fileno()]

    def read(self, fd: int) -> tuple[object, bytes] | None:
        try:
            octets, peer = self._socket.recvfrom(MAX_DATAGRAM)
        except OSError:
            return None
        return (peer, octets) if octets else None

    def write(self, connection: object, octets: bytes) -> None:
        if isinstance(connection, tuple):
            with contextlib.suppress(OSError):
                self._socket.sendto(octets, connection)

    def hang_up(self, connection: object) -> None:
        """There is nothing to hang up."""

    def close(self) -> None:
        self._socket.close()


def open_port(address: str, baud: int, parity: str, link: Path | None = None) -> Port:
    """The place that a site file's `port` names, seen from the meters' side.

    `tcp://host:port` is listened on. A path that is no device yet becomes a link to a new pseudo-terminal (or
    `link` does, where it is given); a path that is a device is opened.

    Raises:
        TransportError: it cannot be had.
    """
    if address.startswith(("tcp://", "udp://")):
        parts = urlsplit(address)
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise TransportError(f"{address}: {error}") from error
        if not host or port is None:
            raise TransportError(f"{address} is not of the form tcp://host:port")
        return UdpPort(host, port) if parts.scheme == "udp" else TcpPort(host, port)
    path = Path(address)
    if link is not None:
        return Pty(link, baud)
    if not path.exists() or _claim_of(path).exists():
        return Pty(path, baud)
    if not path.is_char_device():
        raise TransportError(f"{path} is in the way: expected a serial device, or nothing where a link can be made")
    return SerialPort(address, baud, parity)


def _claim_of(link: Path) -> Path:
    return link.with_name(f".{link.name}.simulator")


def _claimed(link: Path, terminal: str) -> int:
    """Claim a link for this process: the descriptor of a locked file beside it, which names the terminal.

    The lock ends with the process, however that ends. So a link whose claim nobody holds is of a simulator that was
    killed, and only such a one is replaced, or one that leads nowhere.

    Raises:
        TransportError: the link is somebody else's and leads to a terminal.
        OSError: the claim cannot be written.
    """
    claim = _claim_of(link)
    fd = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = not link.is_symlink() or os.readlink(link) == os.read(fd, 256).decode(errors="replace")
        if not ours and link.exists():
            claim.unlink()
            raise TransportError(
                f"{link} leads to {os.readlink(link)}, which is in use: remove it, or give another port"
            )
    except BlockingIOError:
        os.close(fd)
        raise TransportError(f"another simulator answers at {link}: end it first, or give another port") from None
    except TransportError:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, terminal.encode(), 0)
    return fd


class LineThread:
    """Runs one line on one port until it is stopped."""

    def __init__(self, name: str, line: Wires, port: Port) -> None:
        self.name = name
        self.line = line
        self.port = port
        self.failed: str | None = None
        self._stop = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"simulated-{name}", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, close the port, and wait for the thread."""
        self._stop.set()
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")
        if self._thread.ident is not None:
            self._thread.join(timeout=10)
        self.port.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._once()
        except (OSError, serial.SerialException) as error:  # an adapter was pulled out
            self.failed = f"{self.port.name}: {error}"

    def _once(self) -> None:
        now = time.monotonic()
        for arrived in self.line.due(now):
            self._deliver(arrived)
        next_s = self.line.next_due_s()
        wait_s = IDLE_S if next_s is None else min(max(next_s - time.monotonic(), 0.0), IDLE_S)
        # Not epoll: its time-out is in whole milliseconds, eleven octets at 115200 Bd.
        ready, _, _ = select.select([self._wake_read, *self.port.sources()], [], [], wait_s)
        for fd in ready:
            if fd != self._wake_read:
                self._take(fd)

    def _take(self, fd: int) -> None:
        got = self.port.read(fd)
        if got is None:
            return
        connection, octets = got
        try:
            if octets:
                self.line.receive(octets, time.monotonic(), connection)
                return
        except RemoteProtocolError:
            pass  # not our wrapper: whoever it is, the connection ends
        self.port.hang_up(connection)
        self.line.forget(connection)

    def _deliver(self, arrived: Due) -> None:
        self.port.write(arrived.connection, arrived.octets)
