"""`checkmeter read`: what a meter shows, its load profile, its event logs or its object list."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli.meter.one_meter import meter_of, over_session, utc, values
from firmware_io import obis
from firmware_io.bus import Bus
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.cosem.event_texts import EVENT_TEXTS
from firmware_io.driver import HasProof, Line, MeterDriver
from firmware_io.errors import RemoteProtocolError
from firmware_io.obis import ObisCode
from firmware_io.reading import Quality

DAY_S = 86400.0
ASSOCIATION_CLASS, OBJECT_LIST = 15, 2


def moment(text: str) -> float:
    """A UTC time: 2026-03-01 or 2026-03-01T12:00:00Z; another zone says so."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text} is not a time; expected 2026-03-01 or 2026-03-01T12:00:00Z") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def obis_code(text: str) -> ObisCode:
    """An OBIS code: 1-0:1.8.0 or 1.0.1.8.0.255."""
    try:
        return ObisCode.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("meter")
@click.argument("names", metavar="[OBIS ...]", nargs=-1, type=obis_code)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on each line.")
@click.option("--profile", is_flag=True, help="The load profile, of the last day unless --from and --to say else.")
@click.option("--from", "first_s", type=moment, help="UTC, of the profile or the events.")
@click.option("--to", "last_s", type=moment, help="UTC, of the profile.")
@click.option("--events", is_flag=True, help="The event logs; all of them without --from.")
@click.option("--objects", is_flag=True, help="The meter's object list.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded, without secrets, on standard error.")
def command(
    site_file: Path,
    meter: str,
    names: tuple[ObisCode, ...],
    as_json: bool,
    profile: bool,
    first_s: float | None,
    last_s: float | None,
    events: bool,
    objects: bool,
    trace: bool,
) -> None:
    """Ask one meter of a site file: registers with unit and the meter's own time."""
    if profile + events + objects > 1:
        raise click.UsageError("--profile, --events and --objects are three questions: ask one at a time")
    if first_s is not None and last_s is not None and first_s > last_s:
        raise click.UsageError("--from is after --to: give the earlier time first")
    with meter_of(site_file, meter, trace=trace) as bus:
        now_s = datetime.now(UTC).timestamp()
        nothing = "nothing"
        if profile:
            end_s = now_s if last_s is None else last_s
            begin_s = end_s - DAY_S if first_s is None else first_s
            rows = _profile(bus, meter, begin_s, end_s)
            nothing = f"no row in its load profile from {utc(begin_s)} to {utc(end_s)}"
        elif events:
            rows = _events(bus, meter, first_s or 0.0)
            nothing = (
                "no entry in its event logs" if first_s is None else f"no entry in its event logs since {utc(first_s)}"
            )
        elif objects:
            rows = _objects(bus, meter)
        elif names:
            rows = _named(bus, meter, list(names))
        else:
            rows = _registers(bus, meter)
    for row in rows:
        click.echo(json.dumps(row, allow_nan=False) if as_json else _text(row))
    if not rows:
        click.echo(f"{meter}: {nothing}", err=True)


def _text(row: dict[str, object]) -> str:
    """One row for people: a register in kWh beside its own unit, what is empty left out."""
    return "  ".join(f"{v} kWh" if key == "kwh" else str(v) for key, v in row.items() if v not in (None, []))


def _measured(code: ObisCode, value: object, unit: str) -> dict[str, object]:
    """A value with its name; energy in kWh, too."""
    kwh = round(value / 1000, 3) if unit == "Wh" and isinstance(value, int | float) else None
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)  # JSON has no such number
    return {"obis": str(code), "name": code.label, "value": value, "unit": unit or None, "kwh": kwh}


def _registers(bus: Bus, meter: str) -> list[dict[str, object]]:
    """The registers that the agent reads, and what it thinks of them."""
    bus.identify(meter)
    readings = bus.poll(meter)
    identity = bus.identity(meter) or bus.identify(meter)
    head: list[dict[str, object]] = [{"meter": meter, "serial": identity.serial, "firmware": identity.firmware}]
    if identity.clock_offset_s is not None:
        time_s = datetime.now(UTC).timestamp() + identity.clock_offset_s
        doubt = "doubtful" if identity.clock_doubtful else None
        head[0] |= {"meter_time": utc(time_s), "clock_offset_s": round(identity.clock_offset_s, 1), "clock": doubt}
        if identity.clock_zone is not None:
            head[0]["clock_taken_for"] = identity.clock_zone
    if identity.unreadable:
        head[0]["unreadable"] = list(identity.unreadable)
    head += bus.use(meter, _proof)
    return head + [
        _measured(reading.obis, reading.value, reading.unit.symbol)
        | {"sampled": utc(reading.sampled_s), "quality": _flags(reading.quality)}
        for reading in readings
    ]


def _proof(driver: MeterDriver, line: Line) -> list[dict[str, object]]:
    """What is known of a device profile by now."""
    return [{"proof": driver.proof}] if isinstance(driver, HasProof) else []


def _named(bus: Bus, meter: str, names: list[ObisCode]) -> list[dict[str, object]]:
    sampled = utc(datetime.now(UTC).timestamp())
    found = over_session(bus, meter, lambda session: values(session, names))
    return [_measured(v.name, v.value, v.unit) | {"sampled": sampled} for v in found]


def _profile(bus: Bus, meter: str, first_s: float, last_s: float) -> list[dict[str, object]]:
    return [
        {"time": utc(reading.sampled_s)}
        | _measured(reading.obis, reading.value, reading.unit.symbol)
        | {"quality": _flags(reading.quality & ~Quality.FROM_PROFILE)}
        for reading in bus.read_profile(meter, first_s, last_s)
    ]


def _events(bus: Bus, meter: str, since_s: float) -> list[dict[str, object]]:
    return [
        {
            "time": utc(event.meter_time_s),
            "log": str(event.log),
            "code": event.code,
            "text": EVENT_TEXTS.get(event.code),
        }
        for event in bus.read_events(meter, since_s)
    ]


def _objects(bus: Bus, meter: str) -> list[dict[str, object]]:
    attribute = Attribute(ASSOCIATION_CLASS, obis.CURRENT_ASSOCIATION, OBJECT_LIST)
    rows: list[dict[str, object]] = []
    listed = over_session(bus, meter, lambda session: session.get(attribute))
    for entry in listed.plain() or ():
        match entry:
            case [int(class_id), int(version), bytes(name), *_] if len(name) == 6:
                code = ObisCode.from_bytes(name)
                rows.append({"class": class_id, "version": version, "obis": str(code), "name": code.label})
            case _:
                raise RemoteProtocolError(f"object list: {entry} is no entry", meter=meter)
    return rows


def _flags(quality: Quality) -> list[str]:
    return [str(flag.name).lower() for flag in quality]
