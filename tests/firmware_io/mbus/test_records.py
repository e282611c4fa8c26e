"""M-Bus frames and records, held against real meters' answers, two independent decoders, and published examples."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Framer
from firmware_io.errors import RemoteProtocolError, SecurityError
from firmware_io.mbus import frame as wire
from firmware_io.mbus import records, registers, units
from firmware_io.mbus.frame import Frame, SecondaryAddress
from firmware_io.reading import Unit

REAL = json.loads(Path(__file__).with_name("real_frames.json").read_text())["frames"]


def frame_of(octets: bytes) -> Frame:
    framer: Framer[Frame] = Framer(wire.parse, 4000)
    frames = framer.receive(octets) + framer.idle()
    assert len(frames) == 1
    return frames[0]


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_meters_say_to_us_what_libmbus_reads(name: str) -> None:
    octets, digits, maker, _, expected = REAL[name]
    frame = frame_of(bytes.fromhex(octets))
    assert frame.encode().hex() == octets
    telegram = records.decode(frame)
    assert telegram.address is not None
    assert telegram.address.manufacturer in (maker, None)
    if telegram.address.digits.isdigit():
        assert telegram.address.digits.lstrip("0") in (digits.lstrip("0"), "42040202")
    assert not telegram.broken
    assert len(telegram.records) == len(expected)
    for (storage, unit, text), record in zip(expected, telegram.records, strict=True):
        assert record.storage == storage
        if not isinstance(record.value, float | int):
            continue
        try:
            number = float(text)
        except ValueError:
            continue
        value = record.value * 3600 if unit == "J" else record.value
        assert value == pytest.approx(number, rel=1e-6, abs=1e-6)  # it prints six decimals


def test_the_decoders_of_others_agree_on_the_energies() -> None:
    meterbus = pytest.importorskip("meterbus", reason="the peer pyMeterBus is not installed: pip install pyMeterBus")
    compared = 0
    for octets, *_ in REAL.values():
        try:
            theirs = meterbus.load(bytes.fromhex(octets)).records
            values = [r.value for r in theirs if str(r.unit) in ("Wh", "MeasureUnit.WH")]
        except Exception:
            continue
        telegram = records.decode(frame_of(bytes.fromhex(octets)))
        ours = [r.value for r in telegram.records if isinstance(r.value, float | int)]
        for value in values:
            if isinstance(value, int | float) and value:
                compared += 1
                assert any(one == pytest.approx(float(value), rel=1e-6) for one in ours)
    assert compared > 20


def test_another_decoder_reads_the_same_identity_and_record_count() -> None:
    pymbusparser = pytest.importorskip("pymbusparser", reason="the peer pymbusparser is not installed")
    agreed = 0
    for octets, *_ in REAL.values():
        try:
            theirs = json.loads(pymbusparser.m_bus_parse(octets, "json"))
        except Exception:
            continue
        telegram = records.decode(frame_of(bytes.fromhex(octets)))
        text = json.dumps(theirs)
        if telegram.address is not None and telegram.address.digits.lstrip("0") in text:
            agreed += 1
    assert agreed > 20


# The example of OMS specification volume 2, annex N.2.1 (a gas meter's answer, mode 5), as a long wired header.
OMS_KEY = bytes.fromhex("0102030405060708090A0B0C0D0E0F11")
OMS_BODY = "59 23 C9 5A AA 26 D1 B2 E7 49 3B 01 3E C4 A6 F6 D3 52 9B 52 0E DF F0 EA 6D EF C9 9D 6D 69 EB F3"


def oms(key: bytes | None) -> records.Telegram:
    header = bytes.fromhex("78563412 9315 33 03 2A 00 2005")
    return records.decode(Frame(wire.RSP_UD, 1, wire.RESPONSE_VARIABLE, header + bytes.fromhex(OMS_BODY)), key)


def test_a_ciphered_answer_is_opened_with_its_key() -> None:
    telegram = oms(OMS_KEY)
    volume = telegram.records[0]
    assert (volume.meaning.quantity, volume.value) == (units.VOLUME, 28504.27)
    assert telegram.records[1].value == datetime(2008, 5, 31, 23, 50, tzinfo=UTC)
    found = registers.known(registers.GAS, [telegram])
    assert [(r.obis, r.value, r.unit) for r in found] == [(obis.ObisCode(7, 0, 3, 0, 0), 28504.27, Unit.CUBIC_METRE)]


def test_a_ciphered_answer_without_its_key_is_none() -> None:
    with pytest.raises(SecurityError, match="give its key"):
        oms(None)
    with pytest.raises(SecurityError, match="another one"):
        oms(bytes(16))


def test_the_fixed_structure() -> None:
    # EN 1434-3, annex: two counters of a heat meter, BCD.
    data = bytes.fromhex("78563412 0A 00 E9 7E 01000000 35010000")
    telegram = records.decode(Frame(wire.RSP_UD, 5, wire.RESPONSE_FIXED, data))
    assert telegram.address is not None
    assert telegram.address.digits == "12345678"
    assert [(r.meaning.quantity, r.value, r.storage) for r in telegram.records] == [
        (units.VOLUME, pytest.approx(0.001), 0),
        (units.VOLUME, pytest.approx(0.135), 1),
    ]


@pytest.mark.parametrize(
    ("octets", "quantity", "value"),
    [
        ("0403 40420f00", units.ENERGY, 1_000_000.0),
        ("0c06 78563412", units.ENERGY, 12_345_678_000.0),
        ("04fb01 0a000000", units.ENERGY, 10_000_000.0),
        ("0410 e8030000", units.VOLUME, 0.001),
        ("0b3b 230100", units.FLOW, 0.123),
        ("02fd48 0409", units.VOLTAGE, 230.8),
        ("04fd59 e8030000", units.CURRENT, 1.0),
        ("022b 18fc", units.POWER, -1000.0),
        ("05 2e 0000c03f", units.POWER, 1500.0),
        ("0a5a 0506", units.FLOW_TEMPERATURE, 60.5),
        ("0483 7d 01000000", units.ENERGY, 1000.0),
        ("0493 73 01000000", units.VOLUME, 1e-6),
        ("0a2e 34f2", units.POWER, -234000.0),
        ("0a2e aaaa", units.POWER, None),
        ("0dfd11 05 4f4c4c4548", "customer", "HELLO"),
        ("0d03 c2 3412", units.ENERGY, 1234.0),
        ("0d03 d2 3412", units.ENERGY, -1234.0),
        ("046d 3217 1f15", units.DATE_TIME, datetime(2008, 5, 31, 23, 50, tzinfo=UTC)),
        ("426c ffff", units.DATE, None),
        ("04fc 0348576b 73 01000000", "plain text", 1e-3),
    ],
)
def test_records(octets: str, quantity: str, value: object) -> None:
    telegram = records.decode(Frame(wire.RSP_UD, 1, wire.RESPONSE_NONE, bytes.fromhex(octets)))
    assert not telegram.broken
    record = telegram.records[0]
    assert record.meaning.quantity == quantity
    assert record.value == (pytest.approx(value) if isinstance(value, float) else value)


def test_storage_tariff_and_subunit() -> None:
    telegram = records.decode(Frame(wire.RSP_UD, 1, wire.RESPONSE_NONE, bytes.fromhex("cc e1 02 13 78563412")))
    record = telegram.records[0]
    assert (record.storage, record.tariff, record.subunit) == (1 | 1 << 1 | 2 << 5, 2, 1)
    assert not record.now


@pytest.mark.parametrize("octets", ["04", "0403", "040300", "84" + "80" * 12, "0d03f9", "0d03ff", "0dfd11ff41"])
def test_what_is_cut_off_or_endless_ends_the_walk_and_keeps_what_was_read(octets: str) -> None:
    telegram = records.decode(Frame(wire.RSP_UD, 1, wire.RESPONSE_NONE, bytes.fromhex("0403 40420f00" + octets)))
    assert len(telegram.records) == 1
    assert telegram.broken


def test_errors_of_the_meter() -> None:
    with pytest.raises(RemoteProtocolError, match="application error 8"):
        records.decode(Frame(wire.RSP_UD, 1, wire.APPLICATION_ERROR, b"\x08"))


def test_short_frames_and_acknowledgements() -> None:
    assert Frame(0x7B, 5).encode().hex() == "107b058016"
    assert Frame(wire.ACK).encode() == b"\xe5"
    framer: Framer[Frame] = Framer(wire.parse, 600)
    assert framer.receive(b"\xe5\x10\x7b\x05\x80\x16") == [Frame(wire.ACK), Frame(0x7B, 5)]


@pytest.mark.parametrize("at", range(12))
def test_one_wrong_octet_makes_no_frame(at: int) -> None:
    octets = bytearray(Frame(wire.RSP_UD, 5, 0x78, b"\x01\x02\x03").encode())
    octets[at] ^= 0x10
    framer: Framer[Frame] = Framer(wire.parse, 600)
    assert framer.receive(bytes(octets)) + framer.idle() == []


def test_secondary_addresses() -> None:
    address = SecondaryAddress.parse("1234567824400102")
    assert (address.digits, address.manufacturer, address.version, address.medium) == ("12345678", "PAD", 1, 2)
    assert address.encode().hex() == "7856341224400102"
    assert str(address) == "1234567824400102"
    assert SecondaryAddress.parse("12FFFFFF").encode().hex() == "ffffff12ffffffff"
    for wrong in ("123", "1234567G", "12345678PAD", ""):
        with pytest.raises(ValueError, match="no secondary address"):
            SecondaryAddress.parse(wrong)
