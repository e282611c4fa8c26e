"""Manual pages and completions follow from the command line: no verb is left out, and roff has nothing to say."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import VERBS, cli
from agent.deploy.man import completions, main, pages

DAY = datetime(2026, 3, 2, tzinfo=UTC)


def test_every_verb_has_a_page_with_its_options() -> None:
    made = pages(DAY, "1.0")
    assert made.keys() == {"checkmeter.1", *(f"checkmeter-{verb}.1" for verb in VERBS)}
    assert made == pages(DAY, "1.0")
    assert "\\-\\-verify" in made["checkmeter-report.1"]
    assert ".SH SIGN\\-FILE" in made["checkmeter-keys.1"]  # a verb of a verb
    assert all(f"checkmeter\\-{verb} (1)" in made["checkmeter.1"] for verb in VERBS)


@pytest.mark.skipif(shutil.which("man") is None or shutil.which("groff") is None, reason="man-db and groff")
def test_man_finds_nothing_wrong_with_a_page(tmp_path: Path) -> None:
    assert main(["man.py", str(tmp_path)], day=DAY) == 0
    for page in ("checkmeter.1", "checkmeter-keys.1", "checkmeter-report.1", "checkmeter-utility.1"):
        words = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(tmp_path / page)]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": ""}
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, ""), page


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_is_a_script_of_that_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    subprocess.run([shell, "-n"], input=completions()[shell], text=True, check=True, timeout=20)


def test_what_the_completion_asks_is_answered() -> None:
    asked = {"_CHECKMETER_COMPLETE": "bash_complete", "COMP_WORDS": "checkmeter comm", "COMP_CWORD": "1"}
    said = CliRunner().invoke(cli, [], prog_name="checkmeter", env=asked)
    assert said.output.split() == ["plain,commission"]


def test_quiet_leaves_out_advice_and_keeps_errors(tmp_path: Path) -> None:
    site = Path(__file__).resolve().parents[3] / "examples/demo-building.toml"
    table = tmp_path / "readings.csv"
    ids = ["main", *(f"flat-{floor}0{door}" for floor in (1, 2, 3, 4) for door in (1, 2, 3, 4))]
    rows = [f"2026-03-02T{h:02}:00:00Z," + ",".join(str(10 * h) for _ in ids) for h in range(24)]
    table.write_text("\n".join(["time," + ",".join(ids), *rows]) + "\n")
    out = tmp_path / "features.csv"
    words = ["features", str(site), str(table), "-o", str(out)]
    loud, quiet = CliRunner().invoke(cli, words), CliRunner().invoke(cli, ["--quiet", *words])
    assert (loud.exit_code, quiet.exit_code) == (0, 0), (loud.output, quiet.output)
    assert "no is_theft column" in loud.output
    assert "no is_theft column" not in quiet.output
    assert f"{out}: " in quiet.output
    wrong = CliRunner().invoke(cli, ["-q", "check", str(tmp_path / "none.toml")])
    assert wrong.exit_code == 78
    assert "cannot be read" in wrong.output


def test_no_colour_where_nobody_wants_any(monkeypatch: pytest.MonkeyPatch) -> None:
    console = pytest.importorskip("rich.console")
    said = {}
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        screen = console.Console(force_terminal=True, color_system="standard")
        with screen.capture() as caught:
            screen.print("degraded", style="bold yellow")
        said[value] = caught.get()
    assert "33m" in said[""]
    assert "33m" not in said["1"]
