"""How names become keys: 64-bit hashes, spread evenly over a distributed store's regions.

Two of n names share a key with a probability of n^2 / 3.7e19: one in 37 million for a million zones.
"""

from __future__ import annotations

import hashlib
import struct

_SEPARATOR = "\x1f"  # in no name: the topic's own pattern refuses control characters


def name_key(*names: str) -> int:
    """The signed 64-bit key of a path of names: tenant, site, gateway, and then zone or alert."""
    digest = hashlib.blake2b(_SEPARATOR.join(names).encode(), digest_size=8).digest()
    return int(struct.unpack(">q", digest)[0])


def event_key(gateway_key: int, event_id: bytes) -> bytes:
    """16 octets of an event: its id is its gateway's own affair (CloudEvents 1.0, `source` and `id` together)."""
    return hashlib.blake2b(struct.pack(">q", gateway_key) + event_id, digest_size=16).digest()


def letter_id(topic: bytes, payload: bytes) -> bytes:
    """16 octets of a message's content: a poison message that is sent again is the same dead letter."""
    return hashlib.blake2b(len(topic).to_bytes(4, "big") + topic + payload, digest_size=16).digest()
