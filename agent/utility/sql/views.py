"""The views: a fleet's questions for people and their tools, in words that every server takes.

None of them reads `balance`: a question about 10,000 buildings reads days, not quarters of an hour. Names of columns
are a promise: dashboards and spreadsheets read them.
"""

from __future__ import annotations

# What is stated of a case `a`, and with which probability: the suspect, or, where it is likelier, a load ahead of the
# meters, and then the figure is about no suspect. Whoever shows a case asks these two.
_UPSTREAM = "a.upstream_probability > COALESCE(a.probability,0)"
CONFIDENCE = f"CASE WHEN {_UPSTREAM} THEN a.upstream_probability ELSE a.probability END"
NAMED = f"CASE WHEN {_UPSTREAM} THEN NULL ELSE a.suspect END"

# The verbs ask these, or the same tables with a window of time.
VIEWS = {
    # Outcomes that count: where the store asks for a second pair of eyes, those that have had it.
    "valid_outcome": """
        SELECT alert_key, outcome, meter, inspected_s, note, inspector, confirmed_by FROM outcome
        WHERE confirmed_by IS NOT NULL
            OR NOT EXISTS (SELECT 1 FROM setting WHERE name = 'four_eyes' AND value = 'on')""",
    "building_day": """
        SELECT g.tenant, g.site, g.gateway, z.zone, d.day * 86400 AS day_start_s, d.intervals, d.known_s,
            d.main_j / 3600000.0 AS main_kwh, d.sum_j / 3600000.0 AS sum_kwh,
            d.technical_j / 3600000.0 AS technical_loss_kwh, d.residual_j / 3600000.0 AS unexplained_kwh
        FROM balance_day d JOIN zone z ON z.zone_key = d.zone_key JOIN gateway g ON g.gateway_key = z.gateway_key""",
    "building_loss": """
        SELECT g.tenant, g.site, g.gateway, z.zone, t.days, t.main_kwh, t.technical_loss_kwh, t.unexplained_kwh,
            CASE WHEN t.main_kwh > 0 THEN 100.0 * t.unexplained_kwh / t.main_kwh END AS unexplained_percent
        FROM (SELECT zone_key, COUNT(*) AS days, SUM(main_j) / 3600000.0 AS main_kwh,
                SUM(technical_j) / 3600000.0 AS technical_loss_kwh, SUM(residual_j) / 3600000.0 AS unexplained_kwh
            FROM balance_day GROUP BY zone_key) t
        JOIN zone z ON z.zone_key = t.zone_key JOIN gateway g ON g.gateway_key = z.gateway_key""",
    "fleet_day": """
        SELECT day * 86400 AS day_start_s, COUNT(*) AS zones, SUM(main_j) / 3600000.0 AS main_kwh,
            SUM(technical_j) / 3600000.0 AS technical_loss_kwh, SUM(residual_j) / 3600000.0 AS unexplained_kwh
        FROM balance_day GROUP BY day""",
    "zone_peak": """
        SELECT g.tenant, g.site, g.gateway, z.zone, f.issued_s, f.peak_w, f.peak_low_w, f.peak_high_w, f.peak_s,
            f.trough_w, f.trough_s, f.capacity_w, f.over_probability, i.feeder, i.district
        FROM forecast f JOIN zone z ON z.zone_key = f.zone_key JOIN gateway g ON g.gateway_key = z.gateway_key
        LEFT JOIN gateway_info i ON i.gateway_key = z.gateway_key""",
    # NMAE and coverage are sums over sums: of a stretch of days add up the kWh and the steps, not the shares.
    "forecast_skill_day": """
        SELECT day * 86400 AS day_start_s, lead_h, COUNT(*) AS zones, SUM(load_kwh) AS load_kwh,
            SUM(error_kwh) AS error_kwh, SUM(bias_kwh) AS bias_kwh, SUM(inside) AS inside, SUM(steps) AS steps
        FROM forecast_error GROUP BY day, lead_h""",
    "group_peak_day": """
        SELECT kind, name, day * 86400 AS day_start_s, zones, forecast_peak_w, peak_w FROM group_day
        WHERE zones > 0""",
    "open_case": """
        SELECT a.alert_id, g.tenant, g.site, g.gateway, z.zone, a.kind, a.severity, a.onset_s, a.updated_s, a.loss_w,
            a.loss_kwh, COALESCE(a.suspect, a.meter) AS suspect, a.probability, a.upstream_probability, a.model_score,
            a.revision, v.outcome, a.alert_key, CASE WHEN v.alert_key IS NULL THEN o.outcome END AS unconfirmed,
            a.unexplained_probability
        FROM alert a JOIN gateway g ON g.gateway_key = a.gateway_key LEFT JOIN zone z ON z.zone_key = a.zone_key
        LEFT JOIN outcome o ON o.alert_key = a.alert_key LEFT JOIN valid_outcome v ON v.alert_key = a.alert_key
        WHERE a.state <> 'cleared'""",
    # A suspect of a revision that is no longer the alert's last is history, not a suspect.
    "meter_sign": """
        SELECT a.gateway_key, s.meter, 'energy balance' AS sign, a.updated_s AS seen_s, s.probability AS weight
            FROM suspect s JOIN alert a ON a.alert_key = s.alert_key AND a.revision = s.revision
            WHERE a.state <> 'cleared' AND s.probability >= 0.5
        UNION ALL SELECT gateway_key, suspect, 'compact model', updated_s, model_score
            FROM alert WHERE state <> 'cleared' AND suspect IS NOT NULL AND model_score >= model_threshold
        UNION ALL SELECT gateway_key, meter, kind, updated_s, 1.0
            FROM alert WHERE state <> 'cleared' AND meter IS NOT NULL AND kind IN ('tamper', 'reverse_energy')
        UNION ALL SELECT gateway_key, meter, kind, time_s, 1.0 FROM tamper WHERE state = 'detected'""",
    "gateway_state": """
        SELECT g.gateway_key, g.tenant, g.site, g.gateway, s.state, s.received_us / 1000000.0 AS status_s, s.reason,
            s.meters AS unread_meters, s.software, i.model_sha256, i.model_version, b.last_balance_s
        FROM gateway g LEFT JOIN (SELECT z.gateway_key, MAX(h.last_end_s) AS last_balance_s FROM zone z
                JOIN (SELECT zone_key, MAX(last_end_s) AS last_end_s FROM balance_day GROUP BY zone_key) h
                ON h.zone_key = z.zone_key GROUP BY z.gateway_key) b ON b.gateway_key = g.gateway_key
        LEFT JOIN gateway_status s ON s.gateway_key = g.gateway_key
        LEFT JOIN gateway_info i ON i.gateway_key = g.gateway_key""",
    "model_precision": """
        SELECT COALESCE(a.model_sha256, 'none') AS model_sha256, COUNT(*) AS inspected,
            SUM(CASE WHEN o.outcome = 'theft' THEN 1 ELSE 0 END) AS theft,
            SUM(CASE WHEN o.outcome = 'fault' THEN 1 ELSE 0 END) AS fault,
            SUM(CASE WHEN o.outcome = 'nothing' THEN 1 ELSE 0 END) AS found_nothing,
            SUM(CASE WHEN o.outcome = 'theft' AND o.meter = a.suspect THEN 1 ELSE 0 END) AS right_meter
        FROM valid_outcome o JOIN alert a ON a.alert_key = o.alert_key GROUP BY COALESCE(a.model_sha256, 'none')""",
    # What was stated of a case, held against what somebody found there. A case that nobody has inspected says nothing.
    "inspected_case": f"""
        SELECT a.alert_id, g.tenant, g.site, g.gateway, a.kind, a.suspect, a.loss_kwh,
            {CONFIDENCE} AS stated_probability,
            o.outcome, o.meter, o.inspected_s, o.inspector, o.confirmed_by,
            CASE WHEN o.outcome = 'theft' AND (o.meter = a.suspect OR (o.meter IS NULL AND {_UPSTREAM}))
                THEN 1 ELSE 0 END AS as_stated,
            a.unexplained_probability
        FROM valid_outcome o JOIN alert a ON a.alert_key = o.alert_key
        JOIN gateway g ON g.gateway_key = a.gateway_key""",
    "stated_against_found": """
        SELECT CAST(FLOOR(stated_probability * 10) AS SIGNED) * 10 AS from_percent, COUNT(*) AS inspected,
            100.0 * AVG(stated_probability) AS stated_percent, SUM(as_stated) AS as_stated,
            SUM(CASE WHEN outcome = 'nothing' THEN 1 ELSE 0 END) AS found_nothing
        FROM inspected_case WHERE stated_probability IS NOT NULL
        GROUP BY CAST(FLOOR(stated_probability * 10) AS SIGNED)""",
}  # fmt: skip
