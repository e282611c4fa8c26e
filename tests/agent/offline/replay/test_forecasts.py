"""`checkmeter replay --forecast`: a line for every midnight, causal, scored; and `checkmeter forecast` from a store."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli.gateway.forecast import command as forecast_verb
from agent.cli.lab.replay import command
from agent.cli.main import cli
from agent.offline.replay.backtest import Backtest
from agent.process.exit_codes import INPUT_OUTPUT
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
    nothing = runner.invoke(cli, ["forecast", str(site)])
    assert nothing.exit_code == INPUT_OUTPUT
    assert "there is no store" in nothing.output
    Store(str(folder / "house.sqlite"), START_S).close()
    empty = runner.invoke(forecast_verb, [str(site)])
    assert empty.exit_code == 1
    assert "fewer than 7 days" in empty.output
    wrong = runner.invoke(forecast_verb, [str(site), "--zone", "roof"])
    assert wrong.exit_code == 1
    assert "there is no zone 'roof'" in wrong.output


def test_a_cell_that_was_not_read_costs_no_day_as_the_register_tells_the_energy_later(folder):
    """One unread cell of the main meter every three days: all days are scored, nearly as if all had been read."""
    whole, _ = replay(folder)
    lines = (folder / "readings.csv").read_text().splitlines()
    for k in range(30, len(lines), 3 * 48):
        time, _, a, b = lines[k].split(",")
        lines[k] = f"{time},,{a},{b}"
    (folder / "unread.csv").write_text("\n".join(lines) + "\n")
    output, _ = replay(folder, "unread.csv", "unread.jsonl")
    assert "forecasts of building: 13 whole days scored" in output
    ours, theirs = (
        float(next(line for line in out.splitlines() if line.startswith("week ago")).split()[2])
        for out in (output, whole)
    )
    assert ours == pytest.approx(theirs, rel=0.05)


def test_what_is_not_scored_is_counted_with_its_reason(folder):
    lines = (folder / "readings.csv").read_text().splitlines()
    for k in range(10 * 48 + 10, 10 * 48 + 30):
        time, _, a, b = lines[k].split(",")
        lines[k] = f"{time},,{a},{b}"
    (folder / "outage.csv").write_text("\n".join(lines[: 19 * 48]) + "\n")
    output, _ = replay(folder, "outage.csv", "outage.jsonl")
    assert "forecasts of building: 9 whole days scored" in output
    assert "1 left out: the day was not measured whole" in output
    assert "1 left out: the day a week before was not measured whole" in output
    assert "1 left out: the recording ends before the day does" in output
    (folder / "week.csv").write_text("\n".join(lines[: 5 * 48]) + "\n")
    assert "0 whole days scored; none was made at a midnight" in replay(folder, "week.csv", "week.jsonl")[0]


@pytest.mark.parametrize("watts", [0.0, 500.0])
def test_a_load_that_never_changes_is_scored(folder, watts):
    kwh = np.cumsum(np.full((DAYS * 48, 3), watts / 2000), axis=0) * [2, 1, 1]
    write(folder / "constant.csv", kwh)
    output, _ = replay(folder, "constant.csv", "constant.jsonl")
    assert "whole days scored" in output
    week_ago = next(line for line in output.splitlines() if line.startswith("week ago")).split()
    assert week_ago[2] == ("0.000" if watts else "-"), "error by load"
    assert week_ago[3] == "-", "by an error of nothing"


def test_the_energy_of_a_gap_is_spread_evenly_and_a_long_one_stays_unknown():
    backtest = Backtest(1800.0)
    booked = {3: 100.0, 4: 500.0, 20: math.nan, 21: 100.0}
    for k in range(48):
        unread = k in booked or 30 <= k < 37
        backtest.record("z", START_S + 1800.0 * (k + 1), math.nan if unread else 250.0, booked.get(k, 250.0))
    day = backtest.measured("z", START_S, 1800.0)
    assert day[2:6].tolist() == [500.0, 600.0, 600.0, 500.0]
    assert np.flatnonzero(np.isnan(day)).tolist() == [20, 21, *range(30, 37)]


def with_temperature(folder, name, days=DAYS, stops=None):
    """The recording with a column of the outdoor temperature, that is empty from a day on."""
    site = folder / "site.toml"
    if "temperature" not in site.read_text():
        site.write_text(site.read_text() + '[forecast]\ntemperature = "outdoor"\n')
    lines = (folder / "readings.csv").read_text().splitlines()[: days * 48 + 2]
    cells = [f"{8 + 6 * math.sin(k / 40):.1f}" if stops is None or k < stops * 48 else "" for k in range(len(lines))]
    rows = [f"{line},{cell}" for line, cell in zip(lines[1:], cells[1:], strict=True)]
    (folder / name).write_text("\n".join([lines[0] + ",outdoor", *rows]) + "\n")


def test_a_column_of_the_outdoor_temperature_is_used_and_a_cut_changes_no_earlier_line(folder):
    _, plain = replay(folder)
    with_temperature(folder, "warm.csv")
    output, whole = replay(folder, "warm.csv", "warm.jsonl")
    assert "column" not in output
    assert len(whole) == len(plain)
    assert whole != plain
    with_temperature(folder, "short.csv", days=16)
    assert replay(folder, "short.csv", "short.jsonl")[1] == whole[:10]


def test_a_temperature_that_stops_is_flagged_and_one_without_a_column_is_noted(folder):
    with_temperature(folder, "stops.csv", stops=15)
    said = [json.loads(line) for line in replay(folder, "stops.csv", "stops.jsonl")[1]]
    stale = [s["issued"][:10] for s in said if "temperature_stale" in s["flags"]]
    assert stale == [f"2024-01-{day}" for day in range(17, 22)]
    output, lines = replay(folder)
    assert "no such column; forecasts go without a temperature" in output
    assert len(lines) == len(said)


def test_a_main_meter_that_is_exchanged_leaves_a_gap_and_no_load_that_never_was(folder):
    """The new register begins at 3 kWh: neither a fall by all that the old one showed, nor a peak, is learned."""
    _, plain = replay(folder)
    kwh = registers()
    kwh[15 * 48 + 20 :, 0] += 3.0 - kwh[15 * 48 + 20, 0]
    write(folder / "exchanged.csv", kwh)
    output, lines = replay(folder, "exchanged.csv", "exchanged.jsonl")
    assert "1 x register replaced" in output
    assert len(lines) == len(plain)
    for line, old in zip(lines, plain, strict=True):
        said, usual = json.loads(line), json.loads(old)
        assert said["peak"]["w"] == pytest.approx(usual["peak"]["w"], rel=0.15)
        assert said["trough"]["w"] == pytest.approx(usual["trough"]["w"], rel=0.25)
        assert min(said["quantiles_w"]["0.05"]) > 0
