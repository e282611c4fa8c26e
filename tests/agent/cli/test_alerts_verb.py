"""`checkmeter alerts` over a store that an agent has written."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.alerts.book import AlertBook
from agent.alerts.condition import Condition
from agent.cli.main import cli
from agent.process.exit_codes import INPUT_OUTPUT
from agent.store.commit import Commit
from agent.store.messages import Priority, alert_message
from agent.store.store import Store
from agent.wire.topics import Address
from core.evidence import Evidence, LossKind, Residual, Suspect


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site.toml"
    site.write_text(
        f'[site]\nsite = "s"\ngateway = "g"\n[store]\npath = "{tmp_path}/store.sqlite"\n'
        '[[meter]]\nid = "main"\n[[meter]]\nid = "f1"\n[[zone]]\nid = "b"\nmain = "main"\nsubs = ["f1"]\n'
    )
    return site


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["alerts", *map(str, arguments)])


def test_the_last_transition_of_each_alert_newest_first(site: Path) -> None:
    now_s = time.time() - 86400
    book = AlertBook(Address("t", "s", "g"))
    theft = Evidence(
        zone="b", time_s=now_s, active=True, episode=0, kind=LossKind.BYPASS, onset_s=now_s - 7200,
        onset_window_s=(now_s - 9000, now_s - 6000), loss_w=412.0, loss_w_interval=(370.0, 450.0), loss_kwh=1.0,
        suspects=(Suspect("f1", 0.93),), upstream_probability=0.02, residual=Residual(1, 2, 0.1, 0.1), coverage=1.0,
    )  # fmt: skip
    events = book.apply([theft]) + book.observe(
        [Condition("meter_fault", True, now_s + 60, now_s, meter="f1", detail="frozen")]
    )
    events += book.acknowledge(events[0].data.alert_id, "ops", now_s + 120)
    store = Store(site.parent / "store.sqlite", now_s)
    store.commit(Commit([alert_message(e) for e in events]), now_s)
    store.delete([o.id for o in store.pending(10, [Priority.ALERT]) if o.message.key != events[2].id])
    shown = run(site)
    assert shown.exit_code == 0, shown.output
    first, second = shown.output.splitlines()
    assert "updated   critical  bypass zone/b  412 W since" in first
    assert "f1 (93%)" in first
    assert first.endswith("(waits for the broker)")
    assert "meter_fault meter/f1  frozen" in second
    assert len(run(site, "--all").output.splitlines()) == 3
    bodies = [json.loads(line) for line in run(site, "--json", "--all").output.splitlines()]
    assert [b["id"] for b in bodies] == [events[2].id, events[1].id, events[0].id]
    assert run(site, "--days", "0.5").output == "no alert within 0.5 days\n"
    store.close()


def test_no_store_yet_and_a_file_that_is_none(site: Path) -> None:
    before = sorted(site.parent.iterdir())
    missing = run(site)
    assert missing.exit_code == INPUT_OUTPUT
    assert "there is no store" in missing.output
    (site.parent / "store.sqlite").write_text("no store")
    foreign = run(site)
    assert foreign.exit_code == INPUT_OUTPUT
    assert "is it a store of checkmeter" in foreign.output
    for verb in (["forecast", str(site)], ["report", "a", "--site", str(site), "-o", str(site.parent / "page.html")]):
        done = CliRunner().invoke(cli, verb)
        assert (done.exit_code, "is it a store of checkmeter" in done.output) == (INPUT_OUTPUT, True), verb
    for name in ("none.sqlite", "store.sqlite"):
        words = ["report", "a", "--store", f"sqlite:///{site.parent / name}", "-o", str(site.parent / "page.html")]
        assert CliRunner().invoke(cli, words).exit_code == INPUT_OUTPUT, name
    assert sorted(site.parent.iterdir()) == sorted([*before, site.parent / "store.sqlite"]), "asking makes no store"
