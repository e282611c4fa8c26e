"""MQTT v5 packets without I/O: bytes in, events out; a command in, bytes out. QoS 0 and 1 only.

The gateway speaks MQTT through paho. Here it is the limit: paho needs about 45 µs of Python for each message that it
hands over and acknowledges, three times what decoding, checking and storing it take together, so that one replica
ends below 20,000 messages a second (`make bench-utility` measures both). This module cuts the PUBLISH packets out of
a block of bytes at about 2 µs each. It serves two users: the ingest (few connections, many messages) and the
simulated fleet (thousands of connections in one thread, which paho's thread per client cannot give).

It knows packets, not sockets, time, retries or topics. Sections are those of the OASIS standard MQTT Version 5.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

MAX_PACKET = 1 << 20  # told to the broker in CONNECT; bounds what one packet can make us buffer
NO_MATCHING_SUBSCRIBERS = 0x10

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
DISCONNECT_AND_FORGET = b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00"  # session expiry 0: the broker keeps nothing for us

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _UNSUBACK, _PINGRESP, _DISCONNECT = 0x20, 0x30, 0x40, 0x90, 0xB0, 0xD0, 0xE0

# Properties by identifier (section 2.2.2.2): how long each value is; "s" a string, "p" a pair, "v" a varint.
_PROPERTY_SIZE: dict[int, int | str] = {
    0x01: 1, 0x02: 4, 0x03: "s", 0x08: "s", 0x09: "s", 0x0B: "v", 0x11: 4, 0x12: "s", 0x13: 2, 0x15: "s", 0x16: "s",
    0x17: 1, 0x18: 4, 0x19: 1, 0x1A: "s", 0x1C: "s", 0x1F: "s", 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x26: "p",
    0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_SERVER_KEEP_ALIVE, _RECEIVE_MAXIMUM, _MAXIMUM_QOS, _SHARED_AVAILABLE, _REASON_STRING = 0x13, 0x21, 0x24, 0x2A, 0x1F
_USER_PROPERTY = 0x26


class MqttError(Exception):
    """The broker broke the protocol, or ended the connection: connect again."""


class Refused(MqttError):
    """The broker said no (bad credentials, not authorised, no shared subscriptions): an operator acts next."""


class Connack(NamedTuple):
    """The broker accepted us. `receive_maximum` bounds our own unacknowledged QoS 1 messages."""

    session_present: bool
    receive_maximum: int
    keepalive_s: int | None


class Suback(NamedTuple):
    """The broker's answer to SUBSCRIBE or UNSUBSCRIBE: one reason code for each filter."""

    packet_id: int
    reasons: bytes


class Publish(NamedTuple):
    """A message for us; `packet_id` is 0 at QoS 0. `properties` as they stand: few readers want them."""

    topic: bytes
    packet_id: int
    payload: bytes
    retain: bool
    properties: bytes = b""


class Puback(NamedTuple):
    """The broker took (or refused) a message of ours."""

    packet_id: int
    reason: int


class Pingresp(NamedTuple):
    """The broker is alive."""


Event = Connack | Suback | Publish | Puback | Pingresp


class Will(NamedTuple):
    """What the broker says for us when we are gone for `delay_s` seconds."""

    topic: str
    payload: bytes
    retain: bool = True
    delay_s: int = 0


class Subscription(NamedTuple):
    """One filter at QoS 1. `send_retained`: 0 at every subscribe, 1 only if it is new to the session, 2 never."""

    filter: str
    send_retained: int = 0


def varint(value: int) -> bytes:
    """A variable byte integer (section 1.5.5)."""
    if not 0 <= value < 1 << 28:
        raise ValueError(f"{value} does not fit into a variable byte integer")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(value: str | bytes) -> bytes:
    octets = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(octets)) + octets


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + varint(len(body)) + body


def connect(
    client_id: str,
    *,
    keepalive_s: int,
    clean_start: bool = False,
    session_expiry_s: int = 0,
    receive_maximum: int = 65535,
    username: str | None = None,
    password: bytes | None = None,
    will: Will | None = None,
) -> bytes:
    """CONNECT (section 3.1). The topic alias maximum stays 0: aliases do not survive a broker's restart."""
    flags = 0x02 * clean_start
    properties = struct.pack(">BIBHBI", 0x11, session_expiry_s, 0x21, receive_maximum, 0x27, MAX_PACKET)
    tail = b""
    if will is not None:
        flags |= 0x0C | 0x20 * will.retain  # QoS 1
        will_properties = struct.pack(">BI", 0x18, will.delay_s)
        tail += varint(len(will_properties)) + will_properties + _text(will.topic) + _text(will.payload)
    if username is not None:
        flags |= 0x80
        tail += _text(username)
    if password is not None:
        flags |= 0x40
        tail += _text(password)
    head = _text("MQTT") + struct.pack(">BBH", 5, flags, keepalive_s)
    return _packet(0x10, head + varint(len(properties)) + properties + _text(client_id) + tail)


