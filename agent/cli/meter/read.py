"""`checkmeter read`: what a meter shows, its load profile, its event logs or its object list."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli.meter.one_meter import meter_of, over_session, utc, values
from firmware_io import obis
from firmware_io.bus import Bus
from firmware_io.dlms.apdu.decode import Attribute
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
    with meter_of(site_file, meter, trace=trace) as bus:
        now_s = datetime.now(UTC).timestamp()
        if profile:
            end_s = now_s if last_s is None else last_s
            rows = _profile(bus, meter, end_s - DAY_S if first_s is None else first_s, end_s)
        elif events:
            rows = _events(bus, meter, first_s or 0.0)
        elif objects:
            rows = _objects(bus, meter)
        elif names:
            rows = _named(bus, meter, list(names))
        else:
            rows = _registers(bus, meter)
    for row in rows:
        click.echo(json.dumps(row) if as_json else "  ".join(str(v) for v in row.values() if v not in (None, [])))


def _registers(bus: Bus, meter: str) -> list[dict[str, object]]:
    """The registers that the agent reads, and what it thinks of them."""
    readings = bus.poll(meter)
    identity = bus.identify(meter)
    head: list[dict[str, object]] = [{"meter": meter, "serial": identity.serial, "firmware": identity.firmware}]
    if identity.clock_offset_s is not None:
        time_s = datetime.now(UTC).timestamp() + identity.clock_offset_s
        doubt = "doubtful" if identity.clock_doubtful else None
        head[0] |= {"meter_time": utc(time_s), "clock_offset_s": round(identity.clock_offset_s, 1), "clock": doubt}
    head += bus.use(meter, _proof)
    return head + [
        {
            "obis": str(reading.obis),
            "value": reading.value,
            "unit": reading.unit.symbol,
            "sampled": utc(reading.sampled_s),
            "quality": _flags(reading.quality),
        }
        for reading in readings
    ]


def _proof(driver: MeterDriver, line: Line) -> list[dict[str, object]]:
    """What is known of a device profile by now."""
    return [{"proof": driver.proof}] if isinstance(driver, HasProof) else []


def _named(bus: Bus, meter: str, names: list[ObisCode]) -> list[dict[str, object]]:
    sampled = utc(datetime.now(UTC).timestamp())
    found = over_session(bus, meter, lambda session: values(session, names))
    return [{"obis": str(v.name), "value": v.value, "unit": v.unit or None, "sampled": sampled} for v in found]


def _profile(bus: Bus, meter: str, first_s: float, last_s: float) -> list[dict[str, object]]:
    return [
        {
            "time": utc(reading.sampled_s),
            "obis": str(reading.obis),
            "value": reading.value,
            "unit": reading.unit.symbol,
            "quality": _flags(reading.quality & ~Quality.FROM_PROFILE),
        }
        for reading in bus.read_profile(meter, first_s, last_s)
    ]


def _events(bus: Bus, meter: str, since_s: float) -> list[dict[str, object]]:
    return [
        {"time": utc(event.meter_time_s), "log": str(event.log), "code": event.code}
        for event in bus.read_events(meter, since_s)
    ]


def _objects(bus: Bus, meter: str) -> list[dict[str, object]]:
    attribute = Attribute(ASSOCIATION_CLASS, obis.CURRENT_ASSOCIATION, OBJECT_LIST)
    rows: list[dict[str, object]] = []
    listed = over_session(bus, meter, lambda session: session.get(attribute))
    for entry in listed.plain() or ():
        match entry:
            case [int(class_id), int(version), bytes(name), *_] if len(name) == 6:
                rows.append({"class": class_id, "version": version, "obis": str(ObisCode.from_bytes(name))})
            case _:
                raise RemoteProtocolError(f"object list: {entry} is no entry", meter=meter)
    return rows


def _flags(quality: Quality) -> list[str]:
    return [str(flag.name).lower() for flag in quality]
