"""The kernel of the protocols that only ask, held against its plain Python twins and against octets from outside."""

from __future__ import annotations

import math
import random
import struct

import pytest

from firmware_io import _octets
from firmware_io.asking.exchange import Framer, Verdict
from firmware_io.dlt645 import frame as dlt645
from firmware_io.dlt645.registers import ITEMS_1997, ITEMS_2007
from firmware_io.dlt698 import frame as dlt698
from firmware_io.mbus import frame as mbus
from firmware_io.modbus import framing as modbus
from firmware_io.modbus.profile import KINDS, Register, block_of
from tests.firmware_io import octets_oracle as twin

PARSERS = {
    "dlt645": (dlt645.parse, twin.dlt645),
    "rtu": (modbus.rtu_parser(1, 4), twin.rtu(1, 4)),
    "tcp": (modbus.parse_tcp, twin.tcp),
    "mbus": (mbus.parse, twin.mbus),
    "dlt698": (dlt698.parse, twin.dlt698),
}


def _rtu(body: bytes) -> bytes:
    return body + twin.crc16(body).to_bytes(2, "little")


WHOLE = {
    "dlt645": [
        twin.encode_dlt645(dlt645.address_of("161"), 0x91, bytes.fromhex("0000010026000000"), 4),
        twin.encode_dlt645(dlt645.address_of("161"), 0xD1, b"\x02", 0),
    ],
    "rtu": [
        _rtu(bytes.fromhex("01040443663334")),
        _rtu(bytes.fromhex("018402")),
        _rtu(bytes((1, 4, 250)) + bytes(250)),
    ],
    "tcp": [bytes.fromhex("000100000009010306022b00000064"), bytes.fromhex("000100000003118302")],
    "mbus": [
        b"\xe5",
        bytes.fromhex("105b015c16"),
        mbus.Frame(mbus.RSP_UD, 1, 0x72, bytes(range(40))).encode(),
    ],
    "dlt698": [
        dlt698.Frame(b"\x61\x01\0\0\0\0", dlt698.RESPONSE, bytes(range(40))).encode(),
        dlt698.Frame(b"\x61" * 16, dlt698.RESPONSE | dlt698.SCRAMBLED, bytes(range(40))).encode(),
    ],
}


def streams(name: str, count: int) -> list[bytes]:
    """Whole frames, cut and spoiled ones, and noise made of the protocol's own octets."""
    chance = random.Random(name)
    heads = bytes((0x68, 0x16, 0xE5, 0x10, 0x01, 0x04, 0x84, 0x00, 0xFE, 0x03))
    made = []
    for _ in range(count):
        parts = []
        for _ in range(chance.randrange(1, 4)):
            octets = bytearray(chance.choice(WHOLE[name]))
            if chance.random() < 0.5:
                octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
            parts.append(bytes(octets[: chance.randrange(len(octets) + 1)] if chance.random() < 0.3 else octets))
            parts.append(bytes(chance.choices(heads, k=chance.randrange(6))))
        made.append(b"".join(parts))
    return made


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_a_parser_says_what_its_twin_says(name: str) -> None:
    ours, theirs = PARSERS[name]
    frames = 0
    for stream in streams(name, 150):
        held = bytearray(stream)
        for at in range(len(held)):
            said = ours(held, at)
            assert said == theirs(held, at), (stream.hex(), at)
            frames += isinstance(said, tuple)
    assert frames > 100


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_the_framer_finds_what_its_twin_finds(name: str) -> None:
    ours, theirs = PARSERS[name]
    for stream in streams(name, 150):
        framer, plain, python = Framer(ours, 300), twin.Framer(theirs, 300), Framer(theirs, 300)
        for start in range(0, len(stream), 7):
            piece = stream[start : start + 7]
            assert framer.receive(piece) == plain.receive(piece) == python.receive(piece)
            assert (framer.pending, framer.skipped) == (plain.pending, plain.skipped)
        assert framer.idle() == plain.idle() == python.idle()
        assert framer.skipped == plain.skipped == python.skipped
        assert not framer.pending


def test_checks() -> None:
    assert modbus.crc16(b"123456789") == 0x4B37  # CRC-16/MODBUS and CRC-16/X.25 in the catalogues
    assert dlt698.fcs16(b"123456789") == 0x906E
    for size in range(40):
        octets = random.Random(size).randbytes(size)
        assert (modbus.crc16(octets), dlt698.fcs16(octets)) == (twin.crc16(octets), twin.fcs16(octets))


