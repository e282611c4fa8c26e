"""Alert and tamper CloudEvents."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.wire.values import Body, Id, Share, Time, Uuid

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
    "capacity",
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
    """Who has taken notice of the alert, and when; `reason`: why its loss is a normal load of the building."""

    by: str
    time: Time
    reason: str | None = None


class AlertData(Body, frozen=True, kw_only=True):
    """One transition of one alert. Order by (`alert_id`, `revision`); a revision says all, not the difference.

    `kind` names a mechanism only where its probability has reached the site's set confidence; `suspects` are
    probabilities at any time. With `upstream_probability` (a load ahead of the sub-meters: a tap, or a common load that
    nobody meters) and `unexplained_probability` (none of these) they sum to 1 at most.
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
    unexplained_probability: Share | None = None
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
    id: Uuid
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
