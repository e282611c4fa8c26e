"""What a register shows: values that cannot be, classes and scalers as meters have them."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import DataAccessResult
from firmware_io.reading import Quality, Unit


class TestDoubt:
    """A cumulative value that cannot be is asked for again before anybody hears of it."""

    def test_a_wrong_octet_is_never_seen(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), make_meter())
        assert site.energy() == (1000.0, Quality.GOOD)
        meter = site.meters[1]
        wrong = [axdr.uint32(1 << 28), None]
        meter.energy_type = lambda value: wrong.pop(0) or axdr.uint32(value) if wrong else axdr.uint32(value)
        clock.time_s += 60
        meter.energy_wh += 10
        assert site.energy() == (1010.0, Quality.GOOD)

    def test_a_value_that_stays_odd_is_what_the_meter_shows(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), make_meter(energy_wh=500_000))
        site.energy()
        clock.time_s += 60
        site.meters[1].energy_wh = 400_000
        assert site.energy() == (400_000.0, Quality.SUSPECT)
        clock.time_s += 60
        site.meters[1].energy_wh += 10
        assert site.energy() == (400_010.0, Quality.GOOD)

    def test_two_different_odd_values_are_no_value(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), make_meter(energy_wh=500_000))
        site.energy()
        odd = iter((axdr.uint32(7), axdr.uint32(1 << 30)))
        site.meters[1].energy_type = lambda value: next(odd)
        clock.time_s += 60
        assert site.energy() is None

    def test_another_scaler_is_noticed_by_the_jump_it_makes(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), make_meter(energy_wh=5_000_000))
        site.energy()
        site.meters[1].scaler = 0
        clock.time_s += 60
        assert site.energy() == (5_000_000.0, Quality.GOOD)

    def test_another_type_of_the_same_value_is_taken_after_a_second_look(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), make_meter())
        site.energy()
        site.meters[1].energy_type = axdr.uint64
        clock.time_s += 60
        assert site.energy() == (1000.0, Quality.SUSPECT)
        clock.time_s += 60
        assert site.energy() == (1000.0, Quality.GOOD)

    def test_a_register_that_goes_away_is_missing_and_not_zero(self, make_site, make_meter) -> None:
        site = make_site(make_meter(), make_meter())
        site.energy()
        site.meters[1].energy_type = lambda value: axdr.NULL
        assert site.energy() is None


class TestRegisters:
    def test_a_register_of_another_class_is_found(self, make_site, make_meter) -> None:
        voltage = obis.VOLTAGE[0]
        meter = make_meter()
        for class_id, scaler in ((3, 3), (4, 3)):
            meter.others[class_id, voltage, scaler] = DataAccessResult.OBJECT_CLASS_INCONSISTENT
        meter.others[5, voltage, 4] = axdr.structure(axdr.int8(-1), axdr.enumeration(Unit.VOLT))
        meter.others[5, voltage, 2] = axdr.uint16(2304)
        site = make_site(meter)
        for _ in range(2):
            assert (230.4, Unit.VOLT) in [(r.value, r.unit) for r in site.bus.poll("m0") if r.obis == voltage]
            site.bus.identify("m0")

    def test_a_register_without_a_scaler_is_not_guessed(self, make_site, make_meter) -> None:
        meter = make_meter()
        meter.others[3, obis.ENERGY_IMPORT, 3] = axdr.NULL
        site = make_site(meter)
        assert [r.obis for r in site.bus.poll("m0")] == [obis.POWER_IMPORT]

    def test_a_passing_failure_costs_no_register(self, make_site, make_meter, clock) -> None:
        meter = make_meter()
        site = make_site(meter)
        site.bus.poll("m0")
        meter.others[3, obis.ENERGY_IMPORT, 3] = DataAccessResult.TEMPORARY_FAILURE
        clock.time_s += 4000
        assert obis.ENERGY_IMPORT in [r.obis for r in site.bus.poll("m0")]
        meter.others[3, obis.ENERGY_IMPORT, 3] = DataAccessResult.OBJECT_UNDEFINED
        clock.time_s += 4000
        assert obis.ENERGY_IMPORT not in [r.obis for r in site.bus.poll("m0")]
        del meter.others[3, obis.ENERGY_IMPORT, 3]
        clock.time_s += 4000
        assert obis.ENERGY_IMPORT in [r.obis for r in site.bus.poll("m0")]

    @pytest.mark.parametrize(
        ("error", "value"),
        [
            (axdr.uint32(0x80), 128.0),
            (axdr.octet_string(b"\x01\x00"), 256.0),
            (axdr.Data(axdr.Tag.BIT_STRING, "101"), 5.0),
            (axdr.visible_string("fine"), None),
        ],
    )
    def test_the_error_register_comes_as_meters_like(
        self, make_site, make_meter, error: axdr.Data, value: float | None
    ) -> None:
        meter = make_meter()
        meter.others[1, obis.ERROR_REGISTER, 2] = error
        site = make_site(meter)
        assert [r.value for r in site.bus.poll("m0") if r.obis == obis.ERROR_REGISTER] == (
            [] if value is None else [value]
        )
