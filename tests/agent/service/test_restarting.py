"""A killed agent goes on where its last commit was: open alerts, detector, history, and a changed site file."""

from __future__ import annotations

import itertools
import logging
import math
import threading

import numpy as np
import pytest

from agent.pipeline import checkpoint
from agent.pipeline.pipeline import Pipeline
from agent.pipeline.step import Step
from agent.pipeline.worker import Worker
from agent.store.store import Store
from core.registers.align import Flag

PORTION = 192  # rows of two days

SILENCE = '[[simulation.fault]]\nkind = "silence"\nmeter = "flat-2"\nonset = "+10m"\nuntil = "+2h"\n'
THEFT = '[[simulation.theft]]\nkind = "bypass"\nmeter = "flat-2"\nonset = "-5d"\n'


def raised(rig) -> list[tuple[str, str, int]]:
    events = [e.data for e in rig.events() if e.type == "checkmeter.alert.v1"]
    return [(d.state, d.alert_id, d.revision) for d in events if d.kind == "communication_loss"]


def test_an_open_alert_survives_a_kill_and_is_cleared_under_its_own_id(make_rig) -> None:
    rig = make_rig(SILENCE)
    rig.catch_up()
    rig.cycles(45)
    ((_, alert_id, _),) = raised(rig)
    rig.restart()
    assert [alert.alert_id for alert in rig.worker.view.alerts] == [alert_id]
    rig.catch_up()
    rig.cycles(30)
    assert raised(rig) == [("raised", alert_id, 1)]
    rig.cycles(160)
    assert raised(rig) == [("raised", alert_id, 1), ("cleared", alert_id, 2)]


def test_the_detector_goes_on_without_a_word_and_without_a_gap(make_rig, caplog: pytest.LogCaptureFixture) -> None:
    rig = make_rig(history_days=10)
    rig.catch_up()
    rig.cycles(40)
    before = rig.store.history(-math.inf, math.inf, rig.pipeline.meters).times_s.tolist()
    with caplog.at_level(logging.WARNING):
        rig.clock.move(3600)
        rig.restart()
        rig.catch_up()
        rig.cycles(40)
    assert "starts anew" not in caplog.text
    after = rig.store.history(-math.inf, math.inf, rig.pipeline.meters).times_s.tolist()
    assert after[: len(before)] == before
    assert all(later - earlier == 900 for earlier, later in itertools.pairwise(after))
    assert after[-1] > before[-1] + 5000


def test_a_changed_site_costs_the_checkpoint_but_not_the_history(make_rig, caplog: pytest.LogCaptureFixture) -> None:
    rig = make_rig(history_days=5)
    rig.catch_up()
    rows = len(rig.store.history(-math.inf, math.inf, rig.pipeline.meters))
    zone = rig.config.zone[0]
    rig.config.zone[0] = type(zone)(id=zone.id, main=zone.main, subs=zone.subs[:2])
    with caplog.at_level(logging.WARNING):
        rig.restart()
        rig.catch_up()
    assert "starts anew from" in caplog.text
    rig.cycles(20)
    assert rig.worker.view.balances["building"].coverage == 1.0
    assert len(rig.store.history(-math.inf, math.inf, rig.pipeline.meters)) > rows


def test_a_stop_in_the_middle_of_a_first_start_loses_nothing(make_rig) -> None:
    rig = make_rig(history_days=10)
    rig.thread.catch_up(rig.stop, None)
    beat = rig.worker.heartbeat.beat

    def stopped_after_the_first_portion() -> None:
        beat()
        rig.worker._stop.set()

    rig.worker.heartbeat.beat = stopped_after_the_first_portion
    rig.work()
    begun = rig.store.history(-math.inf, math.inf, rig.pipeline.meters).times_s.tolist()
    assert len(begun) == PORTION
    rig.restart()
    assert rig.known_s == begun[-1]
    rig.catch_up()
    rows = rig.store.history(-math.inf, math.inf, rig.pipeline.meters).times_s.tolist()
    assert rows[:PORTION] == begun
    assert len(rows) > 950
    assert all(later - earlier == 900 for earlier, later in itertools.pairwise(rows))


