"""Whose values are they: no value is taken of a meter that is not the one expected."""

from __future__ import annotations

import json
import random

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import DataAccessResult
from firmware_io.errors import IdentityMismatch, MeterError, RegisterUnavailable
from firmware_io.identity import CONFLICT_ANSWERS, EXCHANGE_ANSWERS, ExpectedMeter, FileSerials, Whose
from firmware_io.reading import Quality

LDN = (1, obis.LOGICAL_DEVICE_NAME, 2)
SERIAL = (1, obis.SERIAL_NUMBER, 2)


def polls(site, clock, count: int, step_s: float = 60.0) -> list[float | MeterError]:
    """The energy of m1, or why there was none, so many times."""
    told: list[float | MeterError] = []
    for _ in range(count):
        clock.time_s += step_s
        try:
            energy = site.energy()
        except MeterError as error:
            told.append(error)
        else:
            told.append(energy[0] if energy else float("nan"))
    return told


class TestExpectedMeter:
    def test_the_first_that_is_heard_is_ours(self) -> None:
        expected = ExpectedMeter()
        assert expected.heard("1") is Whose.OURS
        assert expected.serial == "1"

    def test_a_change_that_holds_is_an_exchange(self) -> None:
        expected = ExpectedMeter()
        expected.heard("1")
        assert [expected.heard("2") for _ in range(EXCHANGE_ANSWERS - 1)] == [Whose.FOREIGN] * (EXCHANGE_ANSWERS - 1)
        assert expected.heard("2") is Whose.EXCHANGED
        assert expected.heard("2") is Whose.OURS

    def test_the_one_before_is_still_there_then_it_is_none(self) -> None:
        expected = ExpectedMeter()
        for serial in ("1", "2", "1"):
            expected.heard(serial)
        heard = [expected.heard("2") for _ in range(CONFLICT_ANSWERS)]
        assert heard == [Whose.FOREIGN] * (CONFLICT_ANSWERS - 1) + [Whose.EXCHANGED]

    def test_two_others_in_turn_are_no_exchange(self) -> None:
        expected = ExpectedMeter()
        expected.heard("1")
        assert {expected.heard(serial) for serial in ("2", "3") * EXCHANGE_ANSWERS} == {Whose.FOREIGN}

    def test_who_was_believed_is_kept_over_a_restart(self, tmp_path) -> None:
        path = tmp_path / "folder" / "meters.json"
        ExpectedMeter(None, FileSerials(path), "line/1/17").heard("1")
        again = ExpectedMeter(None, FileSerials(path), "line/1/17")
        assert again.heard("2") is Whose.FOREIGN
        assert [again.heard("2") for _ in range(EXCHANGE_ANSWERS - 1)][-1] is Whose.EXCHANGED  # told, and kept as well
        assert ExpectedMeter(None, FileSerials(path), "line/1/17").serial == "2"
        assert ExpectedMeter(None, FileSerials(path), "line/1/18").serial is None
        assert ExpectedMeter("3", FileSerials(path), "line/1/17").serial == "3"
        assert json.loads(path.read_text()) == {"line/1/17": "2"}

    @pytest.mark.parametrize("octets", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000])
    def test_a_damaged_file_is_said_and_begun_anew(self, octets: bytes, tmp_path, caplog) -> None:
        path = tmp_path / "meters.json"
        path.write_bytes(octets)
        expected = ExpectedMeter(None, FileSerials(path), "line/1/17")
        assert "whoever answers first is believed" in caplog.text
        assert expected.heard("1") is Whose.OURS
        assert FileSerials(path).at("line/1/17") == "1"

    def test_a_disk_that_takes_nothing_is_no_reason_not_to_read(self, tmp_path, caplog) -> None:
        (tmp_path / "file").write_text("")
        expected = ExpectedMeter(None, FileSerials(tmp_path / "file" / "meters.json"), "line/1/17")
        assert expected.heard("1") is Whose.OURS
        assert "after a restart" in caplog.text

    def test_the_site_file_has_the_last_word(self) -> None:
        expected = ExpectedMeter("1")
        assert {expected.heard("2") for _ in range(2 * CONFLICT_ANSWERS)} == {Whose.FOREIGN}
        assert expected.heard("1") is Whose.OURS


def test_another_meter_in_between_is_never_believed(make_site, make_meter, clock) -> None:
    """Two meters at one address, one answer from this and the next from that: 0 values of the other, and it is told."""
    site = make_site(make_meter(), make_meter(energy_wh=500_000))
    meter, chance = site.meters[1], random.Random(3)
    told: list[float | MeterError] = []
    for _ in range(400):
        meter.serial, meter.energy_wh = chance.choice([("1", 500_000.0), ("2", 500_010.0)])
        told += polls(site, clock, 1)
    assert {one for one in told if isinstance(one, float)} == {500_000.0}
    errors = [one for one in told if not isinstance(one, float)]
    assert len(errors) > 100
    assert all(isinstance(error, IdentityMismatch) for error in errors)
    assert "m1: meter 2 answered, expected 1" in str(errors[0])
    assert not site.bus.statistics()["m1"].silent


def test_an_exchanged_meter_is_read_when_the_change_holds(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter(energy_wh=500_000))
    assert polls(site, clock, 1) == [500_000.0]
    site.meters[1].serial, site.meters[1].energy_wh, site.meters[1].scaler = "2", 20, 0
    told = polls(site, clock, EXCHANGE_ANSWERS + 1)
    assert all(isinstance(one, IdentityMismatch) for one in told[: EXCHANGE_ANSWERS - 1])
    assert told[EXCHANGE_ANSWERS - 1 :] == [20.0, 20.0]
    assert site.bus.identity("m1").serial == "2"


def test_a_meter_other_than_in_the_site_file_is_never_read(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter(serial="2"), serial="1")
    told = polls(site, clock, 2 * EXCHANGE_ANSWERS)
    assert all(isinstance(one, IdentityMismatch) for one in told)
    with pytest.raises(IdentityMismatch):
        site.bus.identify("m1")
    with pytest.raises(IdentityMismatch):
        site.bus.read_profile("m1", 0.0, clock.now())
    assert site.energy("m0") == (1000.0, Quality.GOOD)


def test_a_meter_without_a_serial_number_is_known_by_its_logical_device_name(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter())
    meter = site.meters[1]
    meter.others = {SERIAL: DataAccessResult.OBJECT_UNDEFINED, LDN: axdr.octet_string(b"CHM0000000000017")}
    assert polls(site, clock, 1) == [1000.0]
    assert site.bus.identity("m1").serial == "CHM0000000000017"
    meter.others[LDN] = axdr.octet_string(b"CHM0000000000018")
    assert isinstance(polls(site, clock, 1)[0], IdentityMismatch)


def test_the_name_in_the_site_file_may_be_the_logical_device_name(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter(serial="77"), serial="CHM0000000000017")
    site.meters[1].others = {LDN: axdr.octet_string(b"CHM0000000000017")}
    assert polls(site, clock, 1) == [1000.0]


def test_values_without_a_name_are_not_taken(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter())
    assert polls(site, clock, 1) == [1000.0]
    site.meters[1].others = {SERIAL: DataAccessResult.TEMPORARY_FAILURE}
    assert isinstance(polls(site, clock, 1)[0], RegisterUnavailable)


def test_a_meter_that_takes_no_lists_is_asked_for_its_name_all_the_same(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter(), with_list=False)
    assert polls(site, clock, 1) == [1000.0]
    site.meters[1].serial = "2"
    assert isinstance(polls(site, clock, 1)[0], IdentityMismatch)
