"""The tables of cases: alerts and their suspects, the events and intervals behind them, and what somebody found there.

What they are kept inside of, and the tables of measurements and of the fleet, stand in agent.utility.sql.schema.
"""

from __future__ import annotations

from agent.utility.sql.table import EVENT, INTEGER, KEY, NAME, REQUIRED_NAME, SHA256, Table

ALERT = Table(
    "alert",
    (
        ("alert_key", KEY),
        ("alert_id", REQUIRED_NAME),
        ("gateway_key", KEY),
        ("zone_key", "BIGINT"),
        ("meter", NAME),
        ("state", "VARCHAR(8) NOT NULL"),
        ("kind", "VARCHAR(32) NOT NULL"),
        ("severity", "VARCHAR(8) NOT NULL"),
        ("onset_s", INTEGER),
        ("updated_s", INTEGER),
        ("loss_w", "DOUBLE"),
        ("loss_kwh", "DOUBLE"),
        ("suspect", NAME),
        ("probability", "DOUBLE"),
        ("upstream_probability", "DOUBLE"),
        ("unexplained_probability", "DOUBLE"),  # none of these: a clock, a solar panel; empty in rows of version 2
        ("model_sha256", SHA256),
        ("model_score", "DOUBLE"),
        ("model_threshold", "DOUBLE"),
        ("revision", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="revision",
    index=("alert_id",),
)
SUSPECT = Table(
    "suspect",
    (
        ("alert_key", KEY),
        ("meter", REQUIRED_NAME),
        ("probability", "DOUBLE NOT NULL"),
        ("mechanism", NAME),
        ("revision", INTEGER),
    ),
    keys=2,
    merge="newest",
    guard="revision",
)
ALERT_EVENT = Table(
    "alert_event",
    (
        ("event_id", EVENT),
        ("alert_key", KEY),
        ("revision", INTEGER),
        ("state", "VARCHAR(8) NOT NULL"),
        ("time_s", INTEGER),
        ("received_at", "DATETIME NOT NULL"),
        ("body", "MEDIUMTEXT NOT NULL"),
    ),
    keys=1,
    merge="first",
    index=("alert_key", "revision"),
)
TAMPER = Table(
    "tamper",
    (
        ("event_id", EVENT),
        ("gateway_key", KEY),
        ("meter", REQUIRED_NAME),
        ("kind", "VARCHAR(32) NOT NULL"),
        ("state", "VARCHAR(16) NOT NULL"),
        ("code", "BIGINT"),
        ("time_s", INTEGER),
        ("received_at", "DATETIME NOT NULL"),
    ),
    keys=1,
    merge="first",
    index=("gateway_key", "meter"),
)
# By time, not by number: a later report of the same case counts its chunks anew. Of two from one time the longer stays.
EVIDENCE = Table(
    "evidence_chunk",
    (("alert_key", KEY), ("start_s", INTEGER), ("body", "MEDIUMTEXT NOT NULL"), ("end_s", INTEGER)),
    keys=2,
    merge="newest",
    guard="end_s",
)
OUTCOME = Table(
    "outcome",
    (
        ("alert_key", KEY),
        ("outcome", "VARCHAR(8) NOT NULL"),
        ("meter", NAME),
        ("inspected_s", INTEGER),
        ("note", "VARCHAR(255)"),
        ("inspector", NAME),  # who says so; empty in outcomes of version 1
        ("confirmed_by", NAME),  # the second pair of eyes; where the store asks for one, nothing counts without it
        ("recorded_ms", INTEGER),
    ),
    keys=1,
    merge="newest",
    guard="recorded_ms",
)
