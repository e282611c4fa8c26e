"""`checkmeter replay`: alerts, scores, a balance and a plot; what is bad is named by line and column."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli.lab.replay import command
from agent.offline.replay.readings import ReadingsError, read, read_events
from agent.offline.replay.replay import interval_of

START = datetime(2024, 1, 1, tzinfo=UTC)
METERS = ("main", "a", "b")
SITE = """
[site]
tenant = "t"
site = "house"
gateway = "g"
[[meter]]
id = "main"
accuracy_class = 0.5
resolution_wh = 10
[[meter]]
id = "a"
accuracy_class = 1.0
resolution_wh = 10
[[meter]]
id = "b"
accuracy_class = 1.0
resolution_wh = 10
[[zone]]
id = "building"
main = "main"
subs = ["a", "b"]
"""


def stamp(k, step_s=1800):
    return datetime.fromtimestamp(START.timestamp() + k * step_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(path, rows, header="time,main,a,b"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def plain(count=10):
    return [f"{stamp(k)},{k * 0.41:.3f},{k * 0.2:.3f},{k * 0.2:.3f}" for k in range(count)]


@pytest.fixture
def stolen(tmp_path):
    """A folder with a site file and 40 days of two flats, 400 W taken ahead of the meters from day 30 on."""
    (tmp_path / "site.toml").write_text(SITE)
    rng = np.random.default_rng(5)
    rows = 40 * 48
    power = 80 + rng.gamma(0.8, 350, (rows, 2))
    tap = np.where(np.arange(rows) >= 30 * 48, 400.0, 0.0)
    main = power.sum(axis=1) * 1.012 + 1.5 + tap
    wh = np.vstack([np.zeros(3), np.cumsum(np.column_stack([main, power]) / 2, axis=0)]) // 10 / 100
    lines = [f"{stamp(k)}," + ",".join(f"{v:.2f}" for v in row) for k, row in enumerate(wh)]
    lines[700] = f"{stamp(700)},{wh[700, 0]:.2f},,{wh[700, 2]:.2f}"
    write(tmp_path / "readings.csv", lines)
    return tmp_path


def replay(folder, *options):
    done = CliRunner().invoke(command, [str(folder / "site.toml"), str(folder / "readings.csv"), *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_alerts_scores_balance_and_plot(stolen):
    out = {name: stolen / name for name in ("alerts.jsonl", "scores.csv", "balance.csv", "plot.svg")}
    done = replay(
        stolen, "--alerts", str(out["alerts.jsonl"]), "--scores", str(out["scores.csv"]),
        "--csv", str(out["balance.csv"]), "--plot", str(out["plot.svg"]),
    )  # fmt: skip
    assert done.exit_code == 0
    alerts = [json.loads(line) for line in out["alerts.jsonl"].read_text().splitlines()]
    raised = [a for a in alerts if a["data"]["state"] == "raised"]
    assert len(raised) == 1
    assert raised[0]["type"] == "checkmeter.alert.v1"
    assert stamp(30 * 48) < raised[0]["time"] <= stamp(31 * 48), "the measurement's time, not the wall clock's"
    assert alerts[-1]["data"]["loss_w"] == pytest.approx(400, rel=0.1)
    scores = list(csv.DictReader(out["scores.csv"].open()))
    assert [row["meter"] for row in scores] == ["a", "b"]
    assert all(0 <= float(row["theft_probability"]) <= 1 for row in scores)
    balance = list(csv.DictReader(out["balance.csv"].open()))
    assert len(balance) == 40 * 48
    total = sum(float(row["main_kwh"]) for row in balance)
    with (stolen / "readings.csv").open() as file:
        assert total == pytest.approx(float(file.readlines()[-1].split(",")[1]), abs=0.2)
    tree = ET.parse(out["plot.svg"])
    text = "".join(tree.getroot().itertext())
    assert "residual" in text
    assert "raised" in text


def test_an_event_of_the_meter_counts(stolen):
    events = write(stolen / "events.csv", [f"{stamp(1440)},b,magnetic_field,"], "time,meter,kind,value")
    alerts = stolen / "alerts.jsonl"
    assert replay(stolen, "--alerts", str(alerts)).exit_code == 0
    without = json.loads(alerts.read_text().splitlines()[0])["data"]
    assert replay(stolen, "--alerts", str(alerts), "--events", str(events)).exit_code == 0
    with_sign = json.loads(alerts.read_text().splitlines()[0])["data"]

    def share(data):
        return {s["meter"]: s["probability"] for s in data.get("suspects", [])}.get("b", 0.0)

    assert share(with_sign) > share(without), "when the loss is first told; days of loads may say otherwise"
    events.write_text(events.read_text() + f"{stamp(2)},nobody,magnetic_field,\n{stamp(3)},a,witchcraft,\nnever,a,x,\n")
    told = replay(stolen, "--events", str(events)).stderr
    assert "line 3, column meter: 'nobody'" in told
    assert "line 4, column kind: 'witchcraft'" in told
    assert "line 5, column time: 'never'" in told


@pytest.mark.parametrize(
    ("spoil", "reason", "told"),
    [
        (lambda r: r[4].replace("0.800", "broken", 1), "no number", "line 6, column a: 'broken' is no number"),
        (lambda r: r[4].replace("0.800", "1e300", 1), "no register", "line 6, column a: 1e300 is no register"),
        (lambda r: r[4].replace("0.800", "inf", 1), "no register", "line 6, column a: inf is no register"),
        (lambda r: r[2], "time goes back", "line 6, column time: 2024-01-01T01:00:00Z does not come after"),
        (lambda r: r[3], "time stands still", "line 6, column time: 2024-01-01T01:30:00Z does not come after"),
        (lambda r: r[4] + ",7", "wrong number of cells", "line 6: 5 cells, expected 4"),
        (lambda r: r[4].replace("0.800", "nan", 1), "no number", "line 6, column a: 'nan' is no number"),
        (lambda r: r[4].replace("0.800", "1_000", 1), "no number", "line 6, column a: '1_000' is no number"),
        (lambda r: r[4].replace("0.800", "\u0663\u0664", 1), "no number", "is no number"),
        (lambda r: r[4].replace("0.800", '"0.800', 1), "not CSV", "line 6: a quote is not closed; the row is left out"),
        (lambda r: "9999-12-31T23:59:59Z" + r[4][20:], "time is not plausible", "not between 1970 and 2100"),
        (lambda r: "0001-01-01T00:00:00Z" + r[4][20:], "time is not plausible", "line 6, column time: 0001-01-01"),
        (lambda r: "2025-06-01T00:00:00Z" + r[4][20:], "time is not plausible", "517 days after the row before"),
        (lambda r: "2024-06-01T00:00:00Z" + r[4][20:], "time is not plausible", "ahead of the rows before and behind"),
        (lambda r: "1_704_074_400" + r[4][20:], "no time", "line 6, column time: '1_704_074_400' is neither"),
        (lambda r: "yesterday" + r[4][20:], "no time", "line 6, column time: 'yesterday' is neither"),
    ],
    ids=[
        "text cell",
        "too large",
        "infinite",
        "backwards",
        "twice",
        "cells",
        "nan",
        "underscore",
        "arabic digits",
        "open quote",
        "year 9999",
        "year 1",
        "next year",
        "months ahead",
        "underscored time",
        "time",
    ],
)
def test_what_cannot_be_used_is_named_and_counted(tmp_path, spoil, reason, told):
    rows = plain()
    rows[4] = spoil(rows)
    readings = read(write(tmp_path / "r.csv", rows), METERS)
    assert readings.notes.counted == {reason: 1}
    assert told in readings.notes.named[0]
    assert str(tmp_path / "r.csv") in readings.notes.named[0]
    whole = read(write(tmp_path / "whole.csv", plain()), METERS)
    kept = np.isin(whole.lines, readings.lines)
    same = (readings.wh == whole.wh[kept]) | np.isnan(readings.wh)
    assert same.all(), "nothing else changed, and nothing became a zero"
    assert kept.sum() == (10 if reason in ("no number", "no register") else 9)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("time,main,a", "no column for meter b"),
        ("when,main,a,b", "expected 'time', got 'when'"),
        ("time,main,a,b,a", "2 columns are named a"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, header, told):
    with pytest.raises(ReadingsError, match=told):
        read(write(tmp_path / "r.csv", plain(), header), METERS)


def test_an_export_column_is_taken_off_and_its_absence_is_said(tmp_path):
    rows = [f"{row},{0.1 * k:.3f}" for k, row in enumerate(plain())]
    path = write(tmp_path / "r.csv", rows, "time,main,a,b,main:export")
    readings = read(path, METERS, {"main", "a"})
    np.testing.assert_allclose(np.diff(readings.wh, axis=0), np.tile([310.0, 200.0, 200.0], (9, 1)))
    assert readings.notes.counted == {"export without a column": 1}
    assert "a:export" in readings.notes.named[0]
    assert read(path, METERS).notes.counted == {"column of no meter": 1}


def test_a_column_of_no_meter_is_said(tmp_path):
    rows = [row + ",1" for row in plain()]
    readings = read(write(tmp_path / "r.csv", rows, "time,main,a,b,garage"), METERS)
    assert "column garage" in readings.notes.named[0]
    assert readings.wh.shape == (10, 3)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "only 0 of 0 rows"),
        (["x,1,1,1"] * 9 + plain(3), "only 3 of 12 rows"),
        ([row.rsplit(",", 1)[0] + "," for row in plain()], "no reading at all in column b"),
    ],
    ids=["empty", "mostly unusable", "silent meter"],
)
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path, rows, told):
    with pytest.raises(ReadingsError, match=told):
        read(write(tmp_path / "r.csv", rows), METERS)


def test_a_refused_file_exits_74_and_a_bad_site_78(stolen):
    write(stolen / "readings.csv", plain(), "time,main,a")
    done = replay(stolen)
    assert done.exit_code == 74
    assert "no column for meter b" in done.stderr


def test_epoch_seconds_offsets_and_iso_are_the_same_time(tmp_path):
    epoch = [f"{START.timestamp() + 1800 * k:.0f},{k},{k},{k}" for k in range(4)]
    iso = [f"{stamp(k)},{k},{k},{k}" for k in range(4)]
    local = [f"2024-01-01T{1 + k // 2:02d}:{k % 2 * 30:02d}:00+01:00,{k},{k},{k}" for k in range(4)]
    times = [read(write(tmp_path / "r.csv", rows), METERS).times_s.tolist() for rows in (epoch, iso, local)]
    assert times[0] == times[1] == times[2]


def test_a_register_that_falls_or_jumps_is_told(stolen):
    path = stolen / "readings.csv"
    lines = path.read_text().splitlines()
    for k in range(900, len(lines)):
        time, main, a, b = lines[k].split(",")
        lines[k] = f"{time},{main},{a},{float(b) - 150:.2f}" if b else lines[k]
    path.write_text("\n".join(lines) + "\n")
    done = replay(stolen)
    assert done.exit_code == 0
    assert "1 x register replaced" in done.stderr


@pytest.mark.parametrize(
    ("step_s", "wanted_s", "interval_s"),
    [(1800, 900, 1800), (60, 900, 900), (1000, 900, 1080), (903, 900, 900), (1862, 900, 1800)],
)
def test_the_interval_is_the_coarser_of_site_file_and_recording(step_s, wanted_s, interval_s):
    assert interval_of(1000.0 * step_s + step_s * np.arange(50), wanted_s) == interval_s


def test_every_interval_that_a_site_file_or_a_recording_can_have_divides_a_quarter_of_the_day():
    for step_s in (*range(20, 4000, 7), 21_600, 22_000):
        assert 21_600 % interval_of(step_s * np.arange(50.0), 15.0) == 0
    with pytest.raises(ReadingsError, match="every six hours"):
        interval_of(86_400.0 * np.arange(50), 900.0)


def test_rows_between_the_boundaries_are_interpolated(stolen):
    """The same registers, read at odd times, give nearly the same balance."""
    path = stolen / "readings.csv"
    balance = stolen / "balance.csv"
    rng = np.random.default_rng(1)
    lines = []
    at = 0.0
    while at < 3 * 86_400:
        lines.append(f"{START.timestamp() + at:.0f},{at / 3600 * 0.41:.4f},{at / 3600 * 0.2:.4f},{at / 3600 * 0.2:.4f}")
        at += rng.integers(200, 400)
    write(path, lines)
    assert replay(stolen, "--csv", str(balance)).exit_code == 0
    rows = list(csv.DictReader(balance.open()))
    assert len(rows) >= 3 * 96 - 2
    assert [float(r["main_kwh"]) for r in rows[5:-1]] == pytest.approx([0.1025] * (len(rows) - 6), abs=2e-4)


def test_events_need_their_columns(tmp_path):
    with pytest.raises(ReadingsError, match="time,meter,kind,value"):
        read_events(write(tmp_path / "e.csv", ["1,2"], "a,b"), METERS)


def test_a_european_spreadsheets_semicolons_and_commas_are_understood_and_said(tmp_path):
    rows = [row.replace(",", ";").replace(".", ",") for row in plain()]
    found = read(write(tmp_path / "r.csv", rows, "time;main;a;b"), METERS)
    same = read(write(tmp_path / "c.csv", plain()), METERS)
    np.testing.assert_array_equal(found.wh, same.wh)
    assert found.notes.counted == {"semicolons": 1}
    points = read(write(tmp_path / "p.csv", [row.replace(",", ";") for row in plain()], "time;main;a;b"), METERS)
    np.testing.assert_array_equal(points.wh, same.wh)


def test_a_point_in_a_file_of_decimal_commas_is_not_guessed_at(tmp_path):
    rows = [row.replace(",", ";").replace(".", ",") for row in plain()]
    cells = rows[5].split(";")
    rows[5] = ";".join([cells[0], "1.234", *cells[2:]])
    found = read(write(tmp_path / "r.csv", rows, "time;main;a;b"), METERS)
    assert np.isnan(found.wh[5, 0])
    assert any("decimal mark is the comma" in note for note in found.notes.named)


def test_an_open_quote_costs_its_own_row_and_none_behind_it(tmp_path):
    rows = plain(400)
    for k in (20, 200):
        rows[k] = rows[k].replace(",", ',"', 1)
    found = read(write(tmp_path / "r.csv", rows), METERS)
    assert len(found.times_s) == 398
    assert found.notes.counted == {"not CSV": 2}
    rows[300] = ",".join(f'"{cell}"' for cell in rows[300].split(","))
    assert len(read(write(tmp_path / "r.csv", rows), METERS).times_s) == 398, "quotes that are closed are none"


def test_a_first_row_of_another_year_does_not_cost_the_file(tmp_path):
    rows = plain()
    rows[0] = "2031-01-01T00:00:00Z" + rows[0][20:]
    assert len(read(write(tmp_path / "r.csv", rows), METERS).times_s) == 9


@pytest.mark.parametrize("length", [200_000, 3_000_000], ids=["long", "too long"])
def test_a_header_of_any_length_ends_in_words(tmp_path, length):
    path = write(tmp_path / "r.csv", [row + ",1" for row in plain()], "time,main,a,b," + "x" * length)
    try:
        told = read(path, METERS).notes.named[0]
        assert "column of no meter" in read(path, METERS).notes.counted
    except ReadingsError as error:
        assert length > 1_000_000
        told = str(error)
        assert "line 1: more than" in told
    assert len(told) < 600
    with pytest.raises(ReadingsError, match="expected the columns time,meter,kind,value"):
        read_events(path, METERS)


def test_an_open_quote_among_events_costs_one_event(tmp_path):
    lines = [f"{stamp(k)},a,magnetic_field,1" for k in range(9)]
    lines[3] = lines[3].replace("a", '"a', 1)
    signs, notes = read_events(write(tmp_path / "e.csv", lines, "time,meter,kind,value"), METERS)
    assert len(signs) == 8
    assert notes.counted == {"not CSV": 1}


def test_behind_a_hole_of_months_the_balance_begins_again_as_in_the_service(stolen):
    """A hole is never filled row by row, however wide; behind it the first balances are those of a new start."""
    lines = (stolen / "readings.csv").read_text().splitlines()
    moved = [f"{stamp(k + 61 * 48)},{line.split(',', 1)[1]}" for k, line in enumerate(lines[1:]) if k >= 1000]
    write(stolen / "readings.csv", [*lines[1:1001], *moved])
    balance = stolen / "balance.csv"
    assert replay(stolen, "--csv", str(balance)).exit_code == 0
    rows = list(csv.DictReader(balance.open()))
    assert len(rows) == 40 * 48 - 1, "none for the hole"
    assert rows[999]["end"] == stamp(1001 + 61 * 48)
    write(stolen / "readings.csv", moved)
    alone = stolen / "alone.csv"
    assert replay(stolen, "--csv", str(alone)).exit_code == 0
    first, *_ = csv.DictReader(alone.open())
    assert float(first["main_kwh"]) > 0  # no row that ends where the recording begins
    assert list(csv.DictReader(alone.open())) == rows[999:]
