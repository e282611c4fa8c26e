"""Changing a meter's keys through its security setup (class 64): key transfer and key agreement.

*Transfer* sends a key that we have chosen, wrapped under the master key. *Agreement* (suites 1 and 2) sends half of it:
each side signs a fresh key pair, and nobody who listens, not even with the old keys, can compute the new one. In both
the meter takes the new key when the association ends, as a rule. Asking whether it shall be done, and keeping what
comes out of it, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.protection.context import suite_of
from firmware_io.dlms.protection.elliptic import COORDINATE_OCTETS, PrivateKey, PublicKey, derive, wrap
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import KEY_OCTETS, DlmsSpec
from firmware_io.errors import LocalProtocolError, RemoteProtocolError, SecurityError
from firmware_io.obis import ObisCode

KeyName = Literal["encryption", "broadcast", "authentication", "master"]
KEY_IDS: dict[KeyName, int] = {name: number for number, name in enumerate(get_args(KeyName))}
SETUP_CLASS, SECURITY_SETUP = 64, ObisCode(0, 0, 43, 0, 0)
TRANSFER, AGREE = (Attribute(SETUP_CLASS, SECURITY_SETUP, method) for method in (2, 3))


def key_octets(spec: DlmsSpec) -> int:
    """How long this meter's keys are."""
    return KEY_OCTETS[suite_of(spec)]


def transfer(session: Session, spec: DlmsSpec, keys: Mapping[KeyName, bytes]) -> None:
    """Send new keys, each wrapped under the master key.

    Raises:
        LocalProtocolError: there is no master key, or a key has the wrong length; nothing was sent.
        ActionError: the meter does not take them; it keeps what it has.
        MeterError: it does not answer, or not as it should; what it holds then is not known.
    """
    if spec.master_key is None:
        raise LocalProtocolError(f"meter {spec.id}: key transfer needs its master_key in the site file")
    if any(len(key) != key_octets(spec) for key in keys.values()):
        raise LocalProtocolError(f"meter {spec.id}: its keys have {key_octets(spec)} octets")
    session.action(TRANSFER, _entries({name: wrap(spec.master_key, key) for name, key in keys.items()}))


def agree(session: Session, spec: DlmsSpec, names: Sequence[KeyName]) -> dict[KeyName, bytes]:
    """Agree on new keys; they are what the meter has from its next association on.

    Raises:
        LocalProtocolError: suite 0, no signing keys, or the master key is asked for; nothing was sent.
        SecurityError: the answer is not the meter's own; it may hold a key that nobody knows.
        ActionError: the meter does not do that; it keeps what it has.
        MeterError: it does not answer, or not as it should; what it holds then is not known.
    """
    suite, title = suite_of(spec), session.meter_title
    if suite not in COORDINATE_OCTETS or spec.signing_key is None or spec.meter_signing_key is None:
        raise LocalProtocolError(
            f"meter {spec.id}: key agreement needs suite 1 or 2, signing_key and meter_signing_key in the site file"
        )
    if "master" in names:
        raise LocalProtocolError("the master key is transferred, not agreed")
    if spec.system_title is None or title is None:
        raise LocalProtocolError(f"meter {spec.id}: key agreement needs a ciphered association")
    ours, theirs = PrivateKey.load(spec.signing_key), PublicKey.load(spec.meter_signing_key)
    if ours.suite != suite or theirs.suite != suite:
        raise LocalProtocolError(f"meter {spec.id}: suite {suite} needs signing keys on its own curve")
    ephemeral = {name: PrivateKey.generate(suite) for name in names}
    offers = {}
    for name, key in ephemeral.items():
        point = key.public.point
        offers[name] = point + ours.sign(bytes((KEY_IDS[name],)) + point)
    answer = _offers(session.action(AGREE, _entries(offers)))
    agreed, size = {}, 2 * COORDINATE_OCTETS[suite]
    for name, key in ephemeral.items():
        octets = answer.get(KEY_IDS[name])
        if octets is None or len(answer) != len(ephemeral):
            raise SecurityError(f"meter {spec.id}: it agrees on other keys than were asked for")
        point, signature = octets[:size], octets[size:]
        theirs.verify(signature, bytes((KEY_IDS[name],)) + point)
        agreed[name] = derive(suite, key.agree(PublicKey.of_point(point)), spec.system_title, title)
    return agreed


def _entries(octets: Mapping[KeyName, bytes]) -> Data:
    """What both methods take: an array of key id and octets."""
    return axdr.array(
        axdr.structure(axdr.enumeration(KEY_IDS[name]), axdr.octet_string(value)) for name, value in octets.items()
    )


def _offers(answer: Data | None) -> dict[int, bytes]:
    offers = {}
    plain = None if answer is None else answer.plain()
    for item in plain if isinstance(plain, list) else ():
        match item:
            case [int(key_id), bytes(octets)]:
                offers[key_id] = octets
    if not offers:
        raise RemoteProtocolError(f"key agreement: expected key ids and octets, got {answer}")
    return offers
