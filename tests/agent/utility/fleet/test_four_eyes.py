"""The second pair of eyes, in the store and with the verbs: what nobody else has confirmed counts nowhere."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.process.clock import SystemClock
from agent.utility.fleet import four_eyes, outcomes, promise
from agent.utility.fleet.outcomes import Found
from agent.utility.sql.server import StoreMisfit
from agent.utility.sql.store import Store
from agent.utility.web import asks
from tests.agent.utility.fleet.test_questions import NOW_S, FleetOfFour


@pytest.fixture
def ask(dsn: str) -> Any:
    def run(verb: str, *arguments: str, code: int = 0, typed: str | None = None) -> str:
        result = CliRunner().invoke(cli, ["utility", verb, "--store", dsn, *arguments], input=typed)
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_what_nobody_else_has_confirmed_counts_nowhere(store: Store, ask: Any, tmp_path: Path) -> None:
    alert_id = FleetOfFour(store).alert(1)
    table = tmp_path / "features.csv"
    assert "counts when another" in ask("four-eyes", "on", "--by", "chief")
    assert "counts when another" in ask("outcome", alert_id, "theft", "--meter", "flat-1", "--by", "ana")
    (case,) = map(json.loads, ask("cases", "--json").splitlines())
    assert (case["outcome"], case["unconfirmed"]) == (None, "theft")
    assert " theft?" in ask("cases")
    assert "1 to be confirmed" in ask("precision")
    assert ask("precision", "--json") == ""
    assert promise.stated(store) == []
    assert asks.found_kwh(store) == 0.0
    ask("export-features", "-o", str(table), code=1)
    for name in ("ana", " ANA ", "ａｎａ"):
        assert "somebody else" in ask("confirm", alert_id, "--by", name, "--yes", code=78)
    assert "theft at flat-1, recorded by ana" in ask("confirm", alert_id, "--by", "ben", typed="n\n", code=1)
    assert "confirmed by ben" in ask("confirm", alert_id, "--by", "ben", typed="y\n")
    (case,) = map(json.loads, ask("cases", "--json").splitlines())
    assert (case["outcome"], case["unconfirmed"]) == ("theft", None)
    assert json.loads(ask("precision", "--json"))["inspected"] == 1
    assert asks.found_kwh(store) == 24.0
    ask("export-features", "-o", str(table))
    assert len(list(csv.DictReader(table.open(newline="")))) == 2
    # Told anew, it waits anew: also if it says the same.
    ask("outcome", alert_id, "theft", "--by", "ben")
    assert ask("precision", "--json") == ""
    assert "at once" in ask("four-eyes", "off", "--by", "chief")
    assert json.loads(ask("precision", "--json"))["inspected"] == 1
    log = store.rows("SELECT who, action, detail FROM audit WHERE role = 'shell' ORDER BY who, action, detail")
    assert log == [
        ("ana", "outcome", "theft flat-1"), ("ben", "confirm", None), ("ben", "outcome", "theft"),
        ("chief", "four-eyes", "off"), ("chief", "four-eyes", "on"),
    ]  # fmt: skip


def test_only_what_was_seen_is_confirmed_and_only_once(store: Store) -> None:
    alert_id = FleetOfFour(store).alert(1)
    with pytest.raises(StoreMisfit, match="nothing to confirm"):
        outcomes.confirm(store, alert_id, None, "ben", NOW_S)
    outcomes.record(store, alert_id, None, Found("theft", None, NOW_S, None, "ana"), NOW_S)
    seen = outcomes.standing(store, alert_id, None)
    assert seen is not None
    # The same millisecond, or a clock that is behind: the later word stands all the same.
    outcomes.record(store, alert_id, None, Found("nothing", None, NOW_S, None, "ana"), NOW_S - 60)
    with pytest.raises(StoreMisfit, match="changed in the meantime"):
        outcomes.confirm(store, alert_id, None, "ben", NOW_S, seen_ms=seen.recorded_ms)
    now = outcomes.standing(store, alert_id, None)
    assert now is not None
    assert now.outcome == "nothing"
    assert outcomes.confirm(store, alert_id, None, "ben", NOW_S, seen_ms=now.recorded_ms).outcome == "nothing"
    with pytest.raises(StoreMisfit, match="ben has confirmed"):
        outcomes.confirm(store, alert_id, None, "carl", NOW_S)
    assert store.rows("SELECT outcome, inspector, confirmed_by FROM outcome") == [("nothing", "ana", "ben")]


def test_it_may_be_turned_on_and_off_within_a_moment(store: Store) -> None:
    for on in (True, False, True, True, False):
        four_eyes.decide(store, on, "chief", "shell", NOW_S)
        assert four_eyes.needed(store) is on


def test_an_outcome_of_which_nobody_is_named_may_be_confirmed_by_anybody() -> None:
    assert not four_eyes.same_person(None, "ana")
    assert four_eyes.same_person("Straße", "STRASSE")
    assert four_eyes.same_person("ana", "ana\u200b")  # which looks the same
    assert not four_eyes.same_person("ana", "anna")


@pytest.mark.parametrize("nobody", ["", "  ", "\u200b"])
def test_nobody_says_nothing(store: Store, ask: Any, nobody: str) -> None:
    alert_id = FleetOfFour(store).alert(1)
    ask("outcome", alert_id, "theft", "--by", "ana")
    for words in (["outcome", alert_id, "theft"], ["confirm", alert_id, "--yes"], ["four-eyes", "on"]):
        assert "say who you are" in ask(*words, "--by", nobody, code=2)
    assert store.rows("SELECT who FROM audit") == [("ana",)]


def test_the_day_of_an_inspection_is_not_to_come(store: Store, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alert_id = FleetOfFour(store).alert(1)
    monkeypatch.setattr(SystemClock, "now", lambda _: 1_767_643_200.0)  # 2026-01-05, 20 h UTC
    monkeypatch.setenv("TZ", "UTC-14")  # where it is 10 h on the 6th
    time.tzset()
    try:
        ask("outcome", alert_id, "nothing", "--by", "ana", "--on", "2026-01-06")
        assert "is still to come" in ask("outcome", alert_id, "nothing", "--by", "ana", "--on", "2026-01-07", code=2)
    finally:
        monkeypatch.undo()
        time.tzset()
