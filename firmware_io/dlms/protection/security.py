"""Ciphering and authentication of suites 0, 1 and 2 (AES-GCM, IEC 62056-5-3 clause 5): protects and opens APDUs.

Both sides of an association use it. It keeps no keys on disk and knows no services beyond their tags. What comes
must be protected exactly as the policy says, with an invocation counter above every one seen before; a plain APDU,
a weaker one and a repeated one are a `SecurityError`. The policy is encrypted *and* authenticated, unless another one
is configured; the suite follows from the length of the keys, 16 octets (suite 0, or 1 where that is said) or 32
(suite 2). Suites 0 and 1 differ in the octet that names them and in what is done on curves (`elliptic`).

The initialisation vector is the sender's system title and its invocation counter. The same counter twice under one
key gives the key away, so counters come from a store (`firmware_io.dlms.session.counters`) that survives a kill.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from firmware_io.dlms.apdu.axdr import counted, decode_length
from firmware_io.dlms.protection.general import (
    BROADCAST,
    GENERAL_CIPHERING,
    GENERAL_SIGNING,
    IDENTIFIED,
    KeyForm,
    Keyring,
    check_titles,
    cipher,
    content_key,
    open_signed,
    parse_ciphered,
)
from firmware_io.dlms.spec import KEY_OCTETS
from firmware_io.errors import LocalProtocolError, SecurityError

SUITES = {16: 0, 32: 2}  # octets of the keys -> security suite
TITLE_OCTETS = 8
TAG_OCTETS = 12
AUTHENTICATED = 0x10
ENCRYPTED = 0x20
PROTECTED = AUTHENTICATED | ENCRYPTED
COUNTER_MAX = 0xFFFFFFFF
BROADCAST_KEY = 0x40  # of the security control: under the global broadcast key
GENERAL_GLO, GENERAL_DED = 0xDB, 0xDC

Policy: TypeAlias = Literal["both", "authenticated", "encrypted"]
POLICIES: dict[Policy, int] = {"both": PROTECTED, "authenticated": AUTHENTICATED, "encrypted": ENCRYPTED}
Form: TypeAlias = Literal["global", "dedicated", "general"]

# Tag of the plain service -> tag of its ciphered form.
_GLO = {0x01: 0x21, 0x08: 0x28, 0x0E: 0x2E, 0xC0: 0xC8, 0xC1: 0xC9, 0xC2: 0xCA, 0xC3: 0xCB, 0xC4: 0xCC, 0xC5: 0xCD}
_GLO |= {0xC7: 0xCF, 0x05: 0x25, 0x0C: 0x2C}
_DED = {0x0E: 0x4E, 0xC0: 0xD0, 0xC1: 0xD1, 0xC2: 0xD2, 0xC3: 0xD3, 0xC4: 0xD4, 0xC5: 0xD5, 0xC7: 0xD7}
_DED |= {0x05: 0x45, 0x0C: 0x4C}
_PLAIN_OF_GLO = {v: k for k, v in _GLO.items()}
_PLAIN_OF_DED = {v: k for k, v in _DED.items()}
CIPHERED_TAGS = frozenset(_PLAIN_OF_GLO) | frozenset(_PLAIN_OF_DED) | {GENERAL_GLO, GENERAL_DED}


class Sealed(NamedTuple):
    """A ciphered APDU taken apart, not opened. `plain_tag` is None in the general form; it is inside then."""

    plain_tag: int | None
    dedicated: bool
    system_title: bytes | None
    control: int
    counter: int
    body: bytes

    @classmethod
    def parse(cls, octets: bytes) -> Sealed:
        """Raises: SecurityError: not a ciphered APDU, or malformed."""
        tag = octets[0] if octets else -1
        title, offset = None, 1
        if tag in (GENERAL_GLO, GENERAL_DED):
            length, offset = decode_length(octets, offset)
            title, offset = octets[offset : offset + length], offset + length
        elif tag not in CIPHERED_TAGS:
            raise SecurityError(f"a plain APDU (tag {tag:#04x}) where only a ciphered one is taken")
        length, offset = decode_length(octets, offset)
        content = octets[offset:]
        if len(content) != length or length < 5:
            raise SecurityError(f"ciphered APDU: {length} octets announced, {len(content)} there")
        plain = None if title is not None else _PLAIN_OF_GLO.get(tag, _PLAIN_OF_DED.get(tag))
        dedicated = tag == GENERAL_DED or tag in _PLAIN_OF_DED
        return cls(plain, dedicated, title, content[0], int.from_bytes(content[1:5], "big"), content[5:])


class _Key:
    """One encryption key with the authentication key beside it."""

    def __init__(self, encryption: bytes, authentication: bytes, policy: Policy, suite: int | None) -> None:
        if len(encryption) not in SUITES or len(authentication) != len(encryption):
            raise LocalProtocolError("keys have 16 octets (suites 0 and 1) or 32 (suite 2), both the same")
        self._suite = SUITES[len(encryption)] if suite is None else suite
        if KEY_OCTETS[self._suite] != len(encryption):
            raise LocalProtocolError(f"suite {suite} has keys of {KEY_OCTETS[self._suite]} octets")
        self.control = POLICIES[policy] | self._suite
        # Here, not above: 8 MB of memory that a building without ciphered meters does not need.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._gcm = AESGCM(encryption)
        self._authentication = authentication

    def seal(self, title: bytes, counter: int, plain: bytes) -> bytes:
        vector = _vector(title, counter)
        if self.control & PROTECTED == AUTHENTICATED:
            return plain + self._tag(vector, plain)
        if self.control & PROTECTED == ENCRYPTED:
            return self._gcm.encrypt(vector, plain, None)[:-16]
        aad = bytes((self.control,)) + self._authentication
        return self._gcm.encrypt(vector, plain, aad)[: TAG_OCTETS - 16]

    def open(self, title: bytes, counter: int, body: bytes) -> bytes | None:
        """The plain octets, None when the tag is wrong. Raises: SecurityError: the title is none.

        The library takes full tags of 16 octets only. GCM encrypts in counter mode, so that encrypting twice is
        decrypting: recover the plain octets, compute their tag, and let them out when its first 12 octets agree.
        """
        vector = _vector(title, counter)
        if self.control & PROTECTED == ENCRYPTED:
            return self._gcm.encrypt(vector, body, None)[:-16] or None
        if len(body) <= TAG_OCTETS:
            return None
        if self.control & PROTECTED == AUTHENTICATED:
            plain = body[:-TAG_OCTETS]
            return plain if hmac.compare_digest(self._tag(vector, plain), body[-TAG_OCTETS:]) else None
        plain = self._gcm.encrypt(vector, body[:-TAG_OCTETS], None)[:-16]
        aad = bytes((self.control,)) + self._authentication
        tag = self._gcm.encrypt(vector, plain, aad)[-16 : TAG_OCTETS - 16]
        return plain if hmac.compare_digest(tag, body[-TAG_OCTETS:]) else None

    @property
    def proof_control(self) -> int:
        """The security control of a proof: authenticated, whatever the policy is."""
        return AUTHENTICATED | self._suite

    def tag(self, title: bytes, counter: int, challenge: bytes) -> bytes:
        return self._tag(_vector(title, counter), challenge)

    def _tag(self, vector: bytes, octets: bytes) -> bytes:
        """Of octets that are authenticated only."""
        aad = bytes((self.proof_control | self.control & BROADCAST_KEY,)) + self._authentication + octets
        return self._gcm.encrypt(vector, b"", aad)[:TAG_OCTETS]


def _vector(title: bytes, counter: int) -> bytes:
    """The initialisation vector. Raises: SecurityError: the title, which the other side chose, is none."""
    if len(title) != TITLE_OCTETS:
        raise SecurityError(f"system title {title.hex()}: {len(title)} octets instead of {TITLE_OCTETS}")
    return title + counter.to_bytes(4, "big")


class Ciphering:
    """One side's security context of one association.

    `next_counter` yields our next invocation counter under the global key, never the same twice. A dedicated key
    is new in each association, so that its counter starts at 1 in memory. `peer_title` is set when it is known,
    and `peer_counter` is the highest one seen from the other side, under the global key in whatever envelope, and under
    what general-ciphering wraps or agrees on. The envelope is not authenticated: with a counter for each, what came in
    one could be sent again in another.
    """

    def __init__(
        self,
        encryption_key: bytes,
        authentication_key: bytes,
        system_title: bytes,
        next_counter: Callable[[], int],
        peer_title: bytes | None = None,
        form: Form = "global",
        policy: Policy = "both",
        suite: int | None = None,
        keys: Keyring | None = None,
        *,
        peer_broadcast_counter: int = -1,
    ) -> None:
        """`keys` are those of general-ciphering and general-signing, where the other side may use them."""
        if len(system_title) != TITLE_OCTETS:
            raise LocalProtocolError(f"a system title has {TITLE_OCTETS} octets, got {len(system_title)}")
        self.system_title = system_title
        self.peer_title = peer_title
        self.form: Form = form
        self._encryption_key, self._authentication_key = encryption_key, authentication_key
        self._policy: Policy = policy
        self._suite = suite
        self._keys = keys
        self._peer_broadcast_counter = peer_broadcast_counter
        self._global = _Key(encryption_key, authentication_key, policy, suite)
        self._dedicated: _Key | None = None
        self._next_counter = next_counter
        self._own_dedicated_counter = 0
        self.peer_counter = -1
        self._peer_dedicated_counter = -1

    @property
    def authenticates(self) -> bool:
        """Whether every APDU proves its sender: not where it is encrypted only."""
        return self._policy != "encrypted"

    def use_dedicated_key(self, key: bytes) -> None:
        """The key that the initiate request carried."""
        self._dedicated = _Key(key, self._authentication_key, self._policy, self._suite)
        self._own_dedicated_counter = 0
        self._peer_dedicated_counter = -1

    def protect(self, plain: bytes, form: Form | None = None, *, flags: int = 0) -> bytes:
        """The ciphered form of an APDU; the initiate is always under the global key.

        `flags` go into the security control: `BROADCAST_KEY`, where the global key is that of a broadcast.

        Raises:
            LocalProtocolError: there is no dedicated key.
            SecurityError: the counters of the key are used up.
        """
        form = form or self.form
        if form == "dedicated" and plain[0] not in (0x01, 0x08):
            if self._dedicated is None:
                raise LocalProtocolError("dedicated ciphering without a dedicated key")
            self._own_dedicated_counter += 1
            title = bytes((GENERAL_DED, TITLE_OCTETS)) + self.system_title
            head = bytes((_DED[plain[0]],)) if plain[0] in _DED else title
            return self._sealed(head, self._dedicated, self._own_dedicated_counter, plain)
        if plain[0] in (0x01, 0x08) or (form != "general" and plain[0] in _GLO):
            head = bytes((_GLO[plain[0]],))
        else:  # ACCESS and pushes have no other ciphered form
            head = bytes((GENERAL_GLO, TITLE_OCTETS)) + self.system_title
        key = self._global
        if flags:
            key = _Key(self._encryption_key, self._authentication_key, self._policy, self._suite)
            key.control |= flags
        return self._sealed(head, key, self._next_counter(), plain)

    def _sealed(self, head: bytes, key: _Key, counter: int, plain: bytes) -> bytes:
        if not 0 <= counter <= COUNTER_MAX:
            raise SecurityError("the invocation counters of this key are used up: give the meter a new key")
        content = bytes((key.control,)) + counter.to_bytes(4, "big") + key.seal(self.system_title, counter, plain)
        return head + counted(content)

    def open(self, octets: bytes) -> bytes:
        """The plain APDU.

        Raises:
            SecurityError: plain, weaker than encrypted and authenticated, replayed, from another system, or forged.
        """
        if octets[:1] == bytes((GENERAL_SIGNING,)) and self._keys is not None:
            # What is signed only could be a repetition: it goes on with what is in it.
            header, octets = open_signed(self._keys, octets, self.peer_title)
            check_titles(self._keys, header, self.peer_title)
        if octets[:1] == bytes((GENERAL_CIPHERING,)) and self._keys is not None:
            return self._open_general(octets, self._keys)
        sealed = Sealed.parse(octets)
        if sealed.control & BROADCAST_KEY and octets[0] == GENERAL_GLO:
            return self._open_broadcast(sealed)
        if sealed.control != self._global.control:
            raise SecurityError(f"security control {sealed.control:#04x}: expected {self._global.control:#04x}")
        if sealed.system_title is not None and sealed.system_title != self.peer_title:
            raise SecurityError(f"system title {sealed.system_title.hex()}: expected {(self.peer_title or b'').hex()}")
        if self.peer_title is None:
            raise SecurityError("a ciphered APDU before its sender's system title is known")
        key = self._dedicated if sealed.dedicated else self._global
        if key is None:
            raise SecurityError("a reply under a dedicated key that was never agreed")
        seen = self._peer_dedicated_counter if sealed.dedicated else self.peer_counter
        if sealed.counter <= seen:
            raise SecurityError(f"invocation counter {sealed.counter}: expected more than {seen}; a replay?")
        plain = key.open(self.peer_title, sealed.counter, sealed.body)
        if plain is None:
            raise SecurityError("wrong authentication tag: another key, or somebody changed the message")
        if sealed.plain_tag is not None and plain[0] != sealed.plain_tag:
            raise SecurityError(f"APDU {plain[0]:#04x} in the envelope of {sealed.plain_tag:#04x}")
        if sealed.dedicated:
            self._peer_dedicated_counter = sealed.counter
        else:
            self.peer_counter = sealed.counter
        return plain

    def _open_broadcast(self, sealed: Sealed) -> bytes:
        """What the meter sends to several clients at once, under a key that all of them have."""
        key = None if self._keys is None else self._keys.broadcast
        if key is None or self.peer_title is None or sealed.system_title != self.peer_title:
            raise SecurityError("under the broadcast key of another meter, or there is no broadcast_key here")
        broadcast = _Key(key, self._authentication_key, self._policy, self._suite)
        broadcast.control |= BROADCAST_KEY
        if sealed.control != broadcast.control or sealed.counter <= self._peer_broadcast_counter:
            raise SecurityError(f"security control {sealed.control:#04x}, counter {sealed.counter}: a replay?")
        plain = broadcast.open(self.peer_title, sealed.counter, sealed.body)
        if plain is None:
            raise SecurityError("wrong authentication tag under the broadcast key")
        self._peer_broadcast_counter = sealed.counter
        return plain

    def _open_general(self, octets: bytes, keys: Keyring) -> bytes:
        """general-ciphering, under whatever key it names."""
        general = parse_ciphered(octets)
        check_titles(keys, general.header, self.peer_title)
        broadcast = BROADCAST_KEY if general.key[:2] == (IDENTIFIED, BROADCAST) else 0
        if general.control & ~broadcast != self._global.control:
            raise SecurityError(f"security control {general.control:#04x}: expected {self._global.control:#04x}")
        if general.counter <= (self._peer_broadcast_counter if broadcast else self.peer_counter):
            raise SecurityError(f"invocation counter {general.counter}: a replay?")
        key = _Key(content_key(keys, general), self._authentication_key, self._policy, self._suite)
        key.control |= general.control & broadcast
        plain = key.open(general.header.originator, general.counter, general.body)
        if plain is None:
            raise SecurityError("wrong authentication tag: another key, or somebody changed the message")
        if broadcast:
            self._peer_broadcast_counter = general.counter
        else:
            self.peer_counter = general.counter
        return plain

    def protect_general(self, plain: bytes, form: KeyForm, transaction: bytes = b"") -> bytes:
        """general-ciphering of an APDU for the other side. Raises: LocalProtocolError: keys for that are missing."""
        if self._keys is None:
            raise LocalProtocolError("general-ciphering without keys")

        def seal(octets: bytes, broadcast: bool) -> bytes:
            key = _Key(octets, self._authentication_key, self._policy, self._suite)
            key.control |= BROADCAST_KEY if broadcast else 0
            counter = self._next_counter()
            return bytes((key.control,)) + counter.to_bytes(4, "big") + key.seal(self.system_title, counter, plain)

        return cipher(self._keys, self.peer_title or b"", form, seal, transaction)

    def prove(self, challenge: bytes) -> bytes:
        """Our answer to the other side's challenge (HLS with GMAC): control, counter, tag."""
        counter = self._next_counter()
        tag = self._global.tag(self.system_title, counter, challenge)
        return bytes((self._global.proof_control,)) + counter.to_bytes(4, "big") + tag

    def verify(self, proof: bytes, challenge: bytes) -> None:
        """Check the other side's answer to our challenge, and take its counter as the lowest from now on.

        As the challenge is fresh, so is the counter: replies recorded in an earlier association are below it.

        Raises:
            SecurityError: the answer is wrong.
        """
        if self.peer_title is None or len(proof) != 5 + TAG_OCTETS or proof[0] != self._global.proof_control:
            raise SecurityError(f"{proof.hex()} is no answer to a GMAC challenge")
        counter = int.from_bytes(proof[1:5], "big")
        if not hmac.compare_digest(self._global.tag(self.peer_title, counter, challenge), proof[5:]):
            raise SecurityError("wrong answer to our challenge: it does not have our keys")
        self.peer_counter = max(self.peer_counter, counter)
