"""Kept answers: asked for once, shown while they are renewed, never older than a limit, and untrue after a change."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import pytest

from agent.utility.web.reads import FRESH_S, STALE_S, Kept
from tests.agent.utility.conftest import until


class Here:
    """Stands for the stores: each thread has one of its own."""

    def here(self) -> Any:
        return threading.get_ident()

    def apart(self) -> Any:
        return nullcontext(threading.get_ident())


class Watch:
    def __init__(self) -> None:
        self.now_s, self.asked, self.gate = 0.0, [], threading.Event()
        self.gate.set()
        self.kept = Kept(Here(), lambda: self.now_s)  # type: ignore[arg-type]

    def ask(self, _: Any) -> int:
        self.asked.append(threading.get_ident())
        assert self.gate.wait(10)
        return len(self.asked)

    def get(self) -> int:
        return self.kept.get("x", self.ask)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_many_who_come_at_once_ask_once(watch: Watch) -> None:
    watch.gate.clear()
    got: list[int] = []
    crowd = [threading.Thread(target=lambda: got.append(watch.get())) for _ in range(8)]
    for one in crowd:
        one.start()
    until(lambda: len(watch.asked) == 1, "one of them asks")
    watch.gate.set()
    for one in crowd:
        one.join(10)
    assert got == [1] * 8
    assert len(watch.asked) == 1


def test_what_is_old_is_shown_while_another_thread_asks_again(watch: Watch) -> None:
    assert watch.get() == 1
    watch.now_s = FRESH_S
    assert (watch.get(), len(watch.asked)) == (1, 1)
    watch.now_s += 1
    watch.gate.clear()
    assert [watch.get() for _ in range(5)] == [1] * 5, "nobody waits"
    until(lambda: len(watch.asked) == 2, "it is asked again, once")
    watch.gate.set()
    until(lambda: watch.get() == 2, "the new answer is there")
    assert watch.asked[1] != threading.get_ident(), "with a connection of that thread's"


def test_a_dear_answer_is_asked_for_less_often(watch: Watch) -> None:
    def get() -> int:
        return watch.kept.get("x", watch.ask, fresh_s=900.0)

    assert get() == 1
    watch.now_s = 900.0
    assert (get(), len(watch.asked)) == (1, 1)
    watch.now_s = 1800.0
    assert get() == 1, "shown while it is asked for again"
    until(lambda: get() == 2, "the new answer is there")
    watch.now_s = 3601.0
    assert get() == 3, "too old to be shown"


def test_what_is_too_old_is_not_shown(watch: Watch) -> None:
    watch.get()
    watch.now_s = STALE_S + 1
    assert watch.get() == 2


def test_a_renewal_that_fails_leaves_the_old_answer_until_it_is_too_old(watch: Watch) -> None:
    def fail(_: Any) -> int:
        watch.asked.append(0)
        raise OSError("away")

    watch.get()
    watch.now_s = FRESH_S + 1
    assert watch.kept.get("x", fail) == 1
    until(lambda: not watch.kept._renewing, "the renewal has failed")
    assert watch.kept.get("x", fail) == 1
    watch.now_s = STALE_S + 1
    with pytest.raises(OSError, match="away"):
        watch.kept.get("x", fail)


def test_a_change_makes_what_was_kept_and_what_is_being_asked_untrue(watch: Watch) -> None:
    assert watch.get() == 1
    watch.kept.forget("x")
    assert watch.get() == 2
    watch.now_s = FRESH_S + 1
    watch.gate.clear()
    assert watch.get() == 2
    until(lambda: len(watch.asked) == 3, "it is being asked")
    watch.kept.forget("x")
    watch.gate.set()
    until(lambda: not watch.kept._renewing, "the renewal has ended")
    assert watch.get() == 4, "what was begun before the change is not kept"
    watch.kept.forget("y")
    assert watch.get() == 4
