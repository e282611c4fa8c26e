"""Forecasts in the utility's store: what comes in, peaks, the coincident peak, what came true; SQLite and MariaDB."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.main import cli
from agent.utility.fleet import forecasts, realised
from agent.utility.fleet.forecasts import FRESH_S
from agent.utility.ingest.decode import Reader
from agent.utility.load_test.building import Building
from agent.utility.mqtt.packets import Publish
from agent.utility.sql import statements
from agent.utility.sql.upkeep import maintain
from agent.utility.verbs.ingest import Lookback

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
    ((name, _, _, capacity_w, fleet),) = forecasts.coincident(store, NOW_S)
    assert (name, capacity_w, fleet.zones) == ("fleet", None, 2)
    assert fleet.peak_w[9] == pytest.approx(4000, rel=0.1)
    assert fleet.sum_of_peaks_w == pytest.approx(6000, rel=0.1)
    assert "2 zones: coincident peak" in run(dsn, "coincident-peak")


def test_without_a_fresh_forecast_it_says_what_to_look_at(dsn, say):
    say(3, "forecast/building", forecast(HOUR_S - DAY_S))
    done = CliRunner().invoke(cli, ["utility", "coincident-peak", "--store", dsn])
    assert done.exit_code == 1
    assert "are the gateways connected" in done.output


def info(feeder=None, district=None):
    zones = [wire.ZoneInfo(id="building", main="main", subs=["b"])]
    return wire.Info(time=wire.utc(NOW_S), versions={}, meters=[], zones=zones, schemas={}, feeder=feeder,
                     district=district)  # fmt: skip


def answers(dsn, *arguments):
    return [json.loads(line) for line in run(dsn, *arguments, "--json").splitlines()]


def test_peaks_by_feeder_and_district_as_the_sites_say(dsn, store, say):
    for number, feeder, district, at in (
        (1, "F1", "Hill", 20),
        (2, "F1", "Harbour", 40),
        (3, "10 kV 滨江线", "Hill", 20),
    ):
        say(number, "forecast/building", forecast(at=at))
        say(number, "info", info(feeder, district))
    say(4, "forecast/building", forecast(at=20))  # says of neither where it belongs
    say(4, "info", info())
    rows = {row["feeder"]: row for row in answers(dsn, "forecast", "--by", "feeder")}
    assert {name: row["zones"] for name, row in rows.items()} == {"F1": 2, "10 kV 滨江线": 1}
    assert rows["F1"]["peak_kw"] == pytest.approx(4, rel=0.1)  # at different times
    assert rows["F1"]["sum_of_peaks_kw"] == pytest.approx(6, rel=0.1)
    rows = {row["district"]: row for row in answers(dsn, "forecast", "--by", "district")}
    assert rows["Hill"]["peak_kw"] == pytest.approx(6, rel=0.1)  # at the same time
    (row,) = answers(dsn, "forecast")
    assert row["zones"] == 4
    assert (row["capacity_kw"], row["over_probability"]) == (None, None)
    assert "2 zones: coincident peak" in run(dsn, "coincident-peak", "--feeder", "F1")
    (alone,), among = forecasts.coincident(store, NOW_S, "feeder", "F1"), forecasts.coincident(store, NOW_S, "feeder")
    assert list(alone.forecast.peaks_w) == list(next(one for one in among if one.name == "F1").forecast.peaks_w)
    assert store.rows("SELECT site FROM zone_peak WHERE feeder = 'F1' ORDER BY site") == [("site-1",), ("site-2",)]


def test_a_feeders_capacity_and_how_probably_its_peak_passes_it(dsn, say):
    for number, feeder in ((1, "F1"), (2, "F1"), (3, "F2"), (4, "F2"), (5, "F3")):
        say(number, "forecast/building", forecast())
        say(number, "info", info(feeder))
    run(dsn, "capacity", "feeder", "F1", "1")
    run(dsn, "capacity", "feeder", "F1", "100")  # the later word counts
    run(dsn, "capacity", "feeder", "F2", "4")
    rows = answers(dsn, "forecast", "--by", "feeder")
    assert [row["feeder"] for row in rows] == ["F2", "F1", "F3"]
    assert [row["capacity_kw"] for row in rows] == [4, 100, None]
    assert rows[0]["over_probability"] > 0.99
    assert rows[1]["over_probability"] < 0.01
    assert "over 4.0 kW with 100 %" in run(dsn, "coincident-peak", "--feeder", "F2")


def test_what_nobody_says_is_said(dsn, say):
    say(1, "forecast/building", forecast())
    for arguments, reason in (
        (("forecast", "--by", "feeder"), 'set feeder = "..." under [site]'),
        (("coincident-peak", "--district", "Moon"), "no site with a fresh forecast says district = 'Moon'"),
        (("capacity", "fleet", "mine", "5"), "capacity fleet fleet 5"),
    ):
        done = CliRunner().invoke(cli, ["utility", *arguments, "--store", dsn])
        assert done.exit_code in {1, 2}
        assert reason in done.output


def test_steps_of_any_length_are_brought_to_half_hours(store, say):
    for number, interval_s in ((1, 900), (2, 1800), (3, 3600)):
        body = forecast(mean_w=1000.0, peak_w=1000.0, at=0, interval_s=interval_s)
        say(number, "forecast/building", body)
    ((*_, fleet),) = forecasts.coincident(store, NOW_S)
    assert fleet.zones == 3
    assert fleet.mean_w == pytest.approx(3000, rel=0.02)


def test_a_name_of_a_feeder_is_bounded_and_cannot_steer_a_terminal(store, say):
    names, row = say(1, "info", info("F" * 65))
    assert names == ["dead_letter"]
    assert "longer than 64 characters" in row[2]
    say(2, "info", info("F1\x1b[2J", "  "))
    assert store.rows("SELECT feeder, district FROM gateway_info") == [("F1?[2J", None)]


def balance(start_s, load_w, seconds=1800):
    return wire.Balance(
        zone="building", start=wire.utc(start_s), end=wire.utc(start_s + seconds),
        main_kwh=load_w * seconds / 3.6e6, sum_kwh=0.4, technical_loss_kwh=0.0, residual_kwh=0.1,
        uncertainty_kwh=0.01, coverage=1.0,
    )  # fmt: skip


def test_realised_against_forecast_by_hours_ahead(dsn, store, say):
    first = (NOW_S // DAY_S - 3) * DAY_S
    say(1, "forecast/building", forecast(first, mean_w=1000.0, peak_w=1000.0))
    for k in range(96):
        if k != 47:  # one that was not measured
            say(1, "balance/building", balance(first + 1800 * k, 1000.0 if k < 48 else 1250.0))
    assert "nothing was compared" in run(dsn, "forecast-skill")
    assert "1 forecasts that are over" in run(dsn, "maintain")
    assert "0 forecasts that are over" in run(dsn, "maintain")
    rows = {r["horizon"]: r for r in answers(dsn, "forecast-skill")}
    assert list(rows) == [f"{lead} to {lead + 6} h" for lead in range(0, 48, 6)]
    assert rows["18 to 24 h"] == {
        "horizon": "18 to 24 h", "zone_days": 1, "nmae": 0.0, "bias": 0.0, "coverage_of_90": 1.0,
    }  # fmt: skip
    assert rows["24 to 30 h"]["nmae"] == pytest.approx(0.2)
    assert rows["24 to 30 h"]["bias"] == pytest.approx(-0.2)
    assert rows["42 to 48 h"]["coverage_of_90"] == 0
    assert store.rows("SELECT SUM(steps), SUM(inside) FROM forecast_skill_day") == [(95, 47)]
    assert store.rows("SELECT zones, peak_w FROM group_peak_day") == []  # of no zone a whole day is known


def told(say, number, day, spread, feeder=None):
    """A day's first forecast, and a load that is so many spreads above it in every step; quarter hours."""
    start_s = day * DAY_S
    say(number, "forecast/building", forecast(start_s, mean_w=1000.0, peak_w=1000.0))
    if feeder is not None:
        say(number, "info", info(feeder))
    for k in range(96):
        say(number, "balance/building", balance(start_s + 900 * k, 1000.0 + spread * 180.0 / 1.645, 900))


