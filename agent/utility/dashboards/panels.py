"""What the dashboards show: a title, a kind and a query for each panel. It knows SQL views and metric names.

In SQL the window of time is `{since}` to `{until}`, UTC seconds. Queries keep to the views, whose columns are a
promise.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["timeseries", "stat", "table", "gauge"]


class Panel(NamedTuple):
    """One panel. `unit` is Grafana's name of it; `width` is of 24 columns."""

    title: str
    kind: Kind
    query: str
    unit: str = ""
    width: int = 12


FLEET = (
    Panel(
        "Unexplained loss",
        "stat",
        "SELECT SUM(unexplained_kwh) AS kwh FROM fleet_day WHERE day_start_s >= {since} AND day_start_s < {until}",
        "kwatth",
        6,
    ),
    Panel(
        "Unexplained, percent",
        "stat",
        "SELECT 100.0 * SUM(unexplained_kwh) / NULLIF(SUM(main_kwh), 0) AS percent FROM fleet_day "
        "WHERE day_start_s >= {since} AND day_start_s < {until}",
        "percent",
        6,
    ),
    Panel("Open cases", "stat", "SELECT COUNT(*) AS cases FROM open_case WHERE outcome IS NULL", "", 6),
    Panel(
        "Gateways without a balance for 2 hours",
        "stat",
        "SELECT COUNT(*) AS gateways FROM gateway_state "
        "WHERE last_balance_s IS NULL OR last_balance_s < {until} - 7200",
        "",
        6,
    ),
    Panel(
        "Loss day by day, percent",
        "timeseries",
        "SELECT day_start_s AS time, 100.0 * unexplained_kwh / NULLIF(main_kwh, 0) AS unexplained, "
        "100.0 * technical_loss_kwh / NULLIF(main_kwh, 0) AS technical FROM fleet_day "
        "WHERE day_start_s >= {since} AND day_start_s < {until} ORDER BY day_start_s",
        "percent",
        24,
    ),
    Panel(
        "Buildings that lose most",
        "table",
        "SELECT site, zone, SUM(unexplained_kwh) AS unexplained_kwh, "
        "100.0 * SUM(unexplained_kwh) / NULLIF(SUM(main_kwh), 0) AS percent FROM building_day "
        "WHERE day_start_s >= {since} AND day_start_s < {until} GROUP BY site, zone "
        "ORDER BY unexplained_kwh DESC LIMIT 20",
    ),
    Panel(
        "Open cases by energy lost",
        "table",
        "SELECT site, kind, suspect, probability, loss_w, loss_kwh, outcome FROM open_case "
        "ORDER BY loss_kwh DESC LIMIT 20",
    ),
    Panel(
        "Meters with several signs",
        "table",
        "SELECT g.site, s.meter, COUNT(DISTINCT s.sign) AS signs, MAX(s.weight) AS weight FROM meter_sign s "
        "JOIN gateway_state g ON g.gateway_key = s.gateway_key WHERE s.seen_s >= {since} GROUP BY g.site, s.meter "
        "ORDER BY signs DESC, weight DESC LIMIT 20",
    ),
    Panel(
        "Gateways by state",
        "table",
        "SELECT COALESCE(state, 'unknown') AS state, COUNT(*) AS gateways FROM gateway_state "
        "GROUP BY COALESCE(state, 'unknown') ORDER BY state",
    ),
    Panel(
        "Stated probability against what was found",
        "table",
        "SELECT from_percent, inspected, stated_percent, 100.0 * as_stated / inspected AS found_percent "
        "FROM stated_against_found ORDER BY from_percent",
    ),
    Panel(
        "Precision by model",
        "table",
        "SELECT model_sha256, inspected, theft, fault, found_nothing, right_meter FROM model_precision "
        "ORDER BY inspected DESC",
    ),
)

GATEWAYS = (
    Panel("Gateways online", "stat", "sum(checkmeter_up == bool 1)", "", 6),
    Panel("Broker connected", "stat", "sum(checkmeter_broker_connected)", "", 6),
    Panel("Open alerts", "stat", "sum by (severity) (checkmeter_alerts_open)", "", 6),
    Panel("Versions", "stat", "count by (version) (checkmeter_build_info)", "", 6),
    Panel("Residual of each zone", "timeseries", "checkmeter_zone_residual_joules", "joule"),
    Panel(
        "Residual over its band",
        "timeseries",
        "abs(checkmeter_zone_residual_joules) / (2 * checkmeter_zone_uncertainty_joules)",
    ),
    Panel("Power by meter", "timeseries", "rate(checkmeter_meter_energy_joules_total[15m])", "watt"),
    Panel("Suspicion", "timeseries", "checkmeter_meter_suspicion_ratio > 0.05", "percentunit"),
    Panel("Outbox", "timeseries", "checkmeter_outbox_messages"),
    Panel("Bus errors", "timeseries", "sum by (instance, bus, kind) (rate(checkmeter_bus_errors_total[15m]))", "cps"),
    Panel("Memory", "timeseries", "checkmeter_resident_memory_bytes", "bytes"),
    Panel("Processor", "timeseries", "checkmeter_cpu_ratio", "percentunit"),
    Panel("Ingest: balances", "timeseries", "sum by (replica) (rate(checkmeter_ingest_balances_total[5m]))", "cps"),
    Panel(
        "Ingest: dead letters", "timeseries", "sum by (reason) (rate(checkmeter_ingest_letters_dead_total[5m]))", "cps"
    ),
)


class Rule(NamedTuple):
    """One alert rule: it fires when `expression` has held for so long."""

    name: str
    expression: str
    hold: str
    severity: Literal["warning", "critical"]
    summary: str


RULES = (
    Rule("CheckmeterGatewaySilent", 'up{job="checkmeter"} == 0', "10m", "critical", "a gateway does not answer"),
    Rule("CheckmeterBrokerAway", "checkmeter_broker_connected == 0", "30m", "warning", "a gateway has no broker"),
    Rule("CheckmeterMetersUnread", "checkmeter_up < 1", "30m", "warning", "some meters of a gateway do not answer"),
    Rule(
        "CheckmeterOutboxGrows",
        "checkmeter_outbox_messages > 1000 and deriv(checkmeter_outbox_messages[30m]) > 0",
        "30m",
        "warning",
        "messages wait for the broker, and they become more",
    ),
    Rule(
        "CheckmeterOutboxLost",
        "increase(checkmeter_outbox_evicted_total[1h]) > 0",
        "0m",
        "critical",
        "messages were lost",
    ),
    Rule(
        "CheckmeterResidualBeyondBand",
        "checkmeter_zone_residual_joules > 4 * checkmeter_zone_uncertainty_joules",
        "6h",
        "warning",
        "a zone loses more than its measurements explain; the agent's own alert says where",
    ),
    Rule(
        "CheckmeterIngestStands",
        "time() - checkmeter_ingest_progress_seconds > 120",
        "5m",
        "critical",
        "an ingest makes no progress: broker or store are away",
    ),
    Rule(
        "CheckmeterDeadLetters",
        "increase(checkmeter_ingest_letters_dead_total[1h]) > 0",
        "0m",
        "warning",
        "messages could not be read: checkmeter utility letters",
    ),
)
