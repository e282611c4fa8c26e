"""One connection to the broker: one paho client, from TCP and TLS to the last octet.

It owns the socket, the credentials, the last will and the properties of MQTT v5. What is sent and what an
acknowledgement means is the publisher's, what a broker may send `agent.uplink.packet_gate`'s. Callbacks only record;
nothing is published from within one.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.keys.credentials import path_of, read_secret
from agent.site.rules import is_loopback
from agent.site.tables import Mqtt
from agent.uplink.intake import WAITING_MAX, Arrival, Intake
from agent.uplink.packet_gate import MAX_PUBLISH_BYTES, GatedSocket, PacketGate
from agent.wire.codec import SCHEMA_OF
from agent.wire.state import Status
from agent.wire.topics import Address

WILL_DELAY_S = 30
SESSION_S = 7 * 86400  # the broker keeps our subscriptions and what comes for us so long
CONNECT_S = 10.0  # for TCP, TLS and CONNACK each
HANDSHAKE_LOOK_S = 0.2  # between two looks, during a TLS handshake, whether we are to stop


class Refused(Exception):
    """The broker does not want us, or does not answer; reconnect later."""


class _GatedClient(paho.Client):
    """paho's client on a socket that we open, and whose incoming octets pass our gate."""

    open_socket: Callable[[], GatedSocket]

    def _create_socket(self) -> GatedSocket:  # paho wants no more of a socket than this has
        return self.open_socket()


