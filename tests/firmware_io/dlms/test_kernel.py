"""The compiled codec against its plain twins, on well-formed, spoiled and arbitrary octets."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_io.dlms import _codec
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult, GetListResponse, GetRequest, GetResponse, decode
from firmware_io.dlms.hdlc.framer import Frame, Framer, encode_frame, fcs16
from firmware_io.errors import LocalProtocolError, RemoteProtocolError
from firmware_io.obis import ENERGY_IMPORT

addresses = st.sampled_from([b"\x21", b"\x02\x23", b"\x00\x02\x00\x23", b"\xff", b"\xfe\xfd"])
frames = st.builds(Frame, addresses, addresses, st.integers(0, 255), st.binary(max_size=200), st.booleans())
rubbish = st.one_of(st.binary(max_size=12), st.just(b"\x7e"), st.just(b"\x7e\xa0\x10"), st.just(b""))
leaves = st.one_of(
    st.just(axdr.NULL),
    st.booleans().map(axdr.boolean),
    st.integers(0, 2**32 - 1).map(axdr.uint32),
    st.integers(-(2**31), 2**31 - 1).map(axdr.int32),
    st.integers(-(2**63), 2**63 - 1).map(axdr.int64),
    st.integers(0, 2**64 - 1).map(axdr.uint64),
    st.integers(-128, 127).map(axdr.int8),
    st.integers(-(2**15), 2**15 - 1).map(axdr.int16),
    st.integers(0, 255).map(axdr.enumeration),
    st.binary(max_size=300).map(axdr.octet_string),
    st.text(st.characters(max_codepoint=255), max_size=20).map(axdr.visible_string),
    st.text(max_size=20).map(lambda s: Data(Tag.UTF8_STRING, s)),
    st.text("01", max_size=30).map(lambda s: Data(Tag.BIT_STRING, s)),
    st.floats(width=32, allow_nan=False).map(lambda f: Data(Tag.FLOAT32, f)),
    st.floats(allow_nan=False).map(lambda f: Data(Tag.FLOAT64, f)),
    st.binary(min_size=12, max_size=12).map(lambda b: Data(Tag.DATE_TIME, b)),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5).flatmap(
        lambda items: st.sampled_from([axdr.array(items), axdr.structure(*items)])
    ),
    max_leaves=30,
)


@given(st.binary(max_size=300))
def test_check_sequence(oracle, octets: bytes) -> None:
    assert fcs16(octets) == oracle.fcs16(octets)


@given(frames)
def test_a_frame_is_written_as_its_twin_writes_it_and_read_back(oracle, frame: Frame) -> None:
    octets = encode_frame(frame)
    assert octets == oracle.encode_frame(frame)
    assert Framer().receive(octets) == [frame]


def test_frames_of_every_length_that_the_format_allows() -> None:
    for size in (*range(300), 511, 512, 513, 2030, 2037):
        frame = Frame(b"\x21", b"\x02\x23", 0x10, bytes(i & 0xFF for i in range(size)))
        assert Framer().receive(encode_frame(frame)) == [frame]
    with pytest.raises(LocalProtocolError, match="the format allows 2047"):
        encode_frame(Frame(b"\x21", b"\x02\x23", 0x10, bytes(2038)))


@given(st.lists(st.one_of(frames.map(encode_frame), rubbish), max_size=6), st.integers(1, 40), st.randoms())
@settings(max_examples=300)
def test_the_framer_finds_what_its_twin_finds_however_the_stream_is_cut(oracle, parts, step: int, chance) -> None:
    stream = bytearray(b"".join(parts))
    if stream and chance.random() < 0.5:
        for _ in range(chance.randrange(4)):
            stream[chance.randrange(len(stream))] ^= 1 << chance.randrange(8)
    framer, found = Framer(), []
    for start in range(0, len(stream), step):
        found += framer.receive(bytes(stream[start : start + step]))
    assert found + framer.idle() == oracle.frames(bytes(stream))
    assert not framer.pending


@given(values)
def test_a_value_is_read_as_its_twin_reads_it_and_written_back(oracle, data: Data) -> None:
    octets = axdr.encode(data)
    assert axdr.decode(octets) == oracle.value(octets)[0] == data


@given(st.binary(max_size=60))
@settings(max_examples=500)
def test_arbitrary_octets_are_the_same_value_or_the_same_refusal(oracle, octets: bytes) -> None:
    try:
        expected = oracle.value(octets)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            axdr.decode_at(octets, 0)
        return
    got = axdr.decode_at(octets, 0)
    if got != expected:  # not-a-number is not itself
        assert _has_nan(got[0])
        assert str(got) == str(expected)


def _has_nan(data: Data) -> bool:
    if isinstance(data.value, tuple):
        return any(map(_has_nan, data.value))
    return isinstance(data.value, float) and math.isnan(data.value)


@pytest.mark.parametrize("octets", ["0184FFFFFFFF00", "028103", "0980", "0985000000000100", "04", "0904aabb"])
def test_lengths_that_lie_are_refused_before_anything_is_allocated(octets: str) -> None:
    with pytest.raises(RemoteProtocolError):
        axdr.decode(bytes.fromhex(octets))


# A length of four octets that is negative where a Py_ssize_t has 32 bits: it passed every check on armhf.
LENGTHS_OF_32_BITS = ("7FFFFFF0", "7FFFFFFF", "80000000", "80000011", "FFFFFFF8", "FFFFFFFE", "FFFFFFFF")


@pytest.mark.parametrize("length", LENGTHS_OF_32_BITS)
@pytest.mark.parametrize("tag", ["01", "02", "04", "09", "0A", "0C"])
def test_a_length_beyond_31_bits_is_refused_on_every_word_size(tag: str, length: str) -> None:
    value = bytes.fromhex(f"{tag}84{length}AA")
    for octets in (value, b"\x02\x02" + value + b"\x11\xaa", b"\x02\x01" + value):
        with pytest.raises(RemoteProtocolError, match=r"cut short|elements promised"):
            axdr.decode(octets)
        with pytest.raises(RemoteProtocolError, match=r"cut short|elements promised"):
            _codec.decode_get_response(b"\xc4\x01\xc1\x00" + octets, GetResponse, Data)


def test_the_refusal_of_a_long_bit_string_says_how_long_it_claims_to_be() -> None:
    with pytest.raises(RemoteProtocolError, match="expected 268435459 octets at offset 8, got 2"):
        axdr.decode(bytes.fromhex("020204848000001111AA"))
    with pytest.raises(RemoteProtocolError, match="4294967295 elements promised, 1 octets left"):
        axdr.decode(bytes.fromhex("0184FFFFFFFF00"))


def test_nesting_has_a_floor() -> None:
    assert axdr.decode(b"\x01\x01" * 16 + b"\x00")
    with pytest.raises(RemoteProtocolError, match="nested deeper than 16"):
        axdr.decode(b"\x01\x01" * 17 + b"\x00")


def test_the_fast_get_is_the_plain_one() -> None:
    request = GetRequest(0xC1, Attribute(3, ENERGY_IMPORT, 2)).encode()
    assert request == bytes((0xC0, 1, 0xC1)) + Attribute(3, ENERGY_IMPORT, 2).encode() + b"\x00"
    reply = b"\xc4\x01\xc1\x00" + b"\x06" + struct.pack(">I", 1234567)
    assert _codec.decode_get_response(reply, GetResponse, Data) == GetResponse(0xC1, axdr.uint32(1234567))
    assert type(_codec.decode_get_response(reply, GetResponse, Data)) is GetResponse
    assert _codec.decode_get_response(b"\xc4\x01\xc1\x01\x04", GetResponse, Data) is None
    with pytest.raises(RemoteProtocolError, match="left over"):
        _codec.decode_get_response(reply + b"\x00", GetResponse, Data)


@pytest.mark.parametrize("attribute", [(3, (1, 0, 1, 8), 2), (70000, (1, 0, 1, 8, 0, 255), 2), (3, (256,) * 6, 2)])
def test_a_get_of_nonsense_is_our_bug(attribute) -> None:
    with pytest.raises(LocalProtocolError):
        _codec.encode_get(0xC1, attribute)


class TestCompactArray:
    """An array whose type is said once (IEC 62056-6-2)."""

    def test_of_numbers(self) -> None:
        assert axdr.decode(bytes.fromhex("13 12 06 0001 0002 0003")) == axdr.array(axdr.uint16(n) for n in (1, 2, 3))

    def test_of_structures_with_an_array_in_them(self) -> None:
        octets = bytes.fromhex("13 02 03 06 09 01 0002 11 10 00000005 02 4142 07 08 00000006 00 09 0A")
        assert axdr.decode(octets) == axdr.array(
            [
                axdr.structure(axdr.uint32(5), axdr.octet_string(b"AB"), axdr.array([axdr.uint8(7), axdr.uint8(8)])),
                axdr.structure(axdr.uint32(6), axdr.octet_string(b""), axdr.array([axdr.uint8(9), axdr.uint8(10)])),
            ]
        )

    @pytest.mark.parametrize(
        "octets",
        [
            "13 12 05 0001 0002 03",  # half a value at the end
            "13 12 84 FFFFFFFF 0001",
            "13 00 01 00",  # values that take no octets
            "13 01 FFFF 00 01 00",
            "13 02 84 FFFFFFFF",
            "13 13 12 01 00",
            "13 63 01 00",
            "13",
            "13" + "01 0001" * 40,
        ],
    )
    def test_what_is_none_is_refused(self, oracle, octets: str) -> None:
        with pytest.raises(RemoteProtocolError):
            axdr.decode(bytes.fromhex(octets))
        with pytest.raises(RemoteProtocolError):
            oracle.value(bytes.fromhex(octets))

    def test_it_makes_no_more_values_than_a_bound(self) -> None:
        """A structure of 200 nulls and one octet, 60,000 times: 12 million values in 60 kB."""
        kind = bytes((2, 0x81, 201)) + bytes(200) + b"\x11"
        with pytest.raises(RemoteProtocolError, match="more than 200000 values"):
            axdr.decode(b"\x13" + kind + b"\x82\xea\x60" + bytes(60_000))


@given(st.lists(st.one_of(values, st.sampled_from(list(DataAccessResult))), max_size=20), st.integers(0, 255))
def test_a_list_is_read_as_its_results_were_written(results, invoke: int) -> None:
    octets = GetListResponse(invoke, tuple(results)).encode()
    assert decode(octets) == GetListResponse(invoke, tuple(results))
    with pytest.raises(RemoteProtocolError):
        decode(octets + b"\x00")
    if results:
        with pytest.raises(RemoteProtocolError):
            decode(octets[:-1])
