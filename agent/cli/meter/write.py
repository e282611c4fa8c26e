"""`checkmeter write` and `checkmeter call`: set attributes and call methods of a DLMS meter, after asking.

Several go in one request with list, so that either all are sent or none; a meter without lists gets one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from agent.cli.meter.one_meter import meter_of, over_session
from agent.process.exit_codes import NEGATIVE
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.apdu.refusals import ActionError, DataAccessError, ServiceRefused
from firmware_io.dlms.session.session import Session
from firmware_io.errors import AccessDenied, LocalProtocolError
from firmware_io.obis import ObisCode

_ITEM = re.compile(r"(\d+):([^#=]+)#(\d+)(?:=([a-z0-9-]+)(?::(.*))?)?", re.DOTALL)
_TYPES = {tag.name.lower().replace("_", "-"): tag for tag in Tag}
NUMBERS = (Tag.INT8, Tag.INT16, Tag.INT32, Tag.INT64, Tag.UINT8, Tag.UINT16, Tag.UINT32, Tag.UINT64, Tag.ENUM)
OCTETS = (Tag.OCTET_STRING, Tag.DATE_TIME, Tag.DATE, Tag.TIME)


class Item(NamedTuple):
    """An attribute or method, and its value."""

    attribute: Attribute
    value: Data | None


def parse(text: str) -> Item:
    """`CLASS:OBIS#NUMBER=TYPE:VALUE`; for a method the value may be left out. Raises: UsageError."""
    match = _ITEM.fullmatch(text)
    if not match:
        raise click.UsageError(f'"{text}": expected CLASS:OBIS#NUMBER=TYPE:VALUE, 7:1-0:99.1.0#4=uint32:900 for one')
    class_id, name, number, kind, value = match.groups()
    try:
        attribute = Attribute(int(class_id), ObisCode.parse(name), int(number))
        return Item(attribute, None if kind is None else _value(kind, value or ""))
    except (ValueError, LocalProtocolError) as error:
        raise click.UsageError(f'"{text}": {error}') from error


def _value(kind: str, text: str) -> Data:
    tag = _TYPES.get(kind)
    if tag in NUMBERS:
        value = Data(tag, int(text))
    elif tag in OCTETS:
        value = Data(tag, bytes.fromhex(text))
    elif tag in (Tag.VISIBLE_STRING, Tag.UTF8_STRING, Tag.BIT_STRING):
        value = Data(tag, text)
    elif tag is Tag.BOOLEAN and text in ("true", "false"):
        value = axdr.boolean(text == "true")
    elif tag is Tag.NULL:
        value = axdr.NULL
    elif tag in (Tag.FLOAT32, Tag.FLOAT64):
        value = Data(tag, float(text))
    else:
        raise ValueError(f"{kind}: expected int8 to uint64, enum, octet-string (hex), visible-string, boolean and such")
    axdr.encode(value)  # whether it fits is said before anything is sent
    return value


@click.command("write")
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("meter")
@click.argument("items", metavar="CLASS:OBIS#ATTRIBUTE=TYPE:VALUE...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded, without secrets, on standard error.")
def write(site_file: Path, meter: str, items: tuple[str, ...], yes: bool, trace: bool) -> None:
    """Set attributes of a meter: its capture period with 7:1-0:99.1.0#4=uint32:900."""
    wanted = [parse(text) for text in items]
    missing = next((item for item in wanted if item.value is None), None)
    if missing is not None:
        raise click.UsageError(f"{missing.attribute}: which value? Give =TYPE:VALUE")
    _confirm(meter, items, yes=yes)
    with meter_of(site_file, meter, trace=trace) as bus:
        _report(items, over_session(bus, meter, lambda session: _set(session, wanted)))


@click.command("call")
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("meter")
@click.argument("items", metavar="CLASS:OBIS#METHOD[=TYPE:VALUE]...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded, without secrets, on standard error.")
def call(site_file: Path, meter: str, items: tuple[str, ...], yes: bool, trace: bool) -> None:
    """Call methods of a meter: a shift of its clock with 8:0-0:1.0.0#6=int16:-30."""
    wanted = [parse(text) for text in items]
    _confirm(meter, items, yes=yes)
    with meter_of(site_file, meter, trace=trace) as bus:
        _report(items, over_session(bus, meter, lambda session: _call(session, wanted)))


def _set(session: Session, items: list[Item]) -> list[str | None]:
    """What is wrong with each, None where nothing is."""
    pairs = [(item.attribute, item.value) for item in items if item.value is not None]
    if len(pairs) > 1:
        try:
            ends = session.set_list(pairs)
            return [None if end == 0 else end.name.lower().replace("_", " ") for end in ends]
        except ServiceRefused:
            pass  # one at a time then
    return [_one(partial(session.set, attribute, value)) for attribute, value in pairs]


def _call(session: Session, items: list[Item]) -> list[str | None]:
    if len(items) > 1:
        try:
            ends = session.call_list(items)
            return [None if end == 0 else end.name.lower().replace("_", " ") for end, _ in ends]
        except ServiceRefused:
            pass
    return [_one(partial(session.action, item.attribute, item.value)) for item in items]


def _one(do: Callable[[], object]) -> str | None:
    try:
        do()
    except (DataAccessError, ActionError, AccessDenied) as error:
        return str(error)
    return None


def _confirm(meter: str, items: tuple[str, ...], *, yes: bool) -> None:
    if yes:
        return
    click.echo(f"{meter} will be changed: {', '.join(items)}")
    if click.prompt("Type the meter's name to go on") != meter:
        click.echo("nothing was changed", err=True)
        raise SystemExit(NEGATIVE)


def _report(items: tuple[str, ...], wrong: list[str | None]) -> None:
    for text, why in zip(items, wrong, strict=True):
        click.echo(f"{text}  {why or 'done'}")
    if any(wrong):
        raise SystemExit(NEGATIVE)
