"""general-ciphering and general-signing (IEC 62056-5-3, 5.7): APDUs that name sender, receiver and key.

What comes is opened with whatever key it names: an identified one, one that is wrapped under the master key, or one
agreed by ECDH, one-pass or static. A signature covers the five header fields and the content. It is the sender's
system title that decides whether it is heard at all; replay is refused by counters, which ascend whatever the key.

The standard has no vector for the two points where implementations differ. As pydlms and Gurux do: security control
and authentication key alone are additional authenticated data, and the content is signed without its length. For the
ephemeral key's signature both the point alone (annex I.2) and the point behind an octet 01 (Gurux) are taken.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from firmware_io.dlms.apdu.axdr import counted
from firmware_io.dlms.apdu.reader import Reader
from firmware_io.dlms.protection.elliptic import (
    COORDINATE_OCTETS,
    PrivateKey,
    PublicKey,
    derive,
    unwrap,
    wrap,
)
from firmware_io.dlms.spec import KEY_OCTETS
from firmware_io.errors import LocalProtocolError, RemoteProtocolError, SecurityError

GENERAL_CIPHERING, GENERAL_SIGNING = 0xDD, 0xDF
IDENTIFIED, WRAPPED, AGREED = 0, 1, 2
ONE_PASS, STATIC = 1, 2  # key agreement: C(1e, 1s) and C(0e, 2s)
UNICAST, BROADCAST = 0, 1

KeyForm: TypeAlias = Literal["unicast", "broadcast", "wrapped", "agreed", "static"]


@dataclass(frozen=True, slots=True)
class Keyring:
    """One side's keys towards one other. What is None it does not have; public keys are the other side's."""

    suite: int
    title: bytes
    authentication: bytes | None = field(default=None, repr=False)
    unicast: bytes | None = field(default=None, repr=False)
    broadcast: bytes | None = field(default=None, repr=False)
    master: bytes | None = field(default=None, repr=False)
    signing: PrivateKey | None = None
    agreement: PrivateKey | None = None
    peer_signing: PublicKey | None = None
    peer_agreement: PublicKey | None = None


class Header(NamedTuple):
    """The five fields in front."""

    transaction: bytes
    originator: bytes
    recipient: bytes
    time: bytes
    other: bytes

    def encode(self) -> bytes:
        """Each behind its length."""
        return b"".join(counted(octets) for octets in self)

    @classmethod
    def read(cls, reader: Reader) -> Header:
        """Raises: RemoteProtocolError: cut short, or longer than such fields are."""
        fields = [reader.counted(name) for name in cls._fields]
        if any(len(octets) > 255 for octets in fields):
            raise RemoteProtocolError("a general APDU with a header field of more than 255 octets")
        return cls(*fields)


class Ciphered(NamedTuple):
    """general-ciphering taken apart. `key` is the key info: which kind, and its parameters."""

    header: Header
    key: tuple[int, int, bytes]
    control: int
    counter: int
    body: bytes


def parse_ciphered(octets: bytes) -> Ciphered:
    """Raises: SecurityError: malformed."""
    try:
        reader = Reader(octets)
        reader.octet("general-ciphering")
        header = Header.read(reader)
        key = (IDENTIFIED, UNICAST, b"")
        if reader.flag("key info"):
            kind = reader.octet("key info")
            if kind == IDENTIFIED:
                key = (kind, reader.octet("key id"), b"")
            elif kind == WRAPPED:
                key = (kind, reader.octet("key-encrypting key"), reader.counted("wrapped key"))
            elif kind == AGREED:
                parameters, ciphered = reader.counted("key agreement"), reader.counted("ciphered key data")
                if len(parameters) != 1:
                    raise RemoteProtocolError(f"key agreement {parameters.hex()}: expected one octet")
                key = (kind, parameters[0], ciphered)
            else:
                raise RemoteProtocolError(f"key info {kind}: expected 0, 1 or 2")
        content = reader.counted("ciphered content")
        reader.finish()
    except RemoteProtocolError as error:
        raise SecurityError(f"general-ciphering: {error}") from error
    if len(content) < 6:
        raise SecurityError(f"general-ciphering: {len(content)} octets of content")
    return Ciphered(header, key, content[0], int.from_bytes(content[1:5], "big"), content[5:])


def content_key(keys: Keyring, sealed: Ciphered) -> bytes:
    """The key under which the content of something received is. Raises: SecurityError: we do not have it."""
    kind, parameter, octets = sealed.key
    header = sealed.header
    if kind == IDENTIFIED:
        key = {UNICAST: keys.unicast, BROADCAST: keys.broadcast}.get(parameter)
    elif kind == WRAPPED:
        key = None if keys.master is None or parameter != 0 else unwrap(keys.master, octets)
    elif parameter == ONE_PASS:
        key = _one_pass(keys, header, octets)
    elif parameter == STATIC and keys.suite in COORDINATE_OCTETS and keys.agreement and keys.peer_agreement:
        shared = keys.agreement.agree(keys.peer_agreement)
        key = derive(keys.suite, shared, header.originator, counted(header.transaction), header.recipient)
    else:
        key = None
    if key is None or len(key) != KEY_OCTETS[keys.suite]:
        raise SecurityError(f"general-ciphering under key info {kind}/{parameter}, for which there is no key here")
    return key


def _one_pass(keys: Keyring, header: Header, octets: bytes) -> bytes | None:
    """The sender has signed a key of its own for this APDU."""
    if keys.agreement is None or keys.peer_signing is None or keys.suite not in COORDINATE_OCTETS:
        return None
    size = 2 * COORDINATE_OCTETS[keys.suite]
    point, signature = octets[:size], octets[size:]
    try:
        keys.peer_signing.verify(signature, point)
    except SecurityError:
        keys.peer_signing.verify(signature, bytes((ONE_PASS,)) + point)
    return derive(keys.suite, keys.agreement.agree(PublicKey.of_point(point)), header.originator, header.recipient)


def open_signed(keys: Keyring, octets: bytes, peer_title: bytes | None = None) -> tuple[Header, bytes]:
    """Who signed what. Raises: SecurityError: wrong signature, from somebody else, malformed, or no key to check it."""
    if keys.peer_signing is None:
        raise SecurityError("a signed APDU, and no meter_signing_key to check it with")
    try:
        reader = Reader(octets)
        reader.octet("general-signing")
        header = Header.read(reader)
        content, signature = reader.counted("content"), reader.counted("signature")
        reader.finish()
    except RemoteProtocolError as error:
        raise SecurityError(f"general-signing: {error}") from error
    if peer_title is not None and header.originator != peer_title:  # first: to check a signature is dear
        raise SecurityError(f"signed by {header.originator.hex()}: expected {peer_title.hex()}")
    keys.peer_signing.verify(signature, header.encode() + content)
    return header, content


def check_titles(keys: Keyring, header: Header, peer_title: bytes | None) -> None:
    """Raises: SecurityError: from somebody else, or for somebody else."""
    if peer_title is not None and header.originator != peer_title:
        raise SecurityError(f"system title {header.originator.hex()}: expected {peer_title.hex()}")
    if header.recipient and header.recipient != keys.title:
        raise SecurityError(f"it is for {header.recipient.hex()}, and we are {keys.title.hex()}")


def sign(keys: Keyring, content: bytes, recipient: bytes, transaction: bytes = b"", time: bytes = b"") -> bytes:
    """general-signing of an APDU. Raises: LocalProtocolError: there is no key to sign with."""
    if keys.signing is None:
        raise LocalProtocolError("general-signing without a signing key")
    header = Header(transaction, keys.title, recipient, time, b"").encode()
    return bytes((GENERAL_SIGNING,)) + header + counted(content) + counted(keys.signing.sign(header + content))


def cipher(
    keys: Keyring,
    recipient: bytes,
    form: KeyForm,
    seal: Callable[[bytes, bool], bytes],
    transaction: bytes = b"",
) -> bytes:
    """general-ciphering. `seal` makes security control, counter and body under a key; its flag says: broadcast.

    Raises:
        LocalProtocolError: there is no key for that form.
    """
    header = Header(transaction, keys.title, recipient, b"", b"")
    key: bytes | None
    match form:
        case "unicast" | "broadcast":
            key = keys.broadcast if form == "broadcast" else keys.unicast
            info = bytes((1, IDENTIFIED, BROADCAST if form == "broadcast" else UNICAST))
        case "wrapped":
            key = secrets.token_bytes(KEY_OCTETS[keys.suite])
            info = bytes((1, WRAPPED, 0)) + counted(wrap(_there(keys.master), key))
        case "agreed":
            ephemeral, peer = PrivateKey.generate(keys.suite), keys.peer_agreement
            if peer is None or keys.signing is None:
                raise LocalProtocolError("one-pass key agreement without keys")
            point = ephemeral.public.point
            key = derive(keys.suite, ephemeral.agree(peer), header.originator, recipient)
            info = bytes((1, AGREED, 1, ONE_PASS)) + counted(point + keys.signing.sign(point))
        case "static":
            if keys.agreement is None or keys.peer_agreement is None:
                raise LocalProtocolError("static key agreement without keys")
            shared = keys.agreement.agree(keys.peer_agreement)
            key = derive(keys.suite, shared, header.originator, counted(transaction), recipient)
            info = bytes((1, AGREED, 1, STATIC, 0))
    content = seal(_there(key), form == "broadcast")
    return bytes((GENERAL_CIPHERING,)) + header.encode() + info + counted(content)


def _there(key: bytes | None) -> bytes:
    if key is None:
        raise LocalProtocolError("general-ciphering under a key that there is not")
    return key
