"""An agent to be killed: the real store, alert book and publisher over a world of thefts that begin and end.

When they do is a pure function of the step. How large they look is not: like a real meter, the world never gives the
same reading twice, so a step that is done again after a kill says something else, and an alert of which only half was
committed shows.

Started once by the test, it imports everything and then forks a child for each line of JSON on its standard input, so
that hundreds of agents can be killed in a minute. A child goes on from the last checkpoint, as an agent does. It kills
itself (SIGKILL) at the n-th time that the named step is reached, or is killed from outside, or ends in order.

    {"path": ..., "port": ..., "steps": 200, "noise": 7, "kill": ["store.before-commit", 3] | null, "finish": false}

Answers, one line each: {"pid": n} at the fork, {"ended": wait status} at the end.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from agent.alerts.book import AlertBook
from agent.site.tables import Mqtt
from agent.store.commit import Commit
from agent.store.messages import alert_message, balance_message
from agent.store.store import Store
from agent.uplink.publisher import Publisher
from agent.uplink.send_window import Pace
from agent.wire.events import AlertEvent
from agent.wire.state import Balance
from agent.wire.topics import Address
from agent.wire.values import utc
from core.evidence import Evidence, LossKind, Residual, Suspect
from core.registers.booked import HistoryRow

T0 = 1_767_225_600.0
INTERVAL_S = 7200.0  # so that a theft begins more than a day after the last one of its zone: no flapping
ZONES = 6
ADDRESS = Address("acme", "riverside-12", "gw-0012")
PACE = Pace(start_jitter_s=0.02, pause_s=0.05, pause_limit_s=0.2, silence_s=2.0, backoff_s=0.02, backoff_limit_s=0.1)


def active(zone: int, step: int) -> bool:
    """Whether there is a theft in a zone at a step."""
    return (step + 7 * zone) % 40 < 25


def world(step: int, noise: random.Random) -> list[Evidence]:
    """What the detector says at a step: each zone has thefts that begin, change and end."""
    said = []
    for zone in range(ZONES):
        phase = step + 7 * zone
        episode, age = divmod(phase, 40)
        draw = random.Random(f"{zone}/{episode}")
        watts = draw.uniform(50, 900) * (1 + age // 10) * noise.uniform(0.98, 1.02)
        probability = min(0.98, 0.3 + 0.03 * age)
        time_s = T0 + INTERVAL_S * step
        onset_s = T0 + INTERVAL_S * (step - age) - noise.uniform(600, 6000)
        said.append(
            Evidence(
                zone=f"zone-{zone}",
                time_s=time_s,
                active=active(zone, step),
                episode=episode,
                kind=LossKind.BYPASS,
                onset_s=onset_s,
                onset_window_s=(onset_s - 900, onset_s + 900),
                loss_w=watts,
                loss_w_interval=(0.9 * watts, 1.1 * watts),
                loss_kwh=watts * age * 0.25e-3,
                suspects=(Suspect(f"flat-{draw.randrange(40)}", probability),),
                upstream_probability=0.01,
                residual=Residual(watts * 0.25e-3, watts / 300, 0.01, 0.05),
                coverage=1.0,
            )
        )
    return said


def balance(step: int) -> Balance:
    """One balance message."""
    end_s = T0 + INTERVAL_S * step
    return Balance(
        zone="zone-0", start=utc(end_s - INTERVAL_S), end=utc(end_s), main_kwh=1.0, sum_kwh=0.9,
        technical_loss_kwh=0.01, residual_kwh=0.09, uncertainty_kwh=0.01, coverage=1.0,
    )  # fmt: skip


def live(path: str, port: int, steps: int, noise: random.Random, probe: Callable[[str], None], finish: bool) -> None:
    """From the last checkpoint to step `steps`; then until the outbox is empty (`finish`), or for ever."""
    probe("agent.begin")
    store = Store(path, T0, history_days=10_000, probe=probe)
    probe("agent.opened")
    book = AlertBook(ADDRESS)
    saved, at = store.checkpoint("alerts"), store.checkpoint("step")
    if saved is not None and at is not None:
        book.restore(saved)
    step = int(at or b"0")
    publisher = Publisher(
        Mqtt(url=f"mqtt://127.0.0.1:{port}"), ADDRESS, store, lambda: T0 + INTERVAL_S * step, lambda down: True, {},
        pace=PACE, probe=probe,
    )  # fmt: skip
    thread = threading.Thread(target=publisher.run, daemon=True)
    thread.start()
    while step < steps:
        probe("agent.step")
        events: list[AlertEvent] = book.apply(world(step, noise))
        probe("agent.judged")
        messages = [*map(alert_message, events), balance_message(balance(step))]
        history = [HistoryRow(T0 + INTERVAL_S * step, np.full(40, 1.0 * step), np.zeros(40), np.zeros(40, np.uint8))]
        checkpoints = {"alerts": book.state(), "step": str(step + 1).encode()}
        store.commit(Commit(messages, checkpoints, [f"m{i}" for i in range(40)], history), T0)
        step += 1
        time.sleep(0.001)
    while not finish or store.counters.messages:
        time.sleep(0.002)
    publisher.stop()
    thread.join(5)
    store.close()


def child(order: dict[str, Any]) -> None:
    """The forked agent."""
    kill = order["kill"]
    reached: dict[str, int] = {}

    def probe(name: str) -> None:
        reached[name] = reached.get(name, 0) + 1
        if kill is not None and kill[0] == name and reached[name] == kill[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    live(order["path"], order["port"], order["steps"], random.Random(order["noise"]), probe, order["finish"])
    if order.get("names"):
        with open(order["names"], "w") as file:
            json.dump(sorted(reached), file)


def main() -> None:
    """One child at a time for each order, until the input ends."""
    logging.disable(logging.ERROR)  # outages are the point here
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 0
            try:
                child(order)
            except BaseException:
                traceback.print_exc()
                status = 1
            finally:
                os._exit(status)
        print(json.dumps({"pid": pid}), flush=True)
        _, ended = os.waitpid(pid, 0)
        print(json.dumps({"ended": ended}), flush=True)


if __name__ == "__main__":
    main()
