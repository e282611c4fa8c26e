"""The messages between a gateway and its utility, as frozen structs, and the topics they travel on.

It owns the form of what goes over the wire: field names, topic names, sizes, how bytes become structs and back. It
knows nothing of sockets, of the store, of signatures, or of why an alert is raised. A backend may import this module
alone: it needs msgspec and nothing else of the agent.

Times on the wire are RFC 3339 in UTC and those of the measurement; powers are W, energies kWh, shares 0..1. A field
that does not apply is left out; a measurement that is missing is `null`, and zero is a measurement.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

ROOT = "checkmeter/v1"
Time = Annotated[datetime, msgspec.Meta(tz=True)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9._-]+$")]

AlertKind = Literal[
    "non_technical_loss",
    "under_registration",
    "bypass",
    "upstream_tap",
    "tamper",
    "reverse_energy",
    "meter_fault",
    "balance_surplus",
    "communication_loss",
]
Severity = Literal["info", "warning", "critical"]
AlertState = Literal["raised", "updated", "cleared"]
TamperKind = Literal[
    "terminal_cover",
    "meter_cover",
    "magnetic_field",
    "wrong_password",
    "reverse_run",
    "other",
]

# Limits on what a backend may send us. They bound what a hostile or broken sender can make us parse or keep.
MAX_COMMAND_BYTES = 16 * 1024
MAX_ACK_BYTES = 64 * 1024
MAX_CONFIG_BYTES = 512 * 1024
MAX_MODEL_BYTES = 2 * 1024 * 1024


class WireError(ValueError):
    """Bytes that are not the message they should be; the text says what is wrong, fit to be sent back."""


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all that goes up; readers ignore fields they do not know, so that fields may be added."""


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all that comes down; an unknown field is an error, so that no wish is silently ignored."""


# -- alerts and tamper events: CloudEvents 1.0, structured JSON mode -------------------------------------------------


class SuspectData(Body, frozen=True, kw_only=True):
    """A sub-meter and the probability that the missing energy passes it by."""

    meter: str
    probability: Share
    mechanism: str | None = None


class ResidualData(Body, frozen=True, kw_only=True):
    """The zone's balance over the window that the alert speaks of."""

    kwh: float | None
    percent: float | None
    uncertainty_kwh: float | None
    technical_loss_kwh: float | None


class ModelData(Body, frozen=True, kw_only=True):
    """The compact model that scored the sub-meters."""

    sha256: str
    threshold: float
    score: float | None


class QualityData(Body, frozen=True, kw_only=True):
    """How good the readings behind the statement are."""

    coverage: Share


class AcknowledgedData(Body, frozen=True, kw_only=True):
    """Who has taken notice of the alert, and when."""

    by: str
    time: Time


class AlertData(Body, frozen=True, kw_only=True):
    """One transition of one alert. Order by (`alert_id`, `revision`); a revision says all, not the difference.

    `kind` names a mechanism only where its probability has reached the site's set confidence; `suspects` are
    probabilities at any time, and with `upstream_probability` they sum to 1 at most.
    """

    alert_id: Id
    revision: Annotated[int, msgspec.Meta(ge=1)]
    state: AlertState
    kind: AlertKind
    severity: Severity
    onset: Time
    zone: str | None = None
    meter: str | None = None
    bus: str | None = None
    onset_window: tuple[Time, Time] | None = None
    loss_w: float | None = None
    loss_w_interval: tuple[float, float] | None = None
    loss_kwh: float | None = None
    suspects: list[SuspectData] | None = None
    upstream_probability: Share | None = None
    residual: ResidualData | None = None
    features: dict[str, dict[str, float | None]] | None = None
    model: ModelData | None = None
    quality: QualityData | None = None
    detail: str | None = None
    acknowledged: AcknowledgedData | None = None
    cim: str | None = None


