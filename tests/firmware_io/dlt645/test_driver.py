"""The DL/T 645 driver against simulated meters, over clean lines and over everything that a line can do wrong."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Timing
from firmware_io.dlt645 import frame as wire
from firmware_io.dlt645.driver import Dlt645Driver, Dlt645Spec
from firmware_io.dlt645.frame import Frame
from firmware_io.dlt645.scan import identify_address, search
from firmware_io.driver import HasClock, Line
from firmware_io.errors import AccessDenied, MeterError, RemoteProtocolError, ResponseTimeout
from firmware_io.reading import Quality, Unit
from firmware_io.simulator.building.scenario import Fault
from firmware_io.simulator.dlt645.station import Dlt645Station
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.shared import SharedLine

OCTET_S = 11 / 2400
TIMING = Timing(1.0, 0.1, OCTET_S)
ADDRESS = "123456789012"


class Bench:
    """One meter, or several, on a line at 2400 Bd 8E1."""

    def __init__(self, lab, *faults: Fault, building=None, meters: int = 1, station=None, **spec) -> None:
        self.lab = lab
        self.clock = LineClock(lab.START_S + 40_000)
        self.building = building or lab.SteadyBuilding(three_phase=True)
        self.meters = [
            lab.simulated_meter(self.clock, n + 1, faults=faults, building=self.building) for n in range(meters)
        ]
        addresses = [f"{int(ADDRESS) + n:012d}" for n in range(meters)]
        self.stations = [Dlt645Station(m, a, **(station or {})) for m, a in zip(self.meters, addresses, strict=True)]
        self.shared = SharedLine(self.stations, octet_s=OCTET_S, turnaround_s=0.03, now=self.clock.now, parity=True)
        self.line = Line(NullModem(self.shared, self.clock.move))
        self.drivers = [
            Dlt645Driver(Dlt645Spec(f"m{n}", a, **spec), TIMING, self.clock) for n, a in enumerate(addresses)
        ]
        self.driver = self.drivers[0]

    def wait(self, seconds: float) -> None:
        """Let time pass on the line; what comes in it is nobody's."""
        end = self.line.transport.monotonic() + seconds
        while self.line.transport.monotonic() < end:
            self.line.transport.read(4096, end)

    def poll(self) -> dict:
        return {r.obis: r for r in self.driver.poll(self.line)}


@pytest.fixture
def bench(lab):
    return lambda *faults, **changes: Bench(lab, *faults, **changes)


def test_the_registers_of_a_meter(bench) -> None:
    b = bench()
    at = b.poll()
    assert at[obis.ENERGY_IMPORT].value == b.meters[0].energy_wh(b.clock.now())[0]
    assert at[obis.ENERGY_IMPORT].unit is Unit.WATT_HOUR
    assert at[obis.POWER_IMPORT].value == 500.0
    assert at[obis.POWER_EXPORT].value == 0.0
    assert [at[v].value for v in obis.VOLTAGE] == [230.1, 229.3, 231.7]
    assert at[obis.CURRENT[0]].value == pytest.approx(500 * 0.5 / 230.1 / 0.95, abs=1e-3)
    assert at[obis.NEUTRAL_CURRENT].value == pytest.approx(at[obis.CURRENT[0]].value)
    assert at[obis.POWER_FACTOR].value == 0.95
    energy = at[obis.ENERGY_IMPORT]
    assert energy.uncertainty_s < 0.2
    assert abs(energy.sampled_s - b.clock.now()) < 3
    assert b.driver.traffic.repeats == 0


def test_reverse_power_is_export(bench, lab) -> None:
    at = bench(building=lab.SteadyBuilding(power_w=200.0, export_w=1500.0)).poll()
    assert (at[obis.POWER_IMPORT].value, at[obis.POWER_EXPORT].value) == (0.0, 1300.0)
    assert at[obis.ENERGY_EXPORT].value > 0


def test_a_single_phase_meter_refuses_blocks_and_is_read_all_the_same(bench, lab) -> None:
    at = bench(building=lab.SteadyBuilding()).poll()
    assert at[obis.VOLTAGE[0]].value == 230.1
    assert obis.VOLTAGE[1] not in at


