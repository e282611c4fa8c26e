"""train and model from the command line, into files and back."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from core.scoring.model import load


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


class Page(HTMLParser):
    """Element counts, and every address that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.fetched.append(value)
            if name == "id" and value:
                self.ids.append(value)


@pytest.fixture(scope="module")
def trained(classical_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    folder = tmp_path_factory.mktemp("trained")
    model, report = folder / "model.tflite", folder / "report.html"
    code, output = run("train", classical_csv, "-o", model, "--report", report, "--seed", 4)
    assert code == 0, output
    return model, report, output


def test_train_writes_a_model_that_a_gateway_takes(trained: tuple[Path, Path, str]) -> None:
    model, _, output = trained
    checked = load(model.read_bytes())
    assert checked.features == ("power_usage_decline_level", "line_loss_rate", "warning_num")
    found = re.search(r"AUC (\d\.\d+)", output)
    assert found is not None
    assert float(found[1]) == pytest.approx(checked.file.metadata["metrics"]["auc"], abs=5e-4)


def test_the_report_is_one_page_with_all_its_parts(trained: tuple[Path, Path, str]) -> None:
    _, report, _ = trained
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert "@import" not in text
    assert "url(http" not in text
    assert page.count["svg"] == 9
    assert len(page.ids) == len(set(page.ids))
    for part in ("Data view", "Correlation", "Split and model", "Coefficients", "Confusion", "Prediction", "ROC",
                 "Precision and recall", "Lift", "KS", "Calibration", "Permutation importance", "95 %"):  # fmt: skip
        assert part in text, part


def test_a_hostile_column_name_stays_text(tmp_path: Path, classical_csv: Path) -> None:
    table = tmp_path / "features.csv"
    lines = classical_csv.read_text().splitlines()
    table.write_text("\n".join(["<script>alert(1)</script>,$x_{,<td class=a>,is_theft", *lines[1:]]))
    report = tmp_path / "report.html"
    code, output = run("train", table, "-o", tmp_path / "m.tflite", "--report", report, "--model", "mlp")
    assert code == 0, output
    text = report.read_text()
    assert "<script" not in text
    assert "<td class=a>" not in text
    assert "$x_{" in text


def test_model_show_and_verify(trained: tuple[Path, Path, str]) -> None:
    model, _, _ = trained
    code, output = run("model", "show", model)
    assert code == 0
    assert "warning_num" in output
    assert "threshold" in output
    code, output = run("model", "show", model, "--json")
    assert code == 0
    assert '"golden"' in output
    code, output = run("model", "verify", model)
    assert code == 0
    assert "32 golden vectors" in output


def test_model_verify_refuses_with_the_reason(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    torn = tmp_path / "torn.tflite"
    torn.write_bytes(trained[0].read_bytes()[:-100])
    code, output = run("model", "verify", torn)
    assert code == 1
    assert "refused" in output
    code, output = run("model", "show", torn)
    assert code == 1


def test_a_bad_table_is_an_answer_and_no_traceback(tmp_path: Path) -> None:
    table = tmp_path / "features.csv"
    table.write_text("a,is_theft\nhigh,1\n")
    code, output = run("train", table, "-o", tmp_path / "m.tflite")
    assert code == 74  # as a bad file is to `replay`
    assert f"{table}:2: a is 'high'" in output
    assert not (tmp_path / "m.tflite").exists()


def test_a_broken_table_is_a_broken_file_as_it_is_to_replay(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("meter,x\na,1\n")
    code, said = run("train", tmp_path / "t.csv", "-o", tmp_path / "m.tflite")
    assert code == 74
    assert "no column 'is_theft'" in said


@pytest.mark.parametrize(
    "target", ["acme/x", "acme/house-12/gw-1/cmd", "acme//gw-1", "acme/house 12/gw-1", "acme/+/gw-1"]
)
def test_no_command_is_signed_for_a_gateway_that_cannot_be(tmp_path: Path, target: str) -> None:
    assert run("keys", "make", tmp_path / "ops")[0] == 0
    code, said = run("keys", "sign", "--key", tmp_path / "ops.key", "--target", target, "report")
    assert code == 2
    assert "TENANT/SITE/GATEWAY" in said
    assert run("keys", "sign", "--key", tmp_path / "ops.key", "--target", "acme/house-12/gw-1", "ping")[0] == 0
