"""Does what a site file names answer: disk, clock, broker, each port and each meter? One finding for each.

It looks and tells; it changes nothing, and sends the broker nothing but a connection under a name of its own, so that
a running agent is not thrown out. A port that the running agent holds is told as that.
"""

from __future__ import annotations

import os
import shutil
import ssl
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent import wire
from agent.polling.buses import open_buses
from agent.site.errors import ConfigError
from agent.site.tables import Config, Mqtt
from agent.status.local_socket import ask
from agent.uplink.connection import CONNECT_S, Connection, Refused, advice
from core.scoring.model import ModelRefused
from core.scoring.model import load as load_model
from firmware_io.clock import Clock
from firmware_io.errors import LocalProtocolError, MeterError, TransportError
from firmware_io.obis import ENERGY_IMPORT
from firmware_io.reading import Reading, Unit

DISK_FREE_BYTES = 200e6
SENSIBLE_UTC_S = 1_735_689_600.0  # 2025-01-01: a clock before this was never set
SKEW_S = 60.0
READINGS_SHOWN = 3
ELECTRICITY = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `text` says what was found, and what to do if it is not `ok`."""

    what: str
    ok: bool
    text: str


def findings(config: Config, clock: Clock) -> Iterator[Finding]:
    """Everything that can be looked at from here, one after the other."""
    yield _disk(Path(config.store.path))
    if config.detection.model is not None:
        yield _model(Path(config.detection.model))
    if config.mqtt is not None:
        yield _broker(config, config.mqtt)
    offsets: list[float] = []
    yield from _meters(config, clock, offsets)
    yield _clock(clock.now(), offsets)


def _disk(store: Path) -> Finding:
    folder = store.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(store if store.exists() else folder, os.W_OK):
        return Finding("disk", False, f"{store} cannot be written by this user; run as the service's user, or mend it")
    if free < DISK_FREE_BYTES:
        return Finding("disk", False, f"{folder}: {free / 1e6:.0f} MB free; expected at least 200 MB: make room")
    return Finding("disk", True, f"{folder}: {free / 1e9:.1f} GB free")


def _model(path: Path) -> Finding:
    try:
        load_model(path.read_bytes())
    except OSError as error:
        return Finding("model", False, f"{path}: {error.strerror}; give the path of a .tflite file")
    except ModelRefused as error:
        return Finding("model", False, f"{path}: {error}")
    return Finding("model", True, str(path))


def _broker(config: Config, mqtt: Mqtt) -> Finding:
    """A connection that is accepted, without a session and without a will."""
    address = wire.Address(config.site.tenant, config.site.site, config.site.gateway)
    trial = msgspec.structs.replace(mqtt, client_id=f"{mqtt.client_id or address.gateway}-check")
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    link: Connection | None = None
    began_s = time.monotonic()
    try:
        link = Connection(trial, address, b"", 1)
        while not link.accepted:
            if time.monotonic() - began_s > CONNECT_S:
                raise Refused("no CONNACK came in time")
            link.serve(woken, 0.2)
        text = f"{mqtt.url}: MQTT {mqtt.version}, accepted after {time.monotonic() - began_s:.2f} s{_certificate(link)}"
        link.leave()
    except (OSError, ValueError, Refused) as error:
        return Finding("broker", False, f"{mqtt.url}: {advice(error)}")
    except ConfigError as error:
        return Finding("broker", False, "; ".join(error.errors))
    finally:
        if link is not None:
            link.drop()
        os.close(woken)
        os.close(wake)
    return Finding("broker", True, text)


def _certificate(link: Connection) -> str:
    """Until when the broker's certificate is valid."""
    sock = link.client.socket()
    if not isinstance(sock, ssl.SSLSocket):
        return ", not encrypted"
    until = (sock.getpeercert() or {}).get("notAfter")
    return f", {sock.version()}" + (f", its certificate is valid until {until}" if until else "")