def test_rates_come_with_the_total_in_one_block(bench) -> None:
    b = bench(rates=True, live=False)
    at = b.poll()
    day, night = (at[obis.ENERGY_IMPORT._replace(e=rate)].value for rate in (1, 2))
    assert day + night == pytest.approx(at[obis.ENERGY_IMPORT].value, abs=20)
    assert obis.VOLTAGE[0] not in at


def test_identity(bench) -> None:
    b = bench(Fault(kind="clock_jump", onset="+0s", amount=40.0))
    identity = b.driver.identify(b.line)
    assert identity.serial == "000000000001"
    assert identity.firmware == "checkmeter-sim"
    assert identity.clock_offset_s == pytest.approx(40, abs=2)
    assert obis.ENERGY_IMPORT in identity.registers
    assert isinstance(b.driver, HasClock)


def test_the_clock_is_set_with_a_password(bench) -> None:
    b = bench(Fault(kind="clock_jump", onset="+0s", amount=4000.0), password=bytes((2, 0, 0, 0)))
    assert b.driver.read_clock(b.line) - b.clock.now() == pytest.approx(4000, abs=2)
    b.driver.set_clock(b.line, b.clock.now())
    assert b.driver.read_clock(b.line) - b.clock.now() == pytest.approx(0, abs=2)
    wrong = bench(password=bytes((2, 0, 0, 1)))
    with pytest.raises(AccessDenied, match="password"):
        wrong.driver.set_clock(wrong.line, wrong.clock.now())


def test_a_broadcast_sets_a_clock_that_is_nearly_right_and_no_other(bench) -> None:
    b = bench(Fault(kind="clock_jump", onset="+0s", amount=120.0))
    b.driver.set_clock(b.line, b.clock.now())
    assert b.driver.read_clock(b.line) - b.clock.now() == pytest.approx(0, abs=2)
    far = bench(Fault(kind="clock_jump", onset="+0s", amount=4000.0))
    with pytest.raises(AccessDenied, match="give its password"):
        far.driver.set_clock(far.line, far.clock.now())


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC"])
def test_load_records(bench, zone: str) -> None:
    b = bench(timezone=zone, station={"timezone": zone})
    first_s, last_s = b.clock.now() - 86_400, b.clock.now()
    rows = [r for r in b.driver.read_profile(b.line, first_s, last_s) if r.obis == obis.ENERGY_IMPORT]
    assert len(rows) == 96
    assert all(r.sampled_s % 900 == 0 for r in rows)
    assert all(b.meters[0].energy_wh(r.sampled_s)[0] == r.value for r in rows)
    assert all(r.quality == Quality.FROM_PROFILE for r in rows)
    assert [r.sampled_s for r in rows] == sorted(r.sampled_s for r in rows)


def test_daily_freezes_where_there_are_no_load_records(bench) -> None:
    b = bench(station={"load_records": False})
    rows = b.driver.read_profile(b.line, b.clock.now() - 10 * 86_400, b.clock.now())
    energies = [r for r in rows if r.obis == obis.ENERGY_IMPORT]
    assert len(energies) == 10
    assert all(b.meters[0].energy_wh(r.sampled_s)[0] == r.value for r in energies)


def test_events_are_read_when_their_counter_has_moved(bench) -> None:
    faults = [Fault(kind="cover", onset="+1h", until="+2h"), Fault(kind="magnet", onset="+3h", until="+4h")]
    b = bench(*faults)
    codes = [(e.code, e.meter_time_s - b.lab.START_S) for e in b.driver.read_events(b.line, b.lab.START_S)]
    assert codes == [(44, 3600.0), (45, 7200.0), (42, 10800.0), (43, 14400.0)]
    exchanges = b.driver.traffic.exchanges
    assert b.driver.read_events(b.line, b.lab.START_S) == []
    assert b.driver.traffic.exchanges - exchanges == 4  # the counters alone


def test_a_replaced_meter_is_another_one(bench) -> None:
    b = bench(Fault(kind="replaced", onset="+12h"))
    b.poll()
    before = b.driver.identity
    b.clock.move(6 * 3600)
    at = b.poll()
    assert b.driver.identity.serial != before.serial
    assert at[obis.ENERGY_IMPORT].value == b.meters[0].energy_wh(b.clock.now())[0]


