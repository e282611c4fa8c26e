"""Frames of Modbus and device profiles: published octets, limits, and what is refused with file and line."""

from __future__ import annotations

import os

import pytest

from firmware_io.asking.exchange import Framer, Verdict
from firmware_io.modbus import framing as wire
from firmware_io.modbus.framing import Read, Reply
from firmware_io.modbus.profile import QUANTITIES, Register
from firmware_io.modbus.profile_file import ProfileError, load, parse, shipped
from firmware_io.simulator.modbus.station import encode


def test_the_crc_of_the_published_examples() -> None:
    # Modbus over serial line 1.02, figure 42: the CRC of 02 07 is 1241h, sent 41 12.
    assert wire.crc16(b"\x02\x07") == 0x1241
    assert wire.crc16(b"123456789") == 0x4B37  # the check value of CRC-16/MODBUS in the catalogues


def test_the_example_of_eastrons_manual() -> None:
    # Eastron SDM630 protocol, section "read input registers": phase 1 voltage of unit 1, 230.2 V.
    assert Read(1, 4, 0, 2).rtu().hex() == "01040000000271cb"
    reply = bytes.fromhex("0104044366333 41b38".replace(" ", ""))
    frames = Framer(wire.rtu_parser(1, 4), 600).receive(reply)
    assert frames == [Reply(1, 4, bytes.fromhex("43663334"))]
    register = Register("voltage_l1", 4, 0, "float32", words=2)
    assert register.decode(frames[0].registers) == pytest.approx(230.2, abs=1e-4)


def test_the_example_of_the_tcp_guide() -> None:
    # Modbus application protocol 1.1b3, 6.3: read holding registers 108-110, values 022Bh, 0, 64h.
    assert Read(0x11, 3, 0x6B, 3).tcp(1).hex() == "00010000000611030 06b0003".replace(" ", "")
    octets = bytearray.fromhex("000100000009110306022b00000064")
    assert wire.parse_tcp(octets, 0) == (Reply(0x11, 3, bytes.fromhex("022b00000064"), 0, 1), 15)
    assert wire.parse_tcp(bytearray.fromhex("000100000003118302"), 0) == (Reply(0x11, 3, b"", 2, 1), 9)


def test_others_and_our_own_echo_are_no_replies() -> None:
    question = Read(5, 3, 0x20, 4).rtu()
    other = wire_reply(6, 3, b"\x11" * 8)
    ours = wire_reply(5, 3, b"\x22" * 8)
    framer = Framer(wire.rtu_parser(5, 3), 600)
    frames = framer.receive(question + other + ours)
    frames += framer.idle()
    assert [frame.registers for frame in frames] == [b"\x22" * 8]


@pytest.mark.parametrize("at", range(13))
def test_one_wrong_octet_makes_no_reply(at: int) -> None:
    octets = bytearray(wire_reply(5, 3, b"\x22" * 8))
    octets[at] ^= 0x04
    framer = Framer(wire.rtu_parser(5, 3), 600)
    assert framer.receive(bytes(octets)) + framer.idle() == []


def wire_reply(unit: int, function: int, registers: bytes) -> bytes:
    body = bytes((unit, function, len(registers))) + registers
    return body + wire.crc16(body).to_bytes(2, "little")


def test_an_exception_is_found() -> None:
    body = bytes((5, 0x83, 2))
    frames = Framer(wire.rtu_parser(5, 3), 600).receive(body + wire.crc16(body).to_bytes(2, "little"))
    assert frames == [Reply(5, 3, b"", 2)]
    assert wire.rtu_parser(5, 3)(bytearray((5, 0x83)), 0) is Verdict.MORE


# Values


