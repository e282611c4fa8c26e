"""Every panel's query runs: SQL on each store, PromQL's names against what agent and ingest really expose."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.main import cli
from agent.status.snapshot import MeterView, Snapshot, metrics_text
from agent.utility.dashboards import panels
from agent.utility.ingest.metrics import Metrics
from agent.utility.sql.store import Store


def printed(what: str) -> str:
    result = CliRunner().invoke(cli, ["utility", "grafana", what])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("what", ["fleet", "gateways"])
def test_a_dashboard_is_whole_and_its_panels_lie_beside_each_other(what: str) -> None:
    board = json.loads(printed(what))
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= set(board)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${source}"
        (target,) = panel["targets"]
        assert target.get("rawSql") or target.get("expr")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_sql_panel_runs_and_has_rows_where_there_is_a_fleet(store: Store) -> None:
    from agent.utility.fleet import outcomes
    from agent.utility.ingest.decode import Reader
    from agent.utility.load_test.building import Building
    from agent.utility.mqtt.packets import Publish

    now_s = time.time()
    first_s = int(now_s) // 900 * 900 - 3 * 86_400
    reader = Reader(lambda: now_s)
    for number in range(1, 31):
        building = Building(1, number, first_s, int(now_s))
        said = [m for at in range(first_s, int(now_s) - 900, 900) for m in building.interval(at)] + building.hello(
            now_s
        )
        letters = [
            reader.read(Publish(building.address.topic(suffix).encode(), 1, wire.encode(message), False))
            for suffix, message in said
        ]
        for at in range(0, len(letters), 500):
            store.apply(letters[at : at + 500])
    ((alert_id,),) = store.rows(
        "SELECT alert_id FROM open_case WHERE probability IS NOT NULL ORDER BY alert_id LIMIT 1"
    )
    outcomes.record(store, str(alert_id), None, outcomes.Found("theft", "flat-001", int(now_s), None, "ana"), now_s)
    board = json.loads(printed("fleet"))
    for panel in board["panels"]:
        sql = panel["targets"][0]["rawSql"]
        assert "{" not in sql
        sql = sql.replace("$__unixEpochFrom()", str(int(now_s) - 30 * 86_400)).replace(
            "$__unixEpochTo()", str(int(now_s))
        )
        assert "$" not in sql
        rows = store.rows(sql)
        assert rows, panel["title"]
        if panel["type"] == "stat":
            assert len(rows) == 1
            assert rows[0][0] is not None, panel["title"]


def exposed() -> set[str]:
    """The names of all samples of an agent and of an ingest, with all that a snapshot can hold."""
    now = wire.utc(time.time())
    snapshot = Snapshot(
        now_s=time.time(),
        broker="connected",
        status=wire.Status(state="online", versions={"checkmeter": "1"}),
        health=wire.Health(
            time=now, uptime_s=1.0, cpu_percent=2.0, memory_mb=60.0,
            buses=[wire.BusHealth(id="b", state="up", errors={"timeout": 1}, cycle_s=1.0)],
            meters=[wire.MeterHealth(id="m", last_reading=now, errors={"timeout": 1}, latency_ms=3.0)],
            queue=wire.QueueHealth(messages=1, bytes=1, oldest=now),
        ),
        meters=[MeterView(id="m", bus="b", energy_kwh=1.0)],
        balances=[wire.Balance(zone="z", start=now, end=now, main_kwh=1.0, sum_kwh=1.0, technical_loss_kwh=0.0,
                               residual_kwh=0.0, uncertainty_kwh=0.1, coverage=1.0)],
        suspicion={"m": 0.5},
    )  # fmt: skip
    metrics = Metrics("1")
    metrics.letters_dead["form"] += 1
    text = metrics_text(snapshot) + metrics.text()
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}


def test_every_metric_of_panels_and_rules_is_exposed() -> None:
    names = exposed()
    asked = [panel.query for panel in panels.GATEWAYS] + [rule.expression for rule in panels.RULES]
    wanted = {name for text in asked for name in re.findall(r"checkmeter_[a-z_]+", text)}
    assert len(wanted) > 12
    assert wanted - names == set()


def test_the_rules_are_what_prometheus_reads(tmp_path: Path) -> None:
    text = printed("rules")
    assert text.count("- alert:") == len(panels.RULES)
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    (tmp_path / "rules.yml").write_text(text)
    done = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_expression_is_promql(tmp_path: Path) -> None:
    """A panel's expression, as a recording rule: promtool parses it."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    lines = ["groups:", "- name: panels", "  rules:"]
    for n, panel in enumerate(panels.GATEWAYS):
        lines += [f"  - record: panel_{n}", f"    expr: {json.dumps(panel.query)}"]
    (tmp_path / "rules.yml").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
