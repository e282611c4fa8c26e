"""A table that cannot be trusted is refused with its line, its column and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.offline.training.table import TableError, read_table

HEADER = "power_usage_decline_level,line_loss_rate,warning_num,is_theft"
ROWS = [f"{i % 9},{i % 2},{i % 4},{int(i % 3 == 0)}" for i in range(30)]


def written(tmp_path: Path, header: str, rows: list[str], encoding: str = "utf-8") -> Path:
    path = tmp_path / "features.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


def test_the_classical_file_is_read_as_it_is(classical_csv: Path) -> None:
    table = read_table(classical_csv)
    assert table.names == ("power_usage_decline_level", "line_loss_rate", "warning_num")
    assert table.features.shape == (291, 3)
    assert table.target.sum() == 40
    assert table.group is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_identifiers_and_the_building_are_no_features(tmp_path: Path, encoding: str) -> None:
    rows = [f"b{i % 5},flat-{i},2026-01-0{1 + i % 9},{row}" for i, row in enumerate(ROWS)]
    table = read_table(written(tmp_path, "building,meter,day," + HEADER, rows, encoding))
    assert table.names == ("power_usage_decline_level", "line_loss_rate", "warning_num")
    assert table.group is not None
    assert list(table.group[:6]) == ["b0", "b1", "b2", "b3", "b4", "b0"]


def test_a_named_group_is_taken_and_must_be_there(tmp_path: Path) -> None:
    path = written(tmp_path, "district," + HEADER, [f"{i % 4},{row}" for i, row in enumerate(ROWS)])
    assert read_table(path, "district").names == ("power_usage_decline_level", "line_loss_rate", "warning_num")
    with pytest.raises(TableError, match=r":1: no column 'town' .*--group"):
        read_table(path, "town")


@pytest.mark.parametrize(
    ("header", "change", "message"),
    [
        ("a,b,c,theft", {}, r":1: no column 'is_theft' .* columns are a, b, c, theft"),
        ("a;b;c;is_theft", {}, "use commas"),
        ("a,,c,is_theft", {}, ":1: column 2 has no name"),
        ("a,b,a,is_theft", {}, ":1: column 'a' stands there twice"),
        (HEADER, {4: "high,1,0,1"}, r":6: power_usage_decline_level is 'high'"),
        (HEADER, {7: "2,,0,1"}, r":9: line_loss_rate is empty"),
        (HEADER, {7: "2,nan,0,1"}, r":9: line_loss_rate is 'nan'"),
        (HEADER, {8: "2,inf,0,1"}, r":10: line_loss_rate is 'inf'"),
        (HEADER, {9: "2,1,0"}, ":11: 3 cells, the header has 4"),
        (HEADER, {9: '"2\n",1,0,1', 12: "x,1,0,1"}, r":15: power_usage_decline_level is 'x'"),
        (HEADER, {9: '2,"1,0,1'}, "not CSV"),
        (HEADER, {2: "2,1,0,2"}, r":4: is_theft is 2: use 1 for theft"),
        (HEADER, dict.fromkeys(range(30), "1,0,2,0"), "all 30 rows have is_theft = 0"),
        (HEADER, {i: f"1,0,{i % 3},{int(i == 0)}" for i in range(30)}, "1 rows of theft, 29 without: at least 5"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, header: str, change: dict[int, str], message: str) -> None:
    rows = [change.get(i, row) for i, row in enumerate(ROWS)]
    with pytest.raises(TableError, match=message):
        read_table(written(tmp_path, header, rows))


def test_fewer_rows_than_features(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(40)]
    rng = np.random.default_rng(0)
    rows = [",".join([*(f"{v:.2f}" for v in rng.random(40)), str(i % 2)]) for i in range(20)]
    with pytest.raises(TableError, match="20 rows for 40 features"):
        read_table(written(tmp_path, ",".join([*names, "is_theft"]), rows))


def test_many_faults_are_counted_not_poured_out(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="and 25 more") as caught:
        read_table(written(tmp_path, HEADER, ["x,1,1,1"] * 30))
    assert str(caught.value).count("\n") == 6


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(TableError, match="octet 0 is not UTF-8"):
        read_table(path)
    path.write_text("")
    with pytest.raises(TableError, match=":1: no header"):
        read_table(path)
    path.write_text(HEADER + "\n")
    with pytest.raises(TableError, match="no rows below the header"):
        read_table(path)
    path.write_text(HEADER + "\n1,2,3,1,5,6\n")
    with pytest.raises(TableError, match=":2: 6 cells, the header has 4"):
        read_table(path)
