"""`checkmeter clock`: how far a meter's clock is off, and setting it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli.meter.one_meter import meter_of, utc
from agent.process.exit_codes import NEGATIVE
from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.cosem.meter_time import Convention, MeterTime
from firmware_io.dlms.session.session import Session
from firmware_io.errors import RegisterUnavailable

TIME = Attribute(8, obis.CLOCK, 2)
GOOD_S = 2.0  # a clock that was just set is no further off than the exchange took


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("meter")
@click.option("--set", "set_it", is_flag=True, help="Set it to this machine's time. Meters log that as an event.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded, without secrets, on standard error.")
def command(site_file: Path, meter: str, set_it: bool, trace: bool) -> None:
    """Show a meter's clock and, with --set, set it in the meter's own manner (zone, sign of the deviation)."""
    with meter_of(site_file, meter, trace=trace) as bus:
        session = bus.session(meter)
        off_s, convention = _show(session)
        if not set_it:
            return
        session.set(TIME, axdr.octet_string(convention.meter_time(datetime.now(UTC).timestamp()).encode()))
        click.echo("set")
        off_s, _ = _show(session)
    if off_s is None or abs(off_s) > GOOD_S:
        click.echo(f"{meter}: the clock did not take the time; does this client have the right to set it?", err=True)
        raise SystemExit(NEGATIVE)


def _show(session: Session) -> tuple[float | None, Convention]:
    """Print the clock; how far it is off and what it means by its time."""
    octets = session.get(TIME).value
    now_s = datetime.now(UTC).timestamp()
    time = MeterTime.decode(octets) if isinstance(octets, bytes) else None
    if time is None:
        if not isinstance(octets, bytes):
            raise RegisterUnavailable("it has no time", meter=session.meter, obis=str(obis.CLOCK))
        click.echo(f"{session.meter}  not set ({octets.hex()})")
        return None, Convention()
    convention = Convention.learn(time, now_s)
    off_s = convention.utc_s(time) - now_s
    zone = "not given" if time.deviation_min is None else f"{time.deviation_min:+d} min"
    doubt = "  doubtful by its own account" if time.doubtful else ""
    kind = convention.deviation.name.lower()
    click.echo(f"{session.meter}  {utc(now_s + off_s)}  {off_s:+.1f} s off  deviation {zone} ({kind}){doubt}")
    return off_s, convention
