"""Scanning a line for meters that do not speak DLMS: who answers, at which speed, under which address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from agent.cli.notes import note
from agent.process.clock import SystemClock
from firmware_io.asking.exchange import Timing
from firmware_io.driver import Line, Trace
from firmware_io.errors import MeterError, TransportError
from firmware_io.spec import BusSpec
from firmware_io.transport import open_transport

BAUDS = {
    "dlt645": (2400, 9600, 1200, 4800, 19200),
    "dlt698": (9600, 2400, 115200, 19200),
    "modbus": (9600, 19200, 38400, 115200, 2400),
    "mbus": (2400, 300, 9600),
}
PARITY = {"dlt645": "E", "dlt698": "E", "modbus": "N", "mbus": "E"}
ANSWER_S = 0.5  # the slowest of these protocols answers within half a second (DL/T 645-2007 clause 5.4)
LAST_UNIT, LAST_PRIMARY = 32, 250
LAST_POSSIBLE_UNIT = 247  # Modbus over serial line 1.02, clause 2.2
PROGRESS_UNITS = 8  # addresses behind each line of progress


@dataclass(frozen=True, slots=True)
class FoundMeter:
    """A meter that answered: `address` as the site file has it, `keys` what else stands in its table there."""

    baud: int
    address: int | str
    serial: str | None = None
    note: str = ""
    keys: tuple[tuple[str, object], ...] = ()
    fitting: tuple[str, ...] = ()  # device profiles that fit, where more than one does


def find(
    protocol: str,
    port: str,
    baud: int,
    parity: str,
    first: int,
    last: int,
    trace: Trace | None = None,
    tell: Callable[[FoundMeter], None] = lambda meter: None,
) -> list[FoundMeter]:
    """All meters of one protocol that answer on a port at one speed; `tell` is given each as it is found.

    Raises:
        TransportError: the port cannot be opened, or fails.
    """
    bus = BusSpec("scan", port, baud, parity, ANSWER_S)  # type: ignore[arg-type]  # of click.Choice, or of PARITY
    line = Line(open_transport(bus), trace)
    try:
        search: dict[str, Callable[[Line, BusSpec, int, int], Iterator[FoundMeter]]] = {
            "dlt645": _dlt645,
            "dlt698": _dlt698,
            "modbus": _modbus,
            "mbus": _mbus,
        }
        found = []
        for meter in search[protocol](line, bus, first, last):
            tell(meter)
            found.append(meter)
        return found
    finally:
        line.close(orderly=True)


def _dlt645(line: Line, bus: BusSpec, first: int, last: int) -> Iterator[FoundMeter]:
    """By wildcard addresses, digit pair by digit pair: two meters that answer at once tell nothing but that."""
    from firmware_io.dlt645.driver import Dlt645Driver, Dlt645Spec
    from firmware_io.dlt645.scan import search

    timing, clock = Timing.of(bus), SystemClock()
    for digits in search(line, timing, clock):
        driver = Dlt645Driver(Dlt645Spec(digits, digits), timing, clock)
        serial, note = None, ""
        try:
            serial = driver.identify(line).serial
        except TransportError:
            raise
        except MeterError as error:
            note = str(error)
        yield FoundMeter(bus.baud, digits, serial, note)


def _dlt698(line: Line, bus: BusSpec, first: int, last: int) -> Iterator[FoundMeter]:
    """By wildcard addresses, as `_dlt645` does."""
    from firmware_io.dlt698.driver import Dlt698Driver, Dlt698Spec
    from firmware_io.dlt698.scan import search

    timing, clock = Timing.of(bus), SystemClock()
    for digits in search(line, timing, clock):
        serial, note = None, ""
        try:
            serial = Dlt698Driver(Dlt698Spec(digits, digits), timing, clock).identify(line).serial
        except TransportError:
            raise
        except MeterError as error:
            note = str(error)
        yield FoundMeter(bus.baud, digits, serial, note)


def _modbus(line: Line, bus: BusSpec, first: int, last: int) -> Iterator[FoundMeter]:
    from firmware_io.modbus.profile_file import shipped
    from firmware_io.modbus.scan import answers, fits

    timing, clock = Timing.of(bus), SystemClock()
    framing = "tcp" if bus.port.startswith("tcp://") else "rtu"
    lowest, highest = max(first, 1), min(last, LAST_POSSIBLE_UNIT)
    for unit in range(lowest, highest + 1):
        if (unit - lowest) % PROGRESS_UNITS == 0:
            note(f"{bus.port}: asking addresses {unit} to {min(unit + PROGRESS_UNITS - 1, highest)} of {highest}")
        if not answers(line, unit, timing, clock, framing=framing):  # type: ignore[arg-type]  # one of the two
            continue
        found = fits(line, unit, shipped().values(), timing, clock, framing=framing)  # type: ignore[arg-type]
        good = [fit for fit in found if fit.fits]
        told = [f"{fit.profile} fits ({fit.why})" for fit in good] or [
            f"not {fit.profile}: {fit.why}" for fit in found if "no register of profile" not in fit.why
        ]
        keys = (("profile", good[0].profile),) if good and (len(good) == 1 or good[0].identified) else ()
        yield FoundMeter(
            bus.baud,
            unit,
            None,
            "; ".join(told[:4]) or "no shipped profile fits",
            keys,
            tuple(fit.profile for fit in good),
        )


def _mbus(line: Line, bus: BusSpec, first: int, last: int) -> Iterator[FoundMeter]:
    from firmware_io.mbus.driver import MbusDriver, MbusSpec, find_secondary
    from firmware_io.mbus.units import MEDIA

    timing, clock = Timing.of(bus), SystemClock()
    for address in find_secondary(line, timing, clock):
        driver = MbusDriver(MbusSpec(str(address), None, address), timing, clock)
        serial = None
        with suppress(MeterError):
            serial = driver.identify(line).serial
        medium = MEDIA.get(address.medium or 0, "other")
        named = {"heat (return)": "heat", "heat (flow)": "heat", "water": "cold-water", "cold water": "cold-water"}
        named |= {"warm water": "hot-water", "hot water": "hot-water", "gas": "gas"}
        keys = (("medium", named[medium]),) if medium in named else ()
        yield FoundMeter(bus.baud, str(address), serial, medium, keys)
