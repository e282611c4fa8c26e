"""The publisher's decisions without a socket: window, order, refusals, pace, liveness, end-to-end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.store.commit import Commit
from agent.store.messages import Message, Priority
from agent.store.store import Store
from agent.uplink.connection import endpoint
from agent.uplink.send_window import (
    ARRIVED_MAX,
    FLUSH_RETRY_S,
    NO_MATCHING_SUBSCRIBERS,
    UNACKNOWLEDGED_MAX,
    Pace,
    SendWindow,
)

T0 = 1_767_225_600.0
PACE = Pace(inflight=5, rate_per_s=1000.0, start_jitter_s=2.0)


def message(key: str, priority: Priority = Priority.ALERT, time_s: float = T0, **more: Any) -> Message:
    return Message("x", key.encode(), "checkmeter.alert.v1", priority, key, time_s, **more)


class Line:
    """An SendWindow with a clock and a broker that answers as told."""

    def __init__(self, path: Path, pace: Pace = PACE, **options: Any) -> None:
        self.store = Store(path, T0)
        self.outflow = SendWindow(self.store, pace, uniform=lambda low, high: high, **options)
        self.now_s = 100.0
        self.wall_s = T0
        self.mid = 0
        self.flying: dict[int, str] = {}
        self.store.on_commit(lambda _p: self.outflow.invalidate())

    def commit(self, *messages: Message) -> None:
        self.store.commit(Commit(messages), T0)

    def connect(self, receive_maximum: int = 65535, maximum_bytes: int | None = None) -> None:
        self.outflow.connected(self.now_s, receive_maximum, maximum_bytes)

    def send(self) -> list[str]:
        """All that may go now."""
        sent = []
        while (out := self.outflow.next(self.now_s, self.wall_s)) is not None:
            self.mid += 1
            self.flying[self.mid] = out.message.key
            self.outflow.sent(self.mid, out, self.now_s)
            sent.append(out.message.key)
        return sent

    def answer(self, reason: int = 0, *keys: str) -> None:
        """PUBACK what is in flight, or only `keys`."""
        for mid in [m for m, key in self.flying.items() if not keys or key in keys]:
            del self.flying[mid]
            self.outflow.acknowledged(mid, reason, self.now_s)

    def queued(self) -> set[str]:
        self.outflow.flush(self.now_s)
        return {o.message.key for o in self.store.pending(10_000, tuple(Priority))}


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "s.sqlite")
    yield line
    line.store.close()


def test_a_row_leaves_the_store_on_its_acknowledgement_and_not_before(line: Line) -> None:
    line.commit(message("a"), message("b", time_s=T0 + 1))
    assert line.send() == []  # no connection
    line.connect()
    assert line.send() == ["b", "a"]
    assert line.queued() == {"a", "b"}
    line.answer(0, "a")
    assert line.queued() == {"b"}


def test_what_was_in_flight_when_the_connection_ended_goes_again(line: Line) -> None:
    line.commit(message("a"))
    line.connect()
    line.send()
    line.outflow.disconnected(line.now_s)
    line.answer()  # a late answer of the old connection means nothing
    assert line.queued() == {"a"}
    line.connect()
    assert line.send() == ["a"]


def test_the_window_is_ours_or_the_brokers_whichever_is_smaller(line: Line) -> None:
    line.commit(*(message(str(n)) for n in range(20)))
    line.connect()
    assert len(line.send()) == 5
    assert line.send() == []
    line.answer(0, line.flying[1])
    assert len(line.send()) == 1
    line.outflow.disconnected(line.now_s)
    line.flying.clear()
    line.connect(receive_maximum=2)
    assert len(line.send()) == 2


def test_a_new_alert_overtakes_what_was_read_before(line: Line) -> None:
    line.commit(*(message(f"b{n}", Priority.BALANCE) for n in range(50)))
    line.connect()
    line.now_s += 5
    assert all(key.startswith("b") for key in line.send())
    line.commit(message("alert"))
    line.answer()
    assert line.send()[0] == "alert"


def test_after_a_connect_alerts_go_at_once_and_the_backlog_after_a_while(line: Line) -> None:
    line.commit(message("alert"), message("balance", Priority.BALANCE), message("tamper", Priority.TAMPER))
    line.connect()
    assert line.send() == ["alert"]
    assert line.outflow.due_s(line.now_s) <= 2.0
    line.now_s += 2.0
    assert line.send() == ["tamper", "balance"]


def test_the_backlog_is_paced(tmp_path: Path) -> None:
    line = Line(tmp_path / "s.sqlite", Pace(inflight=1000, rate_per_s=100.0, start_jitter_s=0.0))
    line.commit(*(message(f"b{n}", Priority.BALANCE) for n in range(200)))
    line.connect()
    sent = 0
    for _ in range(100):
        line.now_s += 0.01
        sent += len(line.send())
    assert 95 <= sent <= 115
    line.store.close()


def test_no_matching_subscribers_keeps_the_row_and_tries_with_one_after_growing_pauses(line: Line) -> None:
    line.commit(*(message(f"a{n}", time_s=T0 + n) for n in range(10)), message("balance", Priority.BALANCE))
    line.connect()
    line.now_s += 3
    line.send()
    line.answer(NO_MATCHING_SUBSCRIBERS)
    assert len(line.queued()) == 11
    assert line.send() == ["balance"], "the other priorities go on"
    line.answer()
    waits = []
    for _ in range(6):
        began_s = line.now_s
        while not (sent := line.send()):
            line.now_s += 0.5
        assert len(sent) == 1, "one message tries"
        line.answer(NO_MATCHING_SUBSCRIBERS)
        waits.append(line.now_s - began_s)
    assert waits == sorted(waits)
    assert waits[-1] == PACE.pause_limit_s
    line.now_s += PACE.pause_limit_s
    assert len(line.send()) == 1
    line.answer()
    assert len(line.send()) == 5, "once one is taken, all go"


def test_a_refused_row_goes_behind_its_like(line: Line) -> None:
    line.commit(message("poison", time_s=T0 + 9), message("good"))
    line.connect(receive_maximum=1)
    assert line.send() == ["poison"]
    line.answer(0x99)
    line.now_s += 60
    assert line.send() == ["good"]
    assert line.outflow.flow.last_reason == 0x99


def test_a_message_too_large_for_the_broker_is_kept_and_does_not_stop_the_others(line: Line) -> None:
    line.commit(message("large" * 1000, time_s=T0 + 1), message("small"))
    line.connect(maximum_bytes=2000)
    assert line.send() == []
    line.now_s += 60
    assert line.send() == ["small"]
    assert len(line.queued()) == 2


def test_what_is_past_its_time_is_dropped_unsent(line: Line) -> None:
    line.commit(message("old", Priority.BALANCE, expires_s=T0 - 1), message("new", Priority.BALANCE, expires_s=T0 + 1))
    line.connect()
    line.now_s += 5
    assert line.send() == ["new"]
    assert line.queued() == {"new"}


def test_alive_means_acknowledgements(line: Line) -> None:
    line.commit(*(message(str(n)) for n in range(3)))
    line.connect()
    line.now_s += 1000
    assert not line.outflow.dead(line.now_s), "nothing in flight, nothing to wait for"
    line.send()
    line.now_s += 20
    line.answer(0, "0")
    line.now_s += 20
    assert not line.outflow.dead(line.now_s)
    line.now_s += 11
    assert line.outflow.dead(line.now_s)


def test_a_slow_link_gets_the_time_that_its_octets_need(line: Line) -> None:
    line.commit(Message("x", b"." * 100_000, "s", Priority.EVIDENCE, "e", T0))
    line.connect()
    line.now_s += 5
    line.send()
    line.now_s += 100
    assert not line.outflow.dead(line.now_s)
    line.now_s += 31
    assert line.outflow.dead(line.now_s)


def test_end_to_end_waits_for_the_backend_sends_again_and_stops_when_too_many_wait(tmp_path: Path) -> None:
    line = Line(tmp_path / "s.sqlite", Pace(inflight=2000, start_jitter_s=0.0), end_to_end=True)
    line.commit(message("a"), message("t", Priority.TAMPER), message("b", Priority.BALANCE))
    line.connect()
    line.now_s += 0.1
    assert line.send() == ["a", "t", "b"]
    line.answer()
    assert line.queued() == {"a", "t"}
    assert line.send() == []
    line.now_s += 121
    assert line.send() == ["a", "t"]
    line.outflow.confirmed(["a", "t", "never heard of"])
    assert line.queued() == set()
    line.answer()
    line.commit(*(message(f"m{n}") for n in range(UNACKNOWLEDGED_MAX + 300)))
    for _ in range(10):
        line.now_s += 1
        line.send()
        line.answer()
    assert len(line.outflow._awaiting_ack) <= UNACKNOWLEDGED_MAX
    line.store.close()


def test_while_the_store_cannot_be_written_nothing_is_sent_twice(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.commit(*(message(f"a{n}") for n in range(5)))
    line.connect()
    line.send()
    monkeypatch.setattr(line.store, "delete", lambda ids: False)
    line.answer()
    line.outflow.flush(line.now_s)
    line.outflow.invalidate()
    assert line.send() == []
    monkeypatch.undo()
    line.now_s += FLUSH_RETRY_S
    assert line.queued() == set()
    assert ARRIVED_MAX > 1000


def test_a_message_whose_acknowledgement_the_broker_lost_goes_again_though_others_progress(line: Line) -> None:
    line.commit(message("a"))
    line.connect()
    assert line.send() == ["a"]
    (lost,) = line.flying
    for n in range(12):  # a broker that goes on with everything else
        line.now_s += 10.0
        line.commit(message(f"b-{n}"))
        assert line.send() == [f"b-{n}"]
        line.outflow.acknowledged(line.mid, 0, line.now_s)
        line.outflow.acknowledged(line.mid + 1000, 0, line.now_s)  # one that is not ours says nothing
        if line.outflow.dead(line.now_s):
            break
    assert n == 4  # 30 s after the first that passed it over
    line.outflow.disconnected(line.now_s)
    line.connect()
    assert line.send() == ["a"]
    assert lost != line.mid
    line.outflow.acknowledged(line.mid, 0, line.now_s)
    line.now_s += 1000.0
    assert not line.outflow.dead(line.now_s)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["commit", "send", "ack", "refuse", "cut", "connect", "later", "flush"]),
        min_size=5,
        max_size=60,
    )
)
def test_whatever_happens_every_row_is_delivered_or_still_there(tmp_path_factory: Any, story: list[str]) -> None:
    line = Line(tmp_path_factory.mktemp("s") / "s.sqlite", Pace(inflight=3, start_jitter_s=0.1))
    committed: set[str] = set()
    delivered: set[str] = set()
    for n, what in enumerate(story):
        match what:
            case "commit":
                line.commit(message(f"k{n}", [Priority.ALERT, Priority.BALANCE][n % 2], T0 + n))
                committed.add(f"k{n}")
            case "send":
                line.send()
            case "ack":
                delivered |= set(line.flying.values())
                line.answer()
            case "refuse":
                line.answer(NO_MATCHING_SUBSCRIBERS)
            case "cut":
                line.outflow.disconnected(line.now_s)
                line.flying.clear()
            case "connect":
                line.outflow.disconnected(line.now_s)
                line.flying.clear()
                line.connect()
            case "later":
                line.now_s += 30
            case "flush":
                line.outflow.flush(line.now_s)
        assert line.queued() == committed - delivered
    line.outflow.disconnected(line.now_s)
    line.flying.clear()
    line.connect()
    for _ in range(40):
        line.now_s += 30
        delivered |= set(line.send())
        line.answer()
    assert delivered == committed
    assert line.queued() == set()
    line.store.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker.example", ("broker.example", 1883, False)),
        ("mqtts://broker.example", ("broker.example", 8883, True)),
        ("mqtts://[::1]:443", ("::1", 443, True)),
    ],
)
def test_an_endpoint(url: str, expected: tuple[str, int, bool]) -> None:
    assert endpoint(url) == expected


@pytest.mark.parametrize("url", ["http://x", "broker:1883", "mqtt://", ""])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(ValueError, match="expected mqtt"):
        endpoint(url)