def subscribe(packet_id: int, subscriptions: Iterable[Subscription]) -> bytes:
    """SUBSCRIBE (section 3.8)."""
    body = struct.pack(">HB", packet_id, 0)
    for wanted in subscriptions:
        body += _text(wanted.filter) + bytes((0x01 | wanted.send_retained << 4,))
    return _packet(0x82, body)


def unsubscribe(packet_id: int, filters: Iterable[str]) -> bytes:
    """UNSUBSCRIBE (section 3.10)."""
    return _packet(0xA2, struct.pack(">HB", packet_id, 0) + b"".join(map(_text, filters)))


def publish(
    topic: str | bytes,
    payload: bytes,
    *,
    packet_id: int = 0,
    retain: bool = False,
    duplicate: bool = False,
    expiry_s: int | None = None,
    content_type: str | None = None,
    user_properties: Sequence[tuple[str, str]] = (),
) -> bytes:
    """PUBLISH (section 3.3): QoS 1 with a packet id, QoS 0 without."""
    properties = b""
    if expiry_s is not None:
        properties += struct.pack(">BI", 0x02, expiry_s)
    if content_type is not None:
        properties += b"\x01\x01\x03" + _text(content_type)  # payload format 1: UTF-8
    for name, value in user_properties:
        properties += b"\x26" + _text(name) + _text(value)
    identifier = struct.pack(">H", packet_id) if packet_id else b""
    first = 0x30 | 0x02 * bool(packet_id) | 0x01 * retain | 0x08 * duplicate
    return _packet(first, _text(topic) + identifier + varint(len(properties)) + properties + payload)


def pubacks(packet_ids: Iterable[int]) -> bytes:
    """PUBACK, reason success, of many messages in the order in which they came (MQTT-4.6.0-2)."""
    pack = struct.Struct(">BBH").pack
    return b"".join([pack(0x40, 2, packet_id) for packet_id in packet_ids if packet_id])


class Parser:
    """Cuts events out of the broker's bytes, however they are split."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes; raises MqttError at the first octet that breaks the protocol."""
        octets = self._rest + chunk if self._rest else chunk
        events: list[Event] = []
        at, size = 0, len(octets)
        while size - at >= 2:
            first = octets[at]
            # Remaining length, unrolled for its usual one or two octets: this loop is the ingest's hottest.
            length = octets[at + 1]
            start = at + 2
            if length > 127:
                if size < at + 3:
                    break
                second = octets[at + 2]
                length = (length & 127) + (second & 127) * 128
                start = at + 3
                if second > 127:
                    length, start = _long_length(octets, at + 1)
                    if not start:
                        break
            end = start + length
            if length > MAX_PACKET:
                raise MqttError(f"a packet of {length} octets, more than the {MAX_PACKET} we allowed the broker")
            if end > size:
                break
            if first & 0xF0 == _PUBLISH:
                events.append(_publish(octets, first, start, end))
            else:
                events.append(_other(first, octets[start:end]))
            at = end
        self._rest = octets[at:]
        return events


def _long_length(octets: bytes, at: int) -> tuple[int, int]:
    """A remaining length of three or four octets and where the packet's body starts; (0, 0) if it is incomplete."""
    length = 0
    for n in range(4):
        if at + n >= len(octets):
            return 0, 0
        length |= (octets[at + n] & 127) << 7 * n
        if octets[at + n] < 128:
            return length, at + n + 1
    raise MqttError("a remaining length of more than four octets (section 1.5.5)")


