"""The link's figures on this machine: latency of an alert, drain of a full outbox, resident memory.

Run by `make bench-link`. The broker and the subscriber are processes of their own, as they are in the field; the
subscriber is mosquitto_sub, so that it is not what is measured.
"""

from __future__ import annotations

import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho

from agent.alerts.book import AlertBook
from agent.alerts.condition import Condition
from agent.site.tables import Mqtt
from agent.store.commit import Commit
from agent.store.messages import Message, alert_message, balance_message
from agent.store.store import Store
from agent.uplink.publisher import Publisher
from agent.wire.state import Balance
from agent.wire.topics import Address
from agent.wire.values import utc
from core.registers.booked import HistoryRow

T0 = 1_767_225_600.0
ADDRESS = Address("acme", "riverside-12", "gw-0012")
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
QUEUED = 100_000
ALERTS = 200


def resident_mb() -> float:
    """Resident set now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def balance(n: int) -> Message:
    """The n-th balance of a zone."""
    start_s = T0 + 900.0 * n
    return balance_message(
        Balance(
            zone="building", start=utc(start_s), end=utc(start_s + 900), main_kwh=6.1234, sum_kwh=6.0,
            technical_loss_kwh=0.05, residual_kwh=0.0734, uncertainty_kwh=0.012, coverage=1.0,
        )
    )  # fmt: skip


def main() -> int:
    """Measure and print; 1 if a figure misses its mark."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        configuration = f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 200000\n"
        (folder / "mosquitto.conf").write_text(configuration + "set_tcp_nodelay true\n")
        broker = subprocess.Popen([MOSQUITTO, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            return measure(folder, port)
        finally:
            broker.terminate()
            broker.wait()


def measure(folder: Path, port: int) -> int:
    """All figures against one broker."""
    store = Store(folder / "gateway.sqlite", T0)
    began_s = time.monotonic()
    for n in range(0, QUEUED, 500):
        store.commit(Commit([balance(n + k) for k in range(500)]), T0)
    print(
        f"queued {store.counters.messages} messages in {time.monotonic() - began_s:.1f} s, "
        f"{resident_mb():.0f} MB resident"
    )
    backend = subprocess.Popen(
        ["mosquitto_sub", "-p", str(port), "-V", "5", "-q", "1", "-t", "checkmeter/v1/#", "-C", str(QUEUED)],
        stdout=subprocess.DEVNULL,
    )
    time.sleep(0.3)
    peak_mb = resident_mb()
    publisher = Publisher(
        Mqtt(url=f"mqtt://127.0.0.1:{port}"), ADDRESS, store, lambda: T0, lambda down: True, {"checkmeter": "bench"}
    )
    thread = threading.Thread(target=publisher.run)
    thread.start()
    while publisher.delivered == 0:
        time.sleep(0.001)
    began_s = time.monotonic()
    while store.counters.messages:
        time.sleep(0.02)
        peak_mb = max(peak_mb, resident_mb())
    took_s = time.monotonic() - began_s
    backend.wait(60)
    rate = QUEUED / took_s
    print(
        f"drained in {took_s:.1f} s: {rate:.0f} messages a second on one connection, at most {peak_mb:.0f} MB resident"
    )
    median_ms = latency(store, port)
    publisher.stop()
    thread.join()
    store.close()
    missed = [
        text for text, bad in (("2,000/s", rate < 2000), ("100 MB", peak_mb > 100), ("100 ms", median_ms > 100)) if bad
    ]
    if missed:
        print("missed: " + ", ".join(missed))
    return bool(missed)


def latency(store: Store, port: int) -> float:
    """From the evidence of a step to the subscriber's callback, with commit and disk in between: the median, ms."""
    arrived: dict[str, float] = {}
    subscribed = threading.Event()
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    listener.on_connect = lambda *_: listener.subscribe("checkmeter/v1/+/+/+/event/alert", 1)
    listener.on_subscribe = lambda *_: subscribed.set()
    listener.on_message = lambda _c, _u, m: arrived.setdefault(json.loads(m.payload)["id"], time.monotonic())
    listener.connect("127.0.0.1", port)
    listener.loop_start()
    subscribed.wait(5)
    book = AlertBook(ADDRESS)
    meters = [f"flat-{n}" for n in range(60)]
    times_ms = []
    for n in range(ALERTS):
        time_s = T0 + 900.0 * n
        history = [HistoryRow(time_s, np.full(60, float(n)), np.zeros(60), np.zeros(60, np.uint8))]
        began_s = time.monotonic()
        events = book.observe([Condition("meter_fault", True, time_s, time_s, meter=f"meter-{n}")])
        checkpoints = {"alerts": book.state(), "pipeline": bytes(50_000)}
        store.commit(Commit([*map(alert_message, events), balance(QUEUED + n)], checkpoints, meters, history), T0)
        while events[0].id not in arrived:
            time.sleep(0.0002)
        times_ms.append(1e3 * (arrived[events[0].id] - began_s))
        time.sleep(0.01)
    listener.disconnect()
    listener.loop_stop()
    times_ms.sort()
    median_ms = statistics.median(times_ms)
    print(
        f"alert to subscriber, {ALERTS} times: median {median_ms:.1f} ms, 99 % {times_ms[int(0.99 * ALERTS)]:.1f} ms"
        f" (evidence, commit to disk, broker, callback)"
    )
    return median_ms


if __name__ == "__main__":
    sys.exit(main())
