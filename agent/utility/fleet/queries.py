"""The questions that a utility asks of its fleet, as SQL with a window of time; each returns columns and rows.

Windows are UTC days, the last of them the last whole one. What has no window is a view (agent.utility.sql.views).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from agent.utility.sql.schema import DAY_S
from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store, timestamp
from agent.utility.sql.views import CONFIDENCE, NAMED

HOUR_S = 3600


class Answer(NamedTuple):
    """Column names and rows."""

    columns: tuple[str, ...]
    rows: list[Row]


def losses(store: Store, now_s: float, days: int, top: int, price: float | None = None) -> Answer:
    """Buildings by unexplained loss over the last `days` whole days; money at `price` per kWh."""
    today = int(now_s // DAY_S)
    found = store.rows(
        "SELECT g.tenant, g.site, g.gateway, z.zone, t.days, t.main_j / 3600000.0, t.technical_j / 3600000.0, "
        "t.residual_j / 3600000.0, CASE WHEN t.main_j > 0 THEN 100.0 * t.residual_j / t.main_j END FROM ("
        "SELECT zone_key, COUNT(*) AS days, SUM(main_j) AS main_j, SUM(technical_j) AS technical_j, "
        "SUM(residual_j) AS residual_j FROM balance_day WHERE day >= ? AND day < ? GROUP BY zone_key "
        "ORDER BY residual_j DESC LIMIT ?) t JOIN zone z ON z.zone_key = t.zone_key "
        "JOIN gateway g ON g.gateway_key = z.gateway_key "
        "ORDER BY t.residual_j DESC, g.tenant, g.site, g.gateway, z.zone",
        (today - days, today, top),
    )
    columns = (
        "tenant", "site", "gateway", "zone", "days", "main_kwh", "technical_loss_kwh", "unexplained_kwh", "percent",
    )  # fmt: skip
    if price is None:
        return Answer(columns, found)
    return Answer((*columns, "money"), [(*row, float(str(row[7])) * price) for row in found])


def cases(store: Store, now_s: float, top: int) -> Answer:
    """Open cases, those that lose most first, a surplus last. Whom one names, and how surely, is the views' matter."""
    found = store.rows(
        f"SELECT alert_id, tenant, site, zone, kind, severity, (? - onset_s) / 86400.0, loss_w, loss_kwh, {NAMED}, "
        f"{CONFIDENCE}, outcome, unconfirmed, unexplained_probability FROM open_case a "
        "ORDER BY COALESCE(loss_kwh, 0) DESC, onset_s, alert_id LIMIT ?",
        (int(now_s), top),
    )
    columns = (
        "alert_id", "tenant", "site", "zone", "kind", "severity", "age_days", "loss_w", "loss_kwh", "suspect",
        "confidence", "outcome", "unconfirmed", "unexplained_probability",
    )  # fmt: skip
    return Answer(columns, found)


def suspects(store: Store, now_s: float, signs: int, days: int, top: int) -> Answer:
    """Meters against which at least `signs` different signs speak, seen within the last `days`."""
    found = store.rows(
        "SELECT g.tenant, g.site, g.gateway, s.meter, COUNT(DISTINCT s.sign) AS signs, MIN(s.seen_s), MAX(s.seen_s), "
        "MAX(s.weight) FROM meter_sign s JOIN gateway g ON g.gateway_key = s.gateway_key WHERE s.seen_s >= ? "
        "GROUP BY g.tenant, g.site, g.gateway, s.meter HAVING COUNT(DISTINCT s.sign) >= ? "
        "ORDER BY signs DESC, MAX(s.weight) DESC, g.tenant, g.site, g.gateway, s.meter LIMIT ?",
        (int(now_s) - days * DAY_S, signs, top),
    )
    named = store.rows(
        "SELECT DISTINCT g.tenant, g.site, g.gateway, s.meter, s.sign FROM meter_sign s "
        "JOIN gateway g ON g.gateway_key = s.gateway_key WHERE s.seen_s >= ? ORDER BY s.sign",
        (int(now_s) - days * DAY_S,),
    )
    by_meter: dict[Row, list[str]] = {}
    for *meter, sign in named:
        by_meter.setdefault(tuple(meter), []).append(str(sign))
    rows: list[Row] = [
        (*row[:4], ", ".join(by_meter[row[:4]]), _ago_days(now_s, row[5]), _ago_days(now_s, row[6])) for row in found
    ]
    return Answer(("tenant", "site", "gateway", "meter", "signs", "first_days_ago", "last_days_ago"), rows)


