"""High-level security without ciphering: challenges answered with a hash of a shared secret (mechanisms 3, 4 and 6).

IEC 62056-5-3, 5.2.2.2: MD5 and SHA-1 over challenge and secret, SHA-256 over secret, both system titles and both
challenges. They prove who opened the association and nothing about what follows: it goes in the clear. MD5 and SHA-1
are here because meters have nothing better.
"""

from __future__ import annotations

import hashlib
import hmac

from firmware_io.dlms.apdu.acse import Mechanism
from firmware_io.errors import SecurityError

HASHES = (Mechanism.HLS_MD5, Mechanism.HLS_SHA1, Mechanism.HLS_SHA256)


def proof(
    mechanism: Mechanism,
    secret: bytes,
    challenge: bytes,
    *,
    own_challenge: bytes = b"",
    own_title: bytes = b"",
    peer_title: bytes = b"",
) -> bytes:
    """The answer to the other side's challenge, by the one that has these title and challenge for its own."""
    if mechanism is Mechanism.HLS_MD5:
        return hashlib.md5(challenge + secret, usedforsecurity=False).digest()
    if mechanism is Mechanism.HLS_SHA1:
        return hashlib.sha1(challenge + secret, usedforsecurity=False).digest()
    return hashlib.sha256(secret + own_title + peer_title + challenge + own_challenge).digest()


def verify(given: bytes, expected: bytes) -> None:
    """Compare an answer to our challenge with what it should be.

    Raises:
        SecurityError: it is wrong.
    """
    if not hmac.compare_digest(given, expected):
        raise SecurityError("wrong answer to our challenge: it does not have our secret")
