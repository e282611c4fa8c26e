"""The Modbus driver against simulated devices of every shipped profile, on clean and dirty lines, RTU and TCP."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Timing
from firmware_io.driver import Line
from firmware_io.errors import MeterError, RemoteProtocolError, ResponseTimeout
from firmware_io.modbus import framing as wire
from firmware_io.modbus.driver import ModbusDriver, ModbusSpec
from firmware_io.modbus.profile_file import parse, shipped
from firmware_io.modbus.proof import State
from firmware_io.modbus.scan import answers, fits
from firmware_io.simulator.building.scenario import Fault
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.shared import SharedLine
from firmware_io.simulator.modbus.station import ModbusStation

OCTET_S = 10 / 9600
TIMING = Timing(1.0, 0.1, OCTET_S)
PROFILES = shipped()


class Bench:
    """One device, or several, on a line at 9600 Bd."""

    def __init__(
        self,
        lab,
        profile: str = "eastron-sdm630",
        *faults: Fault,
        read_as=None,
        building=None,
        meters=1,
        framing="rtu",
        **spec,
    ) -> None:
        self.clock = LineClock(lab.START_S + 40_000)
        self.profile = PROFILES[profile]
        self.building = building or lab.SteadyBuilding(three_phase=self.profile.phases == 3, power_w=2000.0)
        self.meters = [
            lab.simulated_meter(self.clock, n + 1, faults=faults, building=self.building, resolution_wh=1.0)
            for n in range(meters)
        ]
        self.stations = [ModbusStation(m, 1 + n, self.profile, framing) for n, m in enumerate(self.meters)]
        self.shared = SharedLine(self.stations, octet_s=OCTET_S, turnaround_s=0.02, now=self.clock.now)
        self.line = Line(NullModem(self.shared, self.clock.move))
        spec.setdefault("proven", True)
        specs = [ModbusSpec(f"m{n}", 1 + n, PROFILES[read_as or profile], framing, **spec) for n in range(meters)]
        self.drivers = [ModbusDriver(one, TIMING, self.clock) for one in specs]
        self.driver = self.drivers[0]

    def poll(self) -> dict:
        return {r.obis: r for r in self.driver.poll(self.line)}

    def wait(self, seconds: float) -> None:
        end = self.line.transport.monotonic() + seconds
        while self.line.transport.monotonic() < end:
            self.line.transport.read(4096, end)


@pytest.fixture
def bench(lab):
    return lambda *args, **changes: Bench(lab, *args, **changes)


@pytest.mark.parametrize("framing", ["rtu", "tcp"])
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_profile_reads_its_device(bench, profile: str, framing: str) -> None:
    b = bench(profile, framing=framing)
    at = b.poll()
    energy = at[obis.ENERGY_IMPORT]
    count_wh = max(b.profile.resolution_wh, 1.0) + energy.value / 2**22  # a float32 has 24 bits
    assert energy.value == pytest.approx(b.meters[0].energy_wh(energy.sampled_s)[0], abs=count_wh)
    if obis.POWER_IMPORT in at:
        assert at[obis.POWER_IMPORT].value == pytest.approx(2000.0, abs=10.0)
    if obis.VOLTAGE[0] in at:
        assert at[obis.VOLTAGE[0]].value == pytest.approx(230.1, abs=0.06)
        assert at[obis.CURRENT[0]].value == pytest.approx(b.meters[0].live().currents_a[0], abs=0.01)
    assert b.driver.verdict.state is not State.REFUTED
    assert b.driver.traffic.repeats == 0


def test_export_is_export(bench, lab) -> None:
    at = bench(building=lab.SteadyBuilding(power_w=100.0, export_w=900.0, three_phase=True)).poll()
    assert (at[obis.POWER_IMPORT].value, at[obis.POWER_EXPORT].value) == (0.0, 800.0)


def test_the_serial_number_and_a_replacement(bench) -> None:
    b = bench("abb-b23", Fault(kind="replaced", onset="+12h"))
    b.poll()
    assert b.driver.identity.serial == "1"
    assert obis.ENERGY_IMPORT in b.driver.identity.registers


# The proof


def test_without_a_proof_energy_is_withheld_for_an_hour_and_then_given(bench) -> None:
    b = bench(proven=False)
    assert obis.ENERGY_IMPORT not in b.poll()
    assert b.driver.verdict.state is State.PENDING
    for _ in range(61):
        b.wait(60)
        at = b.poll()
    assert b.driver.verdict.state is State.PROVEN
    assert "integral of power" in b.driver.verdict.reasons[0]
    assert obis.ENERGY_IMPORT in at


def test_a_device_that_names_itself_takes_part_at_once(bench) -> None:
    b = bench("carlo-gavazzi-em340", proven=False)
    assert obis.ENERGY_IMPORT in b.poll()


def test_em340_read_as_em24_is_refused_by_its_identification(bench) -> None:
    b = bench("carlo-gavazzi-em340", read_as="carlo-gavazzi-em24")
    with pytest.raises(RemoteProtocolError, match=r"type 330, but profile carlo-gavazzi-em24 is for types 71 to 73"):
        b.poll()


TRAP = """
[device]
title = "An EM24 as one finds it on the net: total import at 0042h, no identification"
source = "test"
verified = false
phases = 3
function = 4
word_order = "little"
max_registers = 11
resolution_wh = 100
[registers.voltage_l1]
address = 0x00
type = "int32"
scale = 0.1
[registers.power]
address = 0x28
type = "int32"
scale = 0.1
[registers.energy_import]
address = 0x42
type = "int32"
scale = 100
"""


def test_the_energy_of_phase_2_rises_plausibly_and_is_refuted_by_the_power(bench) -> None:
    """Without any identification: voltage fits, power fits, energy rises; its rise is not the integral of the power."""
    b = bench("carlo-gavazzi-em340")
    spec = ModbusSpec("m0", 1, parse("trap", TRAP))
    driver = ModbusDriver(spec, TIMING, b.clock)
    for _ in range(180):
        readings = driver.poll(b.line)
        assert obis.ENERGY_IMPORT not in {r.obis for r in readings}  # never, at no time
        b.wait(60)
    assert driver.verdict.state is State.REFUTED
    assert "the integral of power is" in driver.verdict.reasons[0]


def test_a_flat_that_takes_nothing_takes_part_after_an_hour(bench, lab) -> None:
    """The thief of the story uses 1 kWh a month: nothing flows that could prove his meter's profile."""
    b = bench(proven=False, building=lab.SteadyBuilding(power_w=1.4, three_phase=True))
    b.poll()
    for _ in range(61):
        b.wait(60)
        at = b.poll()
    assert b.driver.verdict.state is State.CONSISTENT
    assert obis.ENERGY_IMPORT in at


