"""What a meter pushes (DataNotification, EventNotification), as values of its attributes: opened, checked, laid out.

A ciphered push is believed by its key and its counter, one that is signed alone by its signature and a time behind that
of the one before; a plain one only where the meter's association is plain too, and only if the meter's name plate is
in it. Which values stand in a push says the meter's push setup (class 40), or the site file. It asks nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from firmware_io.dlms.apdu import decode
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute, DataNotification, EventNotification
from firmware_io.dlms.apdu.refusals import expect
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.hdlc.flow import LLC_RESPONSE, UI
from firmware_io.dlms.hdlc.framer import Framer
from firmware_io.dlms.protection.context import ciphering_of
from firmware_io.dlms.protection.elliptic import PublicKey
from firmware_io.dlms.protection.general import GENERAL_CIPHERING, GENERAL_SIGNING, Keyring, open_signed, parse_ciphered
from firmware_io.dlms.protection.security import CIPHERED_TAGS, Ciphering, Sealed
from firmware_io.dlms.session.wrapper import Unwrapper
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import LocalProtocolError, RemoteProtocolError, SecurityError

PUSH_SETUP_CLASS, PUSH_OBJECTS = 40, 2
PLAIN_TAGS = (0x0F, 0xC2)


class Values(NamedTuple):
    """What one push says. `time` is the meter's; `authentic`: keys or a signature say whose it is."""

    values: dict[Attribute, Data]
    time: MeterTime | None
    authentic: bool


def layout(objects: Data) -> tuple[Attribute, ...]:
    """The attributes that a push holds, in order, by the push setup. Raises: RemoteProtocolError."""
    if objects.tag != Tag.ARRAY:
        raise RemoteProtocolError(f"push object list: expected an array, got {objects}")
    attributes = []
    for item in objects.value:
        if item.tag != Tag.STRUCTURE:
            raise RemoteProtocolError(f"push object list: expected structures, got {item}")
        # From version 1 on each entry has more fields behind the first four.
        attributes.append(profile.Column.decode(item._replace(value=item.value[:4])).attribute)
    return tuple(attributes)


class PushOpener:
    """One meter's pushes that come outside of its association; its counters and times ascend."""

    def __init__(self, spec: DlmsSpec) -> None:
        self._spec = spec
        self._ciphering: Ciphering | None = None
        self._signer: Keyring | None = None
        self._signed_s = float("-inf")
        if spec.ciphers:
            self._ciphering = ciphering_of(spec, _no_counter)
        if spec.meter_signing_key is not None:
            key = PublicKey.load(spec.meter_signing_key)
            self._signer = Keyring(key.suite, spec.system_title or b"", peer_signing=key)

    def open(self, octets: bytes, title: bytes | None) -> tuple[DataNotification | EventNotification, bool]:
        """The push in a unit, and whether it proves whose it is; `title` is the meter's, where it is known.

        Raises:
            SecurityError: it is not of this meter, a repetition, weaker than it must be, or changed.
            RemoteProtocolError: no push, or malformed.
        """
        tag = octets[0] if octets else -1
        if tag in PLAIN_TAGS and self._ciphering is None:
            return _push(octets), False
        if tag == GENERAL_SIGNING and self._signer is not None:
            _, content = open_signed(self._signer, octets, title)
            if content[:1] and content[0] in PLAIN_TAGS:
                return self._fresh(_push(content)), True
            octets, tag = content, content[0] if content else -1
        if self._ciphering is None:
            raise SecurityError(f"APDU {tag:#04x}: no push, or ciphered, and there are no keys")
        pinned, self._ciphering.peer_title = self._ciphering.peer_title, title or self._title_in(octets)
        try:
            return _push(self._ciphering.open(octets)), self._ciphering.authenticates
        except SecurityError:
            self._ciphering.peer_title = pinned
            raise

    def _title_in(self, octets: bytes) -> bytes | None:
        """The sender's title by its own account: whoever has the key may say so."""
        if octets[:1] == bytes((GENERAL_CIPHERING,)):
            return parse_ciphered(octets).header.originator
        return Sealed.parse(octets).system_title if octets[:1] and octets[0] in CIPHERED_TAGS else None

    def _fresh(self, push: DataNotification | EventNotification) -> DataNotification | EventNotification:
        """A signature has no counter: a repetition is known by the time in it."""
        time = MeterTime.decode(push.time) if push.time else None
        if time is None or time.local_s <= self._signed_s:
            raise SecurityError("a push that is signed only, without a time behind that of the one before: a replay?")
        self._signed_s = time.local_s
        return push


def values_of(push: DataNotification | EventNotification, objects: Sequence[Attribute], *, authentic: bool) -> Values:
    """The values of a push by attribute. Raises: RemoteProtocolError: it does not fit the push setup."""
    try:
        time = MeterTime.decode(push.time) if push.time else None
    except RemoteProtocolError:
        time = None
    if isinstance(push, EventNotification):
        return Values({push.attribute: push.value}, time, authentic)
    body = push.body
    if body.tag not in (Tag.STRUCTURE, Tag.ARRAY) or len(body.value) != len(objects):
        count = len(body.value) if isinstance(body.value, tuple) else 1
        raise RemoteProtocolError(f"a push of {count} values, where its push setup lists {len(objects)}")
    return Values(dict(zip(objects, body.value, strict=True)), time, authentic)


def _push(octets: bytes) -> DataNotification | EventNotification:
    apdu = decode.decode(octets)
    return apdu if isinstance(apdu, EventNotification) else expect(DataNotification, apdu)


def _no_counter() -> int:
    raise LocalProtocolError("a push is received, never sent")


class UnitCutter:
    """A `Cutter` of wrapper units."""

    def __init__(self) -> None:
        self._unwrapper = Unwrapper()

    def receive(self, octets: bytes) -> list[bytes]:
        """See `Cutter`."""
        return [unit.pdu for unit in self._unwrapper.receive(octets)]


class FrameCutter:
    """A `Cutter` of HDLC frames: what stands in unnumbered information (UI). Other frames are somebody else's."""

    def __init__(self) -> None:
        self._framer = Framer()

    def receive(self, octets: bytes) -> list[bytes]:
        """See `Cutter`."""
        frames = self._framer.receive(octets)
        pushed = [f.information for f in frames if f.control & 0xEF == UI and f.information[:3] == LLC_RESPONSE]
        return [information[3:] for information in pushed]
