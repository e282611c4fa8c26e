"""What a broker may send us: whole MQTT packets, checked and counted before paho-mqtt sees one octet of them.

It owns the limits on size, kind and rate of incoming packets. paho trusts its peer: it allocates what a fixed header
announces (256 MB), keeps every QoS 2 message, and copies all properties once for each of them, which takes minutes
for a packet full of them. The limits that we announce in CONNECT bind an honest broker only, and any client that may
publish to one of our topics can have an honest broker send us what it likes. It knows no topic and does no I/O.

    octets from the socket -> feed -> take -> paho

Sizes: MQTT 5.0, sections 2.1 (fixed header), 3.3 (PUBLISH).
"""

from __future__ import annotations

import socket
import ssl

MAX_PUBLISH_BYTES = 2 * 1024 * 1024 + 64 * 1024  # the largest signed model, and its header
MAX_OTHER_BYTES = 16 * 1024  # of any packet that is no PUBLISH: reason strings and user properties
MAX_TOPIC_BYTES = 512  # ours have three names of at most 64 characters
MAX_PROPERTY_BYTES = 4096  # bounds paho's copying: quadratic in this
RATE_BYTES_S = 1024 * 1024.0  # what is read in the long run, so that a flood cannot take the whole processor
BURST_BYTES = 8 * 1024 * 1024.0  # a model, a configuration, and acknowledgements after an outage
PUBLISH_COST_BYTES, OTHER_COST_BYTES = 1024, 64  # the least a packet counts, for the time it takes and not its size
CHUNK_BYTES = 64 * 1024

PUBLISH = 3
EXPECTED = {
    2: "CONNACK",
    PUBLISH: "PUBLISH",
    4: "PUBACK",
    9: "SUBACK",
    11: "UNSUBACK",
    13: "PINGRESP",
    14: "DISCONNECT",
}


class UnacceptablePacket(OSError):
    """The broker sent what no broker may send to this client; the connection must end."""


class PacketGate:
    """Cuts the incoming octets into packets, refuses what breaks a limit, and says when reading may go on.

    Args:
        version5: whether PUBLISH has properties (MQTT 5).
    """

    def __init__(self, *, version5: bool) -> None:
        self._version5 = version5
        self._incoming = bytearray()  # bounded by one packet and one chunk
        self._released = bytearray()
        self._credit = BURST_BYTES
        self._credit_s: float | None = None

    def feed(self, octets: bytes) -> None:
        """Take octets from the socket; whole packets can be taken afterwards.

        Raises:
            UnacceptablePacket: as soon as the octets at hand show it; a size before its packet has arrived.
        """
        self._incoming += octets
        at = 0
        while (header := self._header(at)) is not None:
            start, length = header
            end = start + length
            if len(self._incoming) < end:
                break
            publish = self._incoming[at] >> 4 == PUBLISH
            if publish:
                self._check_publish(self._incoming[at], start, end)
            self._credit -= max(end - at, PUBLISH_COST_BYTES if publish else OTHER_COST_BYTES)
            at = end
        self._released += self._incoming[:at]
        del self._incoming[:at]

    def take(self, count: int) -> bytes:
        """At most `count` octets of whole packets; none if none is whole yet."""
        octets = bytes(self._released[:count])
        del self._released[:count]
        return octets

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._released)

    def pause_s(self, now_s: float) -> float:
        """How long not to read from the socket, so that the rate is kept; 0 mostly. `now_s` is monotonic."""
        if self._credit_s is not None:
            self._credit = min(BURST_BYTES, self._credit + RATE_BYTES_S * max(0.0, now_s - self._credit_s))
        self._credit_s = now_s
        return max(0.0, -self._credit / RATE_BYTES_S)

    def _header(self, at: int) -> tuple[int, int] | None:
        """Where the body of the packet at `at` begins, and its length; None while the fixed header is not whole."""
        octets = self._incoming
        if len(octets) <= at:
            return None
        kind = octets[at] >> 4
        if kind not in EXPECTED:
            raise UnacceptablePacket(f"the broker sent a packet of type {kind}, which no client of ours asks for")
        if kind == PUBLISH and octets[at] & 0x06 > 0x02:
            raise UnacceptablePacket("the broker sent a PUBLISH of QoS 2; we subscribe at QoS 1")
        length = 0
        for n in range(4):
            if len(octets) <= at + 1 + n:
                return None
            octet = octets[at + 1 + n]
            length |= (octet & 0x7F) << 7 * n
            if octet < 0x80:
                break
        else:
            raise UnacceptablePacket("the broker sent a remaining length of more than four octets")
        limit = MAX_PUBLISH_BYTES if kind == PUBLISH else MAX_OTHER_BYTES
        if length > limit:
            raise UnacceptablePacket(f"the broker announced a {EXPECTED[kind]} of {length} octets; at most {limit}")
        return at + 2 + n, length

    def _check_publish(self, flags: int, start: int, end: int) -> None:
        """Topic and properties of a whole PUBLISH."""
        octets = self._incoming
        topic = int.from_bytes(octets[start : start + 2], "big")
        at = start + 2 + topic + (2 if flags & 0x06 else 0)
        if topic > MAX_TOPIC_BYTES or at > end or end - start < 2:
            raise UnacceptablePacket(f"the broker sent a PUBLISH with a topic of {topic} octets")
        if not self._version5:
            return
        properties = 0
        for n in range(4):
            if at + n >= end:
                raise UnacceptablePacket("the broker sent a PUBLISH whose properties do not end")
            properties |= (octets[at + n] & 0x7F) << 7 * n
            if octets[at + n] < 0x80:
                break
        if properties > min(MAX_PROPERTY_BYTES, end - at):
            raise UnacceptablePacket(f"the broker sent a PUBLISH with {properties} octets of properties")


class GatedSocket:
    """A connected socket as paho uses one, whose reading side is a `PacketGate`."""

    def __init__(self, sock: socket.socket, gate: PacketGate) -> None:
        self.sock, self.gate = sock, gate
        self.send, self.close, self.fileno = sock.send, sock.close, sock.fileno
        self.setblocking, self.settimeout = sock.setblocking, sock.settimeout
        self.refusal: UnacceptablePacket | None = None

    def recv(self, count: int) -> bytes:
        """As a socket's, of whole packets; the gate is fed one chunk at most.

        Raises:
            BlockingIOError: no whole packet is there yet.
            UnacceptablePacket: the connection must end.
        """
        if not self.gate.waiting:
            octets = self.sock.recv(CHUNK_BYTES)
            if not octets:
                return b""
            try:
                self.gate.feed(octets)
            except UnacceptablePacket as error:
                self.refusal = error
                raise
            if not self.gate.waiting:
                raise BlockingIOError
        return self.gate.take(count)

    def pending(self) -> int:
        """Octets that can be had without waiting for the socket."""
        if self.gate.waiting:
            return 1
        return self.sock.pending() if isinstance(self.sock, ssl.SSLSocket) else 0