class Connection:
    """One connection: one paho client. Its callbacks record; `serve` moves bytes.

    Args:
        stopping: whether to give up connecting.
    """

    def __init__(
        self,
        mqtt: Mqtt,
        address: Address,
        will: bytes,
        number: int,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.number = number
        self.accepted = False
        self.receive_maximum = 65535
        self.maximum_bytes: int | None = None
        self.pubacks: deque[tuple[int, int]] = deque()  # bounded by the window
        self.messages = Intake()
        self.acks = Intake()  # of their own, so that they neither wait behind commands nor crowd them out
        self.retained_in_flight: dict[int, bool] = {}  # packet ids of retained state in flight
        self._forms: dict[tuple[str, bool], Properties] = {}
        self._ended: str | None = None
        self._v5 = mqtt.version == "5"
        self._topic = address.topic("")
        self._gate = PacketGate(version5=self._v5)
        self.client_id = mqtt.client_id or address.gateway
        self.client = client = _GatedClient(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
            clean_session=None if self._v5 else False,
        )
        client.max_inflight_messages_set(0)  # no limit of paho's own: SendWindow has the window
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        if mqtt.username is not None:
            password = read_secret(mqtt.password).decode() if mqtt.password is not None else None
            client.username_pw_set(mqtt.username, password)
        host, port, tls = endpoint(mqtt.url)
        context = _tls_context(mqtt) if tls else None
        client.open_socket = lambda: GatedSocket(_open_socket(host, port, context, stopping), self._gate)
        will_properties = connect_properties = None
        if self._v5:
            will_properties = _properties(PacketTypes.WILLMESSAGE)
            will_properties.WillDelayInterval = WILL_DELAY_S
            _describe(will_properties, SCHEMA_OF[Status])
            connect_properties = _properties(PacketTypes.CONNECT)
            connect_properties.SessionExpiryInterval = SESSION_S
            connect_properties.MaximumPacketSize = MAX_PUBLISH_BYTES
            connect_properties.ReceiveMaximum = WAITING_MAX
        client.will_set(address.topic("status"), will, qos=1, retain=True, properties=will_properties)
        client.connect(
            host, port, mqtt.keepalive_s, clean_start=False if self._v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=connect_properties,
        )  # fmt: skip
        if not isinstance(client.socket(), GatedSocket):  # another paho, that opens its socket elsewhere
            self.drop()
            raise Refused(
                "this version of paho-mqtt goes round our limits; install one that checkmeter was tested with"
            )

    # -- callbacks: record only ---------------------------------------------------------------------------------------

    def _on_connect(
        self,
        _client: paho.Client,
        _user: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        given: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._ended = f"it refuses the connection: {reason}"
            return
        self.receive_maximum = getattr(given, "ReceiveMaximum", 65535)
        self.maximum_bytes = getattr(given, "MaximumPacketSize", None)
        self.accepted = True

    def _on_disconnect(
        self,
        _client: paho.Client,
        _user: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _given: Properties | None,
    ) -> None:
        self._ended = self._ended or f"the connection ended: {reason}"

    def _on_publish(
        self, _client: paho.Client, _user: object, mid: int, reason: ReasonCode, _given: Properties
    ) -> None:
        self.pubacks.append((mid, reason.value))

    def _on_message(self, _client: paho.Client, _user: object, message: paho.MQTTMessage) -> None:
        suffix = message.topic.removeprefix(self._topic)
        arrival = Arrival(suffix, bytes(message.payload), message.mid if message.qos else 0)
        (self.acks if suffix == "ack" else self.messages).offer(arrival)

    # -- bytes --------------------------------------------------------------------------------------------------------

    @property
    def choked(self) -> bool:
        """Whether the socket has not taken what was published last."""
        return self.client.want_write()

    def subscribe(self, topics: list[str]) -> None:
        """Ask for what comes down; the broker may refuse topics that it does not grant."""
        self.client.subscribe([(topic, 1) for topic in topics])

    def publish(
        self, topic: str, body: bytes, schema: str, *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> int:
        """Hand a message to paho; its packet id."""
        properties = None
        if self._v5:
            # Made once for each form, since making them costs more than sending; paho packs them at once.
            form = (schema, expiry_s is not None)
            properties = self._forms.get(form)
            if properties is None:
                properties = self._forms[form] = _properties(PacketTypes.PUBLISH)
                _describe(properties, schema)
            if expiry_s is not None:
                properties.MessageExpiryInterval = expiry_s
        return self.client.publish(topic, body, qos=qos, retain=retain, properties=properties).mid

    def serve(self, woken: int, wait_s: float) -> None:
        """Wait for the socket or a wake-up, then let paho read, write and keep the connection alive.

        Raises:
            Refused: the connection is over.
        """
        gated = self.client.socket()
        if not isinstance(gated, GatedSocket):
            raise Refused(self._ended or "the connection is gone")
        pause_s = self._gate.pause_s(time.monotonic())
        waiting = gated.pending() > 0 and not pause_s
        if pause_s:  # a flood: what has come is worked off, what comes waits in the network
            wait_s = min(wait_s, pause_s)
        waited: list[socket.socket | int] = [woken] if pause_s else [gated.sock, woken]
        readable, _, _ = select.select(
            waited, [gated.sock] if self.client.want_write() else [], [], 0.0 if waiting else wait_s
        )
        if woken in readable:
            drain(woken)
        if waiting or gated.sock in readable:
            self.client.loop_read()
            while self._gate.waiting and self._ended is None and self.client.socket() is not None:
                self.client.loop_read()
        if gated.refusal is not None:
            raise Refused(str(gated.refusal))
        if self.client.want_write():
            self.client.loop_write()
        self.client.loop_misc()
        if self._ended is not None:
            raise Refused(self._ended)

    def leave(self) -> None:
        """Disconnect in order, so that no will is sent."""
        self.client.disconnect()

    def drop(self) -> None:
        """Close the socket without a word."""
        sock = self.client.socket()
        if sock is not None:
            sock.close()


def _open_socket(host: str, port: int, context: ssl.SSLContext | None, stopping: Callable[[], bool]) -> socket.socket:
    """A connected socket, after the TLS handshake where there is a context.

    The handshake as a whole has CONNECT_S: a time-out for each octet would let a peer that drips hold us for ever.

    Raises:
        OSError: not reached, not answered in time, or told to stop; ssl.SSLError is one.
    """
    sock = socket.create_connection((host, port), timeout=CONNECT_S)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return sock
        sock.setblocking(False)
        sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        deadline_s = time.monotonic() + CONNECT_S
        while True:
            reading, writing = [sock], []
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                reading, writing = [], [sock]
            else:
                return sock
            if stopping() or time.monotonic() > deadline_s:
                raise TimeoutError("the TLS handshake did not end in time")
            select.select(reading, writing, [], HANDSHAKE_LOOK_S)
    except BaseException:
        sock.close()
        raise


def endpoint(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS, of `mqtt://host:port` or `mqtts://host:port`.

    Raises:
        ValueError: another scheme, or no host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ValueError(f"{url!r}: expected mqtt://host:port or mqtts://host:port")
    tls = parts.scheme == "mqtts"
    return parts.hostname, parts.port or (8883 if tls else 1883), tls


def unprotected(url: str) -> bool:
    """Whether a broker's address leads over a network without TLS; the gateway itself (loopback) is no network."""
    host, _, tls = endpoint(url)
    return not (tls or is_loopback(host))


def _tls_context(mqtt: Mqtt) -> ssl.SSLContext:
    """Read anew for every connection, so that a renewed certificate needs no restart."""
    context = ssl.create_default_context(cafile=None if mqtt.ca is None else str(path_of(mqtt.ca)))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if mqtt.certificate is not None:
        context.load_cert_chain(path_of(mqtt.certificate), None if mqtt.key is None else path_of(mqtt.key))
    if mqtt.alpn:
        context.set_alpn_protocols(list(mqtt.alpn))
    return context


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho has no types here


def _describe(properties: Properties, schema: str) -> None:
    """What the body is: content type, UTF-8, and our schema's id."""
    event = schema in ("checkmeter.alert.v1", "checkmeter.tamper.v1")
    properties.PayloadFormatIndicator = 1
    properties.ContentType = "application/cloudevents+json" if event else "application/json"
    properties.UserProperty = ("schema", schema)


def advice(error: Exception) -> str:
    """The error, and what to do about it where that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message}); check [mqtt] ca, and this gateway's clock"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}); check [mqtt] certificate, key and ca"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: no such file; check [mqtt]"
    return str(error)


def drain(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(pipe, 4096)
