"""APDUs as literal octets, from the standards' examples and from other implementations."""

from __future__ import annotations

import pytest

from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult, GetRequest, GetResponse
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.errors import RemoteProtocolError
from firmware_io.obis import CLOCK, ENERGY_IMPORT, LOAD_PROFILE, ObisCode

REGISTER = Attribute(3, ENERGY_IMPORT, 2)

# Literal octets; where they come from stands beside them.
GOLDEN = [
    # Green Book, examples of GET: one attribute of the clock, normal, and the reply with an octet string.
    ("c001c100080000010000ff0200", GetRequest(0xC1, Attribute(8, CLOCK, 2))),
    # dlms-cosem 25.1.0, tests of GetRequestNext and GetResponseLastBlock.
    ("c002c100000001", decode.GetNext(0xC1, 1)),
    ("c002f900000005", decode.GetNext(0xF9, 5)),
    # Green Book, GET with list of two attributes.
    (
        "c003c10200080000010000ff020000030100010800ff0200",
        decode.GetListRequest(0xC1, ((Attribute(8, CLOCK, 2), None), (REGISTER, None))),
    ),
    ("c401c10006000012d6", GetResponse(0xC1, axdr.uint32(0x12D6))),
    ("c401c10103", GetResponse(0xC1, DataAccessResult.READ_WRITE_DENIED)),
    ("c402c1000000000100030102ff", decode.GetBlock(0xC1, False, 1, b"\x01\x02\xff")),
    ("c402c101000000020113", decode.GetBlock(0xC1, True, 2, DataAccessResult.DATA_BLOCK_NUMBER_INVALID)),
    ("c403c10200110501040a"[:-2], decode.GetListResponse(0xC1, (axdr.uint8(5), DataAccessResult.OBJECT_UNDEFINED))),
    ("c501c100", decode.SetResponse(0xC1, DataAccessResult.SUCCESS)),
    ("c502c100000001", decode.SetBlockResponse(0xC1, 1)),
    ("c503c10000000002", decode.SetLastBlockResponse(0xC1, DataAccessResult.SUCCESS, 2)),
    ("c701c10000", decode.ActionResponse(0xC1, decode.ActionResult.SUCCESS)),
    ("d80106000001f4", decode.ExceptionResponse(1, 6, 500)),
    ("d80101", decode.ExceptionResponse(1, 1)),
    ("0e010503", decode.ServiceError(1, 5, 3)),
    ("0f0000000100060000000a", decode.DataNotification(1, b"", axdr.uint32(10))),
    ("c20000030100010800ff0212000a", decode.EventNotification(b"", REGISTER, axdr.uint16(10))),
]


@pytest.mark.parametrize(("octets", "unit"), GOLDEN, ids=[type(u).__name__ for _, u in GOLDEN])
def test_literal_octets_both_ways(octets: str, unit: decode.Apdu) -> None:
    assert decode.decode(bytes.fromhex(octets)) == unit
    assert type(decode.decode(bytes.fromhex(octets))) is type(unit)
    assert unit.encode().hex() == octets


@pytest.mark.parametrize(("octets", "unit"), GOLDEN, ids=[type(u).__name__ for _, u in GOLDEN])
def test_neither_too_short_nor_too_long(octets: str, unit: decode.Apdu) -> None:
    whole = bytes.fromhex(octets)
    for cut in range(len(whole)):
        if isinstance(unit, decode.ExceptionResponse) and cut == 3:
            continue
        with pytest.raises(RemoteProtocolError):
            decode.decode(whole[:cut])
    with pytest.raises(RemoteProtocolError):
        decode.decode(whole + b"\x00")