def _whole_length(octets: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer within a packet that is all there: it cannot end later."""
    length, past = _long_length(octets, at)
    if not past:
        raise MqttError("a packet ends inside a variable byte integer (section 1.5.5)")
    return length, past


def _publish(octets: bytes, first: int, start: int, end: int) -> Publish:
    """PUBLISH (section 3.3); its properties are skipped: the payload stands alone."""
    try:
        after_topic = start + 2 + (octets[start] << 8 | octets[start + 1])
        topic = octets[start + 2 : after_topic]
        packet_id = 0
        if first & 0x06:
            packet_id = octets[after_topic] << 8 | octets[after_topic + 1]
            if first & 0x06 != 0x02 or not packet_id:
                raise MqttError(f"PUBLISH at QoS {first >> 1 & 3} with packet id {packet_id}: subscribed at QoS 1")
            after_topic += 2
        properties = octets[after_topic]
        properties_at = after_topic + 1
        if properties > 127:
            properties, properties_at = _long_length(octets, after_topic)
    except IndexError:
        raise MqttError("a PUBLISH packet ends inside its header (section 3.3.2)") from None
    payload_at = properties_at + properties
    if payload_at > end or not properties_at:
        raise MqttError("a PUBLISH packet ends inside its header (section 3.3.2)")
    return Publish(topic, packet_id, octets[payload_at:end], first & 1 == 1, octets[properties_at:payload_at])


def _other(first: int, body: bytes) -> Event:
    """Every packet but PUBLISH."""
    kind = first & 0xF0
    try:
        if kind == _PUBACK:
            return Puback(body[0] << 8 | body[1], body[2] if len(body) > 2 else 0)
        if kind == _PINGRESP:
            return Pingresp()
        if kind in {_SUBACK, _UNSUBACK}:
            length, at = _whole_length(body, 2)
            return Suback(body[0] << 8 | body[1], body[at + length :])
        if kind == _CONNACK:
            return _connack(body[0], body[1], _properties(body, 2))
        if kind == _DISCONNECT:
            reason = body[0] if body else 0
            raise MqttError(
                f"the broker disconnected us: {_reason(reason, _properties(body, 1) if len(body) > 1 else {})}"
            )
    except IndexError:
        raise MqttError(f"packet type {first >> 4} ends early: {body[:64].hex()}") from None
    raise MqttError(f"packet type {first >> 4} is none that a client gets")


def _connack(flags: int, reason: int, found: dict[int, bytes]) -> Connack:
    """CONNACK (section 3.2)."""
    if reason >= 0x80:
        raise Refused(f"the broker refused the connection: {_reason(reason, found)}")
    if found.get(_SHARED_AVAILABLE) == b"\x00" or found.get(_MAXIMUM_QOS) == b"\x00":
        raise Refused("the broker offers no shared subscriptions, or no QoS 1")
    keepalive = found.get(_SERVER_KEEP_ALIVE)
    return Connack(
        bool(flags & 1),
        int.from_bytes(found.get(_RECEIVE_MAXIMUM, b"\xff\xff"), "big"),
        None if keepalive is None else int.from_bytes(keepalive, "big"),
    )


def user_property(properties: bytes, name: str) -> str | None:
    """The value of a user property (section 3.3.2.3.7) of a PUBLISH; None if it has none of that name.

    Properties that are malformed name nothing: the payload stands alone.
    """
    wanted = name.encode()
    try:
        for identifier, value, second in _walk(properties, 0, len(properties)):
            if identifier == _USER_PROPERTY and value == wanted:
                return second.decode(errors="replace")
    except MqttError:
        return None
    return None


def _properties(body: bytes, at: int) -> dict[int, bytes]:
    """The properties at `body[at:]` by identifier; of repeated ones the last."""
    length, at = _whole_length(body, at)
    return {identifier: value for identifier, value, _ in _walk(body, at, at + length)}


def _walk(octets: bytes, at: int, end: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Identifier, value and, of a pair, the second value of each property (section 2.2.2.2)."""
    while at < end:
        identifier = octets[at]
        at += 1
        match _PROPERTY_SIZE.get(identifier):
            case int(size):
                value, second = octets[at : at + size], b""
                at += size
            case "v":
                past = _whole_length(octets, at)[1]
                value, second, at = octets[at:past], b"", past
            case "s" | "p" as kind:
                texts = []
                for _ in range(2 if kind == "p" else 1):
                    size = int.from_bytes(octets[at : at + 2], "big")
                    texts.append(octets[at + 2 : at + 2 + size])
                    at += 2 + size
                value, second = texts[0], texts[-1]
            case _:
                raise MqttError(f"unknown property 0x{identifier:02x} (section 2.2.2.2)")
        if at > end:
            raise MqttError(f"property 0x{identifier:02x} ends after the properties do (section 2.2.2)")
        yield identifier, value, second


def _reason(code: int, properties: dict[int, bytes]) -> str:
    """A reason code in words (section 2.4), with the broker's own text if it gave one."""
    known = {
        0x00: "normal disconnection", 0x81: "malformed packet", 0x82: "protocol error",
        0x84: "it does not speak MQTT 5",
        0x85: "client identifier not valid", 0x86: "bad user name or password", 0x87: "not authorised",
        0x88: "server unavailable", 0x89: "server busy", 0x8A: "banned", 0x8B: "server shutting down",
        0x8D: "keep alive timeout", 0x8E: "another client took over our client id: is this replica number used twice?",
        0x93: "receive maximum exceeded", 0x95: "packet too large", 0x97: "quota exceeded",
    }  # fmt: skip
    said = properties.get(_REASON_STRING, b"").decode(errors="replace")
    return f"{known.get(code, 'reason')} (0x{code:02x})" + (f": {said}" if said else "")
