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

from agent.cli.meter.one_meter import confirm, meter_of, over_session
from agent.process.exit_codes import NEGATIVE
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import ActionResult, Attribute, DataAccessResult
from firmware_io.dlms.apdu.refusals import ActionError, DataAccessError, ServiceRefused
from firmware_io.dlms.session.session import Session
from firmware_io.errors import AccessDenied, LocalProtocolError
from firmware_io.obis import ObisCode

_ITEM = re.compile(r"(\d+):([^#=]+)#(\d+)(?:=([a-z0-9-]+)(?::(.*))?)?", re.DOTALL)
_TYPES = {tag.name.lower().replace("_", "-"): tag for tag in Tag}
NUMBERS = (Tag.INT8, Tag.INT16, Tag.INT32, Tag.INT64, Tag.UINT8, Tag.UINT16, Tag.UINT32, Tag.UINT64, Tag.ENUM)
MOST_CLASS, MOST_NUMBER = 0xFFFF, 0xFF
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
    if len(class_id) > 5 or int(class_id) > MOST_CLASS:
        raise click.UsageError(f'"{text}": class {class_id}: a class is 0 to {MOST_CLASS}')
    if len(number) > 3 or not 1 <= int(number) <= MOST_NUMBER:
        raise click.UsageError(f'"{text}": #{number}: an attribute or method is 1 to {MOST_NUMBER}')
    try:
        attribute = Attribute(int(class_id), ObisCode.parse(name), int(number))
        return Item(attribute, None if kind is None else _value(kind, value or ""))
    except (ValueError, LocalProtocolError) as error:
        raise click.UsageError(f'"{text}": {error}') from error


def _value(kind: str, text: str) -> Data:
    tag = _TYPES.get(kind)
    if tag in NUMBERS:
        value = Data(tag, _whole(kind, text))
    elif tag in OCTETS:
        value = Data(tag, _hex(kind, text))
    elif tag in (Tag.VISIBLE_STRING, Tag.UTF8_STRING, Tag.BIT_STRING):
        value = Data(tag, text)
    elif tag is Tag.BOOLEAN and text in ("true", "false"):
        value = axdr.boolean(text == "true")
    elif tag is Tag.NULL:
        value = axdr.NULL
    elif tag in (Tag.FLOAT32, Tag.FLOAT64):
        value = Data(tag, _float(kind, text))
    else:
        raise ValueError(f"{kind}: expected int8 to uint64, enum, octet-string (hex), visible-string, boolean and such")
    try:
        axdr.encode(value)  # whether it fits is said before anything is sent
    except (ValueError, OverflowError, LocalProtocolError) as error:
        raise ValueError(f"{kind}: {text} does not fit; {_range(kind)}") from error
    return value


def _range(kind: str) -> str:
    """What may be typed for a type."""
    bits = int(kind.lstrip("uint") or 8) if kind.startswith(("int", "uint")) else 8
    if kind == "enum" or kind.startswith("uint"):
        return f"type a whole number, 0 to {(1 << bits) - 1}"
    if kind.startswith("int"):
        return f"type a whole number, {-(1 << bits - 1)} to {(1 << bits - 1) - 1}"
    return {
        "bit-string": "type zeros and ones, 0110 for one",
        "visible-string": "type Latin characters, or take utf8-string",
        "date-time": "type its 12 octets, 24 hex digits",
        "date": "type its 5 octets, 10 hex digits",
        "time": "type its 4 octets, 8 hex digits",
    }.get(kind, "type another value")


def _whole(kind: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,20}", text, re.ASCII):
        raise ValueError(f'{kind}: "{text}" is no whole number; {_range(kind)}')
    return int(text)


def _hex(kind: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f'{kind}: "{text}" is not hex; type two of 0-9 and a-f an octet, 07e80301 for one') from None


def _float(kind: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{kind}: "{text}" is no number; type 12.5 for one') from None


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
    confirm(meter, f"{meter} will be changed: {', '.join(items)}", yes=yes)
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
    confirm(meter, f"{meter} will be changed: {', '.join(items)}", yes=yes)
    with meter_of(site_file, meter, trace=trace) as bus:
        _report(items, over_session(bus, meter, lambda session: _call(session, wanted)))


def _set(session: Session, items: list[Item]) -> list[str | None]:
    """What is wrong with each, None where nothing is."""
    pairs = [(item.attribute, item.value) for item in items if item.value is not None]
    if len(pairs) > 1:
        try:
            return [_ended(end) for end in session.set_list(pairs)]
        except ServiceRefused:
            pass  # one at a time then
    return [_one(partial(session.set, attribute, value)) for attribute, value in pairs]


def _call(session: Session, items: list[Item]) -> list[str | None]:
    if len(items) > 1:
        try:
            return [_ended(end) for end, _ in session.call_list(items)]
        except ServiceRefused:
            pass
    return [_one(partial(session.action, item.attribute, item.value)) for item in items]


def _ended(result: DataAccessResult | ActionResult) -> str | None:
    return None if result == 0 else result.name.lower().replace("_", " ")


def _one(do: Callable[[], object]) -> str | None:
    try:
        do()
    except (DataAccessError, ActionError, AccessDenied) as error:
        return str(error)
    return None


def _report(items: tuple[str, ...], wrong: list[str | None]) -> None:
    for text, why in zip(items, wrong, strict=True):
        click.echo(f"{text}  {why or 'done'}")
    if any(wrong):
        raise SystemExit(NEGATIVE)
