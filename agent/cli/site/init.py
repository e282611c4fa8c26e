"""`checkmeter init`: a first site file, from the meters that answer on one or more ports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import click

from agent.cli.meter.answers import find_others, of_dlms, of_other, parities_of
from agent.cli.meter.scan_others import PARITY
from agent.cli.notes import quiet
from agent.process.exit_codes import NEGATIVE
from agent.site.edit import text_of
from agent.site.first_site import Answer, addresses, first_site, main_of
from agent.site.load import load
from firmware_io.dlms.meter.scan import BAUDS, FIRST_ADDRESS, LAST_ADDRESS, Attempt, Octets, attempts, search
from firmware_io.transport import open_transport

HEAD = """\
# Made by `checkmeter init` from the meters that answered on {ports}. Look through it, then: checkmeter check {file}
#   - the main meter is the one at address {main} of {main_port}; change `main` and `subs` below if it is another one
#   - give each meter the name that alerts are to use, and accuracy_class and resolution_wh from its face plate
#   - all keys, with their meaning: checkmeter config schema, or docs/configuration.md
"""


@click.command("init")
@click.argument("ports", metavar="PORT...", nargs=-1, required=True)
@click.option("--protocol", type=click.Choice(["dlms", *PARITY]), default="dlms", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default="site.toml", show_default=True)
@click.option("--site", "site_name", default="building", show_default=True, help="Name of the building.")
@click.option("--gateway", default="gw-0001", show_default=True, help="Name of this gateway.")
@click.option("--broker", metavar="URL", help="mqtt:// or mqtts:// URL of the utility's broker.")
@click.option("--main", "main_address", help="Address of the main meter; the first that answers by default.")
@click.option("--baud", "bauds", type=int, multiple=True, help="Speed to try; all by default, until one is answered.")
@click.option("--parity", type=click.Choice(["N", "E", "O"]), help="The protocol's usual one; DLMS: N, then E.")
@click.option("--octets", type=click.Choice(["1", "2", "4"]), multiple=True, default=("2",), show_default=True)
@click.option("--first", type=click.IntRange(1, 16383), help="16 for DLMS, 1 for Modbus by default.")
@click.option("--last", type=click.IntRange(1, 16383), help="125 for DLMS, 32 for Modbus by default.")
def command(
    ports: tuple[str, ...],
    protocol: str,
    output: Path,
    site_name: str,
    gateway: str,
    broker: str | None,
    main_address: str | None,
    bauds: tuple[int, ...],
    parity: str | None,
    octets: tuple[str, ...],
    first: int | None,
    last: int | None,
) -> None:
    """Probe every address on each PORT (/dev/ttyUSB0, or tcp://host:port) and write a site file of who answered.

    Give all ports of the building at once, the one with the main meter first: they become buses of one file.
    """
    if output.exists():
        raise click.UsageError(f"{output} exists; give another name with --output, or move it away")
    found: list[Answer] = []
    for port in ports:
        if protocol != "dlms":
            others = find_others(port, protocol, bauds, parity, (first, last))
            found += [of_other(meter, port, protocol, parity) for meter in others]
            continue
        tried = attempts(
            port,
            bauds=bauds or BAUDS,
            parities=parities_of(parity),
            octets=tuple(cast(Octets, int(form)) for form in octets),
            first=FIRST_ADDRESS if first is None else first,
            last=LAST_ADDRESS if last is None else last,
        )
        found += _dlms(port, tried)
    electric = [meter for meter in found if meter.electric]
    if len(electric) < 2:
        click.echo(
            f"{len(electric)} electricity meter answered; expected a main meter and sub-meters. Check wiring and "
            "speed; if the main meter hangs on another port, give that one, too.",
            err=True,
        )
        raise SystemExit(NEGATIVE)
    try:
        main = main_of(found, main_address)
    except LookupError as error:
        raise click.UsageError(str(error)) from None
    text = HEAD.format(ports=", ".join(ports), file=output, main=main.address, main_port=main.port)
    tree = first_site(found, main=main, site=site_name, gateway=gateway, broker=broker)
    output.write_text(text + text_of(tree))
    load(output, online=True)
    bauds_found = {meter.baud for meter in found}
    speed = f" at {bauds_found.pop()} Bd" if len(bauds_found) == 1 and 0 not in bauds_found else ""
    click.echo(f"{output}: {len(found)} meters{speed}: {addresses(found)}")


def _dlms(port: str, tried: list[Attempt]) -> list[Answer]:
    """Who answers on one port, at the first setting at which somebody does."""
    for attempt in tried:
        label = f"{port} {attempt.framing}" if port.startswith("tcp://") else f"{port} {attempt.baud} {attempt.parity}"
        with click.progressbar(
            length=len(attempt.tries), label=label, show_pos=True, file=sys.stderr, hidden=quiet()
        ) as bar:
            steps = bar
            found = list(search(port, attempt, open_transport, step=lambda: steps.update(1)))  # noqa: B023
        if found:
            return [of_dlms(meter) for meter in found]
    return []
