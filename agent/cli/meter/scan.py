"""`checkmeter scan`: which meters are on a line, at which speed and address."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import cast

import click

from agent.cli.meter.answers import find_others, of_dlms, of_other, parities_of
from agent.cli.meter.scan_others import LAST_POSSIBLE_UNIT, LAST_UNIT, PARITY, FoundMeter
from agent.cli.notes import note, quiet
from agent.polling.hex_trace import HexTrace
from agent.process.exit_codes import NEGATIVE
from agent.site.edit import text_of
from agent.site.first_site import Answer, first_site
from firmware_io.dlms.meter.scan import (
    BAUDS,
    FIRST_ADDRESS,
    LAST_ADDRESS,
    MOST_ADDRESS,
    Attempt,
    Found,
    Framing,
    Octets,
    attempts,
    search,
)
from firmware_io.dlms.session.trace import Tracer
from firmware_io.transport import open_transport


@click.command()
@click.argument("port")
@click.option("--protocol", type=click.Choice(["dlms", *PARITY]), default="dlms", show_default=True)
@click.option("--framing", type=click.Choice(["hdlc", "wrapper"]), help="Of DLMS: only this; on TCP both are tried.")
@click.option("--baud", "bauds", type=int, multiple=True, help="Speed to try, more than once if you like.")
@click.option("--parity", type=click.Choice(["N", "E", "O"]), help="The protocol's usual one; DLMS: N, then E.")
@click.option("--first", type=click.IntRange(0, 16383), help="Of DLMS and Modbus addresses; 16 and 1 by default.")
@click.option("--last", type=click.IntRange(0, 16383), help="Of DLMS and Modbus addresses; 125 and 32 by default.")
@click.option("--all-addresses", is_flag=True, help="Of DLMS: 1 to 16381; that takes more than an hour on RS-485.")
@click.option("--octets", type=click.Choice(["1", "2", "4"]), multiple=True, default=("2",), show_default=True)
@click.option("--all", "everything", is_flag=True, help="Go on after the first speed that is answered.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a site file of them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on each line.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded on standard error.")
def command(
    port: str,
    protocol: str,
    framing: str | None,
    bauds: tuple[int, ...],
    parity: str | None,
    first: int | None,
    last: int | None,
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
    lowest, highest = (FIRST_ADDRESS, LAST_ADDRESS) if protocol == "dlms" else (1, LAST_UNIT)
    first, last = lowest if first is None else first, highest if last is None else last
    if first > last and protocol in ("dlms", "modbus") and not all_addresses:
        raise click.UsageError(f"--first is above --last ({first}, {last}): no address is left to ask")
    if protocol == "modbus" and (first > LAST_POSSIBLE_UNIT or last < 1):
        raise click.UsageError(f"a Modbus address is 1 to {LAST_POSSIBLE_UNIT}")
    answers: list[Answer]
    if protocol == "dlms":
        tried = attempts(
            port,
            framings=("hdlc", "wrapper") if framing is None else (cast(Framing, framing),),
            bauds=bauds or BAUDS,
            parities=parities_of(parity),
            octets=tuple(cast(Octets, int(form)) for form in octets),
            first=1 if all_addresses else first,
            last=MOST_ADDRESS if all_addresses else last,
        )
        found = _dlms(port, tried, everything=everything, trace=trace)
        for meter in found:
            click.echo(json.dumps(asdict(meter)) if as_json else _line(meter))
        answers = [of_dlms(meter) for meter in found]
    else:
        tracer = HexTrace(lambda text: click.echo(text, err=True)) if trace else None

        def tell(other: FoundMeter) -> None:
            click.echo(json.dumps(asdict(other) | {"keys": dict(other.keys)}) if as_json else _other_line(other))

        others = find_others(port, protocol, bauds, parity, (first, last), tracer, tell=tell)
        answers = [of_other(other, port, protocol, parity) for other in others]
    if not answers:
        click.echo(_nobody(port, protocol), err=True)
        raise SystemExit(NEGATIVE)
    if output is not None:
        output.write_text(text_of(first_site(answers)))
        note(f"{output}: look through it, then: checkmeter check {output}")


def _dlms(port: str, tried: list[Attempt], *, everything: bool, trace: bool) -> list[Found]:
    found: list[Found] = []
    with click.progressbar(
        length=sum(len(a.tries) for a in tried), label=port, show_pos=True, file=sys.stderr, hidden=quiet()
    ) as bar:
        for attempt in tried:
            tracer = Tracer(lambda text: click.echo(text, err=True), (), attempt.framing) if trace else None
            found += search(port, attempt, open_transport, step=lambda: bar.update(1), trace=tracer)
            if found and not everything:
                break
    return found


def _nobody(port: str, protocol: str) -> str:
    if port.startswith("tcp://"):
        return "nobody answers: check address and port, --octets, and whether another program has the connection"
    octets = ", and --octets (1 and 4 are in use, too)" if protocol == "dlms" else ""
    return f"nobody answers: check the wiring (A and B), the supply, the speed, --parity{octets}"


def _line(meter: Found) -> str:
    speed = f"{meter.baud} Bd 8{meter.parity}1" if meter.baud else f"tcp {meter.framing}"
    told = "  ".join(text for text in (meter.serial, meter.name, meter.note) if text)
    form = f" ({meter.octets} octets)" if meter.framing == "hdlc" else ""
    return f"{speed}  address {meter.address}{form}  {told}"


def _other_line(meter: FoundMeter) -> str:
    told = "  ".join(text for text in (meter.serial, meter.note) if text)
    return f"{meter.baud} Bd  address {meter.address}  {told}"
