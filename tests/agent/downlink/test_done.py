"""`done` is true: the answer to a command that changes the alert book stands in the commit that holds its effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.downlink.backend import Backend as Desk
from agent.pipeline.inbox import Batch
from agent.store.messages import Priority
from agent.uplink.publisher import Downlink
from agent.wire.codec import decode
from agent.wire.downlink import Command, CommandResult
from agent.wire.topics import Address
from agent.wire.values import utc

SILENCE = '[[simulation.fault]]\nkind = "silence"\nmeter = "flat-2"\nonset = "+10m"\nuntil = "+20h"\n'


class Publisher:
    """No broker: the room of commands only asks it what it is told at once."""

    connected = True

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


class Room:
    """A rig with an alert, and the backend's room before it."""

    def __init__(self, rig: Any, backend: Any) -> None:
        self.rig, self.backend = rig, backend
        self.address = Address(rig.config.site.tenant, rig.config.site.site, rig.config.site.gateway)
        self.acknowledged: list[str] = []  # to the broker
        self.open()

    def open(self) -> None:
        rig = self.rig

        def give(request: Any) -> bool:
            rig.inbox.put_nowait(Batch(requests=(request,)))
            return True

        self.desk = Desk(
            rig.config, None, rig.store, rig.clock, give=give, open_alerts=lambda: rig.worker.view.alerts,
            republish_all=lambda: None, send_evidence=rig.worker.evidence.send,
            take_weather=lambda *given: rig.pipeline.forecasts.take_outdoor(*given),
        )  # fmt: skip
        self.desk._desk._keys = self.backend.ring

    def send(self, name: str, command_id: str, **args: Any) -> None:
        now_s = self.rig.clock.now()
        wish = Command(
            id=command_id, target=self.address.target, name=name, issued=utc(now_s), expires=utc(now_s + 3600),
            by="ops", args=args,
        )  # fmt: skip
        payload = self.backend.signed("command", wish)
        self.desk.on_downlink(Downlink("cmd/req", payload, lambda: self.acknowledged.append(command_id)))
        self.desk.tick(Publisher(), [])  # type: ignore[arg-type]

    def answers(self) -> list[CommandResult]:
        return [decode(CommandResult, o.message.body) for o in self.rig.store.pending(100, [Priority.ANSWER])]

    def alert(self) -> Any:
        (alert,) = self.rig.book.active(0.0).alerts
        return alert


@pytest.fixture
def room(make_rig: Any, backend: Any) -> Room:
    rig = make_rig(SILENCE)
    rig.catch_up()
    rig.cycles(45)
    return Room(rig, backend)


def test_it_is_not_done_before_the_commit_and_a_kill_before_it_loses_nothing(room: Room) -> None:
    alert_id = room.alert().alert_id
    room.send("acknowledge", "c-1", alert_id=alert_id)
    assert (room.answers(), room.acknowledged) == ([], [])
    assert room.rig.store.answer_of("c-1") is None
    room.rig.restart()  # kill -9 while it waits in memory
    room.open()
    assert room.alert().acknowledged is None
    room.send("acknowledge", "c-1", alert_id=alert_id)  # unacknowledged, it comes again
    room.rig.work()
    assert room.alert().acknowledged.by == "ops"
    assert [(a.id, a.status) for a in room.answers()] == [("c-1", "done")]
    assert room.acknowledged == ["c-1"]
    room.rig.restart()
    assert room.alert().acknowledged.by == "ops"


def test_an_alert_that_is_cleared_before_its_turn_is_not_done(room: Room) -> None:
    room.send("acknowledge", "c-1", alert_id=room.alert().alert_id)
    room.rig.book._state.open.clear()
    room.rig.work()
    (answer,) = room.answers()
    assert answer.status == "failed"
    assert "no open alert has the id" in (answer.reason or "")
    assert room.acknowledged == ["c-1"]


def test_a_command_that_comes_twice_before_its_turn_is_carried_out_once(room: Room) -> None:
    for _ in range(2):
        room.send("set-mode", "c-1", mode="maintenance")
    room.rig.work()
    revision = room.rig.book.state()
    room.send("set-mode", "c-1", mode="maintenance")
    room.rig.work()
    assert room.rig.book.state() == revision
    assert {(a.id, a.status) for a in room.answers()} == {("c-1", "done")}


def test_temperatures_are_with_the_forecasts_from_then_on_also_after_a_restart(room: Room) -> None:
    now_s = room.rig.clock.now()
    start_s = now_s // 3600 * 3600 - 3 * 86_400
    room.send("weather", "c-1", start=utc(start_s), outdoor_c=[float(k % 24) for k in range(96)])
    room.rig.work()
    (answer,) = room.answers()
    assert (answer.status, answer.result) == ("done", {"measured": 73, "expected": 23})

    def hours() -> list[int]:
        rows = room.rig.pipeline.forecasts._outdoor.rows()
        return [sum(int(np.isfinite(row).sum()) for row in table.values()) for table in rows]

    assert hours() == [73, 23]
    room.rig.restart()
    assert hours() == [73, 23]
    room.rig.pipeline.reset()  # the balance begins again; the weather does not
    assert hours() == [73, 23]


@pytest.mark.parametrize("days", [-80, 12])
def test_temperatures_of_another_season_are_not_taken(room: Room, days: int) -> None:
    room.send("weather", "c-1", start=utc(room.rig.clock.now() + days * 86_400), outdoor_c=[1.0, 2.0])
    room.rig.work()
    (answer,) = room.answers()
    assert (answer.status, "last 75 days" in (answer.reason or "")) == ("failed", True)
    assert room.rig.pipeline.forecasts._outdoor.rows() == ({}, {})


@pytest.mark.parametrize("outdoor_c", [[], [99.0], ["warm"], [1.0] * 1801])
def test_what_is_no_list_of_temperatures_is_refused(room: Room, outdoor_c: list[Any]) -> None:
    room.send("weather", "c-1", start=utc(room.rig.clock.now()), outdoor_c=outdoor_c)
    room.rig.work()
    (answer,) = room.answers()
    assert answer.status == "refused"
    assert "outdoor_c" in (answer.reason or "")
