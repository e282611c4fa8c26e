"""One TCP or TLS connection to an MQTT v5 broker: connect, receive under a deadline, send, keep alive.

It owns the socket and the keep-alive; it knows nothing of topics, batches or stores. One thread.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.utility.mqtt import packets
from firmware_io.clock import Clock

CHUNK = 1 << 18  # octets read at once: about 600 balances


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and who we are to it. Secrets are read from files when the connection is made."""

    url: str  # mqtt://[user@]host[:port] or mqtts://...
    password_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or parts.path not in {"", "/"} or parts.password:
            raise ValueError(
                f"a broker is mqtt://host:1883 or mqtts://user@host:8883, the password in a file; got {self.url!r}"
            )

    @property
    def host(self) -> str:
        """The broker's host."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The broker's port; 1883, or 8883 with TLS."""
        parts = urlsplit(self.url)
        return parts.port or (8883 if parts.scheme == "mqtts" else 1883)

    def open_socket(self) -> socket.socket:
        """A connected socket, with TLS if the address says so."""
        plain = socket.create_connection((self.host, self.port), timeout=self.timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if urlsplit(self.url).scheme == "mqtt":
            return plain
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
            return context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise

    def credentials(self) -> tuple[str | None, bytes | None]:
        """User name and password, None where there is none."""
        user = urlsplit(self.url).username
        password = None if self.password_file is None else self.password_file.read_bytes().strip()
        return (None if user is None else unquote(user)), password


class Connection:
    """An open MQTT session. Raises OSError if the network fails, MqttError if the broker does."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        client_id: str,
        *,
        keepalive_s: int = 30,
        clean_start: bool = False,
        session_expiry_s: int = 0,
        receive_maximum: int = 65535,
        will: packets.Will | None = None,
    ) -> None:
        self._clock = clock
        self._timeout_s = broker.timeout_s
        self._parser = packets.Parser()
        self._early: list[packets.Event] = []
        user, password = broker.credentials()
        self._socket = broker.open_socket()
        try:
            self._keepalive_s: float = keepalive_s
            self._sent_s = self._heard_s = clock.monotonic()
            self.send(
                packets.connect(
                    client_id,
                    keepalive_s=keepalive_s,
                    clean_start=clean_start,
                    session_expiry_s=session_expiry_s,
                    receive_maximum=receive_maximum,
                    username=user,
                    password=password,
                    will=will,
                )
            )
            connack = self._expect(lambda event: isinstance(event, packets.Connack))
            assert isinstance(connack, packets.Connack)
            self.session_present = connack.session_present
            self.receive_maximum = connack.receive_maximum
            self._keepalive_s = connack.keepalive_s or keepalive_s
        except BaseException:
            self._socket.close()
            raise

    def subscribe(self, subscriptions: list[packets.Subscription]) -> None:
        """Subscribe and wait for the broker's consent; messages that come meanwhile are kept for `receive`."""
        self.send(packets.subscribe(1, subscriptions))
        suback = self._expect(lambda event: isinstance(event, packets.Suback))
        assert isinstance(suback, packets.Suback)
        if len(suback.reasons) != len(subscriptions):
            raise packets.MqttError(
                f"{len(suback.reasons)} reason codes for {len(subscriptions)} filters (section 3.9)"
            )
        for wanted, reason in zip(subscriptions, suback.reasons, strict=True):
            if reason != 1:
                raise packets.Refused(
                    f"the broker refused to subscribe us to {wanted.filter} (0x{reason:02x}): check its ACL"
                )

    def unsubscribe(self, subscriptions: list[packets.Subscription]) -> None:
        """Take our subscriptions back; what waits for us already still comes."""
        self.send(packets.unsubscribe(2, [wanted.filter for wanted in subscriptions]))
        self._expect(lambda event: isinstance(event, packets.Suback))

    def receive(self, timeout_s: float) -> list[packets.Event]:
        """What has come, after at most `timeout_s`; keeps the connection alive meanwhile."""
        if self._early:
            early, self._early = self._early, []
            return early
        self.keep_alive()
        if not self._readable(timeout_s):
            return []
        chunk = self._socket.recv(CHUNK)
        if not chunk:
            raise packets.MqttError("the broker closed the connection")
        self._heard_s = self._clock.monotonic()
        return self._parser.feed(chunk)

    def keep_alive(self) -> None:
        """Ping when it is time. Called too while a store is down and nothing is received: then nothing is expected."""
        now_s = self._clock.monotonic()
        if now_s - self._sent_s >= self._keepalive_s / 2:
            self.send(packets.PINGREQ)
        if now_s - self._heard_s > 1.5 * self._keepalive_s and not self._readable(0.0):
            raise packets.MqttError(f"the broker has said nothing for {now_s - self._heard_s:.0f} s")

    def send(self, octets: bytes) -> None:
        """Send all of it within the timeout."""
        if octets:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(octets)
            self._sent_s = self._clock.monotonic()

    def close(self, *, orderly: bool = True, forget: bool = False) -> None:
        """End the connection; orderly means that the will is not sent, forget that the session ends with it."""
        try:
            if orderly:
                self.send(packets.DISCONNECT_AND_FORGET if forget else packets.DISCONNECT)
        except OSError:
            pass  # it is gone already, which is what we want
        finally:
            self._socket.close()

    def _readable(self, timeout_s: float) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def _expect(self, wanted: Callable[[packets.Event], bool]) -> packets.Event:
        """Wait for an answer; what else comes is kept for `receive`, in its order."""
        deadline_s = self._clock.monotonic() + self._timeout_s
        while True:
            for n, event in enumerate(self._early):
                if wanted(event):
                    return self._early.pop(n)
            if not self._readable(max(0.0, deadline_s - self._clock.monotonic())):
                raise packets.MqttError(f"the broker did not answer within {self._timeout_s:g} s")
            chunk = self._socket.recv(CHUNK)
            if not chunk:
                raise packets.MqttError("the broker closed the connection")
            self._early += self._parser.feed(chunk)
