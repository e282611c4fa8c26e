"""The security that a meter's specification asks for: its ciphering context, and how the two sides prove themselves.

It makes them of what the site file says; it exchanges nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from firmware_io.dlms.apdu.acse import Mechanism
from firmware_io.dlms.protection.elliptic import PrivateKey, PublicKey
from firmware_io.dlms.protection.general import Keyring
from firmware_io.dlms.protection.hls import Proof, SharedSecret, Signatures
from firmware_io.dlms.protection.security import SUITES, Ciphering
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import LocalProtocolError

MECHANISMS = {
    "none": Mechanism.LOWEST,
    "lls": Mechanism.LLS,
    "hls-aes": Mechanism.HLS,
    "hls-md5": Mechanism.HLS_MD5,
    "hls-sha1": Mechanism.HLS_SHA1,
    "hls-gmac": Mechanism.HLS_GMAC,
    "hls-sha256": Mechanism.HLS_SHA256,
    "hls-ecdsa": Mechanism.HLS_ECDSA,
}
CHALLENGE_OCTETS = 16
SIGNED_CHALLENGE_OCTETS = 32  # with ECDSA: 32 to 64


def suite_of(spec: DlmsSpec) -> int:
    """The security suite: what is said, or what follows from the length of the keys."""
    return SUITES[len(spec.encryption_key or bytes(16))] if spec.suite is None else spec.suite


def ciphering_of(spec: DlmsSpec, next_counter: Callable[[], int]) -> Ciphering:
    """A fresh ciphering context towards a meter. Raises: LocalProtocolError: keys are missing or malformed."""
    if spec.encryption_key is None or spec.authentication_key is None or spec.system_title is None:
        raise LocalProtocolError("ciphering without keys")  # DlmsSpec lets none through
    keys = Keyring(
        suite_of(spec),
        spec.system_title,
        spec.authentication_key,
        spec.encryption_key,
        spec.broadcast_key,
        spec.master_key,
        peer_signing=None if spec.meter_signing_key is None else PublicKey.load(spec.meter_signing_key),
        agreement=None if spec.agreement_key is None else PrivateKey.load(spec.agreement_key),
        peer_agreement=None if spec.meter_agreement_key is None else PublicKey.load(spec.meter_agreement_key),
    )
    return Ciphering(
        spec.encryption_key,
        spec.authentication_key,
        spec.system_title,
        next_counter,
        form=spec.ciphering,
        policy=spec.policy,
        suite=spec.suite,
        keys=keys,
    )


def proof_of(spec: DlmsSpec, mechanism: Mechanism) -> Proof:
    """How both sides prove themselves, other than by GMAC. Raises: LocalProtocolError: a key is malformed."""
    if mechanism is Mechanism.HLS_ECDSA:
        return Signatures(PrivateKey.load(spec.signing_key or b""), PublicKey.load(spec.meter_signing_key or b""))
    return SharedSecret(mechanism, spec.password or b"")
