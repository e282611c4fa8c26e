"""An application association: opening it, proving each other, exchanging one APDU at a time, releasing it.

What may come instead of the awaited reply: a push (handed to `on_push`, and we go on waiting), an exception or a
confirmed service error (raised), a reply with another invoke-id (raised). What the services are used for is the
session's business, and requests are never repeated here: the link repeats frames, the caller decides about the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from firmware_io.dlms.apdu import axdr, decode
from firmware_io.dlms.apdu.acse import (
    AssociationRequest,
    AssociationResponse,
    Conformance,
    Context,
    InitiateRequest,
    InitiateResponse,
    Mechanism,
    ReleaseRequest,
)
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import ActionResult, Apdu, Attribute
from firmware_io.dlms.apdu.refusals import (
    ActionError,
    AssociationRefused,
    ExceptionResponseError,
    MalformedData,
    ServiceErrorResponse,
    data_or_error,
    expect,
)
from firmware_io.dlms.apdu.short_names import INFORMATION_REPORT
from firmware_io.dlms.protection.context import (
    CHALLENGE_OCTETS,
    MECHANISMS,
    SIGNED_CHALLENGE_OCTETS,
    ciphering_of,
    proof_of,
)
from firmware_io.dlms.protection.hls import Side
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.dlms.session.blocks import BlockWay, LongValue
from firmware_io.dlms.session.channel import Channel
from firmware_io.dlms.session.counters import InvocationCounters, counter_id
from firmware_io.dlms.session.short_names import ShortNames
from firmware_io.dlms.spec import TITLED, DlmsSpec
from firmware_io.errors import (
    AccessDenied,
    MeterError,
    RemoteProtocolError,
    ResponseTimeout,
    SecurityError,
)
from firmware_io.obis import CURRENT_ASSOCIATION

CONFORMANCE = (
    Conformance.GET
    | Conformance.SET
    | Conformance.ACTION
    | Conformance.BLOCK_GET
    | Conformance.BLOCK_SET
    | Conformance.SELECTIVE_ACCESS
    | Conformance.MULTIPLE_REFERENCES
    | Conformance.PRIORITY
    | Conformance.DATA_NOTIFICATION
    | Conformance.EVENT_NOTIFICATION
    | Conformance.GENERAL_PROTECTION
    | Conformance.BLOCK_ACTION
)
SHORT_CONFORMANCE = (
    Conformance.READ | Conformance.BLOCK_GET | Conformance.MULTIPLE_REFERENCES | Conformance.PARAMETERISED_ACCESS
)
INVOKE_FLAGS = 0xC0  # confirmed, high priority
MAX_UNASKED = 8  # pushes taken in one exchange: bounds how long a meter can keep us listening
MAX_PDU = 0xFFFF
MAX_ACTION_OCTETS = 1 << 16  # of what a method returns in blocks
REPLY_TO_HLS = Attribute(15, CURRENT_ASSOCIATION, 1)

_AUTHENTICATION_DIAGNOSTICS = {
    11: "authentication mechanism not recognised",
    12: "authentication mechanism required",
    13: "authentication failed",
    14: "authentication required",
}
_ASSOCIATION_DIAGNOSTICS = {2: "application context not supported", 3: "calling title not recognised"}
_CONTEXTS = {  # short names, ciphered
    (False, False): Context.LN,
    (False, True): Context.LN_CIPHERED,
    (True, False): Context.SN,
    (True, True): Context.SN_CIPHERED,
}
_GENERAL = (b"\xdb", b"\xdd", b"\xdf")  # in which pushes come ciphered or signed
_PUSHES = (b"\x0f", b"\xc2")  # DataNotification, EventNotification

Push: TypeAlias = Callable[[decode.DataNotification | decode.EventNotification], None]


class Association:
    """A client's association over a channel; `public` opens it without security whatever the meter's own asks for."""

    def __init__(
        self,
        spec: DlmsSpec,
        channel: Channel,
        counters: InvocationCounters,
        on_push: Push | None = None,
        *,
        public: bool = False,
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._counters = counters
        self._on_push = on_push
        self._security = "none" if public else spec.security
        self._ciphering: Ciphering | None = None
        self._invoke = 0
        self._names: ShortNames | None = None
        self.pdu_limit = MAX_PDU  # longest unit that the meter receives
        self.conformance = Conformance(0)

    @property
    def ciphered(self) -> bool:
        """Whether every reply is authenticated by keys and by the title of the meter that associated."""
        return self._ciphering is not None and self._ciphering.authenticates

    @property
    def meter_title(self) -> bytes | None:
        """The meter's system title, where its replies are ciphered."""
        return None if self._ciphering is None else self._ciphering.peer_title

    def connect(self) -> None:
        """Open the link and the association; authenticate both sides where the security asks for it.

        Raises:
            AccessDenied: the meter refuses our password or keys.
            AssociationRefused: it refuses for another reason.
            MeterError: it does not answer, or breaks the protocol.
        """
        self._channel.open()
        self._associate()

    def release(self) -> None:
        """Release the association and the link; a meter that does not answer is left to its time-out."""
        with suppress(ResponseTimeout, RemoteProtocolError):
            self._channel.send(ReleaseRequest(0, self._release_information()).encode())
            self._channel.receive()
        self.drop()

    def drop(self) -> None:
        """Release the link only."""
        with suppress(MeterError):
            self._channel.close()

    def keep_alive(self) -> None:
        """Keep the link from its inactivity time-out."""
        self._channel.poll()

    def action(self, method: Attribute, parameters: Data | None) -> Data | None:
        """Call a method; what it returns, if anything.

        Raises:
            ActionError: it did not succeed.
            AccessDenied: we have no right to it.
        """
        invoke = self.next_invoke()
        reply = self.request(decode.ActionRequest(invoke, method, parameters), invoke)
        if isinstance(reply, decode.ActionBlock):
            return axdr.decode(self._action_blocks(reply, invoke))
        reply = expect(decode.ActionResponse, reply)
        if reply.result is ActionResult.READ_WRITE_DENIED:
            raise AccessDenied(f"method {method}: denied")
        if reply.result is not ActionResult.SUCCESS:
            raise ActionError(method, reply.result)
        return None if reply.reply is None else data_or_error(method, reply.reply)

    def _action_blocks(self, block: decode.ActionBlock, invoke: int) -> bytes:
        """What a method returns in blocks: its value alone, as it has succeeded then."""
        long = LongValue(self._channel.monotonic, MAX_ACTION_OCTETS)
        while (whole := long.add(block.block, block.payload, last=block.last)) is None:
            block = expect(decode.ActionBlock, self.request(decode.ActionNext(invoke, block.block), invoke))
        return whole

    def next_invoke(self) -> int:
        """The invoke-id and priority of a new request."""
        self._invoke = self._invoke % 15 + 1
        return INVOKE_FLAGS | self._invoke

    def request(self, request: Apdu, invoke: int) -> Apdu:
        """Send a request and wait for the reply with its invoke-id.

        Raises:
            ExceptionResponseError: the meter understood no such service.
            ServiceErrorResponse: it understood, and refused.
            MeterError: no reply, or none that can be trusted.
        """
        if self._names is not None:
            return self._names.request(request, invoke)
        octets = request.encode()
        way = self._way()
        way.send(self._ciphering.protect(octets) if self._ciphering else octets)
        for _ in range(MAX_UNASKED):
            octets = way.receive()
            if octets[:1] == b"\x61" and not self._channel.in_order:
                continue  # late, as well
            if self._ciphering and octets[:1] in _PUSHES:
                continue  # a plain push in a ciphered association may come from anybody: it is not believed
            reply = self._reply(octets, invoke)
            if isinstance(reply, decode.DataNotification | decode.EventNotification):
                if self._on_push:
                    self._on_push(reply)
                continue
            if isinstance(reply, decode.ExceptionResponse):
                raise ExceptionResponseError(reply)
            if isinstance(reply, decode.ServiceError):
                raise ServiceErrorResponse(reply)
            if reply.invoke & 0x0F != invoke & 0x0F and not self._channel.in_order:
                continue  # late: it answers a question that nobody asks any more
            if reply.invoke & 0x0F != invoke & 0x0F:
                raise RemoteProtocolError(f"invoke-id {reply.invoke & 0x0F}: expected {invoke & 0x0F}")
            return reply
        raise RemoteProtocolError(f"{MAX_UNASKED} units came, none of them the reply")

    def _read(self, octets: bytes) -> bytes:
        """An exchange with short names: what is plain goes and comes."""
        way = self._way()
        way.send(self._ciphering.protect(octets) if self._ciphering else octets)
        for _ in range(MAX_UNASKED):
            octets = way.receive()
            if octets[:1] == b"\xd8":
                raise ExceptionResponseError(expect(decode.ExceptionResponse, decode.decode(octets)))
            if self._ciphering:
                octets = self._ciphering.open(octets)
            if octets[:1] == b"\x0e":
                raise ServiceErrorResponse(expect(decode.ServiceError, decode.decode(octets)))
            if octets[:1] not in (*_PUSHES, bytes((INFORMATION_REPORT,))):
                return octets
        raise RemoteProtocolError(f"{MAX_UNASKED} units came, none of them the reply")

    @property
    def _proposed(self) -> Conformance:
        if self._names is not None:
            blocks = Conformance.GENERAL_BLOCK_TRANSFER if self._spec.gbt_window else Conformance(0)
            return SHORT_CONFORMANCE | Conformance.GENERAL_PROTECTION | blocks
        access = Conformance.ACCESS if self._spec.access else Conformance(0)
        return CONFORMANCE | access | (Conformance.GENERAL_BLOCK_TRANSFER if self._spec.gbt_window else Conformance(0))

    def _way(self) -> Channel | BlockWay:
        """How whole units come and go: as they are, or in general blocks where both sides do that."""
        if not self.conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            return self._channel
        return BlockWay(self._channel, self._spec.gbt_window, self.pdu_limit)

    def _reply(self, octets: bytes, invoke: int) -> Apdu:
        if self._ciphering and octets[:1] != b"\xd8":  # an exception is sent plain: the meter could not decipher us
            octets = self._ciphering.open(octets)
        try:
            return decode.decode(octets)
        except RemoteProtocolError as error:
            at = {0xC4: 2, 0xDA: 4}.get(octets[0] if octets else -1, len(octets))
            if at < len(octets) and octets[at] & 0x0F == invoke & 0x0F:
                raise MalformedData(str(error)) from error
            raise

    def _associate(self) -> None:
        spec = self._spec
        mechanism = MECHANISMS[self._security]
        dedicated_key = challenge = None
        self._ciphering = None
        if spec.ciphers and self._security != "none":
            self._ciphering = self._new_ciphering()
            if spec.ciphering == "dedicated":
                dedicated_key = secrets.token_bytes(len(spec.encryption_key or b""))
        if mechanism > Mechanism.LLS:
            signed = mechanism is Mechanism.HLS_ECDSA
            challenge = secrets.token_bytes(SIGNED_CHALLENGE_OCTETS if signed else CHALLENGE_OCTETS)
        self.conformance = Conformance(0)
        self._names = ShortNames(self._read, self._channel.monotonic) if spec.naming == "sn" else None
        initiate = InitiateRequest(self._proposed, spec.max_pdu, dedicated_key).encode()
        request = AssociationRequest(
            _CONTEXTS[self._names is not None, self._ciphering is not None],
            mechanism,
            self._ciphering.protect(initiate) if self._ciphering else initiate,
            spec.system_title if self._security in TITLED else None,
            challenge or (spec.password if mechanism is Mechanism.LLS else None),
        )
        self._channel.send(request.encode())
        response = self._association_response(self._channel.receive(), challenged=challenge is not None)
        if self._ciphering and dedicated_key:
            self._ciphering.use_dedicated_key(dedicated_key)
        if challenge is not None:
            self._prove_each_other(mechanism, challenge, response)

    def _new_ciphering(self) -> Ciphering:
        counter = counter_id(self._spec.encryption_key or b"", self._spec.system_title or b"")
        return ciphering_of(self._spec, lambda: self._counters.next(counter))

    def _association_response(self, octets: bytes, *, challenged: bool) -> AssociationResponse:
        """Check the AARE, and take over what it grants."""
        for _ in range(MAX_UNASKED):
            late = not self._channel.in_order and octets[:1] not in (b"\x61", b"\xd8", b"\x0e")
            if octets[:1] not in (*_PUSHES, *_GENERAL) and not late:
                break
            octets = self._channel.receive()  # a push while we associate says nothing that we could check yet
        if octets[:1] == b"\xd8":
            raise ExceptionResponseError(expect(decode.ExceptionResponse, decode.decode(octets)))
        response = AssociationResponse.decode(octets)
        if self._ciphering:
            self._ciphering.peer_title = response.system_title
        information = response.user_information
        if information[:1] == b"\x0e":
            raise ServiceErrorResponse(expect(decode.ServiceError, decode.decode(information)))
        # With HLS the answer "authentication required" is the invitation to the passes that follow.
        if response.result != 0 or response.diagnostic not in ((0, 14) if challenged else (0,)):
            diagnostic = response.diagnostic
            if not response.provider and diagnostic in _AUTHENTICATION_DIAGNOSTICS:
                raise AccessDenied(
                    f"association refused: {_AUTHENTICATION_DIAGNOSTICS[diagnostic]}; check security, password and "
                    "keys before trying again, the meter may lock itself"
                )
            why = _ASSOCIATION_DIAGNOSTICS.get(diagnostic, f"diagnostic {diagnostic}")
            raise AssociationRefused(f"association refused (result {response.result}): {why}")
        if self._ciphering:
            information = self._ciphering.open(information)
        if information[:1] == b"\x0e":
            raise ServiceErrorResponse(expect(decode.ServiceError, decode.decode(information)))
        initiate = InitiateResponse.decode(information)
        if initiate.short != (self._names is not None):
            raise RemoteProtocolError("the meter answers with names of the other kind, short or logical")
        self.pdu_limit = initiate.max_pdu or MAX_PDU
        self.conformance = initiate.conformance
        return response

    def _prove_each_other(self, mechanism: Mechanism, challenge: bytes, response: AssociationResponse) -> None:
        """Passes 3 and 4 of HLS: our answer to the meter's challenge, and its answer to ours."""
        theirs, ciphering = response.authentication, self._ciphering
        if response.mechanism is not mechanism or not theirs:
            raise SecurityError(f"the meter accepts without proving itself: {mechanism.name} was asked for")
        if theirs == challenge:
            raise SecurityError("the meter sends our own challenge back: a reflection")
        ours = Side(challenge, self._spec.system_title or b"")
        its = Side(theirs, response.system_title or b"")
        gmac = ciphering if mechanism is Mechanism.HLS_GMAC else None
        proof = None if gmac else proof_of(self._spec, mechanism)
        given = gmac.prove(theirs) if gmac else proof.give(ours, its) if proof else b""
        try:
            reply = self.action(REPLY_TO_HLS, axdr.octet_string(given))
        except (ActionError, AccessDenied) as error:
            hint = f"the meter refuses our proof: {error}; check keys and secret before trying again"
            raise AccessDenied(hint, proven=self.ciphered) from error  # a ciphered refusal is the meter's own
        if reply is None or not isinstance(reply.value, bytes):
            raise SecurityError(f"the meter gave no proof of itself: {reply}")
        if gmac:
            gmac.verify(reply.value, challenge)
        elif proof:
            proof.check(reply.value, ours, its)

    def _release_information(self) -> bytes:
        if self._ciphering is None:
            return b""
        return self._ciphering.protect(InitiateRequest(self._proposed, self._spec.max_pdu).encode(), "global")
