"""Keys and times for the tests of what the backend may wish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.signing import KeyRing, Purpose, sign
from agent.wire import Address, Signed, encode


@dataclass
class Backend:
    """A backend with a key, an outsider with another, and the gateway's ring of keys."""

    address: Address = field(default_factory=lambda: Address("acme", "riverside-12", "gw-0012"))
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    outsider: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def ring(self) -> KeyRing:
        return KeyRing([self.key.public_key()])

    def signed(self, purpose: Purpose, wish: msgspec.Struct, change: Callable[[Signed], Signed] = lambda s: s) -> bytes:
        return encode(change(sign(self.key, purpose, encode(wish))))


@pytest.fixture
def backend() -> Backend:
    return Backend()
