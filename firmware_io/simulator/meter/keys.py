"""The keys that a simulated meter holds, and its security setup (class 64), by which a client changes them.

Keys change at the end of the association in which they were sent, as a reply still goes under the old one. The
private keys of a simulated meter follow from its number: whoever knows the number can compute them, which is as it
should be in a laboratory and nowhere else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import ActionResult
from firmware_io.dlms.protection.elliptic import COORDINATE_OCTETS, KEY_OCTETS, PrivateKey, PublicKey, derive, unwrap
from firmware_io.errors import LocalProtocolError, SecurityError
from firmware_io.obis import ObisCode
from firmware_io.simulator.meter.cosem import CosemObject, constant, plain

SECURITY_SETUP = ObisCode(0, 0, 43, 0, 0)
UNICAST, BROADCAST, AUTHENTICATION, MASTER = 0, 1, 2, 3  # key ids of class 64


@dataclass(slots=True)
class MeterKeys:
    """What a meter holds of secrets that can change; `pending` holds from the next association on."""

    encryption: bytes = field(default=b"", repr=False)
    authentication: bytes = field(default=b"", repr=False)
    master: bytes = field(default=b"", repr=False)
    broadcast: bytes = field(default=b"", repr=False)
    pending: dict[int, bytes] = field(default_factory=dict, repr=False)

    def take_over(self) -> bool:
        """A new association: whether keys have changed, and with them the counters begin anew."""
        changed = bool(self.pending)
        self.encryption = self.pending.pop(UNICAST, self.encryption)
        self.broadcast = self.pending.pop(BROADCAST, self.broadcast)
        self.authentication = self.pending.pop(AUTHENTICATION, self.authentication)
        self.master = self.pending.pop(MASTER, self.master)
        return changed


def private_key(number: int, suite: int) -> PrivateKey:
    """The signing and agreement key of a site's meter, by its number."""
    digest = hashlib.sha384(b"checkmeter simulated meter %d, suite %d" % (number, suite)).digest()
    size = COORDINATE_OCTETS[suite]
    octets = digest[:size]
    return PrivateKey.load((b"\x01" + octets[1:]).hex().encode())  # the first octet keeps it below the curve's order


def security_setup(
    keys: MeterKeys, *, suite: int, number: int, title: bytes, client_title: bytes, client_key: bytes | None
) -> CosemObject:
    """Class 64. `client_key` is the public key that the client signs its part of an agreement with."""

    def transfer(value: Data | None) -> tuple[ActionResult, Data | None]:
        try:
            keys.pending |= {key_id: _unwrapped(keys, suite, octets) for key_id, octets in _entries(value)}
        except SecurityError:
            return ActionResult.OTHER_REASON, None
        return ActionResult.SUCCESS, None

    def agree(value: Data | None) -> tuple[ActionResult, Data | None]:
        if suite == 0 or client_key is None:
            return ActionResult.READ_WRITE_DENIED, None
        size = 2 * COORDINATE_OCTETS[suite]
        offers, agreed = [], {}
        try:
            theirs = PublicKey.load(client_key)
            for key_id, octets in _entries(value):
                point, signature = octets[:size], octets[size:]
                theirs.verify(signature, bytes((key_id,)) + point)
                ephemeral = PrivateKey.generate(suite)
                agreed[key_id] = derive(suite, ephemeral.agree(PublicKey.of_point(point)), client_title, title)
                own = ephemeral.public.point
                signed = private_key(number, suite).sign(bytes((key_id,)) + own)
                offers.append(axdr.structure(axdr.enumeration(key_id), axdr.octet_string(own + signed)))
        except (SecurityError, LocalProtocolError):
            return ActionResult.OTHER_REASON, None
        keys.pending |= agreed
        return ActionResult.SUCCESS, axdr.array(offers)

    return CosemObject(
        64,
        SECURITY_SETUP,
        {
            2: constant(axdr.enumeration(3)),  # authenticate and encrypt
            3: constant(axdr.enumeration(suite)),
            4: plain(lambda: axdr.octet_string(client_title)),
            5: plain(lambda: axdr.octet_string(title)),
        },
        version=1,
        methods={2: transfer, 3: agree},
    )


def _entries(value: Data | None) -> list[tuple[int, bytes]]:
    """The key ids and octets of a method's parameter. Raises: SecurityError: it is none."""
    entries = []
    for item in value.value if value is not None and value.tag == Tag.ARRAY else ():
        match item.plain():
            case [int(key_id), bytes(octets)] if key_id in (UNICAST, BROADCAST, AUTHENTICATION, MASTER):
                entries.append((key_id, octets))
            case _:
                raise SecurityError("no key id and key")
    if not entries:
        raise SecurityError("no keys")
    return entries


def _unwrapped(keys: MeterKeys, suite: int, octets: bytes) -> bytes:
    if not keys.master:
        raise SecurityError("it has no master key")
    key = unwrap(keys.master, octets)
    if len(key) != KEY_OCTETS[suite]:
        raise SecurityError(f"a key of {len(key)} octets")
    return key
