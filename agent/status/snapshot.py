"""What the running agent says of itself: one snapshot for `status`, `watch`, metrics and the `health` message.

It owns the forms; who fills them in is the service's business.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent import wire

WEAR_STEP_S, WEAR_LEAST_S = 900.0, 600.0  # between two notes of what was written; before it nothing is told


class MeterView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last thing a meter said, for a person who looks. Registers kWh, powers W."""

    id: str
    bus: str
    time_s: float | None = None
    energy_kwh: float | None = None
    export_kwh: float | None = None
    power_w: float | None = None
    register: wire.Register | None = None  # of a meter of water, heat or gas
    serial: str | None = None
    firmware: str | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that can be seen at one moment. `now_s` is the agent's own clock, simulated or not."""

    now_s: float
    status: wire.Status
    health: wire.Health
    broker: str = ""
    phase: str = ""  # what it is busy with: "reading stored profiles: 5 of 13 meters", "watching"
    meters: list[MeterView] = []
    balances: list[wire.Balance] = []
    alerts: list[wire.AlertData] = []
    forecasts: list[wire.Forecast] = []
    live: list[wire.Live] = []
    suspicion: dict[str, float] = {}  # sub-meter -> theft probability as of the last interval


class ProcessUse:
    """CPU share since the last call, and resident memory, of this process."""

    def __init__(self) -> None:
        self._at_s, self._cpu_s = time.monotonic(), _cpu_s()
        self._page = resource.getpagesize()
        self._written: deque[tuple[float, int]] = deque(maxlen=round(86_400 / WEAR_STEP_S))

    def cpu_percent(self) -> float:
        """Of one core, since the last call."""
        at_s, cpu_s = time.monotonic(), _cpu_s()
        share = 100 * (cpu_s - self._cpu_s) / max(at_s - self._at_s, 1e-3)
        self._at_s, self._cpu_s = at_s, cpu_s
        return share

    def flash_bytes_day(self) -> int | None:
        """Octets that were written to a disk, per day, by those of the last day; None at first, or where not counted.

        The kernel counts pages that this process made dirty (proc(5), /proc/pid/io): what SQLite rewrites counts anew.
        """
        try:
            counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
            written = int(counted["write_bytes"])
        except (OSError, KeyError, ValueError):
            return None
        now_s = time.monotonic()
        if not self._written or now_s - self._written[-1][0] >= WEAR_STEP_S:
            self._written.append((now_s, written))
        from_s, before = self._written[0]
        return None if now_s - from_s < WEAR_LEAST_S else round((written - before) * 86_400 / (now_s - from_s))

    def memory_mb(self) -> float:
        """Resident set, MB (10^6 octets)."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * self._page / 1e6


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def metrics_text(snapshot: Snapshot) -> str:
    """The snapshot in Prometheus' text format: the figures of `health`, and of the balance."""
    families: dict[str, list[str]] = {}
    for name, labels, value in _samples(snapshot):
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        line = f"checkmeter_{name}{{{shown}}} {value:.10g}" if shown else f"checkmeter_{name} {value:.10g}"
        families.setdefault(name, []).append(line)
    parts = []
    for name, lines in families.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        parts += [f"# HELP checkmeter_{name} {_HELP[name]}", f"# TYPE checkmeter_{name} {kind}", *lines]
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """A label's value (Prometheus text format 0.0.4)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


JOULES_PER_KWH = 3_600_000
_HELP = {
    "build_info": "1, with the version as a label",
    "broker_connected": "1 while the broker has us",
    "up": "1 if meters can be read (online), 0.5 if some can not (degraded), else 0",
    "uptime_seconds": "since the agent's start",
    "cpu_ratio": "of one core, over the last minute",
    "resident_memory_bytes": "of the agent",
    "flash_written_bytes_per_day": "written to flash, by what was written since the start or in the last day",
    "bus_up": "1 if the port is open and something answers",
    "bus_cycles_total": "poll cycles done",
    "bus_skipped_total": "polls skipped because the queue was full",
    "bus_cycle_seconds": "duration of the last cycle",
    "bus_cycle_kept_seconds": "between the beginnings of the last cycles",
    "bus_errors_total": "errors by kind",
    "meter_last_reading_timestamp_seconds": "UTC of the last reading",
    "meter_readings_total": "readings taken",
    "meter_errors_total": "errors by kind",
    "meter_latency_seconds": "duration of the last exchange",
    "meter_energy_joules_total": "import register",
    "meter_suspicion_ratio": "probability that energy passes the meter by, as of the last interval",
    "outbox_oldest_timestamp_seconds": "UTC of the oldest message that waits",
    "outbox_messages": "waiting for the broker",
    "outbox_bytes": "waiting for the broker",
    "outbox_evicted_total": "given up because the outbox was full",
    "outbox_refused_total": "refused by the broker",
    "store_errors_total": "faults of the disk",
    "zone_main_joules": "main meter over the last interval",
    "zone_sum_joules": "sub-meters over the last interval",
    "zone_technical_loss_joules": "expected technical loss over the last interval",
    "zone_residual_joules": "what is missing over the last interval",
    "zone_uncertainty_joules": "standard uncertainty of the residual",
    "zone_coverage_ratio": "share of the meters that answered, 0..1",
    "alerts_open": "open alerts by severity",
}

_Sample = tuple[str, dict[str, str], float]


def _samples(snapshot: Snapshot) -> Iterator[_Sample]:
    health = snapshot.health
    yield "build_info", {"version": snapshot.status.versions.get("checkmeter", "")}, 1.0
    yield "broker_connected", {}, float(snapshot.broker == "connected")
    yield "up", {}, {"online": 1.0, "degraded": 0.5}.get(snapshot.status.state, 0.0)
    yield "uptime_seconds", {}, health.uptime_s
    if health.cpu_percent is not None:
        yield "cpu_ratio", {}, health.cpu_percent / 100
    if health.memory_mb is not None:
        yield "resident_memory_bytes", {}, health.memory_mb * 1e6
    if health.flash_bytes_day is not None:
        yield "flash_written_bytes_per_day", {}, health.flash_bytes_day
    for bus in health.buses:
        label = {"bus": bus.id}
        yield "bus_up", label, float(bus.state == "up")
        yield "bus_cycles_total", label, bus.cycles
        yield "bus_skipped_total", label, bus.skipped
        if bus.cycle_s is not None:
            yield "bus_cycle_seconds", label, bus.cycle_s
        if bus.kept_s is not None:
            yield "bus_cycle_kept_seconds", label, bus.kept_s
        for kind, count in bus.errors.items():
            yield "bus_errors_total", label | {"kind": kind}, count
    for meter in health.meters:
        label = {"meter": meter.id}
        if meter.last_reading is not None:
            yield "meter_last_reading_timestamp_seconds", label, meter.last_reading.timestamp()
        yield "meter_readings_total", label, meter.readings
        if meter.latency_ms is not None:
            yield "meter_latency_seconds", label, meter.latency_ms / 1000
        for kind, count in meter.errors.items():
            yield "meter_errors_total", label | {"kind": kind}, count
    for view in snapshot.meters:
        if view.energy_kwh is not None:
            yield "meter_energy_joules_total", {"meter": view.id}, view.energy_kwh * JOULES_PER_KWH
    for meter_id, probability in snapshot.suspicion.items():
        yield "meter_suspicion_ratio", {"meter": meter_id}, probability
    if health.queue is not None:
        yield "outbox_messages", {}, health.queue.messages
        yield "outbox_bytes", {}, health.queue.bytes
        if health.queue.oldest is not None:
            yield "outbox_oldest_timestamp_seconds", {}, health.queue.oldest.timestamp()
        yield "outbox_evicted_total", {}, health.queue.evicted
        yield "outbox_refused_total", {}, health.queue.refused
        yield "store_errors_total", {}, health.queue.store_errors
    for zone in snapshot.balances:
        for name in ("main", "sum", "technical_loss", "residual", "uncertainty"):
            kwh = getattr(zone, f"{name}_kwh")
            if kwh is not None:
                yield f"zone_{name}_joules", {"zone": zone.zone}, kwh * JOULES_PER_KWH
        yield "zone_coverage_ratio", {"zone": zone.zone}, zone.coverage
    for severity in ("info", "warning", "critical"):
        count = sum(alert.severity == severity for alert in snapshot.alerts)
        yield "alerts_open", {"severity": severity}, count
