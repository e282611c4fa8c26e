"""The simulated fleet against a real broker and a real ingest: what it says it sent is what the store holds."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.main import cli
from agent.process.clock import SystemClock
from agent.utility.load_test.building import INTERVAL_S, Building
from agent.utility.load_test.gateways import MAX_GATEWAYS, MAX_SECONDS, Fleet
from agent.utility.mqtt.connection import Broker
from agent.utility.sql.store import open_store


@pytest.mark.mosquitto
def test_what_the_fleet_sends_is_what_the_store_holds(mosquitto: Any, dsn: str, replica: Any, wait: Any) -> None:
    ingest = replica(mosquitto.url, dsn)
    wait(lambda: ingest.connected() == 1, "the ingest is connected")
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli.main", "simulate", "--fleet", "60", "--seconds", "3", "--speed", "28800",
         "--broker", mosquitto.url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["left"] == report["evicted"] == 0
    assert report["balances"] > 4000
    assert min(report["alerts"], report["outages"]) > 0
    with open_store(dsn) as store:

        def count(table: str) -> int:
            return int(str(store.rows(f"SELECT COUNT(*) FROM {table}")[0][0]))

        wait(lambda: count("balance") == report["balances"], "every balance is stored")
        wait(lambda: count("alert_event") == report["alerts"], "every alert is stored")
        wait(lambda: count("tamper") == report["tampers"], "every tamper event is stored")
        wait(lambda: count("gateway_health") == count("config_reported") == 60, "and what gateways say of themselves")
        yesterday = int(time.time() // 86_400) - 1
        days = store.rows("SELECT COUNT(*) FROM balance_day WHERE day = ? AND intervals = 96", (yesterday,))
        assert days[0][0] == 60, "the fleet has sent the whole of yesterday: losses and trend have something to show"
        assert count("gateway") == count("gateway_info") == 60
        assert store.rows("SELECT topic, reason FROM dead_letter") == []
        assert store.rows("SELECT SUM(intervals) FROM balance_day") == [(report["balances"],)]
    assert ingest.stop() == 0


@pytest.mark.mosquitto
def test_a_broker_that_dies_with_messages_in_flight(mosquitto: Any, wait: Any) -> None:
    """What was in flight is sent again: the fleet ends with nothing left."""
    fleet = Fleet(Broker(mosquitto.url), SystemClock(), 10, 3.0, 14_400.0)
    reports: list[Any] = []
    runner = threading.Thread(target=lambda: reports.append(fleet.run(threading.Event())))
    runner.start()
    wait(lambda: fleet.report.acknowledged >= 100, "the broker has taken some")
    mosquitto.freeze()
    flying = fleet.report
    wait(lambda: flying.sent > flying.acknowledged + 20, "some are in flight")
    mosquitto.kill()
    mosquitto.start()
    runner.join(60)
    (report,) = reports
    assert report.left == 0
    assert report.sent_again > 0
    assert report.acknowledged >= report.balances


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fleet", "0"], "1 to 10000"),
        (["--fleet", str(MAX_GATEWAYS + 1)], "1 to 10000"),
        (["--fleet", "5", "--seconds", str(MAX_SECONDS + 1)], "at most 86400 s"),
        (["--fleet", "5", "--seconds", "86400", "--speed", "900"], "more than the 80 days"),
        (["--fleet", "5", "--broker", "mqtt://broker.example"], "not this machine"),
        (["--fleet", "5", "--broker", "http://localhost"], "a broker is mqtt://"),
        ([], "Give a SITE.toml"),
    ],
)
def test_its_bounds(words: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["simulate", *words])
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")


def test_a_building_keeps_its_balance_and_its_thief() -> None:
    first_s = 1_794_960_000
    buildings = [Building(3, number, first_s, first_s + 96 * INTERVAL_S) for number in range(200)]
    thieves = 0
    for building in buildings:
        states = []
        for n in range(96):
            start_s = first_s + n * INTERVAL_S
            balance = building.balance(start_s)
            assert balance.main_kwh is not None
            assert balance.sum_kwh is not None
            assert balance.technical_loss_kwh is not None
            assert balance.residual_kwh == pytest.approx(
                balance.main_kwh - balance.sum_kwh - balance.technical_loss_kwh, abs=1e-9
            )
            states += [
                event.data.state
                for event in building.events(start_s)
                if isinstance(event, wire.AlertEvent) and event.data.meter is None
            ]
        alerts = states
        assert alerts == sorted(alerts, key=["raised", "updated", "cleared"].index)
        thieves += bool(alerts)
    assert 3 <= thieves <= 20  # a twentieth of 200, give or take
