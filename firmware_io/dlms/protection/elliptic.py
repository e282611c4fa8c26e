"""What suites 1 and 2 do on elliptic curves (IEC 62056-5-3, 5.3.4): ECDSA, ECDH and the key derivation behind it.

Suite 1 is P-256 with SHA-256 and AES-128, suite 2 is P-384 with SHA-384 and AES-256. Signatures and points are plain
octets here, r || s and X || Y, as they go over the wire. It knows neither associations nor files; the mathematics is
`cryptography`'s, which is imported where it is used: most buildings need none of it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from firmware_io.dlms.spec import KEY_OCTETS as KEY_OCTETS
from firmware_io.errors import LocalProtocolError, SecurityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

COORDINATE_OCTETS = {1: 32, 2: 48}
SUITE_OF_BITS = {256: 1, 384: 2}
# 2.16.756.5.8.3.x: AES-GCM-128 and AES-GCM-256 as the algorithm that the derived key is for.
_ALGORITHMS = {1: bytes.fromhex("60857405080300"), 2: bytes.fromhex("60857405080301")}


class PrivateKey:
    """Our half of a key pair, from PEM (PKCS 8 or SEC 1) or from the bare number in hex.

    Raises:
        LocalProtocolError: neither, or not on P-256 or P-384.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.suite = _suite_of(key.curve.key_size)

    @classmethod
    def load(cls, octets: bytes) -> PrivateKey:
        """From what stands in a file. Raises: LocalProtocolError."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            if b"-----BEGIN" in octets:
                key = serialization.load_pem_private_key(octets, None)
                if isinstance(key, ec.EllipticCurvePrivateKey):
                    return cls(key)
            else:
                number = bytes.fromhex(octets.decode("ascii"))
                return cls(ec.derive_private_key(int.from_bytes(number, "big"), _curve_of(len(number))))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise LocalProtocolError("not a private key on P-256 or P-384: expected PEM or hex") from error
        raise LocalProtocolError("not a private key on P-256 or P-384")

    @classmethod
    def generate(cls, suite: int) -> PrivateKey:
        """A fresh one, for one agreement."""
        from cryptography.hazmat.primitives.asymmetric import ec

        return cls(ec.generate_private_key(_curve_of(COORDINATE_OCTETS[suite])))

    @property
    def public(self) -> PublicKey:
        """The other half."""
        return PublicKey(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """r || s."""
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        r, s = utils.decode_dss_signature(self._key.sign(message, ec.ECDSA(_hash_of(self.suite))))
        size = COORDINATE_OCTETS[self.suite]
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def agree(self, peer: PublicKey) -> bytes:
        """Z, the shared secret of ECDH. Raises: SecurityError: the other key is on another curve."""
        from cryptography.hazmat.primitives.asymmetric import ec

        if peer.suite != self.suite:
            raise SecurityError(f"key agreement between suites {self.suite} and {peer.suite}")
        return self._key.exchange(ec.ECDH(), peer.key)


class PublicKey:
    """The other side's half: from PEM (key or certificate), or a point in octets or hex."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self.key = key
        self.suite = _suite_of(key.curve.key_size)

    @classmethod
    def load(cls, octets: bytes) -> PublicKey:
        """From what stands in a file. Raises: LocalProtocolError."""
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            if b"-----BEGIN CERTIFICATE" in octets:
                key: object = x509.load_pem_x509_certificate(octets).public_key()
            elif b"-----BEGIN" in octets:
                key = serialization.load_pem_public_key(octets)
            else:
                return cls.of_point(bytes.fromhex(octets.decode("ascii")))
        except (ValueError, TypeError, UnsupportedAlgorithm, SecurityError) as error:
            raise LocalProtocolError("not a public key on P-256 or P-384: expected PEM, or its point in hex") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise LocalProtocolError("not a public key on P-256 or P-384")
        return cls(key)

    @classmethod
    def of_point(cls, point: bytes) -> PublicKey:
        """From X || Y, with or without the octet 04 in front. Raises: SecurityError: no point of the curve."""
        from cryptography.hazmat.primitives.asymmetric import ec

        point = point[1:] if len(point) % 2 and point[:1] == b"\x04" else point
        try:
            return cls(ec.EllipticCurvePublicKey.from_encoded_point(_curve_of(len(point) // 2), b"\x04" + point))
        except ValueError as error:
            raise SecurityError(f"{len(point)} octets are no point of P-256 or P-384") from error

    @property
    def point(self) -> bytes:
        """X || Y."""
        numbers, size = self.key.public_numbers(), COORDINATE_OCTETS[self.suite]
        return numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises: SecurityError: the signature is not that of the key's owner over the message."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        size = COORDINATE_OCTETS[self.suite]
        if len(signature) != 2 * size:
            raise SecurityError(f"a signature of {len(signature)} octets; suite {self.suite} has {2 * size}")
        numbers = (int.from_bytes(half, "big") for half in (signature[:size], signature[size:]))
        try:
            self.key.verify(utils.encode_dss_signature(*numbers), message, ec.ECDSA(_hash_of(self.suite)))
        except InvalidSignature as error:
            raise SecurityError("wrong signature: another key, or somebody changed the message") from error


def derive(suite: int, secret: bytes, party_u: bytes, party_v: bytes, supplement: bytes = b"") -> bytes:
    """The key that follows from a shared secret (NIST SP 800-56A, concatenation; one round is enough).

    `party_u` and `party_v` are the originator's and the recipient's information, their system titles as a rule.
    """
    digest = {1: hashlib.sha256, 2: hashlib.sha384}[suite]
    message = b"\x00\x00\x00\x01" + secret + _ALGORITHMS[suite] + party_u + party_v + supplement
    return digest(message).digest()[: KEY_OCTETS[suite]]


def wrap(master_key: bytes, key: bytes) -> bytes:
    """A key under the master key (AES key wrap, RFC 3394)."""
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    return aes_key_wrap(master_key, key)


def unwrap(master_key: bytes, wrapped: bytes) -> bytes:
    """The way back. Raises: SecurityError: another master key, or the octets have changed."""
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

    try:
        return aes_key_unwrap(master_key, wrapped)
    except InvalidUnwrap as error:
        raise SecurityError("a wrapped key that our master key does not open") from error


def _curve_of(octets: int) -> ec.EllipticCurve:
    from cryptography.hazmat.primitives.asymmetric import ec

    if octets == COORDINATE_OCTETS[1]:
        return ec.SECP256R1()
    if octets == COORDINATE_OCTETS[2]:
        return ec.SECP384R1()
    raise ValueError(f"{octets} octets: P-256 has 32, P-384 has 48")


def _suite_of(bits: int) -> int:
    if bits not in SUITE_OF_BITS:
        raise LocalProtocolError(f"a curve of {bits} bits: suites 1 and 2 have P-256 and P-384")
    return SUITE_OF_BITS[bits]


def _hash_of(suite: int) -> hashes.HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256() if suite == 1 else hashes.SHA384()
