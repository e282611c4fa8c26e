"""What meters send without being asked: where it comes in, and how it gets to the driver of the right meter.

A `PushSource` gathers units, from a listening socket or from an idle line; the bus hands each to its drivers in turn
until one says that it is its meter's. It knows no protocol: a unit is octets.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol, runtime_checkable
from urllib.parse import urlsplit

from firmware_io.errors import RemoteProtocolError, TransportError
from firmware_io.reading import Reading
from firmware_io.transport import Transport

MAX_WAITING = 256  # units that nobody has taken yet: bounds what anybody who connects can make us keep
MAX_CLIENTS = 64
READ_OCTETS = 4096
CLIENT_IDLE_S = 60.0  # a connection that brings nothing is closed
LOOK_S = 0.2


class Pushed(NamedTuple):
    """One unit that somebody sent, and when it came (UTC)."""

    octets: bytes
    received_s: float


class Cutter(Protocol):
    """Cuts units out of one stream; what is none ends the connection (it raises RemoteProtocolError) or is skipped."""

    def receive(self, octets: bytes) -> list[bytes]:
        """The units that are complete now."""


class PushSource(Protocol):
    """Where units come from."""

    def take(self, transport: Transport | None) -> list[Pushed]:
        """What has come since the last call; `transport` is the line, which is idle, where it is open."""

    def close(self) -> None:
        """Stop; what has not been taken is lost."""


@runtime_checkable
class TakesPushes(Protocol):
    """A driver whose meter may push."""

    def take_push(self, pushed: Pushed) -> list[Reading] | None:
        """The readings in a unit; None if it is not of this meter, empty if it is, but says nothing that counts."""

    def pushed_meanwhile(self) -> list[Reading]:
        """The readings of what came while something else was asked."""


class IdleLine:
    """Pushes on the line itself, between two exchanges."""

    def __init__(self, cutter: Cutter, now: Callable[[], float]) -> None:
        self._cutter, self._now = cutter, now

    def take(self, transport: Transport | None) -> list[Pushed]:
        """See `PushSource`. Raises: TransportError: the line is gone."""
        if transport is None:
            return []
        octets = transport.read(READ_OCTETS, transport.monotonic())
        return [Pushed(unit, self._now()) for unit in self._cutter.receive(octets)] if octets else []

    def close(self) -> None:
        """Nothing to stop."""


class PushListener:
    """A TCP or UDP port that meters send to: a thread of its own, which only gathers.

    It listens from the first `take` on. Nothing that comes is believed here; who may reach the port is a matter of
    the network.
    """

    def __init__(self, address: str, cutter: Callable[[], Cutter], now: Callable[[], float]) -> None:
        self._address, self._cutter, self._now = address, cutter, now
        self._waiting: deque[Pushed] = deque(maxlen=MAX_WAITING)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self.dropped = 0

    def take(self, transport: Transport | None) -> list[Pushed]:
        """See `PushSource`. Raises: TransportError: the port cannot be had."""
        if self._thread is None:
            self._open()
        return [self._waiting.popleft() for _ in range(len(self._waiting))]  # no more: it may come faster than we take

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before the first `take`."""
        return 0 if self._socket is None else int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Stop listening and wait for the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        if self._socket is not None:
            self._socket.close()
        self._thread = self._socket = None
        self._stop = threading.Event()

    def _open(self) -> None:
        parts = urlsplit(self._address)
        udp = parts.scheme == "udp"
        try:
            where = (parts.hostname or "0.0.0.0", parts.port or 0)
            kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
            family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
            self._socket = socket.socket(family, kind)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(where)
            if not udp:
                self._socket.listen(MAX_CLIENTS)
            self._socket.settimeout(LOOK_S)
        except (OSError, ValueError) as error:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            raise TransportError(f"cannot listen on {self._address}: {error}") from error
        body = self._datagrams if udp else self._connections
        self._thread = threading.Thread(target=body, name=f"pushes {self._address}", daemon=True)
        self._thread.start()

    def _datagrams(self) -> None:
        assert self._socket is not None
        while not self._stop.is_set():
            with suppress(OSError):
                self._cut(self._cutter(), self._socket.recv(65535))

    def _connections(self) -> None:
        """One thread looks at all connections: meters push seldom, and a little."""
        listener = self._socket
        assert listener is not None
        clients: dict[socket.socket, tuple[Cutter, float]] = {}
        try:
            while not self._stop.is_set():
                ready, _, _ = select.select([listener, *clients], [], [], LOOK_S)
                for one in ready:
                    if one is listener:
                        self._accept(listener, clients)
                    elif not self._received(one, clients[one][0]):
                        one.close()
                        del clients[one]
                    else:
                        clients[one] = (clients[one][0], time.monotonic())
                for client, (_, heard_s) in list(clients.items()):
                    if time.monotonic() - heard_s > CLIENT_IDLE_S:
                        client.close()
                        del clients[client]
        finally:
            for client in clients:
                client.close()

    def _accept(self, listener: socket.socket, clients: dict[socket.socket, tuple[Cutter, float]]) -> None:
        with suppress(OSError):
            client, _ = listener.accept()
            client.setblocking(False)
            if len(clients) >= MAX_CLIENTS:
                client.close()
            else:
                clients[client] = (self._cutter(), time.monotonic())

    def _received(self, client: socket.socket, cutter: Cutter) -> bool:
        """Whether the connection lives on."""
        try:
            octets = client.recv(READ_OCTETS)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(octets) and self._cut(cutter, octets)

    def _cut(self, cutter: Cutter, octets: bytes) -> bool:
        """Whether the stream is still one of units."""
        try:
            units = cutter.receive(octets)
        except RemoteProtocolError:
            return False
        self.dropped += max(0, len(self._waiting) + len(units) - MAX_WAITING)
        self._waiting.extend(Pushed(unit, self._now()) for unit in units)
        return True
