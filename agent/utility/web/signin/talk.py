"""Questions to the provider over HTTP, of which none takes longer than a total time or more than a bounded answer.

`requests` limits the wait for each octet: a provider that drips them would hold a thread for as long as it likes. Here
a timer shuts the connection down, whatever it is at: handshake, headers or body.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

TOTAL_S = 10.0  # of one question and its answer
CONNECT_S = 5.0  # to one address of the provider's
MAX_OCTETS = 1 << 20  # of an answer, unpacked


class Bounded(HTTPAdapter):
    """Mounted on a session (`bound`), which one thread uses."""

    def __init__(self, total_s: float = TOTAL_S) -> None:
        self._total_s = total_s
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = False
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Connections that we know of."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self._opened)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """The whole answer, read.

        Raises:
            requests.Timeout: it took too long.
            requests.RequestException: it is too large, or what requests raises.
        """
        with self._limited():
            answer = super().send(
                request, stream=True, timeout=(CONNECT_S, self._total_s), verify=verify, cert=cert, proxies=proxies
            )
            body = bytearray()
            for chunk in answer.iter_content(1 << 16):
                body += chunk
                if len(body) > MAX_OCTETS:
                    answer.close()
                    raise requests.RequestException(f"an answer of more than {MAX_OCTETS} octets")
            answer._content, answer._content_consumed = bytes(body), True
            return answer

    def close(self) -> None:
        """Close what is open."""
        super().close()
        with self._lock:
            for one in self._sockets:
                one.close()
            self._sockets.clear()

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        self._over = False
        timer = threading.Timer(self._total_s, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (requests.RequestException, OSError) as error:
            if self._over:
                raise requests.Timeout(f"no whole answer within {self._total_s:g} s") from error
            raise
        finally:
            timer.cancel()
        if self._over:  # an answer without a length ends where the connection does
            raise requests.Timeout(f"no whole answer within {self._total_s:g} s")

    def _opened(self, opened: socket.socket) -> None:
        """A handle of our own: TLS takes the socket's over."""
        with self._lock:
            self._sockets.append(opened.dup())
            if self._over:
                self._shut()

    def _end(self) -> None:
        with self._lock:
            self._over = True
            self._shut()

    def _shut(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def bound(session: requests.Session, ca_file: str | None, total_s: float = TOTAL_S) -> requests.Session:
    """The session, with limits, and without a proxy or .netrc of the environment's."""
    session.trust_env = False
    session.verify = ca_file or True
    adapter = Bounded(total_s)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


def _pools(opened: Callable[[socket.socket], None]) -> dict[str, Any]:
    """Pools whose connections say when they are opened."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            opened(made)
            return made

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            opened(made)
            return made

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