def gateways(store: Store, now_s: float, silent_hours: float, top: int) -> Answer:
    """Gateways that are offline or degraded, and those that say they are online but send no balances."""
    limit_s = int(now_s - silent_hours * HOUR_S)
    found = store.rows(
        "SELECT tenant, site, gateway, state, reason, unread_meters, status_s, last_balance_s, software "
        "FROM gateway_state WHERE state IS NULL OR state <> 'online' OR last_balance_s IS NULL OR last_balance_s < ? "
        "ORDER BY COALESCE(last_balance_s, 0), tenant, site, gateway LIMIT ?",
        (limit_s, top),
    )
    rows: list[Row] = []
    for tenant, site, gateway, state, reason, unread, status_s, balance_s, software in found:
        silent = balance_s is None or int(str(balance_s)) < limit_s
        what = state if state in {"offline", "degraded"} else "silent" if silent else "unknown"
        ages = (_ago_days(now_s, status_s), _ago_days(now_s, balance_s))
        rows.append((tenant, site, gateway, what, *ages, unread, reason, software))
    columns = (
        "tenant", "site", "gateway", "state", "status_days_ago", "balance_days_ago", "unread_meters", "reason",
        "software",
    )  # fmt: skip
    return Answer(columns, rows)


def trend(store: Store, now_s: float, days: int) -> Answer:
    """The whole fleet, day by day, oldest first."""
    today = int(now_s // DAY_S)
    found = store.rows(
        "SELECT day, COUNT(*), SUM(main_j) / 3600000.0, SUM(technical_j) / 3600000.0, SUM(residual_j) / 3600000.0, "
        "CASE WHEN SUM(main_j) > 0 THEN 100.0 * SUM(residual_j) / SUM(main_j) END FROM balance_day "
        "WHERE day >= ? AND day < ? GROUP BY day ORDER BY day",
        (today - days, today),
    )
    rows: list[Row] = [(_date(day), *rest) for day, *rest in found]
    return Answer(("day", "zones", "main_kwh", "technical_loss_kwh", "unexplained_kwh", "percent"), rows)


def precision(store: Store) -> Answer:
    """Of the inspected cases of each model's version, the share that was theft, with a 95 % interval (Wilson)."""
    rows: list[Row] = []
    for model, inspected, theft, fault, nothing, right_meter in store.rows(
        "SELECT model_sha256, inspected, theft, fault, found_nothing, right_meter FROM model_precision "
        "ORDER BY inspected DESC, model_sha256"
    ):
        n, hits = int(str(inspected)), int(float(str(theft)))
        low, high = wilson(hits, n)
        counts = [int(float(str(count))) for count in (theft, fault, nothing, right_meter)]
        rows.append((str(model)[:12], n, *counts, hits / n, low, high))
    return Answer(
        ("model", "inspected", "theft", "fault", "nothing", "right_meter", "precision", "at_least", "at_most"), rows
    )


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, J. Am. Stat. Assoc. 22 (1927) 209)."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, z * z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _ago_days(now_s: float, then_s: object) -> float | None:
    return None if then_s is None else (now_s - float(str(then_s))) / DAY_S


def _date(day: object) -> str:
    return timestamp(int(str(day)) * DAY_S)[:10]
