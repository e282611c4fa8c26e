"""The application layer of a simulated meter towards one client: association, security, services.

Units in, units out; it knows no frames. What it does wrong on purpose is in its meter's faults.

States: nothing is associated until an AARQ is accepted; with HLS the association is *pending* until the client
has answered the challenge, and takes nothing but that answer. Public access (no authentication) reads only what
identifies the meter, unless the meter has no security at all.
"""

from __future__ import annotations

import enum
import hmac
import os
from dataclasses import dataclass
from typing import Literal

from firmware_io import obis
from firmware_io.dlms.apdu import axdr, decode
from firmware_io.dlms.apdu.acse import (
    AssociationRequest,
    AssociationResponse,
    Conformance,
    InitiateRequest,
    InitiateResponse,
    Mechanism,
    ReleaseRequest,
    ReleaseResponse,
)
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.blocks import HEAD_OCTETS
from firmware_io.dlms.apdu.decode import ActionResult, DataAccessResult, Selection
from firmware_io.dlms.apdu.short_names import REPLY_TO_HLS, ReadRequest, ReadResponse, Variable
from firmware_io.dlms.protection.context import CHALLENGE_OCTETS, MECHANISMS, SIGNED_CHALLENGE_OCTETS
from firmware_io.dlms.protection.elliptic import PublicKey
from firmware_io.dlms.protection.hls import Proof, SharedSecret, Side, Signatures
from firmware_io.dlms.protection.security import CIPHERED_TAGS, GENERAL_DED, GENERAL_GLO, Ciphering, Form, Sealed
from firmware_io.dlms.session.association import SHORT_CONFORMANCE
from firmware_io.errors import RemoteProtocolError, SecurityError
from firmware_io.simulator.building.scenario import PushForm
from firmware_io.simulator.line.pushing import plain_push, push_of
from firmware_io.simulator.line.services import MALFORMED, Rights, Services
from firmware_io.simulator.meter.cosem import CosemObject, Objects, constant
from firmware_io.simulator.meter.device import objects_of
from firmware_io.simulator.meter.events import Code
from firmware_io.simulator.meter.keys import SECURITY_SETUP, private_key
from firmware_io.simulator.meter.meter import SimulatedMeter

CONFORMANCE = (
    Conformance.GENERAL_PROTECTION
    | Conformance.BLOCK_GET
    | Conformance.BLOCK_SET
    | Conformance.MULTIPLE_REFERENCES
    | Conformance.GET
    | Conformance.SET
    | Conformance.SELECTIVE_ACCESS
    | Conformance.ACTION
    | Conformance.DATA_NOTIFICATION
    | Conformance.BLOCK_ACTION
    | Conformance.GENERAL_BLOCK_TRANSFER
    | Conformance.ACCESS
)
LONGEST = 1 << 20  # octets of an answer that goes out in general blocks
CIPHER_OVERHEAD = 34  # tag, length, title, control, counter, authentication tag
SMALLEST_PDU = 40  # no meter's is smaller; a client that asks for less is refused

ACCEPTED, REJECTED = 0, 1
CONTEXT_UNKNOWN = 2
NO_REASON, MECHANISM_UNKNOWN, AUTHENTICATION_FAILURE, AUTHENTICATION_REQUIRED = 1, 11, 13, 14


class State(enum.Enum):
    """Of the association."""

    IDLE = enum.auto()
    PENDING = enum.auto()
    ASSOCIATED = enum.auto()


@dataclass(slots=True)
class Counters:
    """A meter's memory of invocation counters, over all associations: its own next one, and its client's last."""

    own: int = 1
    client: int = 0


