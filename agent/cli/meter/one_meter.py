"""What the verbs at a meter share: one meter of a site file, asked from the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from agent.polling.buses import open_bus
from agent.process.clock import SystemClock
from agent.process.exit_codes import NEGATIVE
from agent.site.errors import ConfigError
from agent.site.load import load
from agent.wire.values import utc as wire_utc
from firmware_io.bus import Bus
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.cosem.registers import REGISTER_CLASSES, Scale, scaler_of
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.session import Session
from firmware_io.driver import Line, MeterDriver
from firmware_io.errors import RegisterUnavailable, RemoteProtocolError, TransportError
from firmware_io.obis import ObisCode

VALUE = 2
OTHER_CLASSES = (1, 8, 40, 70)  # data, clock, push setup, disconnect control
CLOCK_CLASS = 8

T = TypeVar("T")


@contextmanager
def meter_of(site_file: Path, meter: str, *, trace: bool) -> Iterator[Bus]:
    """A bus with the one meter on it; the line is let go at the end.

    Raises:
        ConfigError: no such meter, or it has no bus.
        MeterError: the line cannot be opened.
    """
    config = load(site_file)
    table = next((m for m in config.meter if m.id == meter), None)
    if table is None:
        known = ", ".join(m.id for m in config.meter)
        raise ConfigError([f"{site_file}: there is no meter {meter}; there are {known}"])
    if table.bus is None or table.address is None:
        raise ConfigError([f"{site_file}: meter {meter} has no bus or no address: it cannot be asked"])
    bus = open_bus(config, meter, SystemClock(), (lambda text: click.echo(text, err=True)) if trace else None)
    try:
        yield bus
    except TransportError as error:
        raise TransportError(
            f"{error}; is the agent running? It has the line to itself (systemctl stop checkmeter)"
        ) from error
    finally:
        bus.close()


def over_session(bus: Bus, meter: str, use: Callable[[Session], T]) -> T:
    """What `use` returns, called with the meter's open association.

    Raises:
        RegisterUnavailable: the meter does not speak DLMS.
        MeterError: it does not answer, or not as it should.
    """

    def work(driver: MeterDriver, line: Line) -> T:
        if not isinstance(driver, DlmsDriver):
            raise RegisterUnavailable("only a DLMS meter can be asked that", meter=meter)
        return use(driver.session(line))

    return bus.use(meter, work)


def confirm(meter: str, what: str, *, yes: bool) -> None:
    """Say what will happen, and have the meter's name typed. Raises: SystemExit: something else was."""
    if yes:
        return
    click.echo(what)
    if click.prompt("Type the meter's name to go on") != meter:
        click.echo("nothing was changed", err=True)
        raise SystemExit(NEGATIVE)


class Value(NamedTuple):
    """One attribute as it is shown."""

    name: ObisCode
    value: object
    unit: str = ""


def values(session: Session, names: list[ObisCode]) -> list[Value]:
    """Objects of any class by their OBIS code: what class they are is tried out, registers first.

    Raises:
        MeterError: the meter does not answer.
    """
    found: dict[ObisCode, Value] = {}
    for class_id in (*REGISTER_CLASSES, *OTHER_CLASSES):
        open_names = [name for name in names if name not in found]
        results = session.get_list([Attribute(class_id, name, VALUE) for name in open_names]) if open_names else []
        hits = [(n, r) for n, r in zip(open_names, results, strict=True) if isinstance(r, Data)]
        scales: list[Data | DataAccessResult] = []
        if class_id in REGISTER_CLASSES and hits:
            scales = session.get_list([scaler_of(name, class_id) for name, _ in hits])
        for i, (name, result) in enumerate(hits):
            found[name] = _shown(name, class_id, result, scales[i] if scales else None)
    return [found.get(name, Value(name, None, "not there, or not for us")) for name in names]


def _shown(name: ObisCode, class_id: int, result: Data, scaler_unit: Data | DataAccessResult | None) -> Value:
    value = result.plain()
    if class_id == CLOCK_CLASS and isinstance(value, bytes):
        return Value(name, _time(value))
    if isinstance(scaler_unit, Data) and isinstance(value, int | float):
        try:
            scale = Scale.decode(scaler_unit)
        except RemoteProtocolError:
            return Value(name, value, f"(scaler and unit {scaler_unit.plain()})")
        return Value(name, scale.apply(value), scale.unit.symbol)
    if isinstance(value, bytes):
        text = value.rstrip(b"\x00")
        value = text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() and text else value.hex()
    return Value(name, value)


def _time(octets: bytes) -> str:
    """A date-time as the meter shows it, with its deviation."""
    try:
        time = MeterTime.decode(octets)
    except RemoteProtocolError as error:
        return str(error)
    if time is None:
        return f"not set ({octets.hex()})"
    deviation = "no deviation" if time.deviation_min is None else f"deviation {time.deviation_min:+d} min"
    return f"{utc(time.local_s).replace('T', ' ').rstrip('Z')} ({deviation})"


def utc(seconds: float) -> str:
    """RFC 3339, UTC."""
    return wire_utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
