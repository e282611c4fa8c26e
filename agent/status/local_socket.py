"""The local endpoints of the running agent: a unix socket for `status` and `watch`, /metrics on loopback, a textfile.

All are served by the main thread between two looks at its threads; a client that does not read is dropped, so that
nobody at a terminal can hold the agent up. The endpoints only show; nothing can be commanded through them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.status.snapshot import Snapshot, metrics_text

log = logging.getLogger("checkmeter.control")
CLIENT_TIMEOUT_S = 0.5  # bounds how long a client that does not read can hold the main thread


class LocalEndpoints:
    """The listening sockets; `serve` answers what waits at one of them."""

    def __init__(self, socket_path: str | None, metrics_port: int | None, textfile: str | None) -> None:
        self._textfile = Path(textfile) if textfile else None
        self._path = Path(socket_path) if socket_path else None
        self.listeners: list[socket.socket] = []
        self._metrics: socket.socket | None = None
        if self._path is not None:
            self._open(lambda: _unix(Path(self._path or "")), f"control socket {self._path}")
        if metrics_port is not None:
            self._metrics = self._open(lambda: _loopback(metrics_port), f"metrics port {metrics_port}")

    def _open(self, make: Callable[[], socket.socket], what: str) -> socket.socket | None:
        """A door that cannot be opened is a warning: meters are read all the same."""
        try:
            listener = make()
        except OSError as e:
            log.warning("%s cannot be opened: %s; status, watch or metrics will not work", what, e.strerror or e)
            return None
        self.listeners.append(listener)
        return listener

    def serve(self, listener: socket.socket, snapshot: Callable[[], Snapshot]) -> None:
        """Answer one client of `listener`."""
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.settimeout(CLIENT_TIMEOUT_S)
                if listener is self._metrics:
                    client.recv(4096)
                    body = metrics_text(snapshot()).encode()
                    head = (
                        "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                    )
                    client.sendall(head.encode() + body)
                else:
                    client.sendall(msgspec.json.encode(snapshot()))

    def write_textfile(self, snapshot: Callable[[], Snapshot]) -> None:
        """Write the metrics textfile anew, in one piece (rename is atomic)."""
        if self._textfile is None:
            return
        beside = None
        try:
            # A name that nobody can guess, made by us alone: others may be allowed to write into the folder.
            fd, beside = tempfile.mkstemp(prefix=f".{self._textfile.name}.", dir=self._textfile.parent)
            with open(fd, "w") as file:
                file.write(metrics_text(snapshot()))
                os.fchmod(fd, 0o644)
            os.replace(beside, self._textfile)
        except OSError as e:
            log.warning("metrics textfile %s cannot be written: %s", self._textfile, e.strerror or e)
            if beside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(beside)

    def close(self) -> None:
        """Shut the endpoints."""
        for listener in self.listeners:
            listener.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _unix(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise OSError(f"{path} is in use: is another agent running?")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(str(path))
    path.chmod(0o660)
    return _listening(listener)


def _loopback(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return _listening(listener)


def _listening(listener: socket.socket) -> socket.socket:
    listener.listen(8)
    listener.setblocking(False)
    return listener


def ask(path: str) -> Snapshot:
    """The snapshot of the agent that listens at `path`.

    Raises:
        ConnectionError: it broke off in its answer, or speaks as another version does.
        OSError: nobody listens there, or we may not ask.
    """
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(5.0)
        try:
            asker.connect(path)
        except OSError as e:
            raise OSError(e.errno, e.strerror, path) from e
        answer = bytearray()
        while part := asker.recv(65536):
            answer += part
    try:
        return msgspec.json.decode(bytes(answer), type=Snapshot)
    except msgspec.ValidationError as e:
        raise ConnectionError(f"{path}: the agent there is of another version ({e}); restart it") from e
    except msgspec.DecodeError as e:
        raise ConnectionError(f"{path}: the agent closed in the middle of its answer; ask again in a moment") from e
