"""A case from the gateway's own store: the same facts that the evidence messages carry, without a broker."""

from __future__ import annotations

import importlib.metadata
from datetime import datetime
from pathlib import Path

import numpy as np

from agent.offline.case.case import MAX_ROWS, Case, CaseError, Energies, Floats, check_complete
from agent.site.load import load
from agent.site.tables import Config
from agent.store.history import open_archive, read_events, read_history
from agent.wire.codec import SCHEMAS, decode
from agent.wire.events import AlertEvent, TamperEvent
from agent.wire.state import Info, MeterInfo, ZoneInfo

DAYS_BEFORE = 42  # of the window shown, before the onset
DAY_S = 86_400.0


def from_store(site: Path, alert_id: str) -> Case:
    """The case of `alert_id` from the store that the site file names.

    Raises:
        ConfigError: the site file has errors.
        ArchiveError: no store, or it cannot be read.
        CaseError: no such alert, or no history around it.
    """
    config = load(site)
    with open_archive(config.store.path) as db:
        events = [decode(AlertEvent, body) for body in read_events(db, "event/alert", -np.inf, np.inf)]
        revisions = sorted((e for e in events if e.data.alert_id == alert_id), key=lambda e: e.data.revision)
        if not revisions:
            raise CaseError(f"the store knows no alert {alert_id}; `checkmeter alerts` lists those it knows")
        last = revisions[-1]
        zone = next((z for z in config.zone if z.id == last.data.zone), None)
        if zone is None:
            raise CaseError(f"alert {alert_id} is of no zone of this site file: it has no balance to show")
        since_s = last.data.onset.timestamp() - DAYS_BEFORE * DAY_S
        meters = [zone.main, *zone.subs]
        rows = read_history(db, since_s, np.inf, meters, config.detection.row_s)
        tampers = [decode(TamperEvent, body) for body in read_events(db, "event/tamper", since_s, np.inf)]
    if len(rows) < 2:
        raise CaseError("the store has no interval history around this alert")
    energies = _energies(rows.times_s, rows.wh, config.detection.row_s, zone.main, tuple(zone.subs))
    energies.subs_kwh[:, [name in zone.minus for name in zone.subs]] *= -1.0
    info = _info(config, last.time)
    check_complete(energies, info, zone.id)
    return Case(
        tuple(revisions), energies, tuple(info.meters), info, tuple(t for t in tampers if t.data.meter in meters)
    )


def _energies(times_s: Floats, registers_wh: Floats, interval_s: float, main: str, subs: tuple[str, ...]) -> Energies:
    start_s = float(times_s[0])
    place = np.rint((times_s - start_s) / interval_s).astype(np.intp)
    if place[-1] > MAX_ROWS:
        raise CaseError(f"the history spans {place[-1]} intervals; at most {MAX_ROWS} can be shown")
    grid = np.full((place[-1] + 1, registers_wh.shape[1]), np.nan)
    grid[place] = registers_wh
    kwh = np.diff(grid, axis=0) / 1000
    kwh[kwh < 0] = np.nan  # a replaced meter: its step back is no energy
    return Energies(start_s, interval_s, main, subs, kwh[:, 0].copy(), kwh[:, 1:].copy())


def _info(config: Config, time: datetime) -> Info:
    """What the gateway would say of itself, as far as the site file tells it."""
    meters = [
        MeterInfo(
            id=m.id,
            name=m.name,
            service_point=m.service_point,
            bus=m.bus,
            accuracy_class=m.accuracy_class,
            serial=m.serial,
        )
        for m in config.meter
    ]
    zones = [ZoneInfo(id=z.id, name=z.name, main=z.main, subs=z.subs, minus=z.minus) for z in config.zone]
    return Info(
        time=time,
        name=config.site.name,
        address=config.site.address,
        contact=config.site.contact,
        feeder=config.site.feeder,
        district=config.site.district,
        versions={"checkmeter": importlib.metadata.version("checkmeter")},
        meters=meters,
        zones=zones,
        schemas={name.split(".")[1]: name for name in SCHEMAS},
    )
