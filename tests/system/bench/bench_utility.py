"""How fast the utility's side is, through a real broker, and where the time goes. `make bench-utility`.

Balances of 10,000 buildings, each published on its own as gateways do, at QoS 1, by a process of its own that is as
fast as the broker lets it be. Measured from the first message that the ingest has until its last COMMIT. Beside the
wall's time stands each process's CPU time a message: on a machine that is busy with other things, only that compares.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "agent" / "utility"))

from conftest import MariaDb, Mosquitto, Replica, until

from agent import wire
from agent.process.clock import SystemClock
from agent.utility.fleet import queries, statement
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker, Connection
from agent.utility.sql.schema import BALANCE_DAY, DAY_S, GATEWAY, GATEWAY_STATUS, ZONE
from agent.utility.sql.store import open_store
from agent.utility.sql.views import VIEWS

ZONES = 10_000
CONNECTIONS = 4
WINDOW = 1000
DAYS = 90
DEADLINE_S = 300.0  # of any one wait
SOCKET_S = 30.0  # of one read or write of the sender's


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Source:
    """One connection of the sender: its packets are made before the clock runs."""

    def __init__(self, port: int, number: int, count: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SOCKET_S)
        self.socket.sendall(packets.connect(f"source-{number}", keepalive_s=600, clean_start=True))
        self.socket.recv(1000)
        first_s = int(time.time()) // DAY_S * DAY_S - 5 * DAY_S
        zones = ZONES // CONNECTIONS
        rng = random.Random(number)
        self.packets = []
        for n in range(count):
            building, start_s = number * zones + n % zones, first_s + n // zones * 900
            address = wire.Address("acme", f"site-{building}", f"gw-{building}")
            total, technical, residual = rng.random() * 9, 0.1, rng.gauss(0.0, 0.02)
            body = wire.Balance(
                zone="building", start=wire.utc(start_s), end=wire.utc(start_s + 900),
                main_kwh=round(total + technical + residual, 3), sum_kwh=round(total, 3), technical_loss_kwh=technical,
                residual_kwh=round(residual, 3), uncertainty_kwh=0.02, coverage=1.0,
            )  # fmt: skip
            self.packets.append(
                packets.publish(
                    address.topic("balance/building"), wire.encode(body), packet_id=n % 60_000 + 1, expiry_s=604_800,
                    content_type="application/json", user_properties=[("schema", "checkmeter.balance.v1")],
                )
            )  # fmt: skip
        self.sent = self.acknowledged = self.for_nobody = 0
        self._parser = packets.Parser()

    def fill(self) -> None:
        until = min(len(self.packets), self.acknowledged + WINDOW)
        if until - self.sent >= WINDOW // 4 or until == len(self.packets):
            self.socket.sendall(b"".join(self.packets[self.sent : until]))
            self.sent = until

    def take(self) -> None:
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the broker closed the connection")
        for event in self._parser.feed(chunk):
            assert isinstance(event, packets.Puback)
            assert event.reason < 0x80, f"the broker refused a balance: 0x{event.reason:02x}"
            self.acknowledged += 1
            self.for_nobody += event.reason == packets.NO_MATCHING_SUBSCRIBERS
        self.fill()


def send(port: int, count: int) -> None:
    """The sender's process: waits for a line on standard input, then sends."""
    sources = {s.socket: s for s in (Source(port, n, count // CONNECTIONS) for n in range(CONNECTIONS))}
    print("ready", flush=True)
    sys.stdin.readline()
    for source in sources.values():
        source.fill()
    deadline_s = time.monotonic() + DEADLINE_S
    while any(s.acknowledged < len(s.packets) for s in sources.values()):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{sum(s.acknowledged for s in sources.values())} of {count} after {DEADLINE_S:g} s")
        for readable in select.select(list(sources), [], [], 10)[0]:
            sources[readable].take()
    for source in sources.values():
        source.socket.sendall(packets.DISCONNECT)
    print(sum(s.for_nobody for s in sources.values()), flush=True)


class Sender:
    """`send` in a process of its own."""

    def __init__(self, port: int, count: int) -> None:
        command = [sys.executable, __file__, "--send", str(port), "--messages", str(count)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        watchdog = threading.Timer(DEADLINE_S, self.process.kill)  # then it says nothing
        watchdog.start()
        try:
            assert self.process.stdout.readline() == "ready\n", "the sender did not get ready"
        finally:
            watchdog.cancel()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        """Wait for its end; refuse a figure of which a part was accepted for nobody (reason 0x10)."""
        try:
            said, _ = self.process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate(timeout=10)
            raise
        assert self.process.returncode == 0, f"the sender ended with {self.process.returncode}"
        assert int(said) == 0, f"the broker accepted {int(said)} balances for no subscriber: they are not in the figure"


def receive_with_paho(port: int, count: int, started: Callable[[], None]) -> tuple[float, float]:
    """Receive and acknowledge, and nothing else: wall and CPU seconds."""
    import paho.mqtt.client as paho
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, "by-paho", protocol=paho.MQTTv5, manual_ack=True, reconnect_on_failure=False
    )
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 2000
    waiting: list[tuple[int, int]] = []
    seen, begun = [0], [0.0, 0.0]

    def on_message(client: Any, _: Any, message: Any) -> None:
        if not seen[0]:
            begun[:] = [time.perf_counter(), time.process_time()]
        seen[0] += 1
        waiting.append((message.mid, message.qos))
        if len(waiting) == 500 or seen[0] == count:
            for mid, qos in waiting:
                client.ack(mid, qos)
            waiting.clear()
        if seen[0] == count:
            client.disconnect()

    client.on_message = on_message
    client.on_subscribe = lambda *_: started()
    client.connect("127.0.0.1", port, clean_start=True, properties=properties)
    client.subscribe("$share/g/checkmeter/v1/+/+/+/balance/+", 1)
    client.loop_forever()  # ends with the connection, which the caller's watchdog ends
    assert seen[0] == count, f"{seen[0]} of {count}"
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def receive_with_ours(port: int, count: int, started: Callable[[], None]) -> tuple[float, float]:
    """The same with agent.utility.mqtt.packets."""
    connection = Connection(
        Broker(f"mqtt://127.0.0.1:{port}"), SystemClock(), "by-ours", clean_start=True, receive_maximum=2000
    )
    connection.subscribe([packets.Subscription("$share/g/checkmeter/v1/+/+/+/balance/+")])
    started()
    seen, begun = 0, (0.0, 0.0)
    waiting: list[int] = []
    while seen < count:
        events = connection.receive(1.0)
        if events and not seen:
            begun = time.perf_counter(), time.process_time()
        seen += len(events)
        waiting += [event.packet_id for event in events if isinstance(event, packets.Publish)]
        if len(waiting) >= 500 or seen == count:
            connection.send(packets.pubacks(waiting))
            waiting.clear()
        elif len(events) < 100:
            time.sleep(0.004)  # as the ingest does
    connection.close()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def bench_receive(folder: Path, count: int) -> None:
    for name, receive in (("paho", receive_with_paho), ("agent.utility.mqtt.packets", receive_with_ours)):
        broker = Mosquitto(folder / f"receive-{name}")
        sender = Sender(broker.port, count)
        watchdog = threading.Timer(DEADLINE_S, broker.kill)  # then either receiver ends with an error
        watchdog.start()
        try:
            wall_s, spent_s = receive(broker.port, count, sender.go)
        finally:
            watchdog.cancel()
        sender.finish()
        broker.stop()
        print(
            f"receive + acknowledge only, {name:18s} {count / wall_s:8,.0f}/s   "
            f"{1e6 * spent_s / count:5.1f} us CPU/message"
        )


def bench_ingest(name: str, dsn: str, folder: Path, count: int, server_pid: int | None) -> None:
    broker = Mosquitto(folder / f"broker-{name}")
    sender = Sender(broker.port, count)
    with open_store(dsn, make=True) as store:
        store.migrate(time.time(), keep_days=10)
        # A folder of its own: the log and metrics of the run before must not pass for this one's.
        (folder / name).mkdir()
        replica = Replica(broker.url, dsn, folder / name)
        until(lambda: replica.connected() == 1, "the ingest is subscribed")
        pids = {"ingest": replica.process.pid, "mosquitto": broker.process.pid, "sender": sender.process.pid}
        if server_pid is not None:
            pids[name] = server_pid
        before = {who: cpu_s(pid) for who, pid in pids.items()}
        spent = before.copy()
        sender.go()
        begun_s = time.perf_counter()
        # A day's rollup of 10,000 zones is read in milliseconds: watching costs next to nothing.
        deadline_s = begun_s + DEADLINE_S
        while (stored := store.rows("SELECT COALESCE(SUM(intervals), 0) FROM balance_day")[0][0]) != count:
            assert time.perf_counter() < deadline_s, f"{stored} of {count} balances after {DEADLINE_S:g} s"
            assert replica.process.poll() is None, f"the ingest ended: {replica.log.read_text()[-500:]}"
            time.sleep(0.1)
            alive = sender.process.poll() is None
            spent |= {who: cpu_s(pid) for who, pid in pids.items() if who != "sender" or alive}
        wall_s = time.perf_counter() - begun_s
        balances = store.rows("SELECT COUNT(*) FROM balance")[0][0]
    sender.finish()
    assert replica.stop() == 0
    broker.stop()
    assert balances == count, f"{balances} balances of {count}"
    each = ", ".join(f"{who} {1e6 * (spent[who] - before[who]) / count:.1f}" for who in pids)
    print(f"ingest into {name:8s} {count / wall_s:8,.0f} balances/s   us CPU/message: {each}")


def bench_views(folder: Path) -> None:
    now_s = time.time()
    today = int(now_s // DAY_S)
    rng = random.Random(1)
    keys = [rng.randrange(-(1 << 63), (1 << 63) - 1) for _ in range(ZONES)]
    with open_store(f"sqlite:///{folder / 'views.sqlite'}", make=True) as store:
        store.migrate(now_s)
        store.write(GATEWAY, [(key, "acme", f"site-{n}", f"gw-{n}") for n, key in enumerate(keys)])
        store.write(ZONE, [(key + 1, key, "building") for key in keys])
        store.write(GATEWAY_STATUS, [(key, "online", None, None, 0, "1", 1) for key in keys])
        for day in range(today - DAYS, today):
            sums = [
                (rng.randrange(10**9), rng.randrange(10**9), rng.randrange(10**7), rng.randrange(10**7)) for _ in keys
            ]
            end_s = (day + 1) * DAY_S
            store.write(BALANCE_DAY, [(k + 1, day, 96, DAY_S, *s, end_s, 900) for k, s in zip(keys, sums, strict=True)])
        month = time.strftime("%Y-%m", time.gmtime(now_s - 15 * DAY_S))
        asked: dict[str, Callable[[], object]] = {
            "losses --days 30": lambda: queries.losses(store, now_s, 30, 20),
            "losses --days 90": lambda: queries.losses(store, now_s, 90, 20),
            "trend --days 90": lambda: queries.trend(store, now_s, 90),
            "gateways": lambda: queries.gateways(store, now_s, 2.0, 20),
            "statement, every zone": lambda: statement.months(store, *statement.bounds(month, "UTC")),
        }
        # building_day is 900,000 rows if nobody limits it: here as a tool asks it, for one building
        for name in VIEWS:
            where = " WHERE site = 'site-77'" if name == "building_day" else ""
            asked[f"view {name}{where}"] = lambda name=name, where=where: store.rows(f"SELECT * FROM {name}{where}")
        for name, ask in asked.items():
            wall_s, spent_s = time.perf_counter(), time.process_time()
            ask()
            wall_s, spent_s = time.perf_counter() - wall_s, time.process_time() - spent_s
            print(f"10,000 buildings x 90 days: {name:42s} {wall_s:6.3f} s   {spent_s:6.3f} s CPU")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--only", choices=["receive", "sqlite", "mariadb", "views"])
    parser.add_argument("--send", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send is not None:
        send(arguments.send, arguments.messages)
        return
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f} before the start")
    folder = Path(tempfile.mkdtemp(prefix="checkmeter-bench-"))
    try:
        if arguments.only in {None, "receive"}:
            bench_receive(folder, arguments.messages)
        if arguments.only in {None, "sqlite"}:
            bench_ingest("SQLite", f"sqlite:///{folder / 'fleet.sqlite'}", folder, arguments.messages, None)
        if arguments.only in {None, "mariadb"}:
            server = MariaDb(
                folder / "mariadb", "--skip-general-log", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M"
            )
            try:
                bench_ingest("MariaDB", server.database(), folder, arguments.messages, server.process.pid)
            finally:
                server.stop()
        if arguments.only in {None, "views"}:
            bench_views(folder)
    finally:
        shutil.rmtree(folder)
        assert threading.active_count() == 1


if __name__ == "__main__":
    main()