def test_a_load_that_switches_proves_its_profile_too(bench, lab) -> None:
    b = bench(proven=False, building=lab.SteadyBuilding(power_w=2000.0, three_phase=True, swing=0.02))
    b.poll()
    for _ in range(300):
        b.wait(60)
        b.poll()
    assert b.driver.verdict.state is State.PROVEN


def test_scan_says_which_profile_fits_and_why_the_others_do_not(bench) -> None:
    b = bench("carlo-gavazzi-em340")
    found = fits(b.line, 1, PROFILES.values(), TIMING, b.clock)
    assert next(f.profile for f in found if f.fits) == "carlo-gavazzi-em340"
    assert found[0].identified
    why = {f.profile: f.why for f in found}
    assert "type 330" in why["carlo-gavazzi-em24"]
    assert all(f.why for f in found)


def test_scan_finds_the_word_order(bench) -> None:
    b = bench("orno-we-516")
    swapped = PROFILES["orno-we-516"].with_order("little")
    found = fits(b.line, 1, [swapped], TIMING, b.clock)
    assert found[0].fits
    assert found[0].order == "big"
    assert "word_order" in found[0].why


def test_who_answers(bench) -> None:
    b = bench()
    assert answers(b.line, 1, TIMING, b.clock)
    assert not answers(b.line, 9, TIMING, b.clock)


# The line


def test_a_late_reply_is_not_booked_to_the_next_question(bench) -> None:
    """Every reply comes after its question was given up: none may be taken for the answer to another one."""
    b = bench("carlo-gavazzi-em24", Fault(kind="late", probability=0.08, amount=1.8))
    read = 0
    for _ in range(60):
        try:
            at = b.poll()
        except ResponseTimeout:
            continue
        finally:
            b.wait(1.0)
        read += 1
        assert at[obis.VOLTAGE[0]].value == pytest.approx(230.1, abs=0.06)
        assert at[obis.POWER_IMPORT].value == pytest.approx(2000.0, abs=0.2)
        assert at[obis.ENERGY_IMPORT].value == pytest.approx(b.meters[0].energy_wh(b.clock.now())[0], abs=101)
    assert read >= 3
    assert b.driver.traffic.repeats >= 3


def test_a_question_that_is_owed_an_answer_is_not_asked_again_at_once(bench) -> None:
    b = bench("schneider-iem3155", Fault(kind="silence", onset="+12h"))
    b.poll()
    b.clock.move(3600)
    with pytest.raises(ResponseTimeout, match="no answer"):
        b.driver.poll(b.line)
    before = b.driver.traffic.exchanges
    with pytest.raises(ResponseTimeout):
        b.driver._ask(b.line, b.driver._blocks[0])
    assert b.driver.traffic.exchanges == before
    b.wait(4.0)
    with pytest.raises(ResponseTimeout, match="no answer"):
        b.driver._ask(b.line, b.driver._blocks[0])


def test_a_variant_that_lacks_registers_is_read_without_them(bench) -> None:
    b = bench("eastron-sdm72d-v1", read_as="eastron-sdm630", proven=True)
    b.stations[0]._known = frozenset((4, a) for a in range(0x34, 0x4C))
    at = b.poll()
    assert obis.VOLTAGE[0] not in at
    assert at[obis.ENERGY_IMPORT].value > 0


def test_a_device_of_another_kind_is_told(bench) -> None:
    b = bench("abb-b23", read_as="eastron-sdm630")
    with pytest.raises(RemoteProtocolError, match="checkmeter scan"):
        b.poll()


def test_one_dead_meter_of_32_costs_a_time_out(bench) -> None:
    b = bench()
    dead = ModbusDriver(ModbusSpec("dead", 77, b.profile, proven=True), TIMING, b.clock)
    b.line.probing = True
    before_s = b.clock.elapsed_s
    with pytest.raises(ResponseTimeout):
        dead.poll(b.line)
    assert b.clock.elapsed_s - before_s < 1.1


def test_what_a_spec_refuses() -> None:
    with pytest.raises(ValueError, match="1 to 247"):
        ModbusSpec("m", 0, PROFILES["abb-b23"])
    with pytest.raises(ValueError, match="energy alone proves no profile"):
        ModbusSpec("m", 1, PROFILES["abb-b23"], live=False)


def test_exceptions_are_told_in_words(bench) -> None:
    b = bench()
    b.stations[0]._body = lambda function, address, count: bytes((function | wire.EXCEPTION, 6))
    with pytest.raises(MeterError, match=r"checkmeter scan"):
        b.poll()