class TamperData(Body, frozen=True, kw_only=True):
    """One entry of a meter's event log, or one sign of tampering derived from its registers."""

    meter: str
    kind: TamperKind
    state: Literal["detected", "ended"]
    zone: str | None = None
    log: str | None = None
    code: int | None = None
    received: Time | None = None
    detail: str | None = None
    cim: str | None = None


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope (CloudEvents 1.0, section 2); `time` is that of the measurement, also when sent late."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    type: str
    source: str
    subject: str
    time: Time
    datacontenttype: Literal["application/json"] = "application/json"


class AlertEvent(CloudEvent, frozen=True, kw_only=True):
    """`event/alert`."""

    type: Literal["checkmeter.alert.v1"] = "checkmeter.alert.v1"
    data: AlertData


class TamperEvent(CloudEvent, frozen=True, kw_only=True):
    """`event/tamper`."""

    type: Literal["checkmeter.tamper.v1"] = "checkmeter.tamper.v1"
    data: TamperData


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
    """One meter as configured, with the serial number and firmware it told."""

    id: str
    bus: str | None = None
    accuracy_class: float | None = None
    serial: str | None = None
    firmware: str | None = None


class ZoneInfo(Body, frozen=True, kw_only=True):
    """One zone as configured; `minus` names those of `subs` that count against the sum."""

    id: str
    main: str
    subs: list[str]
    minus: list[str] = []


class Info(Body, frozen=True, kw_only=True):
    """`info`, retained: what this gateway is made of."""

    time: Time
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
    cycle_s: float | None = None


class MeterHealth(Body, frozen=True, kw_only=True):
    """One meter since the agent's start."""

    id: str
    last_reading: Time | None = None
    readings: Count = 0
    errors: dict[str, int] = {}
    latency_ms: float | None = None


class QueueHealth(Body, frozen=True, kw_only=True):
    """The outbox: what waits, what had to be given up, what the broker refused."""

    messages: Count
    bytes: Count
    oldest: Time | None = None
    evicted: Count = 0
    refused: Count = 0
    store_errors: Count = 0


class Health(Body, frozen=True, kw_only=True):
    """`health`, every 60 s while connected."""

    time: Time
    uptime_s: float
    buses: list[BusHealth] = []
    meters: list[MeterHealth] = []
    queue: QueueHealth | None = None
    cpu_percent: float | None = None
    memory_mb: float | None = None


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


class Ack(Order, frozen=True, kw_only=True):
    """`ack`, in end-to-end delivery: the CloudEvent or message ids that the backend has stored for good."""

    ids: list[str]


class Signed(Order, frozen=True, kw_only=True):
    """What a signed message looks like on the wire: the text itself, the key's id, the Ed25519 signature in hex.

    The signature covers the octets of `payload` as they stand, behind the purpose (see agent.signing): no canonical
    form of JSON is needed, so none can be got wrong.
    """

    payload: str
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]


class Command(Order, frozen=True, kw_only=True):
    """`cmd/req`, inside `Signed`. `target` is `{tenant}/{site}/{gateway}`, so that no other gateway obeys it."""

    id: Id
    target: str
    name: Literal["ping", "snapshot", "report", "resend", "acknowledge", "set-mode", "reload"]
    issued: Time
    expires: Time
    by: Annotated[str, msgspec.Meta(max_length=128)] = ""
    args: dict[str, Any] = {}


class CommandResult(Body, frozen=True, kw_only=True):
    """`cmd/res`. `refused`: nothing was changed, `reason` says why; `failed`: it was tried and did not work."""

    id: str | None
    name: str | None = None
    status: Literal["done", "refused", "failed"]
    time: Time
    reason: str | None = None
    result: dict[str, Any] = {}


class DesiredConfig(Order, frozen=True, kw_only=True):
    """`config/desired`, retained, inside `Signed`: a whole site file."""

    target: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    issued: Time
    expires: Time | None = None
    toml: str


class DesiredModel(Order, frozen=True, kw_only=True):
    """`model/desired`, retained, inside `Signed`: a whole .tflite file (base64) and its SHA-256."""

    target: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    issued: Time
    expires: Time | None = None
    sha256: Sha256
    tflite: bytes