def test_a_register_that_falls_is_seen_twice_and_suspect(bench) -> None:
    b = bench(Fault(kind="decrease", onset="+12h", amount=12.0))
    b.poll()
    b.clock.move(3600 * 3)
    assert b.poll()[obis.ENERGY_IMPORT].quality & Quality.SUSPECT
    assert b.driver.doubts.odd == 2


def test_long_answers_come_in_follow_on_frames(bench) -> None:
    b = bench()
    long = bytes(range(1, 200)) * 3
    b.stations[0]._value = lambda di, more: long
    assert b.driver._read(b.line, 0x04000403).frame.data == long


def test_a_meter_that_never_ends_is_left(bench) -> None:
    b = bench()
    b.stations[0]._next = lambda frame: Frame(b.stations[0].address, 0xB2, frame.data[:4] + b"\x01" + frame.data[4:])
    b.stations[0]._first = lambda di, octets: Frame(b.stations[0].address, 0xB1, di + octets)
    with pytest.raises(RemoteProtocolError, match="no end"):
        b.driver._read(b.line, 0x00010000)


def test_silence_costs_two_timeouts_and_one_when_probing(bench) -> None:
    b = bench(Fault(kind="silence"))
    before_s = b.clock.elapsed_s
    with pytest.raises(ResponseTimeout, match="m0: no answer"):
        b.driver.poll(b.line)
    assert b.clock.elapsed_s - before_s == pytest.approx(2 * (1.0 + 20 * OCTET_S), abs=0.05)
    b.line.probing = True
    before_s = b.clock.elapsed_s
    with pytest.raises(ResponseTimeout):
        b.driver.poll(b.line)
    assert b.clock.elapsed_s - before_s < 1.3


def test_the_address_of_the_only_meter(bench) -> None:
    b = bench()
    assert identify_address(b.line, TIMING, b.clock) == ADDRESS
    both = bench(meters=2)
    assert identify_address(both.line, TIMING, both.clock) is None  # two at once are heard interleaved


def test_the_search_finds_all_meters_of_a_line(bench) -> None:
    b = bench(meters=3)
    assert search(b.line, TIMING, b.clock) == [f"{int(ADDRESS) + n:012d}" for n in range(3)]
    assert search(bench(meters=1).line, TIMING, b.clock) == [ADDRESS]


@pytest.mark.parametrize(
    "fault", ["foreign_frame", "duplicate", "truncated", "extra", "noise", "late_tail", "bad_fcs", "undefined_object"]
)
def test_no_value_is_wrong_whatever_the_modem_does(bench, fault: str) -> None:
    amount = {"late_tail": 0.3, "noise": 2e-3}.get(fault)
    b = bench(Fault(kind=fault, probability=0.3, amount=amount))
    right = 0
    for _ in range(25):
        b.wait(30)
        try:
            readings = b.driver.poll(b.line)
        except MeterError:
            continue
        for reading in readings:
            if reading.obis == obis.ENERGY_IMPORT:
                right += 1
                low = b.meters[0].energy_wh(reading.sampled_s - reading.uncertainty_s)[0]
                assert low <= reading.value <= b.meters[0].energy_wh(reading.sampled_s + reading.uncertainty_s)[0]
            elif reading.obis == obis.VOLTAGE[0]:
                assert reading.value == 230.1
    assert right >= 5


def test_a_babbling_line_does_not_hold_us(bench, lab) -> None:
    b = bench(Fault(kind="silence"))
    modem = lab.DirtyModem(b.shared, b.clock.move)
    for n in range(4000):
        modem.inject(b"\x68\x33\x16\x55", 0.05 * n)
    with pytest.raises(ResponseTimeout):
        b.driver.poll(Line(modem))
    assert b.clock.elapsed_s < 30


def test_what_a_spec_refuses() -> None:
    with pytest.raises(ValueError, match="wildcards"):
        Dlt645Spec("m", "AAAAAAAAAAAA")
    with pytest.raises(ValueError, match="twelve digits"):
        Dlt645Spec("m", "1234567890123")
    with pytest.raises(ValueError, match="password has 4 octets"):
        Dlt645Spec("m", "1", password=b"00000000")
    assert "password" not in repr(Dlt645Spec("m", "1", password=b"1234"))


def test_wake_ups_are_optional() -> None:
    assert Frame(wire.address_of("1"), 0x11, b"").encode(0)[0] == 0x68