@pytest.mark.parametrize(
    ("kind", "order", "octets", "scale", "value"),
    [
        ("int16", "big", "fc18", 0.001, -1.0),
        ("uint32", "big", "00010002", 0.1, 6553.8),
        ("int32", "little", "0002 0001", 0.1, 6553.8),
        ("int32", "little", "fff6 ffff", 0.1, -1.0),
        ("float32", "big", "43663334", 1.0, 230.2),
        ("float32", "little", "3334 4366", 1.0, 230.2),
        ("uint64", "big", "0000000000003039", 10.0, 123450.0),
        ("float64", "big", "40c81c8000000000", 1.0, 12345.0),
        ("float32", "big", "7fc00000", 1.0, None),
    ],
)
def test_values(kind, order: str, octets: str, scale: float, value: float | None) -> None:
    raw = bytes.fromhex(octets)
    register = Register("power", 3, 0, kind, order, scale, len(raw) // 2)
    assert register.decode(raw) == (None if value is None else pytest.approx(value, abs=1e-4))
    if value is not None and "float" not in kind:
        assert encode(register, value) == raw


def test_what_a_device_calls_not_available() -> None:
    register = Register("power", 3, 0, "int32", not_available=(0x7FFFFFFF,), words=2)
    assert register.decode(bytes.fromhex("7fffffff")) is None
    assert register.decode(bytes.fromhex("7ffffffe")) == 2147483646.0


# Profiles


def test_the_shipped_profiles() -> None:
    profiles = shipped()
    assert len(profiles) >= 12
    for profile in profiles.values():
        assert profile.source
        assert not profile.verified  # none was tried on hardware yet; whoever does says so in the file
        assert sum(len(block.registers) for block in profile.blocks()) == len(profile.registers)
        for block in profile.blocks():
            assert block.size <= profile.max_registers
            assert all(r.address >= block.address for r in block.registers)
            assert max(r.address + r.words for r in block.registers) == block.address + block.size


def test_em24_is_read_eleven_registers_at_a_time() -> None:
    assert max(block.size for block in shipped()["carlo-gavazzi-em24"].blocks()) <= 11


def test_one_address_two_meanings() -> None:
    """The trap that the proof is for stands in the shipped profiles: 0042h."""
    em24 = {r.address: r.name for r in shipped()["carlo-gavazzi-em24"].registers}
    em340 = {r.address: r.name for r in shipped()["carlo-gavazzi-em340"].registers}
    assert em340[0x42] == "energy_import_l2"
    assert em24[0x3E] == "energy_import"
    assert em340[0x34] == "energy_import"
    assert em24[0x34] == "power_factor_l3"


GOOD = """
[device]
title = "A meter"
source = "its manual"
verified = false
phases = 1
function = 4

[registers.energy_import]
address = 10
type = "uint32"
scale = 10
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("phases = 1", "phases = 2", 6, "phases is 1 or 3"),
        ('type = "uint32"', 'type = "uint33"', 11, "type 'uint33' is none"),
        ("scale = 10", "sclae = 10", 12, "unknown key sclae"),
        ("address = 10", "address = 70000", 10, "outside 0 to 65535"),
        ("address = 10", 'address = "10"', 10, "address is '10'; expected int"),
        ("[registers.energy_import]", "[registers.energy_improt]", 9, "unknown register energy_improt"),
        ("[registers.energy_import]", "[registers.power]", 9, "of no use to a balance"),
        ("function = 4", "function = 6", 7, "function is 3 or 4"),
        ("function = 4", "max_registers = 1", 9, "2 registers, but max_registers is 1"),
        ("function = 4", "max_registers = 200", 7, "1 to 125"),
        ("scale = 10", "scale = 0", 12, "no scale"),
        ("[registers.energy_import]", "[regsters.energy_import]", 9, r"unknown table \[regsters\]"),
        ('source = "its manual"', "", 2, r"\[device\] needs source"),
        ("scale = 10", "scale = 1O", None, "x.toml"),
        ("scale = 10", "scale = inf", 12, "no scale"),
        ("scale = 10", f"scale = 0x{'f' * 300}", 12, "no scale"),
        ("scale = 10", "exponent_address = -5", 12, "register -5 is outside 0 to 65535"),
        ("scale = 10", f"not_available = [0x{'f' * 17}]", 12, "not_available is a list of numbers"),
        ('type = "uint32"', 'type = "text"\nwords = 2', 11, "energy_import is a number"),
        ("function = 4", "min_gap_s = inf", 7, "min_gap_s is inf; expected 0 to 60"),
        ("function = 4", "min_gap_s = 1e300", 7, "min_gap_s is 1e.300; expected 0 to 60"),
        ("function = 4", "min_gap_s = nan", 7, "min_gap_s is nan; expected 0 to 60"),
        ("function = 4", "resolution_wh = 0", 7, "resolution_wh is 0; expected"),
        ("function = 4", "max_gap = -1", 7, "max_gap is -1; expected 0 to 125"),
        ("function = 4", "first_register = -9", 7, "first_register is -9"),
        ("function = 4", "checked_against = [1]", 7, "a list of lines"),
        ('"its manual"', '""', 4, "source is ''; expected a line"),
        ('"A meter"', r'"A\u001b[31m meter"', 3, r"title is 'A\\x1b"),
        ('"A meter"', r'"A\u202E meter"', 3, r"title is 'A\\u202e"),
        ("function = 4", r'notes = "\u001b[31m"', 7, "notes has control characters"),
        ("function = 4", '[serial]\naddress = 1\ntype = "text"', 7, "text needs words; expected .* 1 to 60"),
        ("function = 4", '[serial]\naddress = 1\ntype = "text"\nwords = 0', 10, "words is 0; expected"),
        ("function = 4", '[serial]\naddress = 1\ntype = "text"\nwords = 500', 10, "words is 500; expected"),
        ("function = 4", '[identification]\naddress = 1\ntype = "int16"\ncodes = []', 10, "codes is empty"),
        ("function = 4", '[identification]\naddress = 1\ntype = "text"\nwords = 2\ncodes = [1]', 9, "is a number"),
        ("scale = 10", f"scale = {'1' * 6000}", 12, "a line of 6008 characters"),
        ("scale = 10", "a." * 20_000 + "a = 1", 12, "a line of 40005 characters"),
        ("scale = 10", "scale = " + "[\n" * 6000 + "]" * 400, None, "cannot be parsed: RecursionError"),
    ],
)
def test_a_wrong_profile_is_refused_with_file_line_and_what_to_do(old, new, line, message: str) -> None:
    assert parse("x", GOOD).registers[0].scale == 10
    assert old in GOOD
    with pytest.raises(ProfileError, match=message) as refused:
        parse("x", GOOD.replace(old, new))
    assert str(refused.value).startswith("x.toml" if line is None else f"x.toml:{line}:")


def test_profiles_of_ones_own(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load("mine.toml", tmp_path).name == "mine"
    assert load("eastron-sdm630").phases == 3
    with pytest.raises(ProfileError, match="no profile sdm631; shipped are"):
        load("sdm631")
    with pytest.raises(ProfileError, match="cannot read"):
        load("absent.toml", tmp_path)


def test_a_pipe_or_a_device_is_no_profile(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "zero.toml"):
        with pytest.raises(ProfileError, match="not a regular file"):
            load(name, tmp_path)


def test_documents_that_count_from_one() -> None:
    profile = parse("x", GOOD.replace("function = 4", "function = 4\nfirst_register = 1"))
    assert profile.registers[0].address == 9


def test_quantities_have_one_obis_each() -> None:
    codes = [name for name, _ in QUANTITIES.values()]
    assert len(codes) == len(set(codes))
