"""One odd attribute does not make a meter unreadable, and no odd number is a value."""

from __future__ import annotations

import math

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.errors import RemoteProtocolError
from firmware_io.reading import Quality, Unit

VOLTAGE = (3, obis.VOLTAGE[0], 2)
VOLTS = {(3, obis.VOLTAGE[0], 3): axdr.structure(axdr.int8(-1), axdr.enumeration(Unit.VOLT))}


def shown(site, meter: str = "m1") -> dict[obis.ObisCode, float]:
    return {reading.obis: reading.value for reading in site.bus.poll(meter)}


@pytest.mark.parametrize(
    "odd",
    [
        axdr.octet_string(b"\x08\xfd"),
        Data(Tag.VISIBLE_STRING, "2301"),
        axdr.array([axdr.uint16(2301)]),
        Data(Tag.FLOAT32, math.nan),
        Data(Tag.FLOAT64, math.inf),
    ],
)
def test_a_value_that_is_no_number_is_left_out_and_named(odd: Data, make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter(others={VOLTAGE: odd, **VOLTS}))
    for _ in range(3):
        assert shown(site) == {obis.ENERGY_IMPORT: 1000.0, obis.POWER_IMPORT: 500.0}
        clock.time_s += 60
    assert site.meters[1].associations == 1
    (why,) = site.bus.identity("m1").unreadable
    assert "1.0.32.7.0" in why
    site.meters[1].others[VOLTAGE] = axdr.uint16(2301)
    clock.time_s += 3600
    assert shown(site)[obis.VOLTAGE[0]] == pytest.approx(230.1)
    assert site.bus.identity("m1").unreadable == ()


def test_data_of_no_known_type_in_one_attribute(make_site, make_meter, clock) -> None:
    """In a list it takes all others with it: each is asked alone then, once, and from then on without the odd one."""
    mark = b"\x08no type!"
    site = make_site(make_meter(), make_meter(others={VOLTAGE: axdr.octet_string(mark[1:]), **VOLTS}))
    meter = site.meters[1]
    meter.spoil = lambda octets: octets.replace(b"\x09" + mark, b"\x63" + mark)
    assert shown(site) == {obis.ENERGY_IMPORT: 1000.0, obis.POWER_IMPORT: 500.0}
    (why,) = site.bus.identity("m1").unreadable
    assert why.startswith("m1 1.0.32.7.0")
    clock.time_s += 60
    meter.asked.clear()
    assert shown(site) == {obis.ENERGY_IMPORT: 1000.0, obis.POWER_IMPORT: 500.0}
    assert len(meter.asked) == 1
    assert meter.associations == 1


def test_a_clock_that_makes_no_sense_is_no_clock(make_site, make_meter) -> None:
    site = make_site(make_meter(), make_meter(others={(8, obis.CLOCK, 2): axdr.octet_string(b"rubbish")}))
    assert shown(site)[obis.ENERGY_IMPORT] == 1000.0
    assert site.bus.identity("m1").clock_offset_s is None


def test_not_a_number_does_not_switch_off_the_next_doubt(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter(energy_wh=500_000))
    site.energy()
    site.meters[1].energy_type = lambda value: Data(Tag.FLOAT64, math.nan)
    clock.time_s += 60
    assert site.energy() is None
    site.meters[1].energy_type = axdr.uint32
    site.meters[1].energy_wh = 50
    clock.time_s += 3600
    assert site.energy() == (50.0, Quality.SUSPECT)


def test_when_nothing_can_be_understood_the_meter_is_named(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(), make_meter())
    site.energy()
    odd = axdr.octet_string(b"?")
    site.meters[1].others = {(3, obis.ENERGY_IMPORT, 2): odd, (3, obis.POWER_IMPORT, 2): odd}
    with pytest.raises(RemoteProtocolError, match=r"m1.*none of its registers"):
        site.bus.poll("m1")


@pytest.mark.parametrize(("current_a", "good"), [(None, False), (80, False), (3000, True)])
def test_more_energy_than_the_meter_is_rated_for_is_read_twice(
    current_a: int | None, good: bool, make_site, make_meter, clock
) -> None:
    """1.9 kWh within a minute are 114 kW."""
    rating = {}
    if current_a is not None:
        rating = {
            (3, obis.MAXIMUM_CURRENT, 2): axdr.uint32(current_a),
            (3, obis.MAXIMUM_CURRENT, 3): axdr.structure(axdr.int8(0), axdr.enumeration(Unit.AMPERE)),
        }
    site = make_site(make_meter(), make_meter(energy_wh=500_000, others=VOLTS | {VOLTAGE: axdr.uint16(2301)} | rating))
    site.energy()
    clock.time_s += 60
    site.meters[1].energy_wh += 1900
    assert site.energy() == (501_900.0, Quality.GOOD if good else Quality.SUSPECT)


def test_a_register_that_stood_still_may_catch_up(make_site, make_meter, clock) -> None:
    """Some meters write their registers once an hour."""
    site = make_site(make_meter(), make_meter(energy_wh=500_000))
    for _ in range(60):
        site.energy()
        clock.time_s += 60
    site.meters[1].energy_wh += 9000
    assert site.energy() == (509_000.0, Quality.GOOD)
