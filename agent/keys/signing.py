"""Ed25519 signatures on what the backend wishes: commands, configurations, models.

It owns the octets that are signed and the names of keys. What is signed is `checkmeter/v1/{purpose}`, a line feed, and
the octets of `payload` as they stand: the purpose keeps a signed command from passing as a configuration, and since the
text itself is carried, no canonical form of JSON has to be agreed on.

The cryptography library is imported where a key is at hand: it costs a gateway without keys 8 MB of memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.site.errors import ConfigError
from agent.wire.codec import decode
from agent.wire.downlink import Signed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Purpose = Literal["command", "config", "model", "release", "evidence"]


class Unauthorised(Exception):
    """Not signed by a key that may sign here; the text says why, fit to be sent back."""


def key_id(key: Ed25519PublicKey) -> str:
    """The name of a key on the wire: the first 16 hex digits of the SHA-256 of its 32 octets."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def signed_octets(purpose: Purpose, payload: str) -> bytes:
    """What the signature covers."""
    return f"checkmeter/v1/{purpose}\n{payload}".encode()


def sign(key: Ed25519PrivateKey, purpose: Purpose, payload: bytes) -> Signed:
    """`payload` with its signature, as it goes over the wire."""
    text = payload.decode()
    return Signed(payload=text, key=key_id(key.public_key()), signature=key.sign(signed_octets(purpose, text)).hex())


class KeyRing:
    """The public keys that may sign; an empty one authorises nobody."""

    def __init__(self, keys: Iterable[Ed25519PublicKey] = ()) -> None:
        self._keys = {key_id(key): key for key in keys}

    @classmethod
    def load(cls, paths: Iterable[str]) -> KeyRing:
        """The keys of `[mqtt] command_keys`.

        Raises:
            ConfigError: one line for each file that is no Ed25519 public key in PEM.
        """
        keys, errors = [], []
        for path in paths:
            try:
                keys.append(read_public(Path(path)))
            except (OSError, ValueError) as error:
                errors.append(
                    f"{path}: {getattr(error, 'strerror', None) or error}; make one with checkmeter keys make"
                )
        if errors:
            raise ConfigError(errors)
        return cls(keys)

    def open(self, payload: bytes, purpose: Purpose, limit: int) -> bytes:
        """The signed text inside the octets of a message.

        Raises:
            WireError: longer than `limit` (then nothing was parsed), or not in the form of a signed message.
            Unauthorised: an unknown key, or a signature that does not fit text and purpose.
        """
        message = decode(Signed, payload, limit)
        key = self._keys.get(message.key)
        if key is None:
            raise Unauthorised(f"key {message.key} may not sign here")
        from cryptography.exceptions import InvalidSignature

        try:
            key.verify(bytes.fromhex(message.signature), signed_octets(purpose, message.payload))
        except (InvalidSignature, UnicodeEncodeError):
            raise Unauthorised(f"the signature by key {message.key} does not fit this {purpose}") from None
        return message.payload.encode()


def sign_file(key: Ed25519PrivateKey, file: Path, purpose: Purpose = "release") -> Signed:
    """The signature on a release archive, or on printed evidence: its SHA-256 under its name. Raises OSError."""
    return sign(key, purpose, f"{_sha256(file)}  {file.name}".encode())


def check_file(ring: KeyRing, file: Path, signature: bytes, purpose: Purpose = "release") -> None:
    """Refuse a file that is not what was signed.

    Raises:
        OSError: it cannot be read.
        WireError: no signature.
        Unauthorised: another key's signature, another file, or changed.
    """
    said, _, name = ring.open(signature, purpose, 4096).decode().partition("  ")
    if name != file.name or said != _sha256(file):
        raise Unauthorised(f"{file.name} is not what was signed, which is {name} with SHA-256 {said[:16]}...")


def _sha256(file: Path) -> str:
    with file.open("rb") as octets:
        return hashlib.file_digest(octets, "sha256").hexdigest()


def make() -> tuple[bytes, bytes]:
    """A new pair: the private and the public key as PEM."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def read_public(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file of either half.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = path.read_bytes()
    try:
        if b"PRIVATE KEY" in content:
            return read_private(path).public_key()
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("a public key, but not of Ed25519")
    return key


def read_private(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file without a passphrase.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("no private key in PEM without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("a private key, but not of Ed25519")
    return key
