"""A balance in the form of the wire, and an alert as a line of the log."""

from __future__ import annotations

import logging

from agent import wire
from agent.pipeline.step import Balance

log = logging.getLogger("checkmeter.pipeline")


def log_alert(event: wire.AlertEvent) -> None:
    """One line for a person: what was raised or cleared, and how much."""
    data = event.data
    log.log(
        logging.WARNING if data.state != "cleared" else logging.INFO,
        "alert %s: %s %s%s",
        data.state,
        data.kind,
        event.subject,
        "" if data.loss_w is None else f", {data.loss_w:.0f} W since {data.onset.isoformat()}",
    )


def balance_on_wire(balance: Balance) -> wire.Balance:
    """The balance in the form of the wire."""
    return wire.Balance(
        zone=balance.zone,
        start=wire.utc(balance.start_s),
        end=wire.utc(balance.end_s),
        main_kwh=wire.number(balance.main_kwh, 4),
        sum_kwh=wire.number(balance.subs_kwh, 4),
        technical_loss_kwh=wire.number(balance.technical_loss_kwh, 4),
        residual_kwh=wire.number(balance.residual_kwh, 4),
        uncertainty_kwh=wire.number(balance.uncertainty_kwh, 4),
        coverage=min(1.0, max(0.0, balance.coverage)),
    )
