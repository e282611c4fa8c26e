"""`checkmeter scan`: which meters are on a line, at which speed and address."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import cast

import click

from agent.cli.meter import scan_others
from agent.cli.meter.scan_others import FoundMeter
from agent.polling.hex_trace import HexTrace
from agent.process.exit_codes import NEGATIVE
from firmware_io.dlms.meter.scan import BAUDS, FIRST_ADDRESS, LAST_ADDRESS, Found, Octets, probe
from firmware_io.dlms.session.trace import Tracer
from firmware_io.spec import BusSpec
from firmware_io.transport import open_transport


@click.command()
@click.argument("port")
@click.option("--protocol", type=click.Choice(["dlms", "dlt645", "modbus", "mbus"]), default="dlms", show_default=True)
@click.option(
    "--baud", "bauds", type=int, multiple=True, help="Speed to try, more than once if you like; all by default."
)
@click.option("--parity", type=click.Choice(["N", "E", "O"]), help="The protocol's usual one by default.")
@click.option("--first", type=click.IntRange(0, 16383), help="Of DLMS and Modbus addresses; 16 and 1 by default.")
@click.option("--last", type=click.IntRange(0, 16383), help="Of DLMS and Modbus addresses; 125 and 32 by default.")
@click.option("--octets", type=click.Choice(["1", "2", "4"]), multiple=True, default=("2",), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on each line.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded on standard error.")
def command(
    port: str,
    protocol: str,
    bauds: tuple[int, ...],
    parity: str | None,
    first: int | None,
    last: int | None,
    octets: tuple[str, ...],
    as_json: bool,
    trace: bool,
) -> None:
    """Find the meters on PORT (/dev/ttyUSB0, or tcp://host:port): probe every address at every speed."""
    tcp = port.startswith("tcp://")
    if protocol != "dlms":
        _others(port, protocol, bauds, parity, (first, last), as_json=as_json, trace=trace)
        return
    first, last = FIRST_ADDRESS if first is None else first, LAST_ADDRESS if last is None else last
    speeds = (0,) if tcp else bauds or BAUDS
    tries = [(address, int(form)) for form in octets for address in range(first, last + 1)]
    tries = [(address, form) for address, form in tries if form == 4 or address < 0x80]
    tracer = Tracer(lambda text: click.echo(text, err=True), ()) if trace else None
    found: list[Found] = []
    with click.progressbar(length=len(tries) * len(speeds), label=port, show_pos=True) as bar:
        for baud in speeds:
            bus = BusSpec("scan", port, baud or 9600, parity or "N")  # type: ignore[arg-type]  # click.Choice
            line = open_transport(bus)
            try:
                for address, form in tries:
                    meter = probe(line, bus, address, cast(Octets, form), trace=tracer)
                    if meter is not None:
                        found.append(replace(meter, baud=baud))
                    bar.update(1)
            finally:
                line.close()
    for meter in found:
        click.echo(json.dumps(asdict(meter)) if as_json else _line(meter))
    if not found:
        click.echo("nobody answers: check the wiring (A and B), the speed, the parity, and --octets", err=True)
        raise SystemExit(NEGATIVE)


def _line(meter: Found) -> str:
    speed = f"{meter.baud} Bd" if meter.baud else "tcp"
    told = "  ".join(text for text in (meter.serial, meter.name, meter.note) if text)
    return f"{speed}  address {meter.address} ({meter.octets} octets)  {told}"


def _others(
    port: str,
    protocol: str,
    bauds: tuple[int, ...],
    parity: str | None,
    limits: tuple[int | None, int | None],
    *,
    as_json: bool,
    trace: bool,
) -> None:
    """Meters that do not speak DLMS, at the first speed at which somebody answers."""
    first, last = 1 if limits[0] is None else limits[0], scan_others.LAST_UNIT if limits[1] is None else limits[1]
    tracer = HexTrace(lambda text: click.echo(text, err=True)) if trace else None
    found: list[FoundMeter] = []
    for baud in (9600,) if port.startswith("tcp://") else bauds or scan_others.BAUDS[protocol]:
        click.echo(f"{port} at {baud} Bd", err=True)
        found = scan_others.find(protocol, port, baud, parity or scan_others.PARITY[protocol], first, last, tracer)
        if found:
            break
    for meter in found:
        if as_json:
            click.echo(json.dumps(asdict(meter) | {"keys": dict(meter.keys)}))
        else:
            told = "  ".join(text for text in (meter.serial, meter.note) if text)
            click.echo(f"{meter.baud} Bd  address {meter.address}  {told}")
    if not found:
        click.echo("nobody answers: check the wiring, the speed and the parity", err=True)
        raise SystemExit(NEGATIVE)
