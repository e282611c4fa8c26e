"""`checkmeter init`: a first site file, from the meters that answer on a port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from agent.cli.meter import scan_others
from agent.cli.meter.scan_others import FoundMeter
from agent.process.exit_codes import NEGATIVE
from agent.site.edit import text_of
from agent.site.load import load
from firmware_io.dlms.meter.scan import BAUDS, FIRST_ADDRESS, LAST_ADDRESS, Found, probe
from firmware_io.errors import RemoteProtocolError
from firmware_io.spec import BusSpec
from firmware_io.transport import open_transport

HEAD = """\
# Made by `checkmeter init` from the meters that answered on {port}. Look through it, then: checkmeter check {file}
#   - the main meter is the one at address {main}; change `main` and `subs` below if it is another one
#   - give each meter the name that alerts are to use, and accuracy_class and resolution_wh from its face plate
#   - all keys, with their meaning: checkmeter config schema, or docs/configuration.md
"""


@click.command("init")
@click.argument("port")
@click.option("--protocol", type=click.Choice(["dlms", "dlt645", "modbus", "mbus"]), default="dlms", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default="site.toml", show_default=True)
@click.option("--site", "site_name", default="building", show_default=True, help="Name of the building.")
@click.option("--gateway", default="gw-0001", show_default=True, help="Name of this gateway.")
@click.option("--broker", metavar="URL", help="mqtt:// or mqtts:// URL of the utility's broker.")
@click.option("--main", "main_address", help="Address of the main meter; the lowest by default.")
@click.option("--baud", "bauds", type=int, multiple=True, help="Speed to try; all by default, until one is answered.")
@click.option("--first", type=click.IntRange(1, 16383), help="16 for DLMS, 1 for Modbus by default.")
@click.option("--last", type=click.IntRange(1, 16383), help="125 for DLMS, 32 for Modbus by default.")
def command(
    port: str,
    protocol: str,
    output: Path,
    site_name: str,
    gateway: str,
    broker: str | None,
    main_address: str | None,
    bauds: tuple[int, ...],
    first: int | None,
    last: int | None,
) -> None:
    """Probe every address on PORT (/dev/ttyUSB0, or tcp://host:port) and write a site file of who answered."""
    if output.exists():
        raise click.UsageError(f"{output} exists; give another name with --output, or move it away")
    found: Sequence[Found | FoundMeter]
    if protocol == "dlms":
        addresses = range(FIRST_ADDRESS if first is None else first, (LAST_ADDRESS if last is None else last) + 1)
        found = _scan(port, (9600,) if port.startswith("tcp://") else bauds or BAUDS, addresses)
    else:
        found = _scan_others(port, protocol, bauds, first or 1, last or scan_others.LAST_UNIT)
    electric = [meter for meter in found if not (isinstance(meter, FoundMeter) and "medium" in dict(meter.keys))]
    if len(electric) < 2:
        click.echo(
            f"{len(electric)} electricity meter answered; expected a main meter and sub-meters; check wiring, speed.",
            err=True,
        )
        raise SystemExit(NEGATIVE)
    main = next((meter for meter in found if str(meter.address) == main_address), None if main_address else electric[0])
    if main is None:
        raise click.UsageError(f"no meter answered at address {main_address}; answered: {_addresses(found)}")
    text = HEAD.format(port=port, file=output, main=main.address)
    output.write_text(text + text_of(_tree(port, protocol, site_name, gateway, broker, main, found)))
    load(output, online=True)
    click.echo(f"{output}: {len(found)} meters at {main.baud} Bd: {_addresses(found)}")


def _scan(port: str, bauds: Sequence[int], addresses: range) -> list[Found]:
    """Who answers at the first speed at which somebody does."""
    for baud in bauds:
        bus = BusSpec("line", port, baud)
        line = open_transport(bus)
        found: list[Found] = []
        try:
            with click.progressbar(addresses, label=f"{port} at {baud} Bd", show_pos=True) as shown:
                for address in shown:
                    try:
                        meter = probe(line, bus, address, 2 if address < 128 else 4)
                    except RemoteProtocolError:
                        continue  # noise, or two meters at one address: not one that could be named
                    if meter is not None:
                        found.append(replace(meter, baud=baud))
        finally:
            line.close()
        if found:
            return found
    return []


def _scan_others(port: str, protocol: str, bauds: Sequence[int], first: int, last: int) -> list[FoundMeter]:
    """Who answers at the first speed at which somebody does, of a protocol other than DLMS."""
    for baud in (9600,) if port.startswith("tcp://") else bauds or scan_others.BAUDS[protocol]:
        click.echo(f"{port} at {baud} Bd", err=True)
        found = scan_others.find(protocol, port, baud, scan_others.PARITY[protocol], first, last)
        if found:
            return found
    return []


def _addresses(found: Sequence[Found | FoundMeter]) -> str:
    return ", ".join(str(meter.address) for meter in found)


def _tree(
    port: str,
    protocol: str,
    site_name: str,
    gateway: str,
    broker: str | None,
    main: Found | FoundMeter,
    found: Sequence[Found | FoundMeter],
) -> dict[str, object]:
    """The site file as a tree; ids by address, because that is all we know of them."""
    names = {meter.address: "main" if meter is main else f"meter-{meter.address}" for meter in found}
    meters = []
    for meter in found:
        table: dict[str, object] = {"id": names[meter.address], "bus": "line", "address": meter.address}
        table |= {"accuracy_class": 1.0, "resolution_wh": 10.0}
        if meter.serial is not None:
            table["serial"] = meter.serial
        if isinstance(meter, FoundMeter):
            table |= dict(meter.keys)
            if protocol == "modbus" and "profile" not in table:
                table["profile"] = "NAME-OF-PROFILE"  # more than one fits, or none: `checkmeter scan` says which
        meters.append(table)
    bus: dict[str, object] = {"id": "line", "port": port}
    if protocol != "dlms":
        bus["protocol"] = protocol
    if not port.startswith("tcp://"):
        bus["baud"] = main.baud
        if protocol != "dlms" and scan_others.PARITY[protocol] != "N":
            bus["parity"] = scan_others.PARITY[protocol]
    other = {t["id"] for t in meters if "medium" in t}
    subs = [names[meter.address] for meter in found if meter is not main and names[meter.address] not in other]
    tree: dict[str, object] = {
        "site": {"site": site_name, "gateway": gateway},
        "bus": [bus],
        "meter": meters,
        "zone": [{"id": "building", "main": "main", "subs": subs}],
    }
    return tree | ({"mqtt": {"url": broker}} if broker else {})
