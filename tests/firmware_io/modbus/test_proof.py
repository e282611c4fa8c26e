"""Wrong profiles on right meters: none of them ever brings an energy, and the reason is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Timing
from firmware_io.driver import Line
from firmware_io.errors import MeterError
from firmware_io.modbus.driver import ModbusDriver, ModbusSpec
from firmware_io.modbus.profile import Profile, Register
from firmware_io.modbus.profile_file import shipped
from firmware_io.modbus.proof import State
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.shared import SharedLine
from firmware_io.simulator.modbus.station import ModbusStation
from tests.firmware_io import lab

OCTET_S = 10 / 9600
TIMING = Timing(1.0, 0.1, OCTET_S)
PROFILES = shipped()


class Watched:
    """A device whose own map is `device`, read with another profile for some hours; `load_w` by hours passed."""

    def __init__(self, device: Profile, read_as: Profile, load_w: Callable[[float], float] = lambda h: 500.0) -> None:
        self.clock = LineClock(lab.START_S)
        self.building = lab.SteadyBuilding(three_phase=device.phases == 3)
        meter = lab.simulated_meter(self.clock, 1, building=self, resolution_wh=1.0)
        self.shared = SharedLine(
            [ModbusStation(meter, 1, device)], octet_s=OCTET_S, turnaround_s=0.02, now=self.clock.now
        )
        self.line = Line(NullModem(self.shared, self.clock.move))
        self.driver = ModbusDriver(ModbusSpec("m", 1, read_as), TIMING, self.clock)
        self._load_w = load_w
        self._wh, self._at_s = 123_456.0, self.clock.now()
        self.given = 0  # readings of energy
        self.refused = ""

    def energy_wh(self, meter: str, time_s: float) -> tuple[float, float]:
        power_w = self._load_w((time_s - lab.START_S) / 3600)
        self._wh += power_w * max(0.0, time_s - self._at_s) / 3600
        self._at_s = max(self._at_s, time_s)
        return self._wh, 0.0

    def live(self, meter: str, time_s: float):
        self.building.power_w = self._load_w((time_s - lab.START_S) / 3600)
        return self.building.live(meter, time_s)

    def watch(self, hours: float, poll_s: float = 60.0) -> None:
        end_s = self.clock.now() + 3600 * hours
        while self.clock.now() < end_s:
            try:
                readings = self.driver.poll(self.line)
            except MeterError as error:
                self.refused = str(error)
                readings = []
            self.given += sum(r.obis == obis.ENERGY_IMPORT for r in readings)
            self.clock.move(poll_s)


def changed(profile: Profile, name: str, change: Callable[[Register], Register], *, anonymous: bool = True) -> Profile:
    """A profile with one register changed; without its identification, which would settle it at once."""
    registers = tuple(change(r) if name in ("*", r.name) else r for r in profile.registers)
    return replace(profile, registers=registers, identification=None if anonymous else profile.identification)


def flipped(register: Register) -> Register:
    return register._replace(order="little" if register.order == "big" else "big")


ATTACKS: dict[str, tuple[str, Callable[[Register], Register]]] = {
    "energy x 10": ("energy_import", lambda r: r._replace(scale=r.scale * 10)),
    "energy / 10": ("energy_import", lambda r: r._replace(scale=r.scale / 10)),
    "energy x 1000": ("energy_import", lambda r: r._replace(scale=r.scale * 1000)),
    "energy / 1000": ("energy_import", lambda r: r._replace(scale=r.scale / 1000)),
    "energy / 3": ("energy_import", lambda r: r._replace(scale=r.scale / 3)),
    "energy x 2": ("energy_import", lambda r: r._replace(scale=r.scale * 2)),
    "energy one register on": ("energy_import", lambda r: r._replace(address=r.address + 1)),
    "energy one register back": ("energy_import", lambda r: r._replace(address=r.address - 1)),
    "energy in the other word order": ("energy_import", flipped),
    "everything in the other word order": ("*", flipped),
    "everything one register on": ("*", lambda r: r._replace(address=r.address + 1)),
    "everything one register back": ("*", lambda r: r._replace(address=max(r.address - 1, 0))),
    "power x 10": ("power", lambda r: r._replace(scale=r.scale * 10)),
    "power / 10": ("power", lambda r: r._replace(scale=r.scale / 10)),
    "power x 1000": ("power", lambda r: r._replace(scale=r.scale * 1000)),
    "current x 10": ("current_l1", lambda r: r._replace(scale=r.scale * 10)),
    "voltage / 10": ("voltage_l1", lambda r: r._replace(scale=r.scale / 10)),
    "voltage of two phases": ("voltage_l1", lambda r: r._replace(scale=r.scale * 1.732)),
}
DEVICES = ("eastron-sdm120", "eastron-sdm630", "abb-b21", "siemens-pac2200", "carlo-gavazzi-em24")


@pytest.mark.parametrize("attack", sorted(ATTACKS))
@pytest.mark.parametrize("device", DEVICES)
def test_a_profile_that_is_wrong_in_one_thing_never_brings_an_energy(device: str, attack: str) -> None:
    profile = PROFILES[device]
    name, change = ATTACKS[attack]
    if name != "*" and not any(r.name == name for r in profile.registers):
        pytest.skip(f"{device} has no {name}")
    wrong = changed(profile, name, change)
    if wrong.registers == profile.registers:
        pytest.skip("the same")
    watched = Watched(profile, wrong)
    watched.watch(4.0)
    assert watched.given == 0, watched.driver.proof
    told = watched.driver.verdict
    assert told.state is not State.PROVEN
    assert watched.refused or told.state is State.REFUTED or watched.driver.doubts.impossible, watched.driver.proof


@pytest.mark.parametrize("device", DEVICES)
def test_the_right_profile_without_identification_is_proven(device: str) -> None:
    profile = PROFILES[device]
    watched = Watched(profile, replace(profile, identification=None), lambda h: 2000.0)
    watched.watch(4.0)
    assert watched.driver.verdict.state is State.PROVEN
    assert watched.given > 100


@pytest.mark.parametrize("meter", ["carlo-gavazzi-em340", "carlo-gavazzi-em111"])
def test_em24_on_another_meter_of_its_vendor_takes_no_part(meter: str) -> None:
    """With its identification it is refused at once; without it, by what the energy does."""
    em24 = PROFILES["carlo-gavazzi-em24"]
    named = Watched(PROFILES[meter], em24)
    named.watch(0.5)
    assert named.given == 0
    assert "checkmeter scan" in named.refused
    anonymous = Watched(PROFILES[meter], replace(em24, identification=None))
    anonymous.watch(4.0)
    assert anonymous.given == 0, anonymous.driver.proof


def test_a_tenth_that_looks_right_while_nobody_is_at_home_is_caught_in_the_evening() -> None:
    """A night without load is consistent with everything; no long idle past may cover what comes after it."""
    profile = PROFILES["eastron-sdm120"]
    wrong = changed(profile, "energy_import", lambda r: r._replace(scale=r.scale / 10))
    idle_h = 30 * 24.0
    watched = Watched(profile, wrong, lambda h: 0.0 if h < idle_h else 800.0)
    watched.watch(idle_h - 0.1, poll_s=600.0)
    assert watched.driver.verdict.state is State.CONSISTENT
    given = watched.given
    watched.watch(12.0, poll_s=60.0)
    assert watched.driver.verdict.state is State.REFUTED
    assert watched.given - given <= 120, "two hours of doubtful values at most"


@pytest.mark.parametrize("poll_s", [60.0, 300.0])
def test_a_usual_flat_takes_part_within_hours(poll_s: float) -> None:
    profile = PROFILES["eastron-sdm120"]
    watched = Watched(profile, profile, lambda h: 300.0 + 900.0 * (int(h * 4) % 4 == 1))
    watched.watch(8.0, poll_s)
    assert watched.driver.verdict.state in (State.CONSISTENT, State.PROVEN), watched.driver.proof
    assert watched.given > 0
