"""`checkmeter clock`: how far a meter's clock is off, and setting it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli.meter.one_meter import meter_of, utc
from agent.process.exit_codes import NEGATIVE
from firmware_io.bus import Bus
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.driver import HasClock, Line, MeterDriver
from firmware_io.errors import RegisterUnavailable

GOOD_S = 2.0  # a clock that was just set is no further off than the exchange took


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("meter")
@click.option("--set", "set_it", is_flag=True, help="Set it to this machine's time. Meters log that as an event.")
@click.option("--broadcast", is_flag=True, help="Send this machine's time to all meters of this one's line.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded, without secrets, on standard error.")
def command(site_file: Path, meter: str, set_it: bool, broadcast: bool, trace: bool) -> None:
    """Show a meter's clock and, with --set, set it in the meter's own manner (zone, sign of the deviation).

    With --broadcast the time goes to all meters of its line at once, in the manner of this one. Nobody answers to that:
    look at each afterwards.
    """
    with meter_of(site_file, meter, trace=trace) as bus:
        if broadcast:
            bus.use(meter, _broadcast)
            click.echo("sent to all; whether a meter has taken it says checkmeter clock of that meter")
            return
        off_s = _show(bus, meter)
        if not set_it:
            return
        bus.use(meter, _set)
        click.echo("set")
        off_s = _show(bus, meter)
    if off_s is None or abs(off_s) > GOOD_S:
        click.echo(f"{meter}: the clock did not take the time; does this client have the right to set it?", err=True)
        raise SystemExit(NEGATIVE)


def _broadcast(driver: MeterDriver, line: Line) -> None:
    if not isinstance(driver, DlmsDriver):
        raise RegisterUnavailable("only DLMS meters can be told the time all at once")
    _, convention = driver.read_meter_time(line)
    driver.broadcast_clock(line, datetime.now(UTC).timestamp(), convention)


def _set(driver: MeterDriver, line: Line) -> None:
    _with_clock(driver).set_clock(line, datetime.now(UTC).timestamp())


def _show(bus: Bus, meter: str) -> float | None:
    """Print the clock; how far it is off, None if it was never set."""
    offset_s, more = bus.use(meter, _offset)
    if offset_s is None:
        click.echo(f"{meter}  not set")
    else:
        click.echo(f"{meter}  {utc(datetime.now(UTC).timestamp() + offset_s)}  {offset_s:+.1f} s off{more}")
    return offset_s


def _offset(driver: MeterDriver, line: Line) -> tuple[float | None, str]:
    """The clock's time minus ours in seconds, and what a DLMS meter says of its zone."""
    if not isinstance(driver, DlmsDriver):
        return _with_clock(driver).read_clock(line) - datetime.now(UTC).timestamp(), ""
    time, convention = driver.read_meter_time(line)
    if time is None:
        return None, ""
    zone = "not given" if time.deviation_min is None else f"{time.deviation_min:+d} min"
    doubt = "  doubtful by its own account" if time.doubtful else ""
    kind = convention.deviation.name.lower()
    return convention.utc_s(time) - datetime.now(UTC).timestamp(), f"  deviation {zone} ({kind}){doubt}"


def _with_clock(driver: MeterDriver) -> HasClock:
    if not isinstance(driver, HasClock):
        raise RegisterUnavailable("meters of this kind have no clock that could be read")
    return driver