def _meters(config: Config, clock: Clock, offsets: list[float]) -> Iterator[Finding]:
    """Each meter by its identity and one poll; clock offsets are gathered for `_clock`."""
    try:
        buses = open_buses(config, clock)
    except ConfigError as error:
        yield Finding("keys", False, "; ".join(error.errors))
        return
    except LocalProtocolError as error:
        yield Finding("keys", False, str(error))
        return
    balanced = {name for zone in config.zone for name in (zone.main, *zone.subs)}
    for name, bus in buses.items():
        try:
            for meter in (m for m in config.meter if m.bus == name):
                began_s = time.monotonic()
                try:
                    identity, readings = bus.identify(meter.id), bus.poll(meter.id)
                except TransportError as error:
                    held = "; the running agent holds it: stop it first" if _agent_runs(config) else ""
                    yield Finding(f"bus {name}", False, f"{error}{held}")
                    break
                except MeterError as error:
                    yield Finding(f"meter {meter.id}", False, str(error))
                    continue
                if identity.clock_offset_s is not None:
                    offsets.append(identity.clock_offset_s)
                took_s = time.monotonic() - began_s
                if meter.serial is not None and identity.serial != meter.serial:
                    text = f"serial number {identity.serial}, expected {meter.serial}: set serial, or find the meter"
                    yield Finding(f"meter {meter.id}", False, text)
                    continue
                energy = [r.value / 1000 for r in readings if r.obis == ENERGY_IMPORT and r.unit is Unit.WATT_HOUR]
                if not energy and readings and meter.medium != "electricity":
                    text = f"{identity.serial or 'no serial number'}, {meter.medium}: {_shown(readings)}"
                    yield Finding(f"meter {meter.id}", True, text)
                    continue
                if not energy and readings and meter.id not in balanced and not _electric(readings):
                    text = f"in no zone, and no electricity meter: {_shown(readings)}; set its medium"
                    yield Finding(f"meter {meter.id}", True, text)
                    continue
                if not energy:
                    yield Finding(f"meter {meter.id}", False, "it shows no import register 1.0.1.8.0 in Wh")
                    continue
                who = identity.serial or "no serial number"
                text = f"{who}, {energy[0]:.2f} kWh, {len(readings)} registers in {took_s:.2f} s"
                yield Finding(f"meter {meter.id}", True, text)
        finally:
            bus.close()


def _shown(readings: Sequence[Reading]) -> str:
    """The first of what a meter shows."""
    told = [f"{r.obis} {r.value:.10g} {r.unit.symbol}".strip() for r in readings[:READINGS_SHOWN]]
    return ", ".join(told) + (f" and {len(readings) - len(told)} more" if len(readings) > len(told) else "")


def _electric(readings: Sequence[Reading]) -> bool:
    """Whether any register is of electricity (IEC 62056-6-1, value group A)."""
    return any(reading.obis.a == ELECTRICITY for reading in readings)


def _clock(now_s: float, offsets: list[float]) -> Finding:
    """Ours against reason and against the meters'."""
    if now_s < SENSIBLE_UTC_S:
        return Finding("clock", False, "this gateway's clock was never set; enable time synchronisation (timedatectl)")
    if not offsets:
        return Finding("clock", True, f"{wire.utc(now_s):%Y-%m-%d %H:%M:%S} UTC")
    middle_s = statistics.median(offsets)
    off = sum(abs(offset) > SKEW_S for offset in offsets)
    if abs(middle_s) > SKEW_S:
        text = f"most meters' clocks differ from ours by {middle_s:+.0f} s; check ours first (timedatectl)"
        return Finding("clock", False, text)
    told = f"; {off} meters are off by more than {SKEW_S:.0f} s: checkmeter clock sets them" if off else ""
    return Finding("clock", not off, f"within {abs(middle_s):.0f} s of the meters' median{told}")


def _agent_runs(config: Config) -> bool:
    try:
        ask(config.service.socket)
    except OSError:
        return False
    return True
