"""One meter on a line: its links to clients, and what its modem does wrong. Sans IO; time comes in.

A frame goes in, octets come out, each piece with the delay after which it starts. The framing of units is either
HDLC (a link for each pair of addresses) or the wrapper (an association for each pair of ports).
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import NamedTuple

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import DataNotification, GetResponse, SetRequest, decode
from firmware_io.dlms.hdlc.framer import FLAG, Address, Frame, Framer, encode_frame
from firmware_io.dlms.hdlc.link import (
    DM,
    FINAL,
    FRMR,
    LLC_COMMAND,
    LLC_RESPONSE,
    RNR,
    SNRM,
    UI,
    Parameters,
    Received,
    ServerLink,
)
from firmware_io.dlms.hdlc.link import State as LinkState
from firmware_io.dlms.protection.general import Keyring
from firmware_io.dlms.protection.security import Ciphering, Sealed
from firmware_io.dlms.session.wrapper import Unit
from firmware_io.errors import LocalProtocolError, RemoteProtocolError
from firmware_io.obis import CLOCK
from firmware_io.simulator.building.scenario import PushForm
from firmware_io.simulator.line.blocks import Blocks
from firmware_io.simulator.line.pushing import push_of
from firmware_io.simulator.line.server import Counters, Server
from firmware_io.simulator.meter.meter import SimulatedMeter

MAX_LINKS = 8  # of one meter: bounds what clients with made-up addresses can make it keep
REBOOT_S = 5.0  # how long a meter is gone that was asked too fast
WINDOW = 7
LIE = GetResponse(0xC1, axdr.uint32(666_666)).encode()  # what another meter said to somebody


class Piece(NamedTuple):
    """Octets of an answer, starting `delay_s` after the turnaround."""

    delay_s: float
    octets: bytes


class _Link(NamedTuple):
    link: ServerLink
    server: Server
    blocks: Blocks


class Station:
    """A meter's modem. `now` of the methods is the line's time (host seconds), not the meter's."""

    def __init__(self, meter: SimulatedMeter) -> None:
        self.meter = meter
        self.addresses = _addresses(meter)
        self._counters = Counters()
        self._broadcast_counter = -1  # the last of the client
        self._links: OrderedDict[tuple[bytes, bytes], _Link] = OrderedDict()
        self._associations: OrderedDict[tuple[object, int, int], Blocks] = OrderedDict()
        self._heard_s = float("-inf")
        self._answered_s = float("-inf")
        self._down_until_s = float("-inf")

    def overhear(self, frame: Frame) -> None:
        """A frame for another meter of the line: with a single association, opening another link ends ours."""
        if frame.control & ~FINAL == SNRM and self.meter.faults.at("single_association", self.meter.now()):
            self._drop_links()

    def broadcast(self, frame: Frame) -> None:
        """A frame for all stations: the time, plain or, where this meter ciphers, under the broadcast key."""
        meter, octets = self.meter, frame.information[len(LLC_COMMAND) :]
        if frame.control & ~FINAL != UI or frame.information[: len(LLC_COMMAND)] != LLC_COMMAND:
            return
        with contextlib.suppress(RemoteProtocolError, LocalProtocolError):
            if meter.keys.encryption:
                opened = self._of_broadcast().open(octets)
                self._broadcast_counter = Sealed.parse(octets).counter
                octets = opened
            request = decode(octets)
            if isinstance(request, SetRequest) and request.attribute.name == CLOCK:
                shown_s = meter.clock.from_date_time(request.value.value)
                if shown_s is not None:
                    meter.set_clock(shown_s)

    def _of_broadcast(self) -> Ciphering:
        keys, identity = self.meter.keys, self.meter.identity
        title, suite = identity.client_title, identity.suite
        ring = Keyring(
            suite or (2 if len(keys.encryption) == 32 else 0), identity.system_title, broadcast=keys.broadcast or None
        )
        return Ciphering(
            keys.encryption,
            keys.authentication,
            identity.system_title,
            lambda: 0,
            title,
            "global",
            identity.policy,
            suite,
            ring,
            peer_broadcast_counter=self._broadcast_counter,
        )

    def frame(self, frame: Frame, now: float) -> list[Piece]:
        """Answer a frame that is addressed to this meter."""
        if self._refuses_to_listen(now):
            return []
        pair = (frame.destination, frame.source)
        if pair not in self._links:
            if frame.control & ~FINAL == SNRM and self.meter.faults.at("single_association", self.meter.now()):
                self._drop_links()
            self._links[pair] = self._open(frame)
            while len(self._links) > MAX_LINKS:
                self._links.popitem(last=False)
        self._links.move_to_end(pair)
        link, server, blocks = self._links[pair]
        inactivity = self.meter.faults.at("inactivity", self.meter.now())
        patience_s = inactivity.amount if inactivity else self.meter.identity.inactivity_s
        if now - self._heard_s > patience_s:
            self._drop_links()
        self._heard_s = now
        for event in link.handle(frame):
            if isinstance(event, Received) and not event.unnumbered:
                push = self.meter.faults.strikes("push", self.meter.now())
                if push:
                    link.notify(server.notification(push.form))
                link.send(*blocks.answer(event.pdu))
        if link.state is LinkState.DISCONNECTED:
            server.drop()
        octets = self._refused(link, link.take(), frame)
        return self._modem(self._framed(octets, frame) if octets else b"", now)

    def unit(self, unit: Unit, connection: object, now: float) -> list[Piece]:
        """Answer a unit of the wrapper."""
        if self._refuses_to_listen(now):
            return []
        key = (connection, unit.source, unit.destination)
        if key not in self._associations:
            self._associations[key] = Blocks(Server(self.meter, self._counters))
            while len(self._associations) > MAX_LINKS:
                self._associations.popitem(last=False)
        blocks = self._associations[key]
        octets = b""
        push = self.meter.faults.strikes("push", self.meter.now())
        if push:
            octets = Unit(unit.destination, unit.source, blocks.server.notification(push.form)).encode()
        if self.meter.faults.strikes("foreign_frame", self.meter.now()):
            octets += Unit(unit.destination ^ 1, unit.source, LIE).encode()
        octets += b"".join(Unit(unit.destination, unit.source, pdu).encode() for pdu in blocks.answer(unit.pdu))
        return self._modem(octets, now)

    def pushed(self, form: PushForm, *, wrapper: bool) -> bytes:
        """What the meter sends by itself, whoever is associated, as it goes onto the wire."""
        identity = self.meter.identity
        apdu = push_of(self.meter, self._next_counter, form)
        if wrapper:
            return Unit(identity.address, identity.client, apdu).encode()
        source = self.addresses[0]
        return encode_frame(Frame(Address.client(identity.client).encode(), source, UI, LLC_RESPONSE + apdu))

    def _next_counter(self) -> int:
        self._counters.own += 1
        return self._counters.own - 1

    def forget(self, connection: object) -> None:
        """A TCP connection has closed."""
        for key in [key for key in self._associations if key[0] is connection]:
            del self._associations[key]

    def answered(self, now: float) -> None:
        """The line tells when the answer's last octet has left."""
        self._answered_s = now

    def _open(self, frame: Frame) -> _Link:
        size = self.meter.identity.max_frame
        limits = Parameters(size, size, WINDOW, WINDOW)
        link = ServerLink(Address.decode(frame.destination), Address.decode(frame.source), limits)
        server = Server(self.meter, self._counters)
        return _Link(link, server, Blocks(server))

    def _drop_links(self) -> None:
        for link, server, _ in self._links.values():
            link.drop()
            server.drop()

    def _refuses_to_listen(self, now: float) -> bool:
        faults, time_s = self.meter.faults, self.meter.now()
        gap = faults.at("min_gap", time_s)
        if gap and now >= self._down_until_s and now - self._answered_s < gap.amount:
            self._down_until_s = now + REBOOT_S
            self._drop_links()
            self._associations.clear()
        return now < self._down_until_s or faults.strikes("silence", time_s) is not None

    def _refused(self, link: ServerLink, octets: bytes, frame: Frame) -> bytes:
        """DM, FRMR or RNR in the place of an answer."""
        faults, time_s = self.meter.faults, self.meter.now()
        joined = frame.segmented and faults.strikes("one_frame", time_s) is not None
        if octets and (faults.strikes("dm", time_s) or faults.strikes("frmr", time_s) or joined):
            broken = joined or faults.at("frmr", time_s) is not None
            information = bytes((frame.control, 0, 1)) if broken else b""
            link.drop()
            return encode_frame(Frame(frame.source, frame.destination, (FRMR if broken else DM) | FINAL, information))
        if octets and link.state is LinkState.CONNECTED and faults.strikes("rnr", time_s):
            control = octets[3 + len(frame.source) + len(frame.destination)]
            return encode_frame(Frame(frame.source, frame.destination, control & 0xE0 | RNR | FINAL))
        return octets

    def _framed(self, octets: bytes, frame: Frame) -> bytes:
        """What goes wrong with frames: addresses, check sequences, flags, frames that nobody asked for."""
        faults, time_s = self.meter.faults, self.meter.now()
        if faults.strikes("wrong_source", time_s):
            wrong = _other(frame.destination)
            octets = b"".join(encode_frame(f._replace(source=wrong)) for f in Framer().receive(octets))
        header = 1 + 2 + len(frame.source) + len(frame.destination) + 1
        if faults.strikes("bad_hcs", time_s):
            octets = octets[:header] + bytes((octets[header] ^ 0xFF,)) + octets[header + 1 :]
        if faults.strikes("bad_fcs", time_s):
            octets = octets[:-2] + bytes((octets[-2] ^ 0xFF,)) + octets[-1:]
        if faults.strikes("foreign_frame", time_s):
            lie = Frame(frame.source, _other(frame.destination), FINAL, LLC_RESPONSE + LIE)
            octets = encode_frame(lie) + octets
        if faults.strikes("fcs_7e", time_s):
            octets = self._unasked(frame, ends_in_flag=True) + octets
        if faults.strikes("shared_flag", time_s):
            octets = self._unasked(frame, ends_in_flag=False)[:-1] + octets
        return octets * 2 if faults.strikes("duplicate", time_s) else octets

    def _unasked(self, frame: Frame, *, ends_in_flag: bool) -> bytes:
        """A push in a UI frame; its free invoke-id is chosen so that the check sequence ends as wished."""
        for invoke in range(1, 1 << 16):
            push = DataNotification(invoke, b"", axdr.uint32(invoke)).encode()
            octets = encode_frame(Frame(frame.source, frame.destination, UI, LLC_RESPONSE + push))
            if not ends_in_flag or octets[-2] == FLAG:
                return octets
        raise AssertionError("65535 check sequences, and none ends in a flag")

    def _modem(self, octets: bytes, now: float) -> list[Piece]:
        """What goes wrong with octets and their time."""
        if not octets:
            return []
        faults, time_s = self.meter.faults, self.meter.now()
        truncated = faults.strikes("truncated", time_s)
        if truncated:
            octets = octets[: -int(truncated.amount)]
        extra = faults.strikes("extra", time_s)
        if extra:
            octets += faults.random_octets(int(extra.amount))
        noise = faults.strikes("noise", time_s)
        if noise:
            octets = faults.flip_bits(octets, noise.amount)
        late = faults.strikes("late", time_s)
        tail = faults.strikes("late_tail", time_s)
        if tail:
            half = len(octets) // 2
            return [Piece(0.0, octets[:half]), Piece(tail.amount, octets[half:])]
        return [Piece(late.amount if late else 0.0, octets)]


def _other(address: bytes) -> bytes:
    """An address of the same form that is not this one."""
    return address[:-1] + bytes((address[-1] ^ 0x04,))


def _addresses(meter: SimulatedMeter) -> list[bytes]:
    """All forms in which a client may write this meter's HDLC address."""
    identity = meter.identity
    forms = [1] if identity.address_octets == 1 else [2, 4]
    found = []
    for octets in forms:
        with contextlib.suppress(LocalProtocolError):
            found.append(Address.server(identity.logical_address, identity.address, octets).encode())
    return found
