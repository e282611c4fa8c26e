"""docs/walks.md, followed literally: every line that a technician types, on simulated meters, and what it promises."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.cli.meter import scan_others

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "walks.md"
FAST = (
    "[simulation]\npace = false\nturnaround_s = 0.0"  # octets take no time: the lines are the same, the test is shorter
)
ANSWER_S = 0.08  # for who is not there; a simulated meter answers within milliseconds


def walks() -> dict[str, list[tuple[str, list[str]]]]:
    """By heading: the commands and the lines that are promised for each."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        steps: list[tuple[str, list[str]]] = []
        for line in section.splitlines():
            if line.startswith("    $ "):
                steps.append((line[6:], []))
            elif line.startswith("    "):
                steps[-1][1].append(line.strip())
        found[section.splitlines()[0]] = steps
    return found


WALKS = walks()


def promised(line: str) -> str:
    return ".*".join(re.escape(part.strip()) for part in line.split("..."))


@pytest.mark.parametrize("name", sorted(WALKS))
@pytest.mark.timeout(300)
def test_a_walk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scan_others, "ANSWER_S", ANSWER_S)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (simulate, _), *steps = WALKS[name]
    example = (ROOT / simulate.split()[-1]).read_text()
    assert "[simulation]" in example
    example = example.replace("[simulation]", FAST).replace("/tmp/checkmeter-", f"{tmp_path}/")
    (tmp_path / "example.toml").write_text(example)
    command = [sys.executable, "-m", "agent.cli.main", *simulate.split()[1:-1], "example.toml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as meters:
        try:
            assert meters.stdout is not None
            assert meters.stdout.readline().startswith("ready")
            for typed, expected in steps:
                typed = typed.replace("/tmp/checkmeter-", f"{tmp_path}/")
                words = shlex.split(typed)
                if words[0] == "checkmeter":
                    result = CliRunner().invoke(cli, words[1:], catch_exceptions=False)
                    said, code = result.output, result.exit_code
                    verdict = any("no verdict" in line or "stores no load profile" in line for line in expected)
                    assert code == 0 or verdict, (typed, said)
                else:
                    done = subprocess.run(words, capture_output=True, text=True, check=True)
                    said = done.stdout
                lines = iter([line.strip() for line in said.splitlines()])
                for line in expected:
                    assert any(re.fullmatch(promised(line), told) for told in lines), (typed, line, said)
        finally:
            meters.terminate()


def test_every_protocol_beside_dlms_has_a_walk_that_uses_every_verb() -> None:
    protocols = set()
    for steps in WALKS.values():
        verbs = [typed.split()[1] for typed, _ in steps if typed.startswith("checkmeter")]
        assert set(verbs) == {"simulate", "scan", "init", "check", "read", "commission"}
        protocols |= {typed.split("--protocol ")[1].split()[0] for typed, _ in steps if "--protocol" in typed}
    assert protocols == set(scan_others.PARITY)
