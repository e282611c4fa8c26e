"""Which profile fits a Modbus meter that nobody has documented? Tries them all, changes nothing, and gives reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from firmware_io import obis
from firmware_io.asking.exchange import Timing
from firmware_io.clock import Clock
from firmware_io.driver import Line
from firmware_io.errors import MeterError, ResponseTimeout, TransportError
from firmware_io.modbus.driver import ModbusDriver, ModbusSpec
from firmware_io.modbus.framing import HOLDING, INPUT, Framing
from firmware_io.modbus.profile import Profile, Register, WordOrder
from firmware_io.modbus.proof import instant_faults

ORDERS: tuple[WordOrder, ...] = ("big", "little")


@dataclass(frozen=True, slots=True)
class Fit:
    """How one profile does on a meter. `order` is the word order that was tried where it is not the profile's own."""

    profile: str
    fits: bool
    why: str
    identified: bool = False
    order: WordOrder | None = None
    energy_kwh: float | None = None


def answers(line: Line, unit: int, timing: Timing, clock: Clock, *, framing: Framing = "rtu") -> bool:
    """Whether anybody is at a unit number: any reply to a read of register 0 counts, refusals too.

    Raises:
        TransportError: the line failed.
    """
    for function in (INPUT, HOLDING):
        probe = Register("energy_import", function, 0, "uint16")
        driver = _driver(_probe_profile(probe), unit, timing, clock, framing)
        try:
            driver.identify(line)
        except ResponseTimeout:
            continue
        except TransportError:
            raise
        except MeterError:
            return True
        return True
    return False


def fits(
    line: Line, unit: int, profiles: Iterable[Profile], timing: Timing, clock: Clock, *, framing: Framing = "rtu"
) -> list[Fit]:
    """How each profile does, those that fit first. One poll tells; an hour proves.

    Raises:
        TransportError: the line failed.
    """
    found = [_fit(line, unit, profile, timing, clock, framing) for profile in profiles]
    return sorted(found, key=lambda fit: (not fit.fits, not fit.identified, fit.order is not None))


def _fit(line: Line, unit: int, profile: Profile, timing: Timing, clock: Clock, framing: Framing) -> Fit:
    own = _try(line, unit, profile, timing, clock, framing)
    if own.fits or "voltage" not in own.why:
        return own
    for order in ORDERS:  # registers there, values not: the word order is the first suspect
        if any(register.order != order for register in profile.registers if register.words > 1):
            other = _try(line, unit, profile.with_order(order), timing, clock, framing)
            if other.fits:
                return Fit(
                    profile.name, True, f"with word_order = {order!r}", other.identified, order, other.energy_kwh
                )
    return own


def _try(line: Line, unit: int, profile: Profile, timing: Timing, clock: Clock, framing: Framing) -> Fit:
    driver = _driver(profile, unit, timing, clock, framing)
    try:
        driver.identify(line)
        values = driver.values(line)
    except TransportError:
        raise
    except MeterError as error:
        return Fit(profile.name, False, str(error).removeprefix(f"unit {unit}: "))
    known = {value.obis: value.value for value in values}
    if obis.POWER_EXPORT in known:
        known[obis.POWER_IMPORT] -= known[obis.POWER_EXPORT]
    faults = instant_faults(known)
    impossible = [value for value in values if not value.possible]
    if impossible:
        faults.append(f"{impossible[0].obis} is {impossible[0].value:g} {impossible[0].unit.symbol}")
    if obis.VOLTAGE[0] not in known and not driver.identified:
        faults.append("it shows no voltage to tell by; only an hour of energy and power can prove it")
    energy = known.get(obis.ENERGY_IMPORT)
    kwh = None if energy is None else energy / 1000
    why = "; ".join(faults) or ("it names itself" if driver.identified else "P = U I pf, voltage and frequency fit")
    return Fit(profile.name, not faults, why, driver.identified, None, kwh)


def _driver(profile: Profile, unit: int, timing: Timing, clock: Clock, framing: Framing) -> ModbusDriver:
    return ModbusDriver(ModbusSpec(f"unit {unit}", unit, profile, framing), timing, clock)


def _probe_profile(register: Register) -> Profile:
    return Profile("probe", "probe", "", False, 1, (register,))