class Server:
    """One client's association with one meter."""

    def __init__(self, meter: SimulatedMeter, counters: Counters, *, entropy: bytes | None = None) -> None:
        self.meter = meter
        self.state = State.IDLE
        self._counters = counters
        self._entropy = entropy  # a fixed challenge, for tests that compare octets
        self._objects = Objects([*self._own_objects(), *objects_of(meter, self._client_counter)])
        self._release()

    def _release(self) -> None:
        self.state = State.IDLE
        self._trusted = False
        self._ciphering: Ciphering | None = None
        self._mechanism = Mechanism.LOWEST
        self._client_title = b""
        self._challenges = (b"", b"")  # theirs to us, ours to them
        self._services: Services | None = None
        self._last_ciphered = b""
        self._short = False  # short names
        self.block_octets = 0  # of general blocks; 0: not agreed on

    def drop(self) -> None:
        """The link below is gone, and the association with it."""
        self._release()

    def handle(self, unit: bytes) -> bytes:
        """Answer one unit of the client."""
        twin = self.meter.faults.strikes("twin", self.meter.now())
        self.meter.twin_wh = twin.amount if twin else None
        try:
            return self._answer(unit)
        finally:
            self.meter.twin_wh = None

    def _answer(self, unit: bytes) -> bytes:
        tag = unit[0] if unit else -1
        try:
            if tag == 0x60:
                return self._associate(unit)
            if tag == 0x62:
                reply = ReleaseResponse(min(ReleaseRequest.decode(unit).reason, 1)).encode()
                self._release()
                return reply
            return self._serve(unit)
        except SecurityError:
            return self._refuse_security()
        except RemoteProtocolError:
            return decode.ExceptionResponse(2, 3).encode()

    def notification(self, form: PushForm) -> bytes:
        """What the meter pushes by itself: its serial number and its register."""
        if form in ("plain", "general", "event") and self._ciphering is not None:  # within the association
            plain = plain_push(self.meter, form)
            return plain if form == "plain" else self._ciphering.protect(plain, "general")
        return push_of(self.meter, self._next_counter, form)

    # Association

    def _associate(self, unit: bytes) -> bytes:
        self._release()
        request = AssociationRequest.decode(unit)
        identity, now = self.meter.identity, self.meter.now()
        if self.meter.faults.strikes("refusal", now):
            return self._reject(request, AUTHENTICATION_FAILURE)
        if self.meter.faults.strikes("undeciphered", now):
            return decode.ExceptionResponse(1, 5).encode()
        ciphered = request.context.ciphered
        if request.context.short != (identity.naming == "sn"):
            return self._reject(request, CONTEXT_UNKNOWN)
        self._short = request.context.short
        own = MECHANISMS[identity.security]
        wanted = own is not Mechanism.LOWEST and request.mechanism is own and bool(identity.encryption_key)
        if request.mechanism not in (Mechanism.LOWEST, own) or ciphered != wanted:
            return self._reject(request, MECHANISM_UNKNOWN)
        information = request.user_information
        if ciphered:
            if request.system_title is None or request.authentication is None or len(request.system_title) != 8:
                return self._reject(request, AUTHENTICATION_FAILURE)
            self._ciphering = self._new_ciphering(request.system_title)
            try:
                information = self._ciphering.open(information)
            except SecurityError:
                self.meter.log.add(now, Code.AUTHENTICATION_FAILED)
                return self._reject(request, AUTHENTICATION_FAILURE)
            self._counters.client = self._ciphering.peer_counter
        elif request.mechanism is Mechanism.LLS and not hmac.compare_digest(
            request.authentication or b"", identity.password
        ):
            self.meter.log.add(now, Code.AUTHENTICATION_FAILED)
            return self._reject(request, AUTHENTICATION_FAILURE)
        initiate = InitiateRequest.decode(information)
        if 0 < initiate.max_pdu < SMALLEST_PDU:
            return self._reject(request, NO_REASON)
        if initiate.dedicated_key is not None and self._ciphering is not None:
            self._ciphering.use_dedicated_key(initiate.dedicated_key)
        self._mechanism = request.mechanism
        granted = initiate.conformance & self._offered()
        limit = min(initiate.max_pdu or 0xFFFF, self._max_pdu())
        room = limit - (CIPHER_OVERHEAD if self._ciphering else 0)
        if granted & Conformance.GENERAL_BLOCK_TRANSFER:
            self.block_octets, room = limit - HEAD_OCTETS, LONGEST
        self._trusted = request.mechanism is not Mechanism.LOWEST or identity.security == "none"
        proving = request.mechanism > Mechanism.LLS
        self._services = Services(self.meter, self._objects, Rights(self._trusted and not proving, proving), room)
        response = InitiateResponse(granted, self._max_pdu(), short=self._short).encode()
        if not proving:
            self.state = State.ASSOCIATED
            return AssociationResponse(ACCEPTED, 0, response, request.context, mechanism=request.mechanism).encode()
        self.state = State.PENDING
        signed = request.mechanism is Mechanism.HLS_ECDSA
        challenge = self._entropy or os.urandom(SIGNED_CHALLENGE_OCTETS if signed else CHALLENGE_OCTETS)
        self._challenges = (request.authentication or b"", challenge)
        self._client_title = request.system_title or b""
        return AssociationResponse(
            ACCEPTED,
            AUTHENTICATION_REQUIRED,
            self._ciphering.protect(response) if self._ciphering else response,
            request.context,
            self._shown_title(),
            request.mechanism,
            challenge,
        ).encode()

    def _new_ciphering(self, client_title: bytes) -> Ciphering:
        identity = self.meter.identity
        if self.meter.keys.take_over():
            self._counters.client = 0
        key = self.meter.keys.encryption
        if self.meter.faults.at("wrong_key", self.meter.now()):
            key = bytes(octet ^ 0x5A for octet in key)
        ciphering = Ciphering(
            key,
            self.meter.keys.authentication,
            identity.system_title,
            self._next_counter,
            client_title,
            policy=identity.policy,
            suite=identity.suite,
        )
        ciphering.peer_counter = self._counters.client
        return ciphering

    def _shown_title(self) -> bytes:
        title = self.meter.identity.system_title
        return title[:-1] + bytes((title[-1] ^ 1,)) if self.meter.faults.at("wrong_title", self.meter.now()) else title

    def _next_counter(self) -> int:
        faults, now = self.meter.faults, self.meter.now()
        if faults.at("counter_zero", now):
            return 0
        if faults.strikes("counter_lost", now):
            self._counters.own = 1
        if faults.strikes("counter_low", now):
            return max(self._counters.own - 3, 0)
        self._counters.own += 1
        return self._counters.own - 1

    def _reject(self, request: AssociationRequest, diagnostic: int) -> bytes:
        self._release()
        return AssociationResponse(REJECTED, diagnostic, context=request.context).encode()

    def _reply_to_challenge(self, value: Data | None) -> tuple[ActionResult, Data | None]:
        """Method 1 of the association object: the client proves itself, and we do."""
        ciphering = self._ciphering
        if self.state is not State.PENDING or value is None or not isinstance(value.value, bytes):
            return ActionResult.READ_WRITE_DENIED, None
        theirs, ours = self._challenges
        client, meter = Side(theirs, self._client_title), Side(ours, self._shown_title())
        gmac = ciphering if self._mechanism is Mechanism.HLS_GMAC else None
        try:
            if gmac:
                gmac.verify(value.value, ours)
            else:
                self._proof().check(value.value, meter, client)
        except SecurityError:
            self.meter.log.add(self.meter.now(), Code.AUTHENTICATION_FAILED)
            return ActionResult.READ_WRITE_DENIED, None
        if ciphering:
            self._counters.client = max(self._counters.client, ciphering.peer_counter)
        self.state = State.ASSOCIATED
        assert self._services is not None
        self._services.trust()
        return ActionResult.SUCCESS, axdr.octet_string(
            gmac.prove(theirs) if gmac else self._proof().give(meter, client)
        )

    def _proof(self) -> Proof:
        identity = self.meter.identity
        if self._mechanism is Mechanism.HLS_ECDSA:
            theirs = PublicKey.load(identity.client_signing_key or b"")
            return Signatures(private_key(identity.number, identity.signing_suite), theirs)
        return SharedSecret(self._mechanism, identity.password)

    # Services

    def _offered(self) -> Conformance:
        blocks = Conformance.GENERAL_BLOCK_TRANSFER
        all_of_them = SHORT_CONFORMANCE | blocks if self._short else CONFORMANCE
        without = not self.meter.identity.gbt_window or self.meter.faults.at("no_blocks", self.meter.now())
        return all_of_them & ~blocks if without else all_of_them

    def _max_pdu(self) -> int:
        small = self.meter.faults.at("small_pdu", self.meter.now())
        return int(small.amount) if small else self.meter.identity.max_pdu

    def _refuse_security(self) -> bytes:
        """What a meter says to an APDU that it cannot open: and it is no longer associated."""
        expects = self._counters.client + 1
        self._release()
        return decode.ExceptionResponse(1, 6, expects).encode()

    def _serve(self, unit: bytes) -> bytes:
        if self.state is State.IDLE:
            return decode.ExceptionResponse(1, 1).encode()
        form: Form | Literal["plain"] = "plain"
        if unit and unit[0] in CIPHERED_TAGS and self._ciphering is not None:
            sealed = Sealed.parse(unit)
            form = "general" if unit[0] in (GENERAL_GLO, GENERAL_DED) else "dedicated" if sealed.dedicated else "global"
            unit = self._ciphering.open(unit)
            self._counters.client = max(self._counters.client, self._ciphering.peer_counter)
        elif self._ciphering is not None:
            raise SecurityError("a plain APDU in a ciphered association")
        if self._short:
            reply = self._serve_short(unit)
            return reply if form == "plain" else self._protected(reply, form)
        request = decode.decode(unit)
        challenge = isinstance(request, decode.ActionRequest) and request.method.name == obis.CURRENT_ASSOCIATION
        if self.state is State.PENDING and not challenge:
            return decode.ExceptionResponse(1, 1).encode()
        assert self._services is not None
        reply = self._spoil(self._services.answer(request))
        return reply if form == "plain" else self._protected(reply, form)

    def _serve_short(self, unit: bytes) -> bytes:
        """READ, and the proof of the client while it is pending."""
        request = ReadRequest.decode(unit)
        assert self._services is not None
        proof = [item for item in request.items if isinstance(item, Variable) and item.name == REPLY_TO_HLS]
        if self.state is State.PENDING:
            if len(request.items) != 1 or not proof or proof[0].selection is None:
                return decode.ExceptionResponse(1, 1).encode()
            result, value = self._reply_to_challenge(proof[0].selection.parameters)
            answer = DataAccessResult.READ_WRITE_DENIED if result is not ActionResult.SUCCESS or not value else value
            return ReadResponse((answer,)).encode()
        return self._services.short.answer(request)

    def _protected(self, reply: bytes, form: Form) -> bytes:
        assert self._ciphering is not None
        faults, now = self.meter.faults, self.meter.now()
        if reply[0] == 0xD8:  # an exception has no ciphered form
            return reply
        if self.state is not State.ASSOCIATED:
            return self._ciphering.protect(reply, form)
        if faults.strikes("plaintext", now):
            return reply
        if self._last_ciphered and faults.strikes("replay", now):
            return self._last_ciphered
        octets = self._ciphering.protect(reply, form)
        if faults.strikes("flipped_tag", now):
            octets = octets[:-1] + bytes((octets[-1] ^ 1,))
        self._last_ciphered = octets
        return octets

    def _spoil(self, reply: bytes) -> bytes:
        """Faults of the application layer, on an answer that is ready."""
        faults, now = self.meter.faults, self.meter.now()
        if self.state is not State.ASSOCIATED:
            return reply
        if faults.strikes("exception", now):
            return decode.ExceptionResponse(1, 1).encode()
        if faults.strikes("service_error", now):
            return decode.ServiceError(5, 1, 1).encode()
        if faults.strikes("wrong_invoke_id", now) and len(reply) > 2:
            reply = reply[:2] + bytes((reply[2] & 0xF0 | (reply[2] + 1) & 0x0F,)) + reply[3:]
        reply = reply.replace(b"\x09" + MALFORMED, b"\x63" + MALFORMED)  # a type that no standard has
        everything = faults.strikes("malformed", now)
        if everything and everything.obis is None and reply[:2] in (b"\xc4\x01", b"\xc4\x03"):
            at = 4 if reply[1] == 1 else 5
            reply = reply[:at] + b"\x63" + reply[at + 1 :]  # a type that no standard has
        return reply

    def _client_counter(self) -> int:
        return 0 if self.meter.faults.at("counter_zero", self.meter.now()) else self._counters.client

    def _own_objects(self) -> list[CosemObject]:
        """The current association, as its own client sees it."""
        identity = self.meter.identity

        def xdlms(_: Selection | None) -> Data:
            bits = Data(axdr.Tag.BIT_STRING, f"{int(CONFORMANCE):024b}")
            sizes = (axdr.uint16(self._max_pdu()), axdr.uint16(self._max_pdu()))
            return axdr.structure(bits, *sizes, axdr.uint8(6), axdr.int8(0), axdr.octet_string(b""))

        association = CosemObject(
            15,
            obis.CURRENT_ASSOCIATION,
            {
                2: lambda _: self._objects.list(public_only=not self._trusted),
                3: constant(axdr.structure(axdr.int8(16), axdr.uint16(identity.logical_address))),
                4: lambda _: axdr.octet_string(bytes.fromhex("608574050801") + bytes((3 if self._ciphering else 1,))),
                5: xdlms,
                6: lambda _: axdr.octet_string(bytes.fromhex("608574050802") + bytes((self._mechanism,))),
                7: constant(axdr.octet_string(b"")),  # the secret is never readable
                8: lambda _: axdr.enumeration(2 if self.state is State.ASSOCIATED else 1),
                9: constant(axdr.octet_string(bytes(SECURITY_SETUP))),
            },
            version=1,
            methods={1: self._reply_to_challenge},
            public=True,
        )
        return [association]
