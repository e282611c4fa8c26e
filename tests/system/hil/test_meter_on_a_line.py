"""What must hold on every line with a meter on it: simulated, over adapters, or real."""

from __future__ import annotations

import time

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import MeterError, ResponseTimeout
from firmware_io.reading import Unit

SILENT = DlmsSpec("nobody", 0x7A)


@pytest.fixture
def bus(lab):
    bus = lab.bus()
    yield bus
    bus.close()


def test_it_says_who_it_is_and_what_time_it_has(lab, bus):
    identity = bus.identify(lab.target)
    assert identity.serial
    assert obis.ENERGY_IMPORT in identity.registers
    assert identity.clock_offset_s is not None


def test_its_register_counts_and_never_falls(lab, bus):
    values = []
    for _ in range(5):
        readings = {r.obis: r for r in bus.poll(lab.target)}
        assert readings[obis.ENERGY_IMPORT].unit is Unit.WATT_HOUR
        values.append(readings[obis.ENERGY_IMPORT].value)
    assert values == sorted(values)
    assert values[-1] - values[0] < 1000


def test_one_by_one_is_what_the_list_says(lab, bus):
    session = lab.session(bus)
    wanted = [Attribute(3, obis.ENERGY_IMPORT, 3), Attribute(1, obis.SERIAL_NUMBER, 2)]
    assert session.get_list(wanted) == [session.get(attribute) for attribute in wanted]


def test_its_object_list_is_long_and_comes_in_segments(lab, bus):
    listed = lab.session(bus).get(Attribute(15, obis.CURRENT_ASSOCIATION, 2))
    assert len(listed.value) > 10


def test_its_load_profile_of_the_last_hours(lab, bus):
    now = time.time()
    rows = [r for r in bus.read_profile(lab.target, now - 6 * 3600, now) if r.obis == obis.ENERGY_IMPORT]
    if not rows and lab.site is None:
        pytest.skip("this meter keeps no load profile of the energy register")
    assert len(rows) >= 5
    assert [r.value for r in rows] == sorted(r.value for r in rows)


def test_its_event_logs(lab, bus):
    for event in bus.read_events(lab.target, time.time() - 30 * 86_400):
        assert event.code >= 0


def test_a_meter_that_is_not_there_is_asked_twice_and_no_more(lab):
    bus = lab.bus(SILENT)
    with pytest.raises(ResponseTimeout):
        bus.poll(SILENT.id)
    assert bus.statistics()[SILENT.id].traffic.exchanges == 2
    assert bus.poll(lab.target)
    bus.close()


def test_released_and_opened_again(lab):
    for _ in range(3):
        bus = lab.bus()
        assert bus.poll(lab.target)
        bus.close()


def test_an_idle_association_is_kept(lab, bus):
    session = lab.session(bus)
    for _ in range(3):
        session.keep_alive()
    assert bus.poll(lab.target)
    assert bus.use(lab.target, lambda driver, line: driver.associations) == 1


def test_fifty_polls_in_a_row(lab, bus):
    failures = []
    for _ in range(50):
        try:
            bus.poll(lab.target)
        except MeterError as error:
            failures.append(error)
    assert not failures
