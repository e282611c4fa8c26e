"""A small building as its MQTT messages: 8 flats, 40 days of quarter hours, flat-302 bypassed from day 25 on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from agent import wire

START_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
INTERVAL_S = 900
FLATS = tuple(f"flat-{floor}0{door}" for floor in (1, 2, 3, 4) for door in (1, 2))
ALERT_ID = "ntl-building-1"


@dataclass(frozen=True)
class Building:
    """What the meters showed, and what is true."""

    lines: list[str]
    missing_w: float
    onset_s: float
    alert_id: str = ALERT_ID


def _make_building(
    *,
    bypass: bool = True,
    days: int = 40,
    onset_day: int = 25,
    vacant: bool = False,
    upstream: float = 0.03,
    unexplained: float | None = None,
) -> Building:
    """Loads of a daily shape with noise; the flat is bypassed, or merely empty, or all is well but the alert."""
    rng = np.random.default_rng(302)
    rows = days * 96
    hour = np.arange(rows) % 96 / 4
    shape = 0.15 + 0.5 * np.exp(-(((hour - 19) / 3) ** 2)) + 0.2 * np.exp(-(((hour - 8) / 2) ** 2))
    true_kwh = shape[:, None] * rng.uniform(0.5, 1.5, len(FLATS)) * rng.lognormal(0, 0.4, (rows, len(FLATS))) / 4
    after = np.arange(rows) >= onset_day * 96
    thief = FLATS.index("flat-302")
    if vacant:
        true_kwh[after, thief] *= 0.03
    shown_kwh = true_kwh.copy()
    if bypass:
        shown_kwh[after, thief] = 1 / 30 / 96
    total = true_kwh.sum(axis=1)
    main_kwh = total + 0.002 + 0.015 * total**2 / total.mean()
    onset_s = START_S + onset_day * 86_400
    lines = [_line("info", _info()), *(_line("event/alert", _alert(r, onset_s, upstream, unexplained)) for r in (1, 2))]
    table = np.column_stack([main_kwh, shown_kwh])
    step = 10 * 96
    parts = range(0, rows, step)
    for n, first in enumerate(parts, start=1):
        series = [
            wire.Series(meter=name, kwh=[round(float(v), 6) for v in table[first : first + step, j]])
            for j, name in enumerate(("main", *FLATS))
        ]
        chunk = wire.EvidenceChunk(
            alert_id=ALERT_ID,
            n=n,
            of=len(parts),
            zone="building",
            start=wire.utc(START_S + first * INTERVAL_S),
            interval_s=INTERVAL_S,
            series=series,
        )
        lines.append(_line(wire.evidence_suffix(ALERT_ID, n, len(parts)), chunk))
    lost = (true_kwh - shown_kwh)[after, thief]
    return Building(lines, float(lost.mean() * 4000) if len(lost) else 0.0, onset_s)


def _line(suffix: str, message: msgspec.Struct) -> str:
    return f"{wire.Address('acme', 'riverside-12', 'gw-0012').topic(suffix)} {wire.encode(message).decode()}"


def _info() -> wire.Info:
    meters = [
        wire.MeterInfo(
            id=name,
            bus="rs485-1",
            accuracy_class=0.5 if name == "main" else 1.0,
            serial=f"EMH{k:05d}",
            firmware="2.1.7",
        )
        for k, name in enumerate(("main", *FLATS))
    ]
    zone = wire.ZoneInfo(id="building", main="main", subs=list(FLATS))
    return wire.Info(time=wire.utc(START_S), versions={"checkmeter": "0.1"}, meters=meters, zones=[zone], schemas={})


def _alert(revision: int, onset_s: float, upstream: float, unexplained: float | None) -> wire.AlertEvent:
    suspects = [
        wire.SuspectData(meter="flat-302", probability=0.6 + 0.17 * revision, mechanism="conservation"),
        wire.SuspectData(meter="flat-101", probability=0.02),
    ]
    data = wire.AlertData(
        alert_id=ALERT_ID,
        revision=revision,
        state="raised" if revision == 1 else "updated",
        kind="bypass",
        severity="warning",
        zone="building",
        onset=wire.utc(onset_s),
        onset_window=(wire.utc(onset_s - 3600), wire.utc(onset_s + 7200)),
        loss_w=300.0,
        loss_w_interval=(270.0, 330.0),
        loss_kwh=88.0,
        suspects=suspects,
        upstream_probability=upstream,
        unexplained_probability=unexplained,
        quality=wire.QualityData(coverage=0.998),
    )
    moment = wire.utc(onset_s + revision * 86_400)
    return wire.AlertEvent(
        id=f"id-{revision}", source="/acme/riverside-12/gw-0012", subject="zone/building", time=moment, data=data
    )


@pytest.fixture(scope="session")
def make_building() -> Callable[..., Building]:
    """Makes a building of one's choice."""
    return _make_building


@pytest.fixture(scope="session")
def bypassed() -> Building:
    """Flat 302 shows 1 kWh a month while it goes on using what it used."""
    return _make_building()
