"""`checkmeter simulate`: a building behind the meters of a site file, polled like a real one.

It turns the site file into the simulator's plans and runs them under a clock; what the simulator does is its own.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click

from agent.keys.credentials import read_key
from agent.polling.buses import bus_spec, meter_spec
from agent.process.clock import ScaledClock, SharedClock
from agent.process.exit_codes import UNAVAILABLE
from agent.site.errors import ConfigError
from agent.site.load import load, read_site
from agent.site.parse import parse_table
from agent.site.source import Source
from agent.site.tables import Config
from agent.wire.values import utc
from firmware_io.simulator.building.building import ZonePlan
from firmware_io.simulator.building.scenario import Simulation, moment_s
from firmware_io.simulator.site import SimulatedMeterPlan, SimulatedSite

KEY = "simulation"


@click.command()
@click.argument("site_file", metavar="[SITE.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--fleet", type=int, metavar="N", help="Instead of one building, N gateways as MQTT clients.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long the fleet lives.")
@click.option("--broker", default="mqtt://127.0.0.1:1883", show_default=True, help="Of the fleet.")
@click.option("--not-loopback", is_flag=True, help="Let the fleet talk to a broker on another machine.")
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), help="Simulated seconds in a second.")
@click.option("--start", help="Simulated time at the start, RFC 3339; the wall's by default.")
@click.option("--origin", type=float, help="The host's UTC at which simulated time began, to go on after a restart.")
@click.option("--port-link", type=click.Path(path_type=Path), help="Link pseudo-terminals in DIR, named by bus.")
@click.option("--clock-file", type=click.Path(path_type=Path), hidden=True, help="Time is another process's clock.")
@click.option("--write-keys", is_flag=True, help="Write the public keys of meters that sign, and end.")
@click.option("--json", "as_json", is_flag=True, help="Say that it is ready, where and under which clock, as JSON.")
def command(
    site_file: Path | None,
    fleet: int | None,
    seconds: float,
    broker: str,
    not_loopback: bool,
    speed: float | None,
    start: str | None,
    origin: float | None,
    port_link: Path | None,
    clock_file: Path | None,
    write_keys: bool,
    as_json: bool,
) -> None:
    """Simulate a building whose meters can be polled, until SIGTERM or Ctrl-C; or a fleet's MQTT side.

    Each [[bus]] with a serial port becomes a pseudo-terminal linked at that path (a device that is there already
    is opened instead); one with tcp://host:port is listened on. The [simulation] table says who lives there, who
    steals, and what goes wrong.
    """
    if fleet is not None:
        from agent.utility.load_test.gateways import run_fleet  # a backend's test tool: not for a gateway's memory

        run_fleet(fleet, seconds, 900.0 if speed is None else speed, broker, loopback_only=not not_loopback)
        return
    if site_file is None:
        raise click.UsageError("which building? Give a SITE.toml, or --fleet N")
    config = load(site_file, online=True)
    if write_keys:
        _write_keys(config)
        return
    simulation = read_simulation(config, read_site(site_file), site_file, start, speed)
    start_s = time.time() if simulation.start is None else moment_s(simulation.start, time.time())
    clock = ScaledClock(start_s, simulation.speed, origin) if clock_file is None else SharedClock(clock_file)
    site = simulated_site(config, simulation, clock, start_s)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    links = {bus.id: port_link / bus.id for bus in config.bus if not bus.port.startswith("tcp://")} if port_link else {}
    ports = site.start(links)
    try:
        click.echo(_ready(ports, clock, as_json))
        while not stop.wait(0.5):
            failures = site.failures()
            if failures:
                for failure in failures:
                    click.echo(failure, err=True)
                raise SystemExit(UNAVAILABLE)
    finally:
        site.stop()


def _write_keys(config: Config) -> None:
    """The public keys that simulated meters sign and agree with, into files that are not there yet."""
    from firmware_io.simulator.meter.keys import private_key

    for number, meter in enumerate(config.meter, 1):
        suite = meter.suite or (2 if meter.encryption_key and len(read_key(meter.encryption_key)) == 32 else 1)
        for path in {meter.meter_signing_key, meter.meter_agreement_key} - {None}:
            try:
                with open(str(path), "x", encoding="ascii") as file:
                    file.write(private_key(number, suite).public.point.hex() + "\n")
                click.echo(f"{meter.id}  {path}")
            except OSError as error:
                raise ConfigError([f"{path}: the key of {meter.id} cannot be written: {error.strerror}"]) from error


def _ready(ports: dict[str, str], clock: ScaledClock | SharedClock, as_json: bool) -> str:
    """The line that says that the meters can be polled, and what another process needs to see the same time."""
    if isinstance(clock, SharedClock):
        return json.dumps({"ready": True, "ports": ports}) if as_json else f"ready {' '.join(ports)}"
    if as_json:
        times = {"start_s": clock.start_s, "speed": clock.speed, "wall_origin_s": clock.wall_origin_s}
        return json.dumps({"ready": True, "ports": ports, **times})
    began = utc(clock.start_s).strftime("%Y-%m-%dT%H:%M:%SZ")
    where = " ".join(f"{bus}={port}" for bus, port in ports.items())
    return f"ready {where} start={began} speed={clock.speed:g} origin={clock.wall_origin_s:.3f}"


def read_simulation(
    config: Config, source: Source, site_file: Path, start: str | None = None, speed: float | None = None
) -> Simulation:
    """The [simulation] table of a site file, with what the command line overrides.

    Raises:
        ConfigError: with all the errors.
    """
    raw = _times_as_text(dict(config.simulation or {}))
    raw |= {name: value for name, value in (("start", start), ("speed", speed)) if value is not None}
    simulation = parse_table(source, (KEY,), raw, Simulation)
    mains = [zone.main for zone in config.zone]
    for key, message in simulation.problems([meter.id for meter in config.meter], mains, time.time()):
        source.error((KEY, *key), message)
    for n, zone in enumerate(config.zone):
        if zone.minus:
            source.error(("zone", n, "minus"), "minus: the simulated building has no load that is metered twice")
    source.check()
    if simulation.loads is None:
        return simulation
    return dataclasses.replace(simulation, loads=str(site_file.resolve().parent / simulation.loads))


def _times_as_text(value: Any) -> Any:
    """TOML's own date-times as the text that [simulation] takes: `start = 2026-03-02T00:00:00Z` is the natural form."""
    if isinstance(value, dict):
        return {key: _times_as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_times_as_text(inner) for inner in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value


def simulated_site(
    config: Config, simulation: Simulation, clock: ScaledClock | SharedClock, start_s: float
) -> SimulatedSite:
    """The simulator for a site file.

    Raises:
        ConfigError: a secret cannot be read, or zones or loads make no building.
    """
    buses = {bus.id: bus for bus in config.bus}
    zones = [ZonePlan(zone.main, tuple(zone.subs), tuple(zone.export)) for zone in config.zone]
    try:
        plans = [
            SimulatedMeterPlan(
                # `load` with online has seen to it that there is a bus.
                meter_spec(meter, buses[str(meter.bus)], config.site.timezone),
                str(meter.bus),
                meter.accuracy_class,
                meter.resolution_wh,
                meter.phase,
                meter.ct_ratio,
                meter.medium,
            )
            for meter in config.meter
        ]
        specs = [bus_spec(bus) for bus in config.bus]
        return SimulatedSite(simulation, specs, plans, zones, clock, start_s=start_s, timezone=config.site.timezone)
    except (ValueError, OSError) as error:
        raise ConfigError([f"[{KEY}]: {error}"]) from error
