"""The M-Bus driver against simulated meters of four media, by both kinds of address, on clean and dirty buses."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Timing
from firmware_io.driver import Line
from firmware_io.errors import MeterError, RemoteProtocolError, ResponseTimeout, SecurityError
from firmware_io.mbus import registers
from firmware_io.mbus.driver import MbusDriver, MbusSpec, find_secondary
from firmware_io.mbus.frame import SecondaryAddress
from firmware_io.obis import ObisCode
from firmware_io.reading import Unit
from firmware_io.simulator.building.scenario import Fault
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.shared import SharedLine
from firmware_io.simulator.mbus.station import M3_AN_WH, MbusStation

OCTET_S = 11 / 2400
TIMING = Timing(1.0, 0.1, OCTET_S)
KEY = bytes(range(16))


class Bench:
    """Meters on a bus at 2400 Bd 8E1."""

    def __init__(self, lab, *faults: Fault, media=(2,), secondary=False, spec=None, **station) -> None:
        self.clock = LineClock(lab.START_S + 40_000)
        self.meters = []
        for n in range(len(media)):
            building = lab.SteadyBuilding(power_w=400.0 + 137 * n, first_wh=1e6 * (n + 1), three_phase=True)
            meter = lab.simulated_meter(self.clock, n + 1, faults=faults, building=building, resolution_wh=1.0)
            self.meters.append(meter)
        self.stations = [
            MbusStation(m, n + 1, medium=medium, digits=f"{11111111 * (n + 1):08d}", **station)
            for n, (m, medium) in enumerate(zip(self.meters, media, strict=True))
        ]
        self.shared = SharedLine(self.stations, octet_s=OCTET_S, turnaround_s=0.03, now=self.clock.now, parity=True)
        self.line = Line(NullModem(self.shared, self.clock.move))
        more = spec or {}
        specs = [
            MbusSpec(f"m{n}", None, SecondaryAddress(f"{11111111 * (n + 1):08d}"), **more)
            if secondary
            else MbusSpec(f"m{n}", n + 1, **more)
            for n in range(len(media))
        ]
        self.drivers = [MbusDriver(one, TIMING, self.clock) for one in specs]
        self.driver = self.drivers[0] if self.drivers else None

    def poll(self, n: int = 0) -> dict:
        return {r.obis: r for r in self.drivers[n].poll(self.line)}


@pytest.fixture
def bench(lab):
    return lambda *faults, **changes: Bench(lab, *faults, **changes)


@pytest.mark.parametrize("secondary", [False, True])
@pytest.mark.parametrize("telegrams", [1, 3])
def test_an_electricity_meter(bench, secondary: bool, telegrams: int) -> None:
    b = bench(secondary=secondary, telegrams=telegrams)
    for _ in range(2):
        at = b.poll()
        energy = at[obis.ENERGY_IMPORT]
        low = b.meters[0].energy_wh(energy.sampled_s - energy.uncertainty_s)[0]
        assert low <= energy.value <= b.meters[0].energy_wh(b.clock.now())[0]
        assert at[obis.POWER_IMPORT].value == 400.0
        assert [at[v].value for v in obis.VOLTAGE] == [230.1, 229.3, 231.7]
        assert at[obis.CURRENT[0]].value == pytest.approx(400 * 0.5 / 230.1 / 0.95, abs=1e-3)
    assert b.driver.identity.serial == "CHM11111111"
    assert b.driver.traffic.repeats == 0


def test_heat_water_and_gas_meters_are_read(bench) -> None:
    b = bench(media=(0x04, 0x16, 0x15, registers.GAS))
    heat, cold, hot, gas = (b.poll(n) for n in range(4))
    energy = heat[ObisCode(6, 0, 1, 0, 0)]
    assert energy.unit is Unit.WATT_HOUR
    assert energy.value == pytest.approx(3 * b.meters[0].energy_wh(b.clock.now())[0], rel=1e-3)
    assert heat[ObisCode(6, 0, 10, 0, 0)].value == 60.5
    assert heat[ObisCode(6, 0, 11, 0, 0)].value == 42.1
    for n, at, code in ((1, cold, (8, 0, 1, 0, 0)), (2, hot, (9, 0, 1, 0, 0)), (3, gas, (7, 0, 3, 0, 0))):
        reading = at[ObisCode(*code)]
        assert reading.unit is Unit.CUBIC_METRE
        assert reading.value == pytest.approx(M3_AN_WH * b.meters[n].energy_wh(b.clock.now())[0], abs=0.002)
        assert obis.ENERGY_IMPORT not in at


def test_a_ciphered_meter(bench) -> None:
    assert bench(key=KEY, spec={"key": KEY}).poll()[obis.POWER_IMPORT].value == 400.0
    with pytest.raises(SecurityError, match="give its key"):
        bench(key=KEY).poll()
    with pytest.raises(SecurityError, match="another one"):
        bench(key=KEY, spec={"key": bytes(16)}).poll()


def test_a_battery_meter_is_spared(bench) -> None:
    b = bench(media=(0x16,), spec={"interval_s": 3600.0})
    assert b.poll()
    exchanges = b.driver.traffic.exchanges
    assert b.poll() == {}
    assert b.driver.traffic.exchanges == exchanges
    b.clock.move(3600)
    assert b.poll()


def test_the_search_finds_all_meters_by_their_secondary_addresses(bench) -> None:
    b = bench(media=(2, 0x16, 0x04, 2, 3))
    for station, digits in zip(b.stations, ("11111111", "11111112", "11119999", "87654321", "00000000"), strict=True):
        station._digits = digits
    found = find_secondary(b.line, TIMING, b.clock)
    assert sorted(address.digits for address in found) == ["00000000", "11111111", "11111112", "11119999", "87654321"]
    assert {address.medium for address in found} == {2, 0x16, 0x04, 3}


def test_the_search_on_an_empty_bus(bench) -> None:
    assert find_secondary(bench(media=()).line, TIMING, LineClock(0.0)) == []


def test_two_meters_at_one_address_are_told(bench) -> None:
    b = bench(media=(2, 2))
    b.stations[1].address = 1
    silent = b.stations[1].hear
    b.stations[1].hear = lambda octets, torn: b""
    b.poll()
    b.stations[0].hear, b.stations[1].hear = (lambda octets, torn: b""), silent
    b.poll()  # another one: replaced, as far as anybody can tell
    b.stations[0].hear = type(b.stations[0]).hear.__get__(b.stations[0])
    b.stations[1].hear = lambda octets, torn: b""
    with pytest.raises(RemoteProtocolError, match="two meters answer at this address, CHM22222222 and CHM11111111"):
        b.poll()


def test_a_meter_that_never_ends_is_left(bench) -> None:
    b = bench(telegrams=3)
    b.stations[0]._telegrams = 10_000
    b.stations[0]._records = lambda: [b""]
    with pytest.raises(RemoteProtocolError, match="no end after 16"):
        b.poll()


def test_silence_costs_two_timeouts_and_one_when_probing(bench) -> None:
    b = bench(Fault(kind="silence"))
    with pytest.raises(ResponseTimeout, match="m0: no answer to SND_NKE"):
        b.poll()
    b.line.probing = True
    before_s = b.clock.elapsed_s
    with pytest.raises(ResponseTimeout):
        b.poll()
    assert b.clock.elapsed_s - before_s < 1.2


@pytest.mark.parametrize("fault", ["foreign_frame", "duplicate", "truncated", "extra", "noise", "late_tail", "bad_fcs"])
def test_no_value_is_wrong_whatever_the_modem_does(bench, fault: str) -> None:
    amount = {"late_tail": 0.3, "noise": 1e-3}.get(fault)
    b = bench(Fault(kind=fault, probability=0.3, amount=amount), secondary=True)
    right = 0
    for _ in range(25):
        try:
            at = b.poll()
        except MeterError:
            continue
        right += 1
        energy = at[obis.ENERGY_IMPORT]
        assert energy.value <= b.meters[0].energy_wh(b.clock.now())[0]
        assert energy.value >= b.meters[0].energy_wh(energy.sampled_s - energy.uncertainty_s)[0]
        assert at[obis.POWER_IMPORT].value == 400.0
    assert right >= 8


def test_what_a_spec_refuses() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        MbusSpec("m")
    with pytest.raises(ValueError, match="one of the two"):
        MbusSpec("m", 1, SecondaryAddress("12345678"))
    with pytest.raises(ValueError, match="0 to 250"):
        MbusSpec("m", 251)
    with pytest.raises(ValueError, match="16 octets"):
        MbusSpec("m", 1, key=b"short")
