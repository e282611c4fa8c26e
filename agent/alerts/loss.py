"""The detector's evidence in the words of the wire.

Pure translation: it keeps nothing, and knows neither identity nor time.
"""

from __future__ import annotations

import msgspec

from agent.wire.events import AlertData, ModelData, QualityData, ResidualData, Severity, SuspectData
from agent.wire.values import number, utc
from core.evidence import Evidence, LossKind

QUESTION = "a load that has no meter: stairs, lift, pumps? Set [[zone]] unmetered_w, or acknowledge with a reason"
MERGED = (
    "one with the loss that was told before in this zone (number {} there), which goes on: the same flat is behind both"
)

MAIN_METER = (
    "it follows the loads of many flats at once: the main meter errs; check its current transformers and their phases"
)
RETURNED = "no loss: all that was missing is back; a register stood still and has caught up"


def loss_data(item: Evidence, confidence: float, critical_percent: float, model: ModelData | None) -> AlertData:
    """What the evidence says; a mechanism is named from `confidence` on, below it the loss is "not attributed".

    The loss is critical if it is named, or is at least `critical_percent` of the zone's energy. Identity, revision and
    state are the book's to set.
    """
    low, high = (number(w, 1) for w in item.loss_w_interval)
    first = item.suspects[0].probability if item.suspects else 0.0
    named = {
        LossKind.UNDER_REGISTRATION: first >= confidence,
        LossKind.BYPASS: first >= confidence,
        LossKind.UPSTREAM_TAP: item.upstream_probability >= confidence,
    }
    kind: LossKind = item.kind if named.get(item.kind, True) else LossKind.NON_TECHNICAL_LOSS
    severity: Severity = (
        "critical" if named.get(item.kind, False) or abs(item.residual.percent) >= critical_percent else "warning"
    )
    if item.question:
        severity = "info"
    if model is not None:
        model = msgspec.structs.replace(model, score=number(item.model_score, 4))
    return AlertData(
        alert_id="unset",
        revision=1,
        state="raised",
        kind=kind.value,
        severity=severity,
        zone=item.zone,
        onset=utc(item.onset_s),
        onset_window=(utc(item.onset_window_s[0]), utc(item.onset_window_s[1])),
        loss_w=number(item.loss_w, 1),
        loss_w_interval=None if low is None or high is None else (low, high),
        loss_kwh=number(item.loss_kwh),
        suspects=[
            SuspectData(meter=s.meter, probability=_share(s.probability), mechanism=s.mechanism or None)
            for s in item.suspects
        ],
        upstream_probability=_share(item.upstream_probability),
        unexplained_probability=_share(item.unexplained_probability),
        residual=ResidualData(
            kwh=number(item.residual.energy_kwh),
            percent=number(item.residual.percent),
            uncertainty_kwh=number(item.residual.uncertainty_kwh),
            technical_loss_kwh=number(item.residual.technical_loss_kwh),
        ),
        features={m: {k: number(v, 4) for k, v in f.items()} for m, f in item.features.items()} or None,
        model=model,
        quality=QualityData(coverage=_share(item.coverage)),
        detail=_detail(item),
    )


def _detail(item: Evidence) -> str | None:
    """What there is to say of it in words."""
    if item.merged_into is not None:
        return MERGED.format(item.merged_into)
    if item.returned:
        return RETURNED
    return MAIN_METER if item.main_meter else QUESTION if item.question else None


def first_suspect(data: AlertData) -> tuple[str, float]:
    """Who comes first, "" being a load ahead of the sub-meters and "?" none of these, and with what probability."""
    suspects = [(s.meter, s.probability) for s in data.suspects or ()]
    others = [("", data.upstream_probability or 0.0), ("?", data.unexplained_probability or 0.0)]
    return max(suspects + others, key=lambda pair: pair[1])


def _share(value: float) -> float:
    """A probability or coverage as the wire has it: within 0..1 whatever rounding did, 0 where it is not known."""
    return min(1.0, max(0.0, number(value, 4) or 0.0))
