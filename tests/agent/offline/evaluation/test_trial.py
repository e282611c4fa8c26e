"""One building through the service's pipeline, and the training table of recorded registers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from agent.cli.main import cli
from agent.offline.evaluation import trial
from agent.offline.evaluation.bench_detection import claims_of, judge
from agent.offline.evaluation.virtual_buildings import DAY_S, Building, Plan, Pool, household_pool, make_building
from agent.offline.training.table import read_table
from core.scoring.features import FEATURES, NO_EVIDENCE

ALARM = FEATURES.index("alarm")


class Everyone:
    """A scorer that knows the guilty by their number; it keeps what it was shown."""

    features = ("usage_change", "theft_log_odds")

    def __init__(self) -> None:
        self.shown: list[NDArray[np.float32]] = []

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.shown.append(rows)
        return np.linspace(0.1, 0.6, len(rows), dtype=np.float32)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return household_pool(5, households=12, days=63)


@pytest.fixture(scope="module")
def building(pool: Pool) -> Building:
    """Twelve flats for nine weeks; one steals most of what it uses from day 42 on."""
    plan = Plan(flats=12, days=63, theft="scaled", onset_day=42, least_share=0.03)
    return make_building((5, 1), pool, plan)


def test_a_plain_theft_goes_through_the_pipeline_into_alarm_suspect_and_features(building: Building) -> None:
    found = trial.run(building, None, [40, 60])
    claims = claims_of(found.evidence, trial.meters(building))
    verdict = judge(building, claims, found.suspicion.tolist())
    assert verdict.detected
    assert verdict.delay_days is not None
    assert verdict.delay_days < 7
    assert verdict.false_alarms == 0
    before, after = found.snapshots[0], found.snapshots[1]
    assert (before.features[:, ALARM] == 0).all()
    assert (after.features[:, ALARM] == 1).all()
    odds = after.features[:, FEATURES.index("theft_log_odds")]
    assert odds.argmax() == building.thieves[0]


def test_the_scorer_speaks_in_scores_alert_and_prior(building: Building) -> None:
    scorer = Everyone()
    found = trial.run(building, scorer, [60])
    assert found.suspicion.tolist() == pytest.approx(np.linspace(0.1, 0.6, 12).tolist(), abs=1e-6)
    raised = next(item for item in found.evidence if item.active)
    place = trial.meters(building).index(raised.suspects[0].meter)
    assert raised.model_score == pytest.approx(0.1 + 0.5 * place / 11, abs=1e-6)
    assert set(raised.features[raised.suspects[0].meter]) == set(FEATURES)
    blind = [rows for rows in scorer.shown if (rows[:, 1] == NO_EVIDENCE["theft_log_odds"]).all()]
    assert blind  # attribution asked for a prior, and saw nothing of the balance in it


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, building: Building) -> Path:
    """Thirty days of the building as site.toml, readings.csv, labels.csv and events.csv."""
    folder, names = tmp_path_factory.mktemp("recording"), trial.meters(building)
    lines = ["[site]", 'site = "house-7"', 'gateway = "gw"', "[[zone]]", 'id = "all"', 'main = "main"']
    lines.append(f"subs = {json.dumps(list(names))}")
    for name in ("main", *names):
        lines += ["[[meter]]", f'id = "{name}"', f"accuracy_class = {0.5 if name == 'main' else 1.0}"]
    (folder / "site.toml").write_text("\n".join(lines))
    rows = np.column_stack([building.times_s, building.main_wh / 1000, building.subs_wh / 1000])
    with (folder / "readings.csv").open("w") as file:
        file.write(",".join(["time", "main", *names]) + "\n")
        for row in rows[: 30 * 48 + 1]:
            file.write(",".join("" if v != v else f"{v:.3f}" for v in row) + "\n")
    start_s = building.times_s[0]
    (folder / "labels.csv").write_text(f"meter,from,to\n{names[3]},{start_s + 20 * DAY_S},{start_s + 24 * DAY_S}\n")
    sign = f"{start_s + 26.5 * DAY_S},{names[5]},magnetic_field,"
    (folder / "events.csv").write_text(f"time,meter,kind,value\n{sign}\n")
    return folder


def features(folder: Path, output: Path, *options: str, readings: str = "readings.csv") -> tuple[int, str]:
    arguments = ["features", str(folder / "site.toml"), str(folder / readings), "-o", str(output)]
    result = CliRunner().invoke(cli, [*arguments, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_features_makes_a_table_that_train_reads(recording: Path, tmp_path: Path) -> None:
    labels, events, output = str(recording / "labels.csv"), str(recording / "events.csv"), tmp_path / "features.csv"
    code, text = features(recording, output, "--labels", labels, "--events", events)
    assert code == 0, text
    with output.open() as file:
        rows = list(csv.DictReader(file))
    days = sorted({row["day"] for row in rows})
    assert len(rows) == 12 * len(days)
    assert len(days) == 15
    guilty = [(row["meter"], row["day"]) for row in rows if row["is_theft"] == "1"]
    assert [day for _, day in guilty] == ["2024-01-21", "2024-01-22", "2024-01-23", "2024-01-24"]
    assert {meter for meter, _ in guilty} == {"flat-004"}
    warned = [(row["meter"], row["day"]) for row in rows if row["warning_num"] == "1"]
    assert warned == [("flat-006", "2024-01-27")]
    lines = output.read_text().splitlines()
    other = [line.replace("house-7", "house-8", 1) for line in lines[1:]]
    output.write_text("\n".join([*lines, *other]))
    table = read_table(output)
    assert table.names == FEATURES
    assert table.group is not None
    assert set(table.group) == {"house-7", "house-8"}


def test_a_table_without_labels_has_no_target(recording: Path, tmp_path: Path) -> None:
    lines = (recording / "readings.csv").read_text().splitlines()
    (recording / "short.csv").write_text("\n".join(lines[: 17 * 48]))
    code, _ = features(recording, tmp_path / "features.csv", readings="short.csv")
    assert code == 0
    header, *rows = (tmp_path / "features.csv").read_text().splitlines()
    assert header.split(",") == ["building", "meter", "day", *FEATURES]
    assert len(rows) == 12


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("meter,since\n", "expected the columns meter,from,to"),
        ("meter,from,to\nflat-099,2024-01-05,\n", "line 2, column meter: 'flat-099' is no sub-meter"),
        ("meter,from,to\nflat-001,soon,\n", "line 2, column from: 'soon' is neither"),
        ("meter,from,to\nflat-001,2024-01-05,2024-01-04\n", "line 2, column to: 2024-01-04 does not come after"),
    ],
)
def test_a_wrong_label_is_named(recording: Path, tmp_path: Path, labels: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(labels)
    code, output = features(recording, tmp_path / "features.csv", "--labels", str(tmp_path / "labels.csv"))
    assert code != 0
    assert message in output
    assert not (tmp_path / "features.csv").exists()
