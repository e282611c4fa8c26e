"""What a gateway says of a case, as rows of the store: an alert with its suspects, an entry of a meter's event log.

It checks what the form of an alert does not: that its loss lies in its interval, and that its probabilities can be.
"""

from __future__ import annotations

from collections import Counter

from agent import wire
from agent.utility.ingest.checks import LARGEST_KWH, LARGEST_W, clean, name_of, revision, sha256_of, within
from agent.utility.sql.cases import ALERT, SUSPECT, TAMPER
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table

LEAST_LOSS_W = -1e5  # an estimate of a loss that is over may fall below 0, but not far
LEAST_LOSS_KWH = -LARGEST_KWH  # that for a year
MOST_CERTAIN = 1.01  # what all probabilities of one alert sum to; each is rounded to 4 digits


def fault(alert: wire.AlertData) -> str | None:
    """Why this can be no alert, although each of its figures may be; None if it can be one."""
    if alert.loss_w_interval is not None:
        low_w, high_w = alert.loss_w_interval
        if low_w > high_w:
            return f"range: loss_w_interval = {low_w:g} to {high_w:g} ends before it begins"
        if alert.loss_w is not None and not low_w <= alert.loss_w <= high_w:
            return f"range: loss_w = {alert.loss_w:g} is not within its interval of {low_w:g} to {high_w:g}"
    suspects = alert.suspects or []
    for meter, times in Counter(suspect.meter for suspect in suspects).items():
        if times > 1:
            return f"suspects: {meter[:64]} stands there twice"
    certain = sum(suspect.probability for suspect in suspects)
    certain += (alert.upstream_probability or 0.0) + (alert.unexplained_probability or 0.0)
    if certain > MOST_CERTAIN:
        return f"range: the probabilities of suspects, upstream and unexplained sum to {certain:g}; at most 1"
    return None


def rows(
    alert_key: int, gateway_key: int, zone_key: int | None, onset_s: int, time_s: int, alert: wire.AlertData
) -> tuple[tuple[Table, Row], ...]:
    """The rows of an alert without fault, itself and its suspects. Raises: Unreadable: a figure that cannot be."""
    suspects = sorted(alert.suspects or (), key=lambda suspect: (-suspect.probability, suspect.meter))
    first = suspects[0] if suspects else None
    model = alert.model
    for bound_w in alert.loss_w_interval or ():
        within(bound_w, LARGEST_W, "loss_w_interval")
    row: Row = (
        alert_key,
        alert.alert_id,
        gateway_key,
        zone_key,
        None if alert.meter is None else name_of("meter", alert.meter),
        alert.state,
        alert.kind,
        alert.severity,
        onset_s,
        time_s,
        within(alert.loss_w, LARGEST_W, "loss_w", LEAST_LOSS_W),
        within(alert.loss_kwh, 1000 * LARGEST_KWH, "loss_kwh", LEAST_LOSS_KWH),
        None if first is None else name_of("suspect", first.meter),
        None if first is None else first.probability,
        alert.upstream_probability,
        alert.unexplained_probability,
        None if model is None else sha256_of(model.sha256),
        None if model is None else within(model.score, 1.0, "model.score"),
        None if model is None else within(model.threshold, 1.0, "model.threshold"),
        revision(alert.revision),
    )
    told: tuple[tuple[Table, Row], ...] = ((ALERT, row),)
    for suspect in suspects:
        mechanism = clean(suspect.mechanism[:64]) if suspect.mechanism else None
        meter = name_of("suspect", suspect.meter)
        told += ((SUSPECT, (alert_key, meter, suspect.probability, mechanism, alert.revision)),)
    return told


def tamper_row(
    event_id: bytes, gateway_key: int, time_s: int, received: str, entry: wire.TamperData
) -> tuple[Table, Row]:
    """The row of an entry of a meter's event log. Raises: Unreadable: a code or a name that cannot be."""
    code = None if entry.code is None else int(within(entry.code, 1 << 31, "code") or 0)
    row = (event_id, gateway_key, name_of("meter", entry.meter), entry.kind, entry.state, code, time_s, received)
    return TAMPER, row
