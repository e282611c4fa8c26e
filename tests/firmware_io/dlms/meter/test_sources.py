"""From which objects a quantity comes: the usual one, another one, or a sum over rates."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.sources import COMPANIONS, Sources, combined, rates
from firmware_io.obis import ObisCode
from firmware_io.reading import Quality, Reading, Unit

WH = axdr.structure(axdr.int8(0), axdr.enumeration(Unit.WATT_HOUR))
ABSENT = {(3, obis.ENERGY_IMPORT, n): DataAccessResult.OBJECT_UNDEFINED for n in (2, 3)}
DAY, NIGHT = rates(obis.ENERGY_IMPORT, 2)


def registers(**values: int) -> dict[tuple[int, ObisCode, int], axdr.Data]:
    found: dict[tuple[int, ObisCode, int], axdr.Data] = {}
    for text, value in values.items():
        code = ObisCode(*map(int, text.strip("_").split("_")))
        found |= {(3, code, 2): axdr.uint32(value), (3, code, 3): WH}
    return found


def energy(site) -> float | None:
    return next((r.value for r in site.bus.poll("m0") if r.obis == obis.ENERGY_IMPORT), None)


def test_rates_are_added_up_where_there_is_no_total(make_site, make_meter, clock) -> None:
    site = make_site(make_meter(others=ABSENT | registers(_1_0_1_8_1=700, _1_0_1_8_2=50)))
    assert energy(site) == 750.0
    assert obis.ENERGY_IMPORT in site.bus.identity("m0").registers
    assert DAY not in site.bus.identity("m0").registers
    site.meters[0].others |= registers(_1_0_1_8_1=710)
    clock.time_s += 60
    assert energy(site) == 760.0
    site.meters[0].others |= {(3, NIGHT, 2): DataAccessResult.TEMPORARY_FAILURE}
    clock.time_s += 60
    assert energy(site) is None  # half of a sum is no reading


def test_a_total_is_preferred(make_site, make_meter) -> None:
    site = make_site(make_meter(others=registers(_1_0_1_8_1=700, _1_0_1_8_2=50)))
    assert energy(site) == 1000.0


@pytest.mark.parametrize("codes", ["1-1:1.8.0", "1-0:15.8.0", "1.1.21.25.0.255"])
def test_another_object_is_read_in_its_place(codes: str, make_site, make_meter) -> None:
    code = ObisCode.parse(codes)
    others = ABSENT | {(3, code, 2): axdr.uint32(4321), (3, code, 3): WH}
    site = make_site(make_meter(others=others), sources=Sources({obis.ENERGY_IMPORT: (code,)}))
    assert energy(site) == 4321.0


def test_a_load_profile_elsewhere_and_with_rates(make_site, make_meter, clock) -> None:
    name = ObisCode(1, 0, 99, 2, 0)
    end_s = clock.now() // 900 * 900
    rows = axdr.array(
        axdr.structure(
            axdr.octet_string(MeterTime(end_s - 900 * n, 0, 0).encode()), axdr.uint32(700 - n), axdr.uint32(50)
        )
        for n in range(4)
    )
    columns = [profile.Column(Attribute(*a)) for a in ((8, obis.CLOCK, 2), (3, DAY, 2), (3, NIGHT, 2))]
    others = ABSENT | registers(_1_0_1_8_1=700, _1_0_1_8_2=50)
    others |= {
        (7, name, 2): rows,
        (7, name, 3): axdr.array(c.encode() for c in columns),
        (7, name, 4): axdr.uint32(900),
    }
    site = make_site(make_meter(others=others), sources=Sources(load_profile=name))
    readings = site.bus.read_profile("m0", end_s - 3600, end_s)
    assert [(r.obis, r.value) for r in readings] == [(obis.ENERGY_IMPORT, 750.0 - n) for n in (3, 2, 1, 0)]


def test_a_sum_has_the_worst_quality_of_its_parts_and_one_unit() -> None:
    parts = [
        Reading("m", DAY, 1.0, Unit.WATT_HOUR, 0.0),
        Reading("m", NIGHT, 2.0, Unit.WATT_HOUR, 0.0, quality=Quality.LATE),
    ]
    (whole,) = combined(parts, {obis.ENERGY_IMPORT: (DAY, NIGHT)})
    assert (whole.value, whole.quality) == (3.0, Quality.LATE)
    mixed = [parts[0], Reading("m", NIGHT, 2.0, Unit.VAR_HOUR, 0.0)]
    assert combined(mixed, {obis.ENERGY_IMPORT: (DAY, NIGHT)}) == []


def test_the_presets() -> None:
    assert COMPANIONS["dsmr5"].of(obis.ENERGY_IMPORT) == (DAY, NIGHT)
    assert COMPANIONS["idis"] == Sources()
    assert COMPANIONS["is15959"].counter == ObisCode(0, 0, 43, 1, 3)
