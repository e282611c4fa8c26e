"""`checkmeter replay --forecast`: a line for every midnight, causal, scored; and `checkmeter forecast` from a store."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli.gateway.forecast import command as forecast_verb
from agent.cli.lab.replay import command
from agent.offline.replay.backtest import Backtest
from agent.store.commit import Commit
from agent.store.store import Store
from core.forecast.values import Extreme, Forecast
from core.registers.booked import HistoryRow

START_S = 1_704_067_200.0
SITE = """
[site]
site = "house"
gateway = "g"
timezone = "{timezone}"
[[zone]]
id = "building"
main = "main"
subs = ["a", "b"]
capacity_w = {capacity_w}
"""
METER = '[[meter]]\nid = "{}"\naccuracy_class = 1.0\nresolution_wh = 10\n'
DAYS = 20


def registers(days=DAYS):
    """Registers in kWh, [rows, 3], of two flats behind a main meter."""
    hour = (np.arange(days * 48) % 48 + 0.5) / 2
    rng = np.random.default_rng(4)
    flats = (0.3 + np.exp(-((hour - 19) ** 2) / 8))[:, None] * rng.gamma(6, 1 / 6, (days * 48, 2))
    energy = np.column_stack([1.01 * flats.sum(axis=1), flats])
    return np.concatenate([np.zeros((1, 3)), np.cumsum(energy, axis=0)])


@pytest.fixture
def folder(tmp_path):
    text = SITE.format(timezone="UTC", capacity_w=4000.0) + "".join(METER.format(m) for m in ("main", "a", "b"))
    (tmp_path / "site.toml").write_text(text)
    write(tmp_path / "readings.csv", registers())
    return tmp_path


def write(path, kwh):
    times = (datetime.fromtimestamp(START_S + 1800 * k, UTC).isoformat() for k in range(len(kwh)))
    lines = [f"{t},{a:.2f},{b:.2f},{c:.2f}" for t, (a, b, c) in zip(times, kwh, strict=True)]
    path.write_text("\n".join(["time,main,a,b", *lines]) + "\n")


def replay(folder, readings="readings.csv", out="forecast.jsonl"):
    arguments = [str(folder / "site.toml"), str(folder / readings), "--forecast", str(folder / out)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output, (folder / out).read_bytes().splitlines()


def test_one_line_for_every_midnight_from_the_eighth_day_on(folder):
    output, lines = replay(folder)
    said = [json.loads(line) for line in lines]
    assert [s["issued"] for s in said] == [f"2024-01-{day:02d}T00:00:00Z" for day in range(8, DAYS + 2)]
    first = said[0]
    assert first["zone"] == "building"
    assert first["interval_s"] == 1800
    assert sorted(first["quantiles_w"], key=float) == [f"{k / 20:g}" for k in range(1, 20)]
    assert len(first["mean_w"]) == 96
    assert len(first["peak"]["time_probability"]) == 48
    assert sum(first["peak"]["time_probability"]) == pytest.approx(1, abs=1e-3)
    assert first["over_capacity"]["capacity_w"] == 4000.0
    assert "forecasts of building: 13 whole days scored" in output
    assert "mean of 7 days" in output


@pytest.mark.parametrize("rows", [9 * 48 + 1, 14 * 48 + 13, 17 * 48 + 40])
def test_a_recording_cut_short_gives_the_same_earlier_lines_octet_for_octet(folder, rows):
    _, whole = replay(folder)
    write(folder / "short.csv", registers()[:rows])
    _, short = replay(folder, "short.csv", "short.jsonl")
    assert len(short) == (rows - 1) // 48 - 6
    assert short == whole[: len(short)]


def test_a_forecast_that_is_right_scores_nothing_wrong():
    backtest, load = Backtest(1800.0), 1000 + 500 * np.sin(np.arange(9 * 48) * 2 * np.pi / 48)
    load[8 * 48 :] *= 1.2
    load = np.round(load)
    for k, power_w in enumerate(load):
        backtest.record("z", START_S + 1800.0 * (k + 1), power_w / 2)
    issued_s, day = START_S + 8 * 86_400, load[8 * 48 :]
    sure = np.full(48, 1 / 48)
    extremes = [
        Extreme(float(day[k]), (float(day[k]), float(day[k])), issued_s + 1800.0 * int(k), sure)
        for k in (day.argmax(), day.argmin())
    ]
    mean = np.concatenate([day, day])
    said = Forecast("z", issued_s, 1800.0, mean, np.tile(mean, (19, 1)), *extremes, None, 8, ())
    backtest.take([said, said], [True, False])
    scores = backtest.scores("z")
    assert scores["checkmeter"]["days"] == 1
    for name in ("nmae", "ncrps", "mase", "peak_mape", "trough_mape"):
        assert scores["checkmeter"][name] == pytest.approx(0, abs=1e-9)
    assert scores["checkmeter"]["coverage"] == scores["checkmeter"]["peak_1h"] == 1
    assert scores["week ago"]["mase"] == 1
    assert scores["week ago"]["peak_bias"] == pytest.approx(1 / 1.2 - 1, abs=1e-3)
    assert backtest.scores("elsewhere") == {}


@pytest.fixture
def stored(folder):
    """A site file whose store holds the recording."""
    site = folder / "site.toml"
    site.write_text(site.read_text() + '[store]\npath = "house.sqlite"\n[detection]\ninterval_s = 1800\n')
    wh = registers() * 1000
    store = Store(str(folder / "house.sqlite"), START_S)
    rows = [HistoryRow(START_S + 1800.0 * k, row, np.ones(3), np.zeros(3, np.uint8)) for k, row in enumerate(wh)]
    store.commit(Commit([], {}, ("main", "a", "b"), rows), START_S + 1800.0 * len(rows))
    store.close()
    return folder


def test_the_verb_forecasts_from_the_gateways_store(stored):
    runner = CliRunner()
    done = runner.invoke(forecast_verb, [str(stored / "site.toml"), "--plot", str(stored / "next.svg")])
    assert done.exit_code == 0, done.output
    assert "building: next 24 h: peak" in done.output
    assert "over 4 kW" in done.output
    assert len(done.output.splitlines()) == 1 + 48
    assert (stored / "next.svg").read_text().startswith("<svg")
    as_json = runner.invoke(forecast_verb, [str(stored / "site.toml"), "--json"])
    assert json.loads(as_json.output)["issued"] == "2024-01-21T00:00:00Z"


def test_the_verb_says_when_it_knows_too_little(folder):
    site = folder / "site.toml"
    site.write_text(site.read_text() + '[store]\npath = "house.sqlite"\n')
    runner = CliRunner()
    nothing = runner.invoke(forecast_verb, [str(site)])
    assert nothing.exit_code == 1
    assert "there is no store" in nothing.output
    Store(str(folder / "house.sqlite"), START_S).close()
    empty = runner.invoke(forecast_verb, [str(site)])
    assert empty.exit_code == 1
    assert "fewer than 7 days" in empty.output
    wrong = runner.invoke(forecast_verb, [str(site), "--zone", "roof"])
    assert wrong.exit_code == 1
    assert "there is no zone 'roof'" in wrong.output