class Reported(Body, frozen=True, kw_only=True):
    """`config/reported` and `model/reported`, retained.

    `version` and `sha256` are what runs now; `desired` is the version spoken of in `state`.
    """

    state: Literal["none", "on_trial", "kept", "rejected", "rolled_back"]
    time: Time
    version: int | None = None
    sha256: str | None = None
    desired: int | None = None
    reason: str | None = None


# schema id -> struct: what `info` lists, what docs/schemas holds, what the MQTT user property `schema` says.
SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "checkmeter.alert.v1": AlertEvent,
    "checkmeter.tamper.v1": TamperEvent,
    "checkmeter.active.v1": ActiveSnapshot,
    "checkmeter.balance.v1": Balance,
    "checkmeter.status.v1": Status,
    "checkmeter.info.v1": Info,
    "checkmeter.health.v1": Health,
    "checkmeter.evidence.v1": EvidenceChunk,
    "checkmeter.ack.v1": Ack,
    "checkmeter.signed.v1": Signed,
    "checkmeter.command.v1": Command,
    "checkmeter.result.v1": CommandResult,
    "checkmeter.config-desired.v1": DesiredConfig,
    "checkmeter.model-desired.v1": DesiredModel,
    "checkmeter.reported.v1": Reported,
}
SCHEMA_OF: Mapping[type, str] = {struct: name for name, struct in SCHEMAS.items()}


# -- bytes and structs -----------------------------------------------------------------------------------------------

T = TypeVar("T", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """The JSON octets of a message, UTF-8."""
    return msgspec.json.encode(message)


def decode(struct: type[T], payload: bytes, limit: int | None = None) -> T:
    """The message in `payload`, checked against its struct.

    Raises:
        WireError: longer than `limit` octets (not parsed at all), not JSON, or not of this form.
    """
    if limit is not None and len(payload) > limit:
        raise WireError(f"{len(payload)} octets are over the limit of {limit}")
    try:
        return msgspec.json.decode(payload, type=struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a {SCHEMA_OF[struct]}: {error}") from error


def utc(seconds: float) -> datetime:
    """UTC seconds since the epoch as the wire writes them, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def number(value: float | None, digits: int = 3) -> float | None:
    """A figure as the wire writes it: rounded, and `null` where it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def derived_uuid(*parts: str) -> str:
    """A UUID of version 4's shape that the same parts always give (SHA-256), so that a duplicate keeps its id."""
    digest = bytearray(hashlib.sha256("\x1f".join(parts).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


# -- topics ----------------------------------------------------------------------------------------------------------


class Address(NamedTuple):
    """Whose messages: `checkmeter/v1/{tenant}/{site}/{gateway}`."""

    tenant: str
    site: str
    gateway: str

    @property
    def source(self) -> str:
        """The CloudEvents `source`."""
        return "/" + "/".join(self)

    @property
    def target(self) -> str:
        """The `target` of commands and desired state."""
        return "/".join(self)

    def topic(self, suffix: str) -> str:
        """The whole topic of `suffix`."""
        return f"{ROOT}/{self.tenant}/{self.site}/{self.gateway}/{suffix}"


def balance_suffix(zone: str) -> str:
    """`balance/{zone}`."""
    return f"balance/{zone}"


def evidence_suffix(alert_id: str, n: int, of: int) -> str:
    """`evidence/{alert_id}/{n}-{of}`."""
    return f"evidence/{alert_id}/{n}-{of}"


def split_topic(topic: str) -> tuple[Address, str]:
    """Whose topic it is, and the suffix.

    Raises:
        WireError: not a topic of this contract.
    """
    parts = topic.split("/", 5)
    if len(parts) != 6 or f"{parts[0]}/{parts[1]}" != ROOT:
        raise WireError(f"{topic!r} is not {ROOT}/{{tenant}}/{{site}}/{{gateway}}/...")
    return Address(*parts[2:5]), parts[5]