def test_an_alert_that_was_raised_but_not_committed_arrives_once_under_the_same_id(
    make_rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(THEFT, history_days=24, flats=6)
    rig.thread.catch_up(rig.stop, None)
    losses = []
    commit = Worker._commit

    def fail_at_the_first_loss(worker: Worker, step: Step, *rest: object) -> None:
        losses.extend(event.data for event in step.alerts)
        if losses:
            raise ZeroDivisionError
        commit(worker, step, *rest)

    with monkeypatch.context() as broken:
        broken.setattr(Worker, "_commit", fail_at_the_first_loss)
        rig.worker.run(threading.Event())  # the failed step ends it, nobody else
    assert rig.worker.failure == "ZeroDivisionError: "
    assert "a step failed" in caplog.text
    lost = losses[0]
    assert lost.state == "raised"
    assert lost.revision == 1
    assert [alert.alert_id for alert in rig.book.active(0.0).alerts] == [lost.alert_id]  # open in memory,
    assert rig.events() == []  # and on the way to nobody
    rig.restart()
    assert rig.worker.view.alerts == []
    rig.catch_up()
    rig.cycles(20)
    told = [e.data for e in rig.events() if e.type == "checkmeter.alert.v1" and e.data.state == "raised"]
    assert [alert.alert_id for alert in told] == [lost.alert_id]
    assert told[0].onset == lost.onset


def test_a_failed_step_keeps_nothing_of_a_condition_that_was_not_told(
    make_rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buses say a change once: it is a new start, with new buses, that says it again."""
    rig = make_rig(SILENCE)
    rig.catch_up()
    with monkeypatch.context() as broken:
        broken.setattr(Store, "commit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rig.cycles(60)
    assert raised(rig) == []
    rig.restart()
    rig.catch_up()
    rig.cycles(60)
    assert [said for said, _, _ in raised(rig)] == ["raised"]


def test_a_checkpoint_that_turns_out_unusable_halfway_changes_nothing(make_rig) -> None:
    rig = make_rig(history_days=10)
    rig.catch_up()
    history = rig.store.history(-math.inf, math.inf, rig.pipeline.meters)
    values = checkpoint.join(rig.store.checkpoints("pipeline"))
    fresh = Pipeline(rig.config, rig.book)
    before = fresh._checkpoint()
    for name in ("0.x", "aligner.spread_w2"):
        with pytest.raises(ValueError, match="broadcast"):
            fresh.restore(checkpoint.split({**values, name: np.zeros(3)}), history)
    assert fresh._checkpoint() == before
    fresh.restore(checkpoint.split(values), history)
    assert fresh._checkpoint() == rig.store.checkpoints("pipeline")


def _registers_wh(rig, time_s: float) -> np.ndarray:
    """What the meters' registers say at a time, without their resolution."""
    return np.array([rig.site.building.energy_wh(meter, time_s)[0] for meter in rig.pipeline.meters])


def _history(rig):
    return rig.store.history(-math.inf, math.inf, rig.pipeline.meters)


@pytest.mark.parametrize("silent", ["", SILENCE.replace('"+10m"', '"+40m"').replace('"+2h"', '"+3h"')])
def test_rows_that_go_through_again_end_at_the_registers(
    make_rig, caplog: pytest.LogCaptureFixture, silent: str
) -> None:
    """The stored rows are booked energies, which count from the first reading: the next register is no jump."""
    rig = make_rig(silent, history_days=5)
    rig.catch_up()
    rig.cycles(70)  # in the second case, a meter is silent at the last of them
    hole_s = float(_history(rig).times_s[-100])
    rig.store._database.connection.execute("DELETE FROM history WHERE time_s = ?", (hole_s,))  # the disk was full
    with caplog.at_level(logging.WARNING):
        rig.clock.move(4 * 3600)
        rig.restart()
        rig.catch_up()
        assert "a hole" in caplog.text
        rig.cycles(40)
        rig.restart()  # the checkpoint that was made then is one that can be used
        rig.catch_up()
        rig.cycles(20)
    assert caplog.text.count("starts anew") == 1
    after = _history(rig)
    assert not np.any(after.flags[1:] & (Flag.JUMP | Flag.REPLACED | Flag.FIRST | Flag.NEVER_READ))
    truth = _registers_wh(rig, after.times_s[-1]) - _registers_wh(rig, after.times_s[0])
    np.testing.assert_allclose(after.wh[-1] - after.wh[0], truth, atol=60.0)  # of the reading's time


def test_where_the_registers_are_forgotten_one_row_is_unknown_and_none_is_wrong(make_rig) -> None:
    rig = make_rig(history_days=5)
    rig.catch_up()
    zone, known_s = rig.config.zone[0], float(_history(rig).times_s[-1])
    rig.config.zone[0] = type(zone)(id=zone.id, main=zone.main, subs=zone.subs[:2])  # another site: no checkpoint
    rig.restart()
    rig.catch_up()
    rig.cycles(40)
    after = _history(rig)
    first = int(np.searchsorted(after.times_s, known_s)) + 1
    assert np.all(after.flags[first] == Flag.FIRST)
    assert not np.any(after.flags[first + 1 :] & (Flag.JUMP | Flag.REPLACED))
    truth = _registers_wh(rig, after.times_s[-1]) - _registers_wh(rig, after.times_s[first])
    np.testing.assert_allclose(after.wh[-1] - after.wh[first], truth, atol=60.0)
    truth = _registers_wh(rig, known_s) - _registers_wh(rig, after.times_s[0])
    np.testing.assert_allclose(after.wh[first - 1] - after.wh[0], truth, atol=60.0)  # and the past stays as it was