def test_questions() -> None:
    assert modbus.Read(0x11, 3, 0x006B, 3).rtu() == bytes.fromhex("1103006b00037687")  # Modbus serial line 1.02, 6.3
    for size in (0, 1, 4, 255):
        said = bytes(range(size))
        assert _octets.encode_dlt645(b"abcdef", 0x11, said, 4) == twin.encode_dlt645(b"abcdef", 0x11, said, 4)
    for wrong in ((b"abcde", 0x11, b""), (b"abcdef", 0x11, bytes(256))):
        with pytest.raises(ValueError, match="address"):
            _octets.encode_dlt645(*wrong, 4)


@pytest.mark.parametrize("signed", [False, True])
def test_bcd(signed: bool) -> None:
    chance = random.Random(signed)
    for _ in range(3000):
        octets = bytes(int(f"{chance.randrange(100):02d}", 16) for _ in range(chance.randrange(10)))
        if octets and chance.random() < 0.3:
            octets = octets[:-1] + bytes((octets[-1] | chance.choice((0x80, 0x0F, 0xFF)),))
        assert _octets.bcd_number(octets, signed) == twin.bcd(octets, signed), octets.hex()
    assert _octets.bcd_number(b"\x99" * 9, False) == 10**18 - 1
    with pytest.raises(ValueError, match="10 octets"):
        _octets.bcd_number(bytes(10), signed)


def test_fields_keep_the_last_digit_right() -> None:
    for item in (*ITEMS_2007, *ITEMS_1997):
        for field in item.fields:
            for number in (0, 1, 7, 3, 2301, 999999):
                octets = dlt645.to_bcd(number, field.octets)
                expected = twin.bcd(octets, field.signed)
                assert expected is not None
                scaled = expected * field.factor if field.factor >= 1 else expected / round(1 / field.factor)
                assert field.decode(octets) == scaled
                assert field.at(b"\xff" + octets, 1) == scaled
                assert field.at(octets[:-1], 0) is None


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text"])
def test_registers(kind: str, order: str) -> None:
    chance = random.Random(kind + order)
    size = struct.calcsize(twin.CODES[kind])
    special = [
        bytes(size),
        b"\xff" * size,
        b"\x7f" + b"\xff" * (size - 1),
        b"\x80" + bytes(size - 1),
        b"\x7f\xc0" * (size // 2),
    ]
    for scale in (1.0, 0.1, 0.001, 10.0, -1.0, 1 / 3):
        none = (0x7FFF, (1 << 8 * size) - 1)
        for octets in special + [chance.randbytes(size) for _ in range(50)]:
            register = Register("power", 3, 10, kind, order, scale, size // 2, none)
            got, expected = register.decode(octets), twin.register(octets, kind, order, scale, none)
            assert got == expected, (octets.hex(), scale)
            assert got is None or math.copysign(1, got) == math.copysign(1, expected)


def test_a_block_that_is_cut_off_has_no_values_behind_its_end() -> None:
    registers = tuple(Register("power", 3, at, "float32", words=2) for at in (0, 2, 4))
    columns = block_of(registers).columns()
    whole = struct.pack(">fff", 1.5, -2.25, 3.0)
    assert columns.decode(whole) == [1.5, -2.25, 3.0]
    assert columns.decode(whole[:-1]) == [1.5, -2.25, None]
    assert columns.decode(b"") == [None, None, None]


def test_what_the_kernel_refuses() -> None:
    for column in (
        (0, 3, "i", False, 1.0, 0.0, ()),
        (-1, 2, "i", False, 1.0, 0.0, ()),
        (0, 2, "f", False, 1.0, 0.0, ()),
    ):
        with pytest.raises(ValueError, match="a register of"):
            _octets.Registers([column])
    with pytest.raises(ValueError, match="129 registers"):
        _octets.Registers([(0, 2, "i", False, 1.0, 0.0, ())] * 129)
    with pytest.raises(IndexError):
        dlt645.parse(bytearray(), 0)
    with pytest.raises(TypeError):
        dlt645.parse(b"\x68", 0)
    assert dlt645.parse(bytearray(b"\x68"), 0) is Verdict.MORE
