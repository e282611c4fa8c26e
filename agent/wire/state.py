"""The messages between a gateway and its utility, as frozen structs, and the topics they travel on.

It owns the form of what goes over the wire: field names, topic names, sizes, how bytes become structs and back. It
knows nothing of sockets, of the store, of signatures, or of why an alert is raised. A backend may import this module
alone: it needs msgspec and nothing else of the agent.

Times on the wire are RFC 3339 in UTC and those of the measurement; powers are W, energies kWh, shares 0..1. A field
that does not apply is left out; a measurement that is missing is `null`, and zero is a measurement.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.wire.events import AlertData
from agent.wire.values import Body, Count, Id, Share, Time

# -- alerts and tamper events: CloudEvents 1.0, structured JSON mode -------------------------------------------------


# -- state and measurements ------------------------------------------------------------------------------------------


class ActiveSnapshot(Body, frozen=True, kw_only=True):
    """`active`, retained: the alerts that are open, each in its last revision without its features."""

    time: Time
    alerts: list[AlertData]


class Balance(Body, frozen=True, kw_only=True):
    """`balance/{zone}`: one interval of one zone. `residual = main - sum - technical_loss`."""

    zone: str
    start: Time
    end: Time
    main_kwh: float | None
    sum_kwh: float | None
    technical_loss_kwh: float | None
    residual_kwh: float | None
    uncertainty_kwh: float | None
    coverage: Share


class Status(Body, frozen=True, kw_only=True):
    """`status`, retained. Online: meters can be read. Degraded: those named can't. Offline: also the last will.

    `since` is left out in the will, which is written before anyone knows when it will be needed.
    """

    state: Literal["online", "degraded", "offline"]
    since: Time | None = None
    reason: str | None = None
    meters: list[str] = []
    versions: dict[str, str]


class MeterInfo(Body, frozen=True, kw_only=True):
    """One meter as configured, with the serial number and firmware it told; `name` is what people call it."""

    id: str
    name: str | None = None
    service_point: str | None = None
    bus: str | None = None
    accuracy_class: float | None = None
    serial: str | None = None
    firmware: str | None = None


class ZoneInfo(Body, frozen=True, kw_only=True):
    """One zone as configured; `minus` names those of `subs` that count against the sum."""

    id: str
    name: str | None = None
    main: str
    subs: list[str]
    minus: list[str] = []


class Info(Body, frozen=True, kw_only=True):
    """`info`, retained: what this gateway is made of, and where it is, in words for people.

    `feeder` and `district` are the groups by which a utility adds up peaks.
    """

    time: Time
    name: str | None = None
    address: str | None = None
    contact: str | None = None
    feeder: str | None = None
    district: str | None = None
    versions: dict[str, str]
    meters: list[MeterInfo]
    zones: list[ZoneInfo]
    config_sha256: str | None = None
    config_version: int | None = None
    model_sha256: str | None = None
    model_version: int | None = None
    schemas: dict[str, str]


class BusHealth(Body, frozen=True, kw_only=True):
    """One bus since the agent's start."""

    id: str
    state: Literal["up", "down"]
    cycles: Count = 0
    skipped: Count = 0
    errors: dict[str, int] = {}
    cycle_s: float | None = None  # how long the last cycle took
    poll_s: float | None = None  # how often one is to begin,
    kept_s: float | None = None  # and how often they really do


class MeterHealth(Body, frozen=True, kw_only=True):
    """One meter since the agent's start."""

    id: str
    last_reading: Time | None = None
    readings: Count = 0
    errors: dict[str, int] = {}
    latency_ms: float | None = None
    refresh_s: float | None = None  # it shows a new value so often only; left out while it shows what flows


class QueueHealth(Body, frozen=True, kw_only=True):
    """The outbox: what waits, what had to be given up, what the broker refused."""

    messages: Count
    bytes: Count
    oldest: Time | None = None
    evicted: Count = 0
    refused: Count = 0
    store_errors: Count = 0
    damaged: Count = 0  # messages that were found damaged in the store, and put aside
    dropped: Count = 0  # messages from the broker that were too large or too many


class Health(Body, frozen=True, kw_only=True):
    """`health`, every 60 s while connected."""

    time: Time
    uptime_s: float
    buses: list[BusHealth] = []
    meters: list[MeterHealth] = []
    queue: QueueHealth | None = None
    clock: str | None = None  # what is wrong with the gateway's clock; left out while it is believed
    cpu_percent: float | None = None
    memory_mb: float | None = None
    flash_bytes_day: Count | None = None  # what the agent writes to flash in a day, by what it wrote since its start
    detectable_w: dict[str, float] = {}  # by zone: the smallest steady loss that would be found within a week


class Amount(Body, frozen=True, kw_only=True):
    """One register as it stands: energies in kWh, volumes in m³, temperatures in °C, powers in W."""

    obis: str
    value: float
    unit: str


class Register(Body, frozen=True, kw_only=True):
    """`register/{meter}`, retained: what a meter of water, heat or gas shows, which is in no balance.

    The first of `amounts` is what the meter counts; further ones are what else it shows.
    """

    meter: str
    medium: Literal["heat", "cold-water", "hot-water", "gas"]
    time: Time
    amounts: Annotated[list[Amount], msgspec.Meta(min_length=1, max_length=16)]


class Series(Body, frozen=True, kw_only=True):
    """One meter's energy per interval; `null` where it was not read."""

    meter: str
    kwh: list[float | None]


class EvidenceChunk(Body, frozen=True, kw_only=True):
    """`evidence/{alert_id}/{n}-{of}`: a stretch of a zone's intervals for the case file, `n` from 1 to `of`."""

    alert_id: Id
    n: Annotated[int, msgspec.Meta(ge=1)]
    of: Annotated[int, msgspec.Meta(ge=1)]
    zone: str
    start: Time
    interval_s: float
    series: list[Series]


# -- down: acknowledgements, commands, desired state -----------------------------------------------------------------


# -- bytes and structs -----------------------------------------------------------------------------------------------


# -- topics ----------------------------------------------------------------------------------------------------------
