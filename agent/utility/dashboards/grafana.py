"""Panels and rules as Grafana and Prometheus read them: a dashboard's JSON (schema version 39), a rule file's YAML.

The data source is a variable of the dashboard, so that a file fits every installation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent.utility.dashboards.panels import FLEET, GATEWAYS, RULES, Panel

HEIGHT = {"stat": 4, "gauge": 4, "timeseries": 8, "table": 9}
SINCE, UNTIL = "$__unixEpochFrom()", "$__unixEpochTo()"  # macros of Grafana's MySQL data source


def fleet() -> str:
    """The SQL views of the utility's store; data source MySQL (TiDB, MariaDB)."""
    return _dashboard("checkmeter-fleet", "checkmeter: fleet", "mysql", FLEET, "now-30d", "5m")


def gateways() -> str:
    """The metrics of gateways and ingests; data source Prometheus."""
    return _dashboard("checkmeter-gateways", "checkmeter: gateways", "prometheus", GATEWAYS, "now-24h", "1m")


def rules() -> str:
    """Alert rules for Prometheus. JSON's strings are YAML's, too."""
    lines = ["groups:", "- name: checkmeter", "  rules:"]
    for rule in RULES:
        lines += [
            f"  - alert: {rule.name}",
            f"    expr: {json.dumps(rule.expression)}",
            f"    for: {rule.hold}",
            f"    labels: {{severity: {rule.severity}}}",
            f"    annotations: {{summary: {json.dumps(rule.summary)}}}",
        ]
    return "\n".join(lines) + "\n"


def _dashboard(uid: str, title: str, source: str, panels: Sequence[Panel], since: str, refresh: str) -> str:
    placed, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        height = HEIGHT[panel.kind]
        placed.append(_panel(number, panel, source, {"x": x, "y": y, "w": panel.width, "h": height}))
        x, row = x + panel.width, max(row, height)
    variable = {"name": "source", "type": "datasource", "query": source, "label": "Data source", "refresh": 1}
    body = {
        "uid": uid,
        "title": title,
        "tags": ["checkmeter"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": refresh,
        "time": {"from": since, "to": "now"},
        "templating": {"list": [variable]},
        "panels": placed,
    }
    return json.dumps(body, indent=2) + "\n"


def _panel(number: int, panel: Panel, source: str, place: dict[str, int]) -> dict[str, Any]:
    origin = {"type": source, "uid": "${source}"}
    if source == "mysql":
        text = panel.query.format(since=SINCE, until=UNTIL)
        shape = "time_series" if panel.kind == "timeseries" else "table"
        target: dict[str, Any] = {"rawSql": text, "rawQuery": True, "editorMode": "code", "format": shape}
    else:
        target = {"expr": panel.query, "instant": panel.kind != "timeseries", "range": panel.kind == "timeseries"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": origin,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit} if panel.unit else {}, "overrides": []},
        "targets": [{"refId": "A", "datasource": origin, **target}],
    }