def test_the_dependence_and_the_fleets_own_errors_are_learned_from_days_that_are_over(dsn, store, say):
    today = NOW_S // DAY_S
    for back, spread in ((3, 1.5), (4, -1.5), (5, 1.0), (6, -1.0)):  # all buildings err together, all day long
        for number in range(1, 5):
            told(say, number, today - back, spread, "F1" if number < 3 else None)
    assert realised.settle(store, NOW_S) == 16
    assert realised.settle(store, NOW_S) == 0
    assert store.rows("SELECT kind, name, zones FROM group_peak_day WHERE day_start_s = ? ORDER BY kind",
                      ((today - 3) * DAY_S,)) == [("feeder", "F1", 2), ("fleet", "fleet", 4)]  # fmt: skip
    days = realised.studied(store, NOW_S, "fleet", "fleet")
    assert [day.scores.mean() for day, _ in days] == pytest.approx([-1.0, 1.0, -1.5, 1.5], abs=0.02)
    assert [errors.mean() for _, errors in days] == pytest.approx([-0.11, 0.11, -0.16, 0.16], abs=0.01)
    peaks = realised.peak_days(store, NOW_S, "fleet", "fleet", 2).rows
    assert [(row[1], row[2]) for row in peaks] == [(4, 4.0)] * 2
    assert [row[3] for row in peaks] == pytest.approx([3.34, 4.66], abs=0.02)
    say(1, "forecast/building", forecast())
    ((_, _, dependence, _, _),) = forecasts.coincident(store, NOW_S)
    assert dependence.common > 0.3  # four days of 1, shrunk towards .15
    assert dependence.shared.level > 0.25


def test_the_ingest_looks_back_beside_its_work(dsn, store, say, wait):
    told(say, 1, NOW_S // DAY_S - 3, 1.0)
    lookback = Lookback(dsn)
    lookback.begin(NOW_S)
    lookback.begin(NOW_S)  # it is at it, or has been
    wait(lambda: not lookback.busy, "the comparison is over")
    assert store.rows("SELECT zones FROM group_peak_day") == [(1,)]


def test_many_zones_are_looked_back_at_through_the_key(store):
    dialect = store.server.dialect
    explain = "EXPLAIN QUERY PLAN " if dialect == "sqlite" else "EXPLAIN "
    plan = str(store.rows(explain + statements.loads(dialect, 3), (0, 86400, 1, 2, 3)))
    if dialect == "sqlite":
        assert "start_s=? AND zone_key=?" in plan
        assert "SCAN b" not in plan
    else:
        assert "PRIMARY" in plan


def test_old_forecasts_are_forgotten(store, say):
    say(1, "forecast/building", forecast())
    maintain(store, NOW_S + 30 * DAY_S, keep_days=5)
    told(say, 2, NOW_S // DAY_S - 3, 0.0)
    assert realised.settle(store, NOW_S) == 1
    maintain(store, NOW_S + 30 * DAY_S, keep_days=5)
    for table in ("forecast_day", "forecast_error", "group_day"):
        assert store.rows(f"SELECT COUNT(*) FROM {table}")[0][0] == 0


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
