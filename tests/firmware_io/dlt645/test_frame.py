"""Frames, addresses and BCD of DL/T 645, held against frames that others have published."""

from __future__ import annotations

import pytest

from firmware_io.asking.exchange import Framer, Verdict
from firmware_io.dlt645 import frame as wire
from firmware_io.dlt645 import registers as table
from firmware_io.dlt645.frame import Frame

# From "DLT645-2007 报文解析", a published course on the protocol: question and answer of a real meter, with meanings.
PUBLISHED = [
    ("FE FE FE FE 68 61 01 00 00 00 00 68 11 04 33 33 34 33 14 16", 0x11, 0x00010000, ""),
    ("68 61 01 00 00 00 00 68 91 08 33 33 34 33 59 33 33 33 8A 16", 0x91, 0x00010000, "26000000"),
    ("FE FE FE FE 68 61 01 00 00 00 00 68 11 04 33 34 34 35 17 16", 0x11, 0x02010100, ""),
    ("68 61 01 00 00 00 00 68 91 06 33 34 34 35 34 43 10 16", 0x91, 0x02010100, "0110"),
]


@pytest.mark.parametrize(("text", "control", "di", "rest"), PUBLISHED)
def test_published_frames_are_understood(text: str, control: int, di: int, rest: str) -> None:
    frames = Framer(wire.parse, 600).receive(bytes.fromhex(text))
    assert [(wire.digits_of(f.address), f.control) for f in frames] == [("000000000161", control)]
    assert int.from_bytes(frames[0].data[:4], "little") == di
    assert frames[0].data[4:].hex() == rest


@pytest.mark.parametrize(("text", "control", "di", "rest"), PUBLISHED)
def test_we_write_the_published_frames(text: str, control: int, di: int, rest: str) -> None:
    frame = Frame(wire.address_of("161"), control, di.to_bytes(4, "little") + bytes.fromhex(rest))
    assert frame.encode(4 if text.startswith("FE") else 0).hex(" ").upper() == text


def test_the_published_values_are_these() -> None:
    assert table.IMPORT.fields[0].decode(bytes.fromhex("26000000")) == 260.0  # 0.26 kWh
    assert table.VOLTAGES.fields[0].decode(bytes.fromhex("0110")) == 100.1


def test_a_frame_of_1997() -> None:
    # Question and answer as a meter's user published them (total energy, 0.01 kWh).
    frames = Framer(wire.parse, 600).receive(bytes.fromhex("6854071300801368810643C3343333332B16"))
    assert frames == [Frame(bytes.fromhex("540713008013"), 0x81, bytes.fromhex("109001000000"))]
    assert Frame(bytes.fromhex("540713008013"), 0x01, bytes.fromhex("1090")).encode(0).hex() == (
        "685407130080136801024 3c3da16".replace(" ", "")
    )


def test_addresses_are_low_octet_first_and_may_have_wildcards() -> None:
    assert wire.address_of("123456789012").hex() == "129078563412"
    assert wire.digits_of(bytes.fromhex("129078563412")) == "123456789012"
    assert wire.covers(wire.address_of("AAAAAAAA9012"), bytes.fromhex("129078563412"))
    assert not wire.covers(wire.address_of("AAAAAAAA9013"), bytes.fromhex("129078563412"))
    for wrong in ("1234567890123", "12x4", "A", ""):
        if wrong:
            with pytest.raises(ValueError, match="twelve digits"):
                wire.address_of(wrong)


@pytest.mark.parametrize(
    ("octets", "signed", "number"),
    [
        ("26000000", False, 26),
        ("0110", False, 1001),
        ("341280", True, -1234),
        ("341280", False, 801234),
        ("ffff", False, None),
        ("0a00", False, None),
    ],
)
def test_bcd(octets: str, signed: bool, number: int | None) -> None:
    assert wire.bcd_number(bytes.fromhex(octets), signed=signed) == number
    if number is not None:
        assert wire.to_bcd(number, len(octets) // 2, signed=signed).hex() == octets


def test_frames_are_found_between_noise_and_behind_false_heads() -> None:
    whole = Frame(wire.address_of("161"), 0x91, bytes(8)).encode()
    framer: Framer[Frame] = Framer(wire.parse, 600)
    head = whole[4:12] + b"\x91\xc8"  # says that 200 octets follow, and they do not
    assert framer.receive(b"\x68\x00\xff" + head + whole) == []
    assert framer.pending
    assert len(framer.idle()) == 1
    assert not framer.pending


@pytest.mark.parametrize("at", range(20))
def test_one_wrong_octet_makes_no_frame(at: int) -> None:
    whole = bytearray(Frame(wire.address_of("161"), 0x91, bytes(8)).encode(0))
    whole[at] ^= 0x10
    framer: Framer[Frame] = Framer(wire.parse, 600)
    assert framer.receive(bytes(whole)) + framer.idle() == []


def test_a_place_is_a_frame_may_become_one_or_is_none() -> None:
    whole = bytearray(Frame(wire.address_of("161"), 0x91, bytes(8)).encode(0))
    assert wire.parse(whole, 1) is Verdict.NOTHING
    assert wire.parse(whole[:-1], 0) is Verdict.MORE
    assert isinstance(wire.parse(whole, 0), tuple)


def test_error_words_in_words() -> None:
    assert wire.error_text(0x02) == "no such data"
    assert wire.error_text(0x06) == "no such data, wrong password or no right"
    assert wire.error_text(0x00) == "error word 00h"


def test_load_records_in_the_form_of_the_standard_and_in_the_short_one() -> None:
    body = bytes.fromhex("1500020326") + b"\xaa" * 3 + bytes.fromhex("2600000000000000") + bytes(8) + b"\xaa" * 3
    short = bytes.fromhex("3000020326") + bytes.fromhex("2700000000000000")
    octets = b""
    for part in (body, short):
        record = bytes((0xA0, 0xA0, len(part))) + part
        octets += record + bytes((sum(record) & 0xFF, 0xE5))
    records = table.load_records(b"\x00\xa0" + octets)
    assert [(r.time.isoformat(), r.import_wh, r.export_wh) for r in records] == [
        ("2026-03-02T00:15:00+00:00", 260.0, 0.0),
        ("2026-03-02T00:30:00+00:00", 270.0, 0.0),
    ]
    broken = bytearray(octets)
    broken[9] ^= 1
    assert len(table.load_records(bytes(broken))) == 1
