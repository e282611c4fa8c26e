"""A session against a meter whose every answer is written down: each wrong answer is its own error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.apdu.acse import AssociationResponse, Conformance, Context, InitiateResponse, Mechanism
from firmware_io.dlms.apdu.blocks import Block, BlockTransfer
from firmware_io.dlms.apdu.decode import ActionResult, Attribute, DataAccessResult
from firmware_io.dlms.apdu.refusals import (
    ActionError,
    AssociationRefused,
    DataAccessError,
    ExceptionResponseError,
    MalformedData,
    ServiceErrorResponse,
)
from firmware_io.dlms.apdu.short_names import ReadResponse, ValueBlock
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Traffic
from firmware_io.errors import (
    AccessDenied,
    LocalProtocolError,
    RegisterUnavailable,
    RemoteProtocolError,
    ResponseTimeout,
    SecurityError,
)

EK, AK = bytes(range(16)), bytes(range(0xD0, 0xE0))
OURS, THEIRS = b"CHK\x00\x00\x00\x00\x01", b"CHM\x00\x00\x00\x00\x02"
REGISTER = Attribute(3, obis.ENERGY_IMPORT, 2)
CLOCK = Attribute(8, obis.CLOCK, 2)
ALL = Conformance.GET | Conformance.SET | Conformance.ACTION | Conformance.MULTIPLE_REFERENCES
ACCEPTED = AssociationResponse(0, 0, InitiateResponse(ALL, 512).encode()).encode()
PLAIN = DlmsSpec("flat-1", 17)
LLS = DlmsSpec("flat-1", 17, security="lls", password=b"secret")
GMAC = DlmsSpec("flat-1", 17, security="hls-gmac", authentication_key=AK, encryption_key=EK, system_title=OURS)

Answer = bytes | Callable[[bytes], bytes]


class Script:
    """A channel whose meter gives one answer after the other; `asked` is what it was asked."""

    in_order = True
    unit_octets = 65_535

    def __init__(self, *answers: Answer) -> None:
        self.traffic = Traffic()
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1

    def monotonic(self) -> float:
        return 0.0

    def send(self, pdu: bytes) -> None:
        self.asked.append(pdu)

    def receive(self) -> bytes:
        if not self.answers:
            raise ResponseTimeout("no answer to the request")
        answer = self.answers.pop(0)
        return answer if isinstance(answer, bytes) else answer(self.asked[-1])

    def poll(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


def connected(
    *answers: Answer, spec: DlmsSpec = PLAIN, aare: bytes = ACCEPTED, **options: object
) -> tuple[Session, Script]:
    script = Script(aare, *answers)
    session = Session(spec, script, MemoryCounters(), **options)
    session.connect()
    return session, script


def value(data: axdr.Data) -> Answer:
    return lambda asked: decode.GetResponse(asked[2], data).encode()


class TestAssociation:
    def test_without_security(self) -> None:
        session, script = connected()
        assert session.open
        request = acse.AssociationRequest.decode(script.asked[0])
        assert (request.context, request.mechanism, request.authentication) == (Context.LN, Mechanism.LOWEST, None)

    def test_with_a_password(self) -> None:
        _, script = connected(spec=LLS)
        request = acse.AssociationRequest.decode(script.asked[0])
        assert (request.mechanism, request.authentication) == (Mechanism.LLS, b"secret")

    @pytest.mark.parametrize("diagnostic", [11, 12, 13, 14])
    def test_a_refused_password_is_denied_and_not_tried_again(self, diagnostic: int) -> None:
        with pytest.raises(AccessDenied, match="flat-1: association refused: authentication"):
            connected(spec=LLS, aare=AssociationResponse(1, diagnostic).encode())

    @pytest.mark.parametrize(
        "refused", [AssociationResponse(1, 2), AssociationResponse(2, 1), AssociationResponse(1, 13, provider=True)]
    )
    def test_another_refusal_is_no_matter_of_passwords(self, refused: AssociationResponse) -> None:
        with pytest.raises(AssociationRefused):
            connected(aare=refused.encode())

    def test_a_refused_initiate(self) -> None:
        with pytest.raises(ServiceErrorResponse, match="initiate error 1"):
            connected(aare=AssociationResponse(1, 1, b"\x0e\x01\x06\x01").encode())

    def test_an_exception_instead(self) -> None:
        with pytest.raises(ExceptionResponseError, match="deciphering error"):
            connected(aare=b"\xd8\x01\x05")

    def test_rubbish_instead(self) -> None:
        with pytest.raises(RemoteProtocolError):
            connected(aare=b"\x61\x03\x01\x02\x03")

    def test_release_says_goodbye_and_closes(self) -> None:
        session, script = connected(acse.ReleaseResponse().encode())
        session.release()
        assert script.asked[-1] == acse.ReleaseRequest().encode()
        assert (session.open, script.closed) == (False, 1)

    def test_a_request_before_connect_is_our_bug(self) -> None:
        with pytest.raises(LocalProtocolError, match=r"flat-1 1\.0\.1\.8\.0\.255: a request on an association"):
            Session(PLAIN, Script(), MemoryCounters()).get(REGISTER)


class Meter:
    """The other side of a ciphered association."""

    challenge = b"the meter's word"

    def __init__(self) -> None:
        self.ciphering = Ciphering(EK, AK, THEIRS, iter(range(1, 1000)).__next__, OURS)
        self.client_challenge = b""

    def aare(self, asked: bytes) -> bytes:
        request = acse.AssociationRequest.decode(asked)
        self.client_challenge = request.authentication or b""
        initiate = acse.InitiateRequest.decode(self.ciphering.open(request.user_information))
        if initiate.dedicated_key:
            self.ciphering.use_dedicated_key(initiate.dedicated_key)
            self.ciphering.form = "dedicated"
        information = self.ciphering.protect(InitiateResponse(ALL, 512).encode(), "global")
        return self.accepted(information).encode()

    def accepted(self, information: bytes) -> AssociationResponse:
        return AssociationResponse(0, 14, information, Context.LN_CIPHERED, THEIRS, Mechanism.HLS_GMAC, self.challenge)

    def proof(self, asked: bytes) -> bytes:
        request = decode.decode(self.ciphering.open(asked))
        assert isinstance(request, decode.ActionRequest)
        assert request.parameters is not None
        self.ciphering.verify(request.parameters.value, self.challenge)
        proof = axdr.octet_string(self.ciphering.prove(self.client_challenge))
        return self.ciphering.protect(decode.ActionResponse(request.invoke, ActionResult.SUCCESS, proof).encode())

    def reply(self, asked: bytes) -> bytes:
        request = decode.decode(self.ciphering.open(asked))
        return self.ciphering.protect(decode.GetResponse(request.invoke, axdr.uint32(7)).encode())


class TestGmac:
    @pytest.mark.parametrize("form", ["global", "dedicated"])
    def test_both_prove_themselves_and_everything_is_ciphered(self, form: str) -> None:
        meter = Meter()
        spec = replace(GMAC, ciphering=form)
        script = Script(meter.aare, meter.proof, meter.reply)
        session = Session(spec, script, MemoryCounters())
        session.connect()
        assert session.get(REGISTER) == axdr.uint32(7)
        assert script.asked[-1][0] == (0xD0 if form == "dedicated" else 0xC8)

    def refused(self, *answers: Answer, match: str, error: type[Exception] = SecurityError) -> None:
        session = Session(GMAC, Script(*answers), MemoryCounters())
        with pytest.raises(error, match=match):
            session.connect()
        assert not session.open

    def test_a_plain_aare_is_a_downgrade(self) -> None:
        meter = Meter()
        self.refused(lambda a: meter.accepted(InitiateResponse(ALL, 512).encode()).encode(), match="plain APDU")

    def test_a_meter_that_proves_nothing(self) -> None:
        meter = Meter()

        def easy(asked: bytes) -> bytes:
            return AssociationResponse.decode(meter.aare(asked))._replace(mechanism=Mechanism.LOWEST).encode()

        self.refused(easy, match="without proving itself")

    def test_our_own_challenge_sent_back(self) -> None:
        meter = Meter()

        def mirror(asked: bytes) -> bytes:
            meter.challenge = acse.AssociationRequest.decode(asked).authentication or b""
            return meter.aare(asked)

        self.refused(mirror, match="reflection")

    def test_a_proof_of_another_association(self) -> None:
        meter = Meter()

        def stale(asked: bytes) -> bytes:
            meter.client_challenge = b"an older challenge"
            return meter.proof(asked)

        self.refused(meter.aare, stale, match="does not have our keys")

    def test_our_proof_refused(self) -> None:
        meter = Meter()

        def no(asked: bytes) -> bytes:
            request = decode.decode(meter.ciphering.open(asked))
            return meter.ciphering.protect(
                decode.ActionResponse(request.invoke, ActionResult.READ_WRITE_DENIED).encode()
            )

        self.refused(meter.aare, no, match="refuses our proof", error=AccessDenied)

    @pytest.mark.parametrize("spoil", ["plain", "replayed", "flipped"])
    def test_a_reply_that_cannot_be_trusted_closes_the_association(self, spoil: str) -> None:
        meter = Meter()
        kept: list[bytes] = []

        def first(asked: bytes) -> bytes:
            kept.append(meter.reply(asked))
            return kept[0]

        def second(asked: bytes) -> bytes:
            if spoil == "plain":
                return decode.GetResponse(0xC3, axdr.uint32(1)).encode()
            return kept[0] if spoil == "replayed" else meter.reply(asked)[:-1] + b"\x00"

        session = Session(GMAC, Script(meter.aare, meter.proof, first, second), MemoryCounters())
        session.connect()
        session.get(REGISTER)
        with pytest.raises(SecurityError, match="flat-1"):
            session.get(REGISTER)
        assert not session.open


class TestServices:
    def test_get(self) -> None:
        session, _ = connected(value(axdr.uint32(7)))
        assert session.get(REGISTER) == axdr.uint32(7)

    @pytest.mark.parametrize("result", [DataAccessResult.OBJECT_UNDEFINED, DataAccessResult.TEMPORARY_FAILURE])
    def test_a_register_that_is_not_there(self, result: DataAccessResult) -> None:
        session, _ = connected(lambda asked: decode.GetResponse(asked[2], result).encode())
        with pytest.raises(DataAccessError, match=r"flat-1 1\.0\.1\.8\.0\.255") as caught:
            session.get(REGISTER)
        assert caught.value.result is result
        assert isinstance(caught.value, RegisterUnavailable)
        assert session.open

    def test_a_register_that_is_not_ours(self) -> None:
        session, _ = connected(lambda asked: decode.GetResponse(asked[2], DataAccessResult.READ_WRITE_DENIED).encode())
        with pytest.raises(AccessDenied):
            session.get(REGISTER)
        assert session.open

    @pytest.mark.parametrize(
        ("answer", "error", "match"),
        [
            (b"\xc4\x01\xc9\x00\x11\x05", RemoteProtocolError, "invoke-id 9: expected 1"),
            (b"\xc5\x01\xc1\x00", RemoteProtocolError, "expected GET.response, got SetResponse"),
            (b"\xd8\x01\x02", ExceptionResponseError, "service not supported"),
            (b"\x0e\x01\x05\x03", ServiceErrorResponse, "access error 3"),
            (b"", RemoteProtocolError, "APDU"),
        ],
    )
    def test_a_wrong_answer_closes_the_association(self, answer: bytes, error: type[Exception], match: str) -> None:
        session, _ = connected(answer)
        with pytest.raises(error, match=match):
            session.get(REGISTER)
        assert not session.open

    def test_a_push_in_between_is_handed_on(self) -> None:
        pushes: list[object] = []
        push = decode.DataNotification(1, b"", axdr.uint8(9))
        session, _ = connected(push.encode(), push.encode(), value(axdr.uint32(7)), on_push=pushes.append)
        assert session.get(REGISTER) == axdr.uint32(7)
        assert pushes == [push, push]

    def test_a_meter_that_only_pushes_does_not_hold_us(self) -> None:
        session, _ = connected(*[decode.DataNotification(1, b"", axdr.uint8(9)).encode()] * 20)
        with pytest.raises(RemoteProtocolError, match="none of them the reply"):
            session.get(REGISTER)

    def test_a_long_value_comes_in_blocks(self) -> None:
        octets = axdr.encode(axdr.octet_string(bytes(range(100))))
        parts = [octets[:40], octets[40:80], octets[80:]]
        blocks = [
            lambda asked, n=n, part=part: decode.GetBlock(asked[2], n == 3, n, part).encode()
            for n, part in enumerate(parts, 1)
        ]
        session, script = connected(*blocks)
        assert session.get(REGISTER).value == bytes(range(100))
        assert [decode.decode(asked) for asked in script.asked[2:]] == [
            decode.GetNext(0xC1, 1),
            decode.GetNext(0xC1, 2),
        ]

    @pytest.mark.parametrize(
        ("second", "match"),
        [
            (decode.GetBlock(0xC1, True, 3, b"abc"), "block 3 came, 2 was expected"),
            (decode.GetBlock(0xC1, False, 2, b""), "empty"),
        ],
    )
    def test_blocks_that_do_not_fit_together(self, second: decode.GetBlock, match: str) -> None:
        session, _ = connected(decode.GetBlock(0xC1, False, 1, b"\x09\x20abc").encode(), second.encode())
        with pytest.raises(RemoteProtocolError, match=match):
            session.get(REGISTER)

    @pytest.mark.parametrize(
        ("answers", "match"),
        [
            ([b"\xc4\x01\xc1\x00\x11\x05\x00"], "left over"),
            ([b"\xc4\x01\xc1\x00\x63\x05"], "type"),
            (
                [
                    decode.GetBlock(0xC1, False, 1, b"\x09\x20abc").encode(),
                    decode.GetBlock(0xC1, True, 2, b"\x00").encode(),
                ],
                "cut short",
            ),
        ],
    )
    def test_data_that_are_none_cost_this_attribute_and_not_the_association(
        self, answers: list[bytes], match: str
    ) -> None:
        session, _ = connected(*answers, value(axdr.uint32(7)))
        with pytest.raises(MalformedData, match=match):
            session.get(REGISTER)
        assert session.open
        assert session.get(REGISTER) == axdr.uint32(7)

    def test_an_empty_last_block_ends_what_is_complete(self) -> None:
        session, _ = connected(
            decode.GetBlock(0xC1, False, 1, b"\x09\x03abc").encode(), decode.GetBlock(0xC1, True, 2, b"").encode()
        )
        assert session.get(REGISTER) == axdr.octet_string(b"abc")

    def test_blocks_without_end_are_cut_off(self) -> None:
        def endless(asked: bytes) -> bytes:
            request = decode.decode(asked)
            number = request.block + 1 if isinstance(request, decode.GetNext) else 1
            return decode.GetBlock(asked[2], False, number, bytes(60_000)).encode()

        session, _ = connected(*[endless] * 30)
        with pytest.raises(RemoteProtocolError, match="in blocks"):
            session.get(REGISTER)

    def test_action_and_its_refusals(self) -> None:
        method = Attribute(70, obis.DISCONNECT_CONTROL, 1)
        session, _ = connected(
            lambda asked: decode.ActionResponse(asked[2], ActionResult.SUCCESS, axdr.uint8(1)).encode(),
            lambda asked: decode.ActionResponse(asked[2], ActionResult.TEMPORARY_FAILURE).encode(),
            lambda asked: decode.ActionResponse(asked[2], ActionResult.READ_WRITE_DENIED).encode(),
        )
        assert session.action(method, axdr.int8(0)) == axdr.uint8(1)
        with pytest.raises(ActionError, match="temporary failure"):
            session.action(method)
        with pytest.raises(AccessDenied):
            session.action(method)

    def test_set_and_its_refusal(self) -> None:
        session, script = connected(
            lambda asked: decode.SetResponse(asked[2], DataAccessResult.SUCCESS).encode(),
            lambda asked: decode.SetResponse(asked[2], DataAccessResult.TYPE_UNMATCHED).encode(),
        )
        session.set(CLOCK, axdr.octet_string(bytes(12)))
        assert decode.decode(script.asked[-1]) == decode.SetRequest(0xC1, CLOCK, None, axdr.octet_string(bytes(12)))
        with pytest.raises(DataAccessError, match="type unmatched"):
            session.set(CLOCK, axdr.uint8(1))

    def test_a_long_set_goes_in_blocks(self) -> None:
        small = AssociationResponse(0, 0, InitiateResponse(ALL, 128).encode()).encode()
        got = bytearray()

        def take(asked: bytes) -> bytes:
            block = decode.decode(asked)
            assert isinstance(block, decode.SetFirstBlock | decode.SetBlock)
            assert len(asked) <= 128
            got.extend(block.payload)
            if block.last:
                return decode.SetLastBlockResponse(asked[2], DataAccessResult.SUCCESS, block.block).encode()
            return decode.SetBlockResponse(asked[2], block.block).encode()

        session, _ = connected(*[take] * 10, aare=small)
        session.set(CLOCK, axdr.octet_string(bytes(300)))
        assert axdr.decode(bytes(got)) == axdr.octet_string(bytes(300))


class TestLists:
    BOTH = (axdr.uint32(7), DataAccessResult.OBJECT_UNDEFINED)

    def test_one_request_and_partial_failure(self) -> None:
        session, script = connected(lambda asked: decode.GetListResponse(asked[2], self.BOTH).encode())
        assert session.get_list([REGISTER, CLOCK]) == list(self.BOTH)
        assert len(script.asked) == 2

    @pytest.mark.parametrize("refusal", [b"\xd8\x01\x02", b"\x0e\x05\x00\x00", b"\xc4\x01\xc1\x01\x02"])
    def test_a_meter_that_refuses_lists_is_asked_one_by_one_from_then_on(self, refusal: bytes) -> None:
        one = value(axdr.uint32(7))
        session, _ = connected(refusal, one, one, one, one)
        assert session.get_list([REGISTER, CLOCK]) == [axdr.uint32(7)] * 2
        assert not session.with_list
        assert session.get_list([REGISTER, CLOCK]) == [axdr.uint32(7)] * 2

    def test_a_meter_without_the_conformance_bit_is_never_asked_with_a_list(self) -> None:
        bare = AssociationResponse(0, 0, InitiateResponse(Conformance.GET, 512).encode()).encode()
        session, script = connected(value(axdr.uint8(1)), value(axdr.uint8(2)), aare=bare)
        assert session.get_list([REGISTER, CLOCK]) == [axdr.uint8(1), axdr.uint8(2)]
        assert all(isinstance(decode.decode(asked), decode.GetRequest) for asked in script.asked[1:])

    def test_a_small_pdu_splits_the_list(self) -> None:
        small = AssociationResponse(0, 0, InitiateResponse(ALL, 66).encode()).encode()

        def answer(asked: bytes) -> bytes:
            assert len(asked) <= 66
            request = decode.decode(asked)
            items = request.items if isinstance(request, decode.GetListRequest) else ()
            return decode.GetListResponse(asked[2], tuple(axdr.uint8(n) for n, _ in enumerate(items))).encode()

        session, script = connected(*[answer] * 9, aare=small)
        assert len(session.get_list([REGISTER] * 9)) == 9
        assert len(script.asked) == 1 + 2

    def test_a_long_list_comes_in_blocks(self) -> None:
        octets = decode.encode_results(self.BOTH)
        session, _ = connected(
            lambda asked: decode.GetBlock(asked[2], False, 1, octets[:3]).encode(),
            lambda asked: decode.GetBlock(asked[2], True, 2, octets[3:]).encode(),
        )
        assert session.get_list([REGISTER, CLOCK]) == list(self.BOTH)

    def test_too_few_results_are_an_error_and_not_a_shift(self) -> None:
        session, _ = connected(lambda asked: decode.GetListResponse(asked[2], self.BOTH[:1]).encode())
        with pytest.raises(RemoteProtocolError, match="2 attributes asked for, 1 came"):
            session.get_list([REGISTER, CLOCK])


@pytest.mark.parametrize(
    "wrong",
    [
        {"security": "lls"},
        {"security": "hls-gmac", "encryption_key": EK, "authentication_key": AK},
        {"security": "hls-gmac", "encryption_key": EK[:5], "authentication_key": AK, "system_title": OURS},
        *(
            {"security": "hls-gmac", "encryption_key": EK, "authentication_key": AK, "system_title": OURS, name: key}
            for name in ("master_key", "broadcast_key")
            for key in (b"", EK[:5], 2 * EK)
        ),
    ],
)
def test_a_specification_without_its_secrets_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="flat-1: security"):
        DlmsSpec("flat-1", 17, **wrong)


def test_secrets_are_never_shown() -> None:
    shown = repr(LLS) + repr(GMAC)
    assert "secret" not in shown
    assert repr(EK)[2:-1] not in shown


class TestBlocksOfAHostileMeter:
    """What comes in blocks, whatever the service: bounded, and no error but those of a meter."""

    SHORT = DlmsSpec("flat-1", 17, naming="sn")
    SHORT_AARE = AssociationResponse(
        0, 0, InitiateResponse(Conformance.READ, 512, short=True).encode(), Context.SN
    ).encode()

    @staticmethod
    def value_block(number: int, payload: bytes = b"\x01") -> bytes:
        return ReadResponse((ValueBlock(False, number, payload),)).encode()

    @pytest.mark.parametrize("octets", [b"\x0c\x00", b"\x0c\x02\x01\x04\x01\x04"])
    def test_more_or_fewer_blocks_than_were_asked_for(self, octets: bytes) -> None:
        session, _ = connected(self.value_block(1), octets, spec=self.SHORT, aare=self.SHORT_AARE)
        with pytest.raises(RemoteProtocolError, match="1 short names asked for"):
            session.get(REGISTER)

    def test_a_short_name_whose_blocks_hold_next_to_nothing(self) -> None:
        blocks = [self.value_block(number) for number in range(1, 100)]
        session, script = connected(*blocks, spec=self.SHORT, aare=self.SHORT_AARE)
        with pytest.raises(RemoteProtocolError, match="it will not end"):
            session.get(REGISTER)
        assert script.answers

    def test_what_a_method_returns_in_blocks_that_hold_next_to_nothing(self) -> None:
        blocks = [decode.ActionBlock(0xC1, False, number, b"\x01").encode() for number in range(1, 100)]
        session, script = connected(*blocks)
        with pytest.raises(RemoteProtocolError, match="it will not end"):
            session.action(Attribute(8, obis.CLOCK, 6), axdr.int16(0))
        assert script.answers

    @pytest.mark.parametrize("max_pdu", [1, 9])
    def test_units_so_small_that_no_general_block_fits(self, max_pdu: int) -> None:
        small = InitiateResponse(ALL | Conformance.GENERAL_BLOCK_TRANSFER, max_pdu).encode()
        spec = DlmsSpec("flat-1", 17, gbt_window=2)
        session, _ = connected(spec=spec, aare=AssociationResponse(0, 0, small).encode())
        with pytest.raises(RemoteProtocolError, match="no block fits"):
            session.get(REGISTER)

    def test_general_blocks_without_end(self) -> None:
        transfer = BlockTransfer(1, begun=True)

        def exchange() -> None:
            for number in range(1, 1 << 16):  # each block is acknowledged, and each pause behind it
                transfer.take(Block(False, False, 1, number, 0, b"\x01"))
                for _ in range(2):
                    transfer.answer()

        with pytest.raises(RemoteProtocolError, match="it will not end"):
            exchange()
