"""Opening and releasing an application association: AARQ, AARE, RLRQ, RLRE (BER) and the xDLMS initiate in them.

It knows the octets of both directions; what is allowed when, and how user information is ciphered, is not its
business: `user_information` is the initiate APDU as it is on the wire, plain or ciphered.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from firmware_io.dlms.apdu.axdr import counted
from firmware_io.dlms.apdu.reader import Reader
from firmware_io.errors import RemoteProtocolError

_CONTEXT = bytes.fromhex("608574050801")  # joint-iso-ccitt country(756) DLMS-UA application-context
_MECHANISM = bytes.fromhex("608574050802")
_DLMS_VERSION = 6
_VAA_NAME_LN, _VAA_NAME_SN = 0x0007, 0xFA00
_MAX_AUTHENTICATION_VALUE = 64  # octets of a challenge or password: bounds what a peer can make us keep


class Context(enum.IntEnum):
    """Application context: logical or short names, plain or ciphered."""

    LN = 1
    SN = 2
    LN_CIPHERED = 3
    SN_CIPHERED = 4

    @property
    def ciphered(self) -> bool:
        """Whether its APDUs are ciphered."""
        return self in (Context.LN_CIPHERED, Context.SN_CIPHERED)

    @property
    def short(self) -> bool:
        """Whether it is one of short names."""
        return self in (Context.SN, Context.SN_CIPHERED)


class Mechanism(enum.IntEnum):
    """Authentication mechanism."""

    LOWEST = 0
    LLS = 1
    HLS = 2
    HLS_MD5 = 3
    HLS_SHA1 = 4
    HLS_GMAC = 5
    HLS_SHA256 = 6
    HLS_ECDSA = 7


class Conformance(enum.IntFlag):
    """Services a side supports; bit 0 of the standard is the highest of the 24 bits."""

    GENERAL_PROTECTION = 1 << 22
    GENERAL_BLOCK_TRANSFER = 1 << 21
    READ = 1 << 20
    ATTRIBUTE0_SET = 1 << 15
    PRIORITY = 1 << 14
    ATTRIBUTE0_GET = 1 << 13
    BLOCK_GET = 1 << 12
    BLOCK_SET = 1 << 11
    BLOCK_ACTION = 1 << 10
    MULTIPLE_REFERENCES = 1 << 9
    DATA_NOTIFICATION = 1 << 7
    ACCESS = 1 << 6
    PARAMETERISED_ACCESS = 1 << 5
    GET = 1 << 4
    SET = 1 << 3
    SELECTIVE_ACCESS = 1 << 2
    EVENT_NOTIFICATION = 1 << 1
    ACTION = 1 << 0


class InitiateRequest(NamedTuple):
    """xDLMS initiate request: what the client proposes."""

    conformance: Conformance
    max_pdu: int
    dedicated_key: bytes | None = None
    version: int = _DLMS_VERSION

    def encode(self) -> bytes:
        key = b"\x00" if self.dedicated_key is None else b"\x01" + counted(self.dedicated_key)
        head = b"\x01" + key + bytes((0, 0, self.version))  # response-allowed: default true; no quality of service
        return head + _conformance(self.conformance) + self.max_pdu.to_bytes(2, "big")

    @classmethod
    def decode(cls, octets: bytes) -> InitiateRequest:
        """Raises: RemoteProtocolError: malformed."""
        reader = Reader(octets)
        _expect(reader.octet("initiate"), 0x01, "InitiateRequest")
        key = reader.counted("dedicated key") if reader.flag("dedicated key") else None
        if reader.flag("response-allowed"):
            reader.octet("response-allowed")
        if reader.flag("quality of service"):
            reader.octet("quality of service")
        version = reader.octet("version")
        conformance, max_pdu = _read_conformance(reader), reader.number(2, "maximum PDU size")
        reader.finish()
        return cls(conformance, max_pdu, key, version)


class InitiateResponse(NamedTuple):
    """xDLMS initiate response: what holds from now on. `max_pdu` is what the server receives at most."""

    conformance: Conformance
    max_pdu: int
    version: int = _DLMS_VERSION
    short: bool = False  # short names

    def encode(self) -> bytes:
        head = bytes((0x08, 0, self.version)) + _conformance(self.conformance)
        name = _VAA_NAME_SN if self.short else _VAA_NAME_LN
        return head + self.max_pdu.to_bytes(2, "big") + name.to_bytes(2, "big")

    @classmethod
    def decode(cls, octets: bytes) -> InitiateResponse:
        """Raises: RemoteProtocolError: malformed, or for names of neither kind."""
        reader = Reader(octets)
        _expect(reader.octet("initiate"), 0x08, "InitiateResponse")
        if reader.flag("quality of service"):
            reader.octet("quality of service")
        version = reader.octet("version")
        conformance, max_pdu = _read_conformance(reader), reader.number(2, "maximum PDU size")
        name = reader.number(2, "VAA name")
        if name != _VAA_NAME_SN:
            _expect(name, _VAA_NAME_LN, "VAA name of logical naming")
        reader.finish()
        return cls(conformance, max_pdu, version, name == _VAA_NAME_SN)


class AssociationRequest(NamedTuple):
    """AARQ."""

    context: Context
    mechanism: Mechanism
    user_information: bytes
    system_title: bytes | None = None
    authentication: bytes | None = None

    def encode(self) -> bytes:
        body = _tlv(0xA1, b"\x06\x07" + _CONTEXT + bytes((self.context,)))
        if self.system_title is not None:
            body += _tlv(0xA6, _tlv(0x04, self.system_title))
        if self.mechanism != Mechanism.LOWEST:
            body += b"\x8a\x02\x07\x80" + _tlv(0x8B, _MECHANISM + bytes((self.mechanism,)))
            body += _tlv(0xAC, _tlv(0x80, self.authentication or b""))
        return _tlv(0x60, body + _tlv(0xBE, _tlv(0x04, self.user_information)))

    @classmethod
    def decode(cls, octets: bytes) -> AssociationRequest:
        """Raises: RemoteProtocolError: malformed."""
        fields = _fields(octets, 0x60, "AARQ")
        return cls(
            _context(fields),
            _mechanism(fields, 0x8B),
            _inner(fields, 0xBE, 0x04) or b"",
            _inner(fields, 0xA6, 0x04),
            _authentication(fields, 0xAC),
        )


class AssociationResponse(NamedTuple):
    """AARE. `result` 0 is accepted, 1 rejected for good, 2 for now; `diagnostic` is that of the service user."""

    result: int
    diagnostic: int
    user_information: bytes = b""
    context: Context = Context.LN
    system_title: bytes | None = None
    mechanism: Mechanism = Mechanism.LOWEST
    authentication: bytes | None = None
    provider: bool = False  # the diagnostic is that of the service provider

    def encode(self) -> bytes:
        body = _tlv(0xA1, b"\x06\x07" + _CONTEXT + bytes((self.context,)))
        body += bytes((0xA2, 3, 2, 1, self.result))
        body += bytes((0xA3, 5, 0xA2 if self.provider else 0xA1, 3, 2, 1, self.diagnostic))
        if self.system_title is not None:
            body += _tlv(0xA4, _tlv(0x04, self.system_title))
        if self.mechanism > Mechanism.LLS:
            body += b"\x88\x02\x07\x80" + _tlv(0x89, _MECHANISM + bytes((self.mechanism,)))
            body += _tlv(0xAA, _tlv(0x80, self.authentication or b""))
        if self.user_information:
            body += _tlv(0xBE, _tlv(0x04, self.user_information))
        return _tlv(0x61, body)

    @classmethod
    def decode(cls, octets: bytes) -> AssociationResponse:
        """Raises: RemoteProtocolError: malformed."""
        fields = _fields(octets, 0x61, "AARE")
        result = _inner(fields, 0xA2, 0x02)
        diagnostic = fields.get(0xA3, b"")
        if (
            not result
            or len(diagnostic) != 5
            or diagnostic[0] not in (0xA1, 0xA2)
            or diagnostic[1:4] != b"\x03\x02\x01"
        ):
            raise RemoteProtocolError(f"AARE without result or diagnostic: {octets.hex()}")
        return cls(
            result[0],
            diagnostic[4],
            _inner(fields, 0xBE, 0x04) or b"",
            _context(fields),
            _inner(fields, 0xA4, 0x04),
            _mechanism(fields, 0x89),
            _authentication(fields, 0xAA),
            diagnostic[0] == 0xA2,
        )


class ReleaseRequest(NamedTuple):
    """RLRQ."""

    reason: int = 0
    user_information: bytes = b""

    def encode(self) -> bytes:
        body = bytes((0x80, 1, self.reason))
        return _tlv(0x62, body + (_tlv(0xBE, _tlv(0x04, self.user_information)) if self.user_information else b""))

    @classmethod
    def decode(cls, octets: bytes) -> ReleaseRequest:
        """Raises: RemoteProtocolError: malformed."""
        fields = _fields(octets, 0x62, "RLRQ")
        return cls(_reason(fields), _inner(fields, 0xBE, 0x04) or b"")


class ReleaseResponse(NamedTuple):
    """RLRE."""

    reason: int = 0
    user_information: bytes = b""

    def encode(self) -> bytes:
        body = bytes((0x80, 1, self.reason))
        return _tlv(0x63, body + (_tlv(0xBE, _tlv(0x04, self.user_information)) if self.user_information else b""))

    @classmethod
    def decode(cls, octets: bytes) -> ReleaseResponse:
        """Raises: RemoteProtocolError: malformed."""
        fields = _fields(octets, 0x63, "RLRE")
        return cls(_reason(fields), _inner(fields, 0xBE, 0x04) or b"")


def _tlv(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + counted(content)


def _conformance(conformance: Conformance) -> bytes:
    return b"\x5f\x1f\x04\x00" + int(conformance).to_bytes(3, "big")


def _read_conformance(reader: Reader) -> Conformance:
    _expect(reader.number(2, "conformance"), 0x5F1F, "conformance tag")
    if reader.octet("conformance length") != 4:
        raise RemoteProtocolError("conformance block: expected 4 octets")
    reader.octet("unused bits")
    return Conformance(reader.number(3, "conformance"))


def _expect(got: int, expected: int, what: str) -> None:
    if got != expected:
        raise RemoteProtocolError(f"{what}: expected {expected:#04x}, got {got:#04x}")


def _fields(octets: bytes, tag: int, what: str) -> dict[int, bytes]:
    """The fields of an ACSE APDU by tag; a field that comes twice is an error."""
    reader = Reader(octets)
    _expect(reader.octet(what), tag, what)
    body = reader.counted(what)
    reader.finish()
    fields: dict[int, bytes] = {}
    reader = Reader(body)
    while reader.offset < len(body):
        field_tag = reader.octet("field")
        if field_tag in fields:
            raise RemoteProtocolError(f"{what}: field {field_tag:#04x} comes twice")
        fields[field_tag] = reader.counted(f"{what} field {field_tag:#04x}")
    return fields


def _inner(fields: dict[int, bytes], tag: int, inner_tag: int) -> bytes | None:
    """The content of the one element inside a field, None where the field is absent."""
    if tag not in fields:
        return None
    reader = Reader(fields[tag])
    _expect(reader.octet(f"field {tag:#04x}"), inner_tag, f"element of field {tag:#04x}")
    content = reader.counted(f"field {tag:#04x}")
    reader.finish()
    return content


def _context(fields: dict[int, bytes]) -> Context:
    oid = _inner(fields, 0xA1, 0x06)
    if oid is None or oid[:-1] != _CONTEXT or oid[-1] not in tuple(Context):
        raise RemoteProtocolError(f"application context {(oid or b'').hex()}: expected logical or short names")
    return Context(oid[-1])


def _reason(fields: dict[int, bytes]) -> int:
    reason = fields.get(0x80, b"\x00")
    if len(reason) != 1:
        raise RemoteProtocolError(f"release reason {reason.hex()}: expected one octet")
    return reason[0]


def _mechanism(fields: dict[int, bytes], tag: int) -> Mechanism:
    oid = fields.get(tag)
    if oid is None:
        return Mechanism.LOWEST
    if oid[:-1] != _MECHANISM or oid[-1] > Mechanism.HLS_ECDSA:
        raise RemoteProtocolError(f"authentication mechanism {oid.hex()} is unknown")
    return Mechanism(oid[-1])


def _authentication(fields: dict[int, bytes], tag: int) -> bytes | None:
    value = _inner(fields, tag, 0x80)
    if value is not None and len(value) > _MAX_AUTHENTICATION_VALUE:
        raise RemoteProtocolError(f"authentication value of {len(value)} octets; at most {_MAX_AUTHENTICATION_VALUE}")
    return value