@pytest.mark.parametrize("octets", ["", "c0", "c009c1", "c40400", "ff", "c401c10200", "c401c1001300"])
def test_what_is_unknown_is_refused(octets: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode.decode(bytes.fromhex(octets))


def test_a_manufacturers_own_result_is_another_reason() -> None:
    assert decode.decode(bytes.fromhex("c401c101c8")) == GetResponse(0xC1, DataAccessResult.OTHER_REASON)


class TestAssociation:
    """AARQ and AARE, IEC 62056-53 9.4.2; the octets are the Green Book's examples of an association."""

    PLAIN_AARQ = "601da109060760857405080101be10040e01000000065f1f0400007e1f04b0"
    PLAIN_AARE = "6129a109060760857405080101a203020100a305a103020100be10040e0800065f1f040000501f01f40007"
    LLS_AARQ = (
        "6036a1090607608574050801018a0207808b0760857405080201ac0a80083132333435363738be10040e01000000065f1f0400"
        "007e1f04b0"
    )

    def test_without_security(self) -> None:
        request = acse.AssociationRequest.decode(bytes.fromhex(self.PLAIN_AARQ))
        assert (request.context, request.mechanism) == (acse.Context.LN, acse.Mechanism.LOWEST)
        initiate = acse.InitiateRequest.decode(request.user_information)
        assert (initiate.max_pdu, int(initiate.conformance)) == (1200, 0x7E1F)
        assert request.encode().hex() == self.PLAIN_AARQ
        response = acse.AssociationResponse.decode(bytes.fromhex(self.PLAIN_AARE))
        assert (response.result, response.diagnostic) == (0, 0)
        assert acse.InitiateResponse.decode(response.user_information).max_pdu == 500
        assert response.encode().hex() == self.PLAIN_AARE

    def test_with_a_password(self) -> None:
        request = acse.AssociationRequest.decode(bytes.fromhex(self.LLS_AARQ))
        assert (request.mechanism, request.authentication) == (acse.Mechanism.LLS, b"12345678")
        assert request.encode().hex() == self.LLS_AARQ

    def test_names_that_are_neither_logical_nor_short_are_refused(self) -> None:
        with pytest.raises(RemoteProtocolError, match="expected logical or short names"):
            acse.AssociationRequest.decode(bytes.fromhex(self.PLAIN_AARQ.replace("05080101", "05080105")))

    def test_a_field_twice_is_refused(self) -> None:
        doubled = bytes.fromhex("6206800100800100")
        with pytest.raises(RemoteProtocolError, match="comes twice"):
            acse.ReleaseRequest.decode(doubled)


class TestProfile:
    COLUMNS = (profile.Column(Attribute(8, CLOCK, 2)), profile.Column(REGISTER))
    START = MeterTime(1_772_409_600.0, 0, 0)

    def test_rows_are_made_whole_again(self) -> None:
        first = axdr.structure(axdr.octet_string(self.START.encode()), axdr.uint32(100))
        buffer = axdr.array([first, axdr.structure(axdr.NULL, axdr.uint32(107)), axdr.structure(axdr.NULL, axdr.NULL)])
        rows = profile.rows(buffer, self.COLUMNS, 900.0)
        assert [row.time.local_s - self.START.local_s for row in rows if row.time] == [0, 900, 1800]
        assert [row.values[1].value for row in rows] == [100, 107, 107]

    def test_a_row_with_an_impossible_time_does_not_cost_the_others(self) -> None:
        wrong = axdr.octet_string(b"\x07\xea\x0d\x40" + self.START.encode()[4:])
        buffer = axdr.array(
            [
                axdr.structure(wrong, axdr.uint32(1)),
                axdr.structure(axdr.octet_string(self.START.encode()), axdr.uint32(2)),
            ]
        )
        assert [row.time for row in profile.rows(buffer, self.COLUMNS, 900.0)] == [None, self.START]

    def test_rows_of_other_columns_are_refused(self) -> None:
        with pytest.raises(RemoteProtocolError, match="expected 2 columns"):
            profile.rows(axdr.array([axdr.structure(axdr.uint32(1))]), self.COLUMNS, 900.0)

    def test_columns_are_read_as_they_are_written(self) -> None:
        captured = axdr.array([column.encode() for column in self.COLUMNS])
        assert profile.columns(axdr.decode(axdr.encode(captured))) == self.COLUMNS

    def test_selection_by_entry(self) -> None:
        # dlms-cosem writes no entry descriptor; the octets are those of gurux-dlms 1.0.203, readRowsByEntry(pg, 1, 10),
        # whose last column is 0 too: "to the end" (IEC 62056-62, profile generic).
        request = GetRequest(0xC1, Attribute(7, LOAD_PROFILE, 2), profile.by_entry(1, 10))
        assert request.encode().hex() == "c001c100070100630100ff0201020204060000000106000" + "0000a120001120000"


def test_obis_round_trip() -> None:
    assert ObisCode.from_bytes(bytes(ENERGY_IMPORT)) == ENERGY_IMPORT
