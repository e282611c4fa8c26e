"""High-level security by challenge and answer, beside that with GMAC: mechanisms 2, 3, 4, 6 and 7.

IEC 62056-5-3, 5.2.2.2: MD5 and SHA-1 over challenge and secret; SHA-256 over secret, both system titles and both
challenges; an ECDSA signature over the same without a secret. Mechanism 2 is the manufacturer's by the standard; what
meters do in the field is AES-128 of the challenge under the secret. MD5, SHA-1 and AES in blocks are here because
meters have nothing better.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple, Protocol

from firmware_io.dlms.apdu.acse import Mechanism
from firmware_io.dlms.protection.elliptic import PrivateKey, PublicKey
from firmware_io.errors import SecurityError

AES_OCTETS = 16


class Side(NamedTuple):
    """One side of an association: the challenge that it has sent, and its system title."""

    challenge: bytes
    title: bytes


class Proof(Protocol):
    """How the two sides prove themselves."""

    def give(self, own: Side, peer: Side) -> bytes:
        """Our answer to the peer's challenge."""

    def check(self, given: bytes, own: Side, peer: Side) -> None:
        """Whether that is the peer's answer to ours. Raises: SecurityError."""


class SharedSecret:
    """Both sides know the secret and compute the same."""

    def __init__(self, mechanism: Mechanism, secret: bytes) -> None:
        self._mechanism, self._secret = mechanism, secret

    def give(self, own: Side, peer: Side) -> bytes:
        """See `Proof`."""
        secret, challenge = self._secret, peer.challenge
        match self._mechanism:
            case Mechanism.HLS:
                return _aes(secret, challenge)
            case Mechanism.HLS_MD5:
                return hashlib.md5(challenge + secret, usedforsecurity=False).digest()
            case Mechanism.HLS_SHA1:
                return hashlib.sha1(challenge + secret, usedforsecurity=False).digest()
        return hashlib.sha256(secret + own.title + peer.title + challenge + own.challenge).digest()

    def check(self, given: bytes, own: Side, peer: Side) -> None:
        """See `Proof`."""
        if not hmac.compare_digest(given, self.give(peer, own)):
            raise SecurityError("wrong answer to our challenge: it does not have our secret")


class Signatures:
    """Each side signs (mechanism 7); nobody holds the other's secret."""

    def __init__(self, ours: PrivateKey, theirs: PublicKey) -> None:
        self._ours, self._theirs = ours, theirs

    def give(self, own: Side, peer: Side) -> bytes:
        """See `Proof`."""
        return self._ours.sign(_signed(own, peer))

    def check(self, given: bytes, own: Side, peer: Side) -> None:
        """See `Proof`."""
        self._theirs.verify(given, _signed(peer, own))


def _signed(signer: Side, other: Side) -> bytes:
    return signer.title + other.title + other.challenge + signer.challenge


def _aes(secret: bytes, challenge: bytes) -> bytes:
    """Block by block, secret and challenge filled up with zeros."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = secret[:AES_OCTETS].ljust(AES_OCTETS, b"\x00")
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # what the meters compute
    return encryptor.update(challenge + bytes(-len(challenge) % AES_OCTETS)) + encryptor.finalize()
