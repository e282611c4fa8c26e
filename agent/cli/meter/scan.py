"""`checkmeter scan`: which meters are on a line, at which speed and address."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import cast

import click

from agent.process.exit_codes import NEGATIVE
from agent.site.edit import text_of
from agent.site.first_site import first_site
from firmware_io.dlms.meter.scan import (
    BAUDS,
    FIRST_ADDRESS,
    LAST_ADDRESS,
    MOST_ADDRESS,
    PARITIES,
    Found,
    Framing,
    Octets,
    Parity,
    attempts,
    search,
)
from firmware_io.dlms.session.trace import Tracer
from firmware_io.transport import open_transport


@click.command()
@click.argument("port")
@click.option("--framing", type=click.Choice(["hdlc", "wrapper"]), help="Only this; on TCP both are tried.")
@click.option("--baud", "bauds", type=int, multiple=True, help="Speed to try, more than once if you like.")
@click.option(
    "--parity", "parities", type=click.Choice(["N", "E", "O"]), multiple=True, help="Parity to try; N and E by default."
)
@click.option("--first", type=click.IntRange(0, 16383), default=FIRST_ADDRESS, show_default=True)
@click.option("--last", type=click.IntRange(0, 16383), default=LAST_ADDRESS, show_default=True)
@click.option("--all-addresses", is_flag=True, help="1 to 16381; on a serial line that takes more than an hour.")
@click.option("--octets", type=click.Choice(["1", "2", "4"]), multiple=True, default=("2",), show_default=True)
@click.option("--all", "everything", is_flag=True, help="Go on after the first speed that is answered.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a site file of who answers."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on each line.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded on standard error.")
def command(
    port: str,
    framing: str | None,
    bauds: tuple[int, ...],
    parities: tuple[str, ...],
    first: int,
    last: int,
    all_addresses: bool,
    octets: tuple[str, ...],
    everything: bool,
    output: Path | None,
    as_json: bool,
    trace: bool,
) -> None:
    """Find the meters on PORT (/dev/ttyUSB0, or tcp://host:port): probe every address, the usual speeds first.

    It stops at the first speed, parity and framing at which somebody answers.
    """
    if output is not None and output.exists():
        raise click.UsageError(f"{output} exists; give another name with --output, or move it away")
    tried = attempts(
        port,
        framings=("hdlc", "wrapper") if framing is None else (cast(Framing, framing),),
        bauds=bauds or BAUDS,
        parities=tuple(cast(Parity, parity) for parity in parities) or PARITIES,
        octets=tuple(cast(Octets, int(form)) for form in octets),
        first=1 if all_addresses else first,
        last=MOST_ADDRESS if all_addresses else last,
    )
    found: list[Found] = []
    with click.progressbar(length=sum(len(a.tries) for a in tried), label=port, show_pos=True) as bar:
        for attempt in tried:
            tracer = Tracer(lambda text: click.echo(text, err=True), (), attempt.framing) if trace else None
            found += search(port, attempt, open_transport, step=lambda: bar.update(1), trace=tracer)
            if found and not everything:
                break
    for meter in found:
        click.echo(json.dumps(asdict(meter)) if as_json else _line(meter))
    if not found:
        click.echo(
            "nobody answers: check the wiring (A and B), the supply, --parity, and --octets (1 and 4 are in use, too)"
            if not port.startswith("tcp://")
            else "nobody answers: check address and port, --octets, and whether another program has the connection",
            err=True,
        )
        raise SystemExit(NEGATIVE)
    if output is not None:
        output.write_text(text_of(first_site(found)))
        click.echo(f"{output}: look through it, then: checkmeter check {output}", err=True)


def _line(meter: Found) -> str:
    speed = f"{meter.baud} Bd 8{meter.parity}1" if meter.baud else f"tcp {meter.framing}"
    told = "  ".join(text for text in (meter.serial, meter.name, meter.note) if text)
    form = f" ({meter.octets} octets)" if meter.framing == "hdlc" else ""
    return f"{speed}  address {meter.address}{form}  {told}"
