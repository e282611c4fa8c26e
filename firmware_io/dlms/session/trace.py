"""Shows what passes on a line to a technician: octets in hex and what they mean, with secrets masked.

It is a `channel.Trace`, and only watches: it never changes what is sent, and nothing it meets can make it fail.
A password is masked wherever it stands; ciphered units are named, not opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from firmware_io.dlms.apdu import acse, decode
from firmware_io.dlms.apdu.blocks import TAG as BLOCK
from firmware_io.dlms.apdu.blocks import Block
from firmware_io.dlms.apdu.short_names import READ_REQUEST, READ_RESPONSE, ReadRequest, ReadResponse
from firmware_io.dlms.hdlc.framer import Address, Frame, Framer
from firmware_io.dlms.hdlc.link import SNRM, UA, UI, Parameters, control_name, is_information
from firmware_io.dlms.protection.general import GENERAL_CIPHERING, GENERAL_SIGNING
from firmware_io.dlms.protection.security import CIPHERED_TAGS, Sealed
from firmware_io.dlms.session.wrapper import Unit, Unwrapper
from firmware_io.errors import RemoteProtocolError, SecurityError

MASK = "**"
_ASSOCIATION_SECRETS = (12, 15, 64)  # classes whose writable attributes and methods carry secrets
_LLC_OCTETS = 3
_MAX_HELD = 4096  # octets without a frame in them: bounds what noise can make us keep
_MAX_UNIT = 1 << 16
_CIPHERED = [bytes((tag,)) for tag in CIPHERED_TAGS]  # what is in them is no secret on the line
_SHORT: dict[int, Callable[[bytes], object]] = {
    READ_REQUEST: ReadRequest.decode,
    READ_RESPONSE: ReadResponse.decode,
}
_CODE = re.compile(r"ObisCode\(a=(\d+), b=(\d+), c=(\d+), d=(\d+), e=(\d+), f=(\d+)\)")
_ACSE: dict[int, Callable[[bytes], object]] = {
    0x60: acse.AssociationRequest.decode,
    0x61: acse.AssociationResponse.decode,
    0x62: acse.ReleaseRequest.decode,
    0x63: acse.ReleaseResponse.decode,
}


class Tracer:
    """Writes a line of hex and a line of meaning for every frame; `write` gets one line at a time."""

    def __init__(self, write: Callable[[str], None], secrets: Iterable[bytes | None], framing: str = "hdlc") -> None:
        self._write = write
        self._secrets = sorted((s for s in secrets if s), key=len, reverse=True)
        self._wrapper = framing == "wrapper"
        self._sides = {True: _Side(">"), False: _Side("<")}

    def __call__(self, sent: bool, octets: bytes) -> None:
        """Octets as they pass."""
        other, side = self._sides[not sent], self._sides[sent]
        if other.raw:
            self._flush(other, [f"{len(other.raw)} octets without a whole frame"])
        side.raw += octets
        meanings = list(self._units(side, octets) if self._wrapper else self._frames(side, octets))
        if meanings or len(side.raw) > _MAX_HELD:
            self._flush(side, meanings)

    def _flush(self, side: _Side, meanings: list[str]) -> None:
        # A password cut in two by segmentation would show in parts: then the whole is masked.
        shown = MASK * len(side.raw) if side.split_secret else self._masked(bytes(side.raw))
        self._write(f"{side.arrow} {shown}")
        for meaning in meanings:
            self._write(f"  {meaning}")
        side.raw.clear()

    def _masked(self, octets: bytes) -> str:
        shown = text = octets.hex().upper()
        for secret in self._secrets:
            shown = shown.replace(secret.hex().upper(), MASK * len(secret))
        if shown != text and not self._wrapper:
            shown = shown[:-6] + MASK * 2 + shown[-2:]  # the check sequence would help to guess a short password
        return shown

    def _frames(self, side: _Side, octets: bytes) -> Iterable[str]:
        corrupt = side.framer.corrupt
        for frame in side.framer.receive(octets):
            yield self._frame(side, frame)
        if side.framer.corrupt > corrupt:
            yield f"{side.framer.corrupt - corrupt} corrupt"

    def _units(self, side: _Side, octets: bytes) -> Iterable[str]:
        try:
            units: list[Unit] = side.unwrapper.receive(octets)
        except RemoteProtocolError as error:
            yield str(error)
            return
        for unit in units:
            yield f"{unit.source} -> {unit.destination}: {self._pdu(unit.pdu)}"

    def _frame(self, side: _Side, frame: Frame) -> str:
        try:
            ends = f"{Address.decode(frame.source)} -> {Address.decode(frame.destination)}"
        except RemoteProtocolError:
            ends = f"{frame.source.hex()} -> {frame.destination.hex()}"
        head = f"{ends}  {control_name(frame.control)}{' segment' if frame.segmented else ''}"
        control = frame.control & ~0x10
        if control in (SNRM, UA) and frame.information:
            try:
                return f"{head} {Parameters.decode(frame.information)}"
            except RemoteProtocolError as error:
                return f"{head} {error}"
        if not frame.information or not (is_information(control) or control == UI):
            return head
        in_parts = frame.segmented or bool(side.assembly)
        side.assembly += frame.information
        ciphered = side.assembly[_LLC_OCTETS : _LLC_OCTETS + 1] in _CIPHERED
        side.split_secret = in_parts and bool(self._secrets) and side is self._sides[True] and not ciphered
        if frame.segmented:
            del side.assembly[_MAX_UNIT:]
            return head
        pdu = bytes(side.assembly[_LLC_OCTETS:])
        side.assembly.clear()
        return f"{head}: {self._pdu(pdu)}"

    def _pdu(self, pdu: bytes) -> str:
        """What a unit means; never a secret, never an exception."""
        tag = pdu[0] if pdu else -1
        try:
            if tag in CIPHERED_TAGS:
                sealed = Sealed.parse(pdu)
                return f"ciphered {tag:#04x}, counter {sealed.counter}, {len(sealed.body)} octets"
            if tag in (GENERAL_CIPHERING, GENERAL_SIGNING):
                return f"{'ciphered' if tag == GENERAL_CIPHERING else 'signed'} {tag:#04x}, {len(pdu)} octets"
            if tag == BLOCK:
                block = Block.decode(pdu)
                return f"general block {block.number}, {len(block.payload)} octets{', the last' * block.last}"
            if tag in _SHORT:
                return self._without_secrets(_SHORT[tag](pdu))
            if tag in _ACSE:
                return self._without_secrets(_ACSE[tag](pdu))
            return self._without_secrets(decode.decode(pdu))
        except (RemoteProtocolError, SecurityError) as error:
            return f"not understood: {error}"

    def _without_secrets(self, unit: object) -> str:
        if isinstance(unit, acse.AssociationRequest) and unit.mechanism is acse.Mechanism.LLS:
            unit = unit._replace(authentication=MASK.encode())
        if isinstance(unit, decode.SetListRequest) and any(
            attribute.class_id in _ASSOCIATION_SECRETS for attribute, _ in unit.items
        ):
            return f"SetListRequest with an association's: {MASK}"
        if isinstance(unit, decode.SetRequest) and unit.attribute.class_id in _ASSOCIATION_SECRETS:
            return f"SetRequest of {unit.attribute}: {MASK}"
        text = _CODE.sub(lambda code: ".".join(code.groups()), str(unit))
        for secret in self._secrets:
            text = text.replace(repr(secret)[2:-1], MASK).replace(secret.hex(), MASK)
        return text


class _Side:
    """What has passed in one direction and is not shown yet."""

    def __init__(self, arrow: str) -> None:
        self.arrow = arrow
        self.framer = Framer()
        self.unwrapper = Unwrapper()
        self.raw = bytearray()
        self.assembly = bytearray()
        self.split_secret = False
