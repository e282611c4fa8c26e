"""One bus and the pipeline behind it, over the real protocol: catching up, polling, faults, restarts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agent.pipeline.inbox import Batch, CaughtUp
from agent.polling.bus_conditions import LOSS_S
from firmware_io.obis import ENERGY_IMPORT

FAULT = '[[simulation.fault]]\nkind = "{kind}"\nmeter = "{meter}"\n{more}\n'


def alerts(rig, kind: str) -> list[tuple[str, str | None]]:
    """(state, meter or bus) of the alert events of a kind."""
    data = [event.data for event in rig.events() if event.type == "checkmeter.alert.v1"]
    return [(d.state, d.meter or d.bus) for d in data if d.kind == kind]


def test_catching_up_brings_every_meters_rows_at_common_boundaries(make_rig) -> None:
    rig = make_rig()
    rig.thread.catch_up(rig.stop, None)
    (caught,) = rig.taken()
    assert isinstance(caught, CaughtUp)
    assert caught.stored.meters == ("main", "flat-1", "flat-2", "flat-3")
    times = caught.stored.times_s
    assert 3 * 96 - 2 <= len(times) <= 3 * 96 + 2
    assert np.all(np.diff(times) == 900)
    assert np.all(times % 900 == 0)
    main, *subs = np.diff(caught.stored.wh, axis=0).T
    assert sum(main) == pytest.approx(sum(map(sum, subs)), rel=0.05)
    assert sum(main) > sum(map(sum, subs))


def test_what_was_stored_becomes_history_and_a_restart_asks_only_for_the_rest(make_rig) -> None:
    rig = make_rig()
    rig.catch_up()
    rows = rig.store.history(-math.inf, math.inf, rig.pipeline.meters)
    assert len(rows) > 280
    rig.clock.move(2 * 3600)
    rig.restart()
    assert rig.known_s == rows.times_s[-1]
    rig.thread.catch_up(rig.stop, rig.known_s)
    (caught,) = rig.taken()
    assert caught.stored.wh.shape == (8, 4)
    assert not np.isnan(caught.stored.wh).any()
    rig.worker.take([caught])
    again = rig.store.history(-math.inf, math.inf, rig.pipeline.meters)
    np.testing.assert_array_equal(again.times_s, rows.times_s[0] + 900 * np.arange(len(rows) + 8))


def rows_read(rig, cycles: int) -> dict[str, list[float]]:
    """The times of the profile rows that so many cycles read, by meter."""
    exact: dict[str, list[float]] = {}
    for _ in range(cycles):
        rig.thread.cycle(rig.stop)
        items = rig.taken()
        for sample in (s for item in items if isinstance(item, Batch) for s in item.samples):
            assert sample.uncertainty_s < 2
            if sample.from_profile:
                exact.setdefault(sample.meter, []).append(sample.time_s)
        rig.worker.take(items)
        rig.clock.move(58)
    return exact


def test_polls_become_samples_and_a_boundary_is_read_exactly(make_rig) -> None:
    rig = make_rig()
    rig.catch_up()
    exact = rows_read(rig, 31)
    assert set(exact) == {"main", "flat-1", "flat-2", "flat-3"}
    assert all(len(times) == 2 and all(t % 900 == 0 for t in times) for times in exact.values())
    balances = [o.message for o in rig.store.pending(100, [3])]
    assert len(balances) >= 2
    view = rig.worker.view.balances["building"]
    assert view.coverage == 1.0
    assert view.main_kwh == pytest.approx(view.sum_kwh, rel=0.2, abs=0.05)


def test_after_a_quick_restart_boundaries_are_read_exactly_too(make_rig) -> None:
    rig = make_rig()
    rig.catch_up()
    rig.restart()  # before any meter has stored another row
    rig.catch_up()
    exact = rows_read(rig, 31)
    assert {meter: len(times) for meter, times in exact.items()} == {"main": 2, "flat-1": 2, "flat-2": 2, "flat-3": 2}


def test_a_meter_that_comes_late_is_read_exactly_and_only_what_can_still_be_judged(make_rig) -> None:
    rig = make_rig(FAULT.format(kind="silence", meter="flat-2", more='until = "+3h"'))
    rig.catch_up()
    rig.cycles(170)
    exact = rows_read(rig, 60)
    assert len(exact["flat-2"]) >= 2
    assert min(exact["flat-2"]) > rig.clock.now() - 3 * 3600
    assert rig.pipeline.unusable["too late"] == 0


def test_polling_goes_on_while_rows_are_awaited_and_the_boundary_is_held_open_for_them(make_rig) -> None:
    rig = make_rig(poll_s=5)
    rig.thread.catch_up(rig.stop, None)
    rig.work()
    longest_s, polled_before_row, seen = 0.0, 0, set()
    for _ in range(250):  # a little over a quarter of an hour, so one boundary has a row
        began_s = rig.clock.monotonic()
        closed_s = rig.pipeline.next_s
        rig.thread.cycle(rig.stop)
        longest_s = max(longest_s, rig.clock.monotonic() - began_s)
        for item in rig.taken():
            rig.worker.take([item])
            exact = {s.meter for s in item.samples if s.from_profile}
            polled_before_row += bool(item.samples) and not exact and rig.clock.now() % 900 < 60
            if exact:
                assert rig.pipeline.next_s == closed_s or seen | exact == set(rig.thread.watches)
                seen |= exact
        rig.clock.move(max(0.0, began_s + 5.0 - rig.clock.monotonic()))
    assert seen == {"main", "flat-1", "flat-2", "flat-3"}
    assert polled_before_row > 4
    assert longest_s < 5.0  # no cycle waited fifteen seconds, and rows took only what the polls left
    (row,) = rig.store.history(rig.clock.now() - 1000, rig.clock.now(), rig.pipeline.meters).sd_wh[-1:]
    assert row.max() == pytest.approx(10 / 12**0.5)  # exact in time: only the register's step is left


def test_where_the_polls_fill_the_cycle_rows_are_read_all_the_same_two_a_cycle(make_rig) -> None:
    rig = make_rig(poll_s=0.001)
    rig.thread.catch_up(rig.stop, None)
    rig.work()
    exact: dict[str, int] = {}
    while len(exact) < 4:
        rig.thread.cycle(rig.stop)
        rows = [s.meter for item in rig.taken() for s in item.samples if s.from_profile]
        assert len(rows) <= 2
        exact |= dict.fromkeys(rows, 1)
    assert rig.clock.now() % 900 < 300  # while the boundary can still be closed with them


def test_a_silent_meter_is_told_after_a_while_and_when_it_is_back(make_rig) -> None:
    rig = make_rig(FAULT.format(kind="silence", meter="flat-2", more='onset = "+1h"\nuntil = "+3h"'))
    rig.catch_up()
    rig.cycles(40)
    assert alerts(rig, "communication_loss") == []
    rig.cycles(60 - 40 + int(LOSS_S / 60) + 10)
    assert alerts(rig, "communication_loss") == [("raised", "flat-2")]
    assert rig.thread.watches["flat-2"].silent
    assert not rig.thread.watches["flat-1"].silent
    rig.cycles(200)
    assert not rig.thread.watches["flat-2"].silent
    assert alerts(rig, "communication_loss") == [("raised", "flat-2"), ("cleared", "flat-2")]
    assert rig.pipeline.unusable["too late"] == 0  # rows of the gap are not asked for in vain


def test_a_dead_line_is_one_alert_of_the_bus(make_rig) -> None:
    rig = make_rig()
    rig.catch_up()
    rig.cycles(3)
    rig.unplugged = True
    rig.thread._bus.close()
    rig.cycles(30)
    assert alerts(rig, "communication_loss") == [("raised", "line")]
    assert rig.thread.health().state == "down"
    assert rig.thread.health().errors["transport"] > 3
    rig.unplugged = False
    rig.cycles(200)
    assert alerts(rig, "communication_loss")[-1] == ("cleared", "line")
    assert {meter for _, meter in alerts(rig, "communication_loss")} == {"line"}


def test_a_line_that_fails_while_catching_up_is_asked_again(make_rig) -> None:
    rig = make_rig(FAULT.format(kind="silence", meter="flat-1", more='until = "+20s"'))
    rig.catch_up()
    assert not math.isnan(rig.store.history(-math.inf, math.inf, ["flat-1"]).wh[100, 0])


def test_a_full_queue_skips_polls_counts_them_and_keeps_what_is_not_repeated(make_rig) -> None:
    rig = make_rig(FAULT.format(kind="silence", meter="flat-2", more='onset = "+1m"'))
    rig.catch_up()
    rig.cycles(1)
    for _ in range(1000):
        rig.inbox.put_nowait(Batch())
    for _ in range(30):
        rig.thread.cycle(rig.stop)
        rig.clock.move(60)
    assert rig.thread.skipped > 50
    assert all(item == Batch() for item in rig.taken())
    rig.cycles(1)
    assert alerts(rig, "communication_loss") == [("raised", "flat-2")]


def test_another_serial_number_than_expected_is_a_fault(make_rig) -> None:
    rig = make_rig(meter='serial = "X1"')
    rig.catch_up()
    rig.cycles(2)
    assert alerts(rig, "meter_fault") == [("raised", "flat-1")]
    (fault,) = [e.data for e in rig.events() if e.type == "checkmeter.alert.v1" and e.data.kind == "meter_fault"]
    assert "expected X1" in (fault.detail or "")


def test_an_opened_cover_reaches_the_outbox_once(make_rig) -> None:
    rig = make_rig(FAULT.format(kind="cover", meter="flat-3", more='onset = "+20m"'))
    rig.catch_up()
    rig.cycles(60)
    tampers = [e.data for e in rig.events() if e.type == "checkmeter.tamper.v1"]
    assert [(t.meter, t.kind, t.state) for t in tampers if t.state == "detected"] == [
        ("flat-3", "meter_cover", "detected")
    ]


def test_the_current_transformers_ratio_is_applied_once(make_rig) -> None:
    rig = make_rig(meter="ct_ratio = 40")
    rig.thread.catch_up(rig.stop, None)
    (caught,) = rig.taken()
    rig.thread.cycle(rig.stop)
    shown = next(r.value for r in rig.thread._bus.poll("flat-1") if r.obis == ENERGY_IMPORT)
    assert rig.thread.watches["flat-1"].import_wh == pytest.approx(40 * shown, rel=1e-4)
    assert caught.stored.wh[-1, 1] == pytest.approx(40 * shown, rel=1e-3)
    samples = [s for item in rig.taken() for s in item.samples if s.meter == "flat-1"]
    assert samples[0].import_wh == pytest.approx(40 * shown, rel=1e-4)


def test_a_bus_thread_that_fails_begins_again_and_is_counted(make_rig, caplog, monkeypatch) -> None:
    """No thread dies alone: an error that nobody foresaw costs a pause, not the line."""
    rig = make_rig()
    monkeypatch.setattr("agent.polling.bus_thread.RESTART_S", 0.001)
    bus, cycle, cycles = rig.thread, rig.thread.cycle, []

    def fail_twice_then_read(stop) -> None:
        cycles.append(1)
        if len(cycles) <= 2:
            raise ZeroDivisionError("a register that nobody foresaw")
        cycle(stop)
        if len(cycles) == 6:
            stop.set()

    monkeypatch.setattr(bus, "cycle", fail_twice_then_read)
    bus.run(rig.stop, None)
    assert bus.failures == 2
    assert all(watch.readings >= 2 for watch in bus.watches.values()), [w.readings for w in bus.watches.values()]
    assert caplog.text.count("begins again in") == 2
    caught_up = [item for item in rig.taken() if hasattr(item, "stored")]
    assert len(caught_up) == 1, "what the meters stored is asked for once"
