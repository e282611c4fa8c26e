"""Forecasts in the utility's store: what comes in, peaks, the coincident peak, what came true; SQLite and MariaDB."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.main import cli
from agent.utility.fleet import forecasts
from agent.utility.fleet.forecasts import FRESH_S
from agent.utility.ingest.decode import Reader
from agent.utility.load_test.building import Building
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.upkeep import maintain

DAY_S = 86_400
NOW_S = int(time.time())
HOUR_S = NOW_S // 3600 * 3600
LEVELS = [f"{k / 20:g}" for k in range(1, 20)]


def forecast(issued_s=HOUR_S, zone="building", mean_w=1000.0, peak_w=3000.0, at=38, probability=None, interval_s=1800):
    steps = 2 * DAY_S // interval_s
    mean = [mean_w] * steps
    mean[at] = peak_w
    quantiles = {level: [(0.8 + 0.4 * float(level)) * w for w in mean] for level in LEVELS}

    def extreme(w, step):
        return wire.ForecastExtreme(
            w=w,
            w_interval=(0.8 * w, 1.2 * w),
            start=wire.utc(issued_s + step * interval_s),
            time_probability=[2 / steps] * (steps // 2),
        )

    over = probability and wire.OverCapacity(capacity_w=4000.0, probability=probability, duration_s=1800.0)
    return wire.Forecast(
        zone=zone, issued=wire.utc(issued_s), interval_s=interval_s, mean_w=mean, quantiles_w=quantiles,
        peak=extreme(peak_w, at), trough=extreme(mean_w, 0), over_capacity=over, days=40,
    )  # fmt: skip


@pytest.fixture
def say(store):
    """Give a message of a gateway to the store; the tables that it went into."""
    reader = Reader(lambda: float(NOW_S))

    def give(number, suffix, message):
        topic = wire.Address("acme", f"site-{number}", f"gw-{number}").topic(suffix).encode()
        letter = reader.read(Publish(topic, 1, wire.encode(message), False))
        store.apply([letter])
        return [table.name for table, _ in letter.rows], letter.rows[-1][1]

    return give


def test_the_last_forecast_is_kept_whole_and_the_first_of_each_day_for_looking_back(store, say):
    midnight = HOUR_S // DAY_S * DAY_S
    for issued_s, peak_w in ((midnight, 3000.0), (midnight + 3600, 3100.0), (midnight, 3000.0)):
        names, _ = say(1, "forecast/building", forecast(issued_s, peak_w=peak_w))
    assert names[-2:] == ["forecast", "forecast_day"]
    assert store.rows("SELECT peak_w, issued_s FROM forecast") == [(3100.0, midnight + 3600)]
    assert store.rows("SELECT peak_w, issued_s FROM forecast_day") == [(3000.0, midnight)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"zone": "roof"}, "zone: the topic says"),
        ({"mean_w": [1.0] * 47}, "expected 24 to 48 h"),
        ({"quantiles_w": {"0.5": [1.0] * 96}}, "expected 24 to 48 h"),
        ({"mean_w": [1e12] * 96}, "range"),
        ({"issued": wire.utc(NOW_S + 3 * DAY_S)}, "time: issued"),
        ({"over_capacity": wire.OverCapacity(capacity_w=-1.0, probability=0.9, duration_s=60.0)}, "capacity_w"),
        ({"over_capacity": wire.OverCapacity(capacity_w=0.0, probability=0.9, duration_s=60.0)}, "capacity_w"),
        ({"over_capacity": wire.OverCapacity(capacity_w=9e3, probability=0.9, duration_s=1e300)}, "duration_s"),
        ({"over_capacity": wire.OverCapacity(capacity_w=9e3, probability=0.9, duration_s=-1.0)}, "duration_s"),
    ],
)
def test_a_forecast_that_cannot_be_is_a_dead_letter(say, change, reason):
    names, row = say(1, "forecast/building", msgspec.structs.replace(forecast(), **change))
    assert names == ["dead_letter"]
    assert reason in row[2]


def run(dsn, *arguments):
    done = CliRunner().invoke(cli, ["utility", *arguments, "--store", dsn], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_peaks_stand_by_their_distance_from_the_capacity(dsn, say):
    say(1, "forecast/building", forecast(peak_w=9000.0))
    say(2, "forecast/building", forecast(peak_w=3900.0, probability=0.4))
    say(3, "forecast/building", forecast(HOUR_S - DAY_S, peak_w=1e6))  # of a gateway that is silent since
    rows = [json.loads(line) for line in run(dsn, "peaks", "--json").splitlines()]
    assert [(r["site"], r["peak_kw"], r["over_probability"]) for r in rows] == [
        ("site-2", 3.9, 0.4),
        ("site-1", 9.0, None),
    ]


def test_the_coincident_peak_counts_each_load_once_and_peaks_at_their_own_times(dsn, store, say):
    say(1, "forecast/building", forecast(at=20))
    say(1, "forecast/floor", forecast(zone="floor", at=20))  # inside the building: not to be counted again
    zones = [
        wire.ZoneInfo(id="building", main="main", subs=["floor-main", "b"]),
        wire.ZoneInfo(id="floor", main="floor-main", subs=["c"]),
    ]
    say(1, "info", wire.Info(time=wire.utc(NOW_S), versions={}, meters=[], zones=zones, schemas={}))
    say(2, "forecast/building", forecast(at=40))
    _, step_s, count, _, fleet = forecasts.coincident(store, NOW_S)
    assert (step_s, count) == (1800, 2)
    assert fleet.peak_w[9] == pytest.approx(4000, rel=0.1)
    assert fleet.sum_of_peaks_w == pytest.approx(6000, rel=0.1)
    assert "2 zones: coincident peak" in run(dsn, "coincident-peak")


def test_without_a_fresh_forecast_it_says_what_to_look_at(dsn, say):
    say(3, "forecast/building", forecast(HOUR_S - DAY_S))
    done = CliRunner().invoke(cli, ["utility", "coincident-peak", "--store", dsn])
    assert done.exit_code == 1
    assert "are the gateways connected" in done.output


def test_realised_against_forecast_by_horizon(dsn, say):
    first = (NOW_S // DAY_S - 3) * DAY_S
    say(1, "forecast/building", forecast(first, mean_w=1000.0, peak_w=1000.0))
    for k in range(96):
        load_w = 1000.0 if k < 48 else 1250.0
        balance = wire.Balance(
            zone="building", start=wire.utc(first + 1800 * k), end=wire.utc(first + 1800 * (k + 1)),
            main_kwh=load_w / 2000, sum_kwh=0.4, technical_loss_kwh=0.0, residual_kwh=0.1, uncertainty_kwh=0.01,
            coverage=1.0,
        )  # fmt: skip
        say(1, "balance/building", balance)
    rows = {r["horizon"]: r for r in map(json.loads, run(dsn, "forecast-skill", "--json").splitlines())}
    assert rows["0 to 24 h"]["nmae"] == pytest.approx(0, abs=1e-6)
    assert rows["0 to 24 h"]["coverage_of_90"] == 1
    assert rows["24 to 48 h"]["nmae"] == pytest.approx(0.2)
    assert rows["24 to 48 h"]["coverage_of_90"] == 0


def test_old_forecasts_are_forgotten(store, say):
    say(1, "forecast/building", forecast())
    maintain(store, NOW_S + 30 * DAY_S, keep_days=5)
    assert store.rows("SELECT COUNT(*) FROM forecast_day")[0][0] == 0


def test_a_simulated_fleet_has_a_fresh_forecast_at_any_time(dsn, store):
    """What simulated gateways have said until now is enough for the question about the next day's peaks."""
    reader = Reader(lambda: float(NOW_S))
    for offset in range(0, 6 * 3600, 900):  # wherever in the day the simulation ends
        end_s = NOW_S // 900 * 900 - offset
        building = Building(1, 1, end_s - DAY_S, end_s)
        said = [m for at in range(end_s - DAY_S, end_s, 900) for m in building.interval(at)]
        issued_s = [m.issued.timestamp() for _, m in said if isinstance(m, wire.Forecast)]
        assert end_s - max(issued_s) < FRESH_S
    (number, suffix, message) = next((1, s, m) for s, m in reversed(said) if isinstance(m, wire.Forecast))
    letter = reader.read(Publish(building.address.topic(suffix).encode(), number, wire.encode(message), False))
    store.apply([letter])
    assert "no forecast of the last three hours, the newest is" in run(dsn, "peaks")
