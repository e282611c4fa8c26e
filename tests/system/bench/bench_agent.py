"""`make bench-agent`: what the agent costs on a gateway: memory, CPU, wake-ups, bytes written, start and stop.

Real processes: a simulated building on pseudo-terminals (no pacing: the agent is what is measured), Mosquitto with a
subscriber, and the agent as a gateway runs it. Bytes written are measured over short intervals and told per day of 96
quarters of an hour. `--store-days` begins with a store as so many days of service leave it; without, the first of two
starts reads `--history-days` of load profiles. Every wait has a deadline.

    bench_agent.py [--meters 100] [--buses 1] [--poll-s 10] [--interval-s 30] [--history-days 2] [--measure-s 120]
                   [--store-days 60] [--tcp] [--pace --baud 9600]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from agent.offline.demo.brokers import end, local_broker
from agent.polling.rates import least_cycle_s
from agent.site.load import load
from agent.status.local_socket import ask
from agent.status.snapshot import Snapshot

READY_S, ONLINE_S, SETTLE_S, ANSWER_S, STOP_S = 300.0, 900.0, 600.0, 60.0, 20.0  # deadlines of what is waited for
TICK = os.sysconf("SC_CLK_TCK")
BOUNDARIES_A_DAY = 96
UNIT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}  # as in checkmeter.service


def site_text(folder: Path, broker: str, arguments: argparse.Namespace) -> str:
    lines = ["[site]", 'site = "bench"', 'gateway = "gw-bench"', "[mqtt]", f'url = "{broker}"', "[store]"]
    lines += [f'path = "{folder}/store.sqlite"', "[service]", f'socket = "{folder}/control.sock"']
    lines += [
        "[detection]",
        f"interval_s = {arguments.interval_s}",
        "[simulation]",
        f"history_days = {arguments.history_days}",
    ]
    lines += [f"pace = {str(arguments.pace).lower()}", "turnaround_s = 0.0"]
    per_bus = arguments.meters // arguments.buses
    for bus in range(arguments.buses):
        port = f"tcp://127.0.0.1:{free_port()}" if arguments.tcp else f"{folder}/bus-{bus}"
        lines += ["[[bus]]", f'id = "bus-{bus}"', f'port = "{port}"', f"poll_s = {arguments.poll_s}"]
        lines += [f"baud = {arguments.baud}"]
        names = [f"m{bus}-{n}" for n in range(per_bus)]
        for n, name in enumerate(names):
            lines += ["[[meter]]", f'id = "{name}"', f'bus = "bus-{bus}"', f"address = {16 + n}"]
        subs = ", ".join(f'"{name}"' for name in names[1:])
        lines += ["[[zone]]", f'id = "zone-{bus}"', f'main = "{names[0]}"', f"subs = [{subs}]"]
    return "\n".join(lines) + "\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Usage:
    """What the kernel has counted for a process."""

    def __init__(self, pid: int) -> None:
        self.at_s = time.monotonic()
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        self.cpu_s = (int(fields[11]) + int(fields[12])) / TICK
        self.rss_mb = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        status = Path(f"/proc/{pid}/status").read_text()
        self.peak_mb = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
        io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        self.written = int(io["write_bytes"])
        self.threads = 0
        self.wakeups = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            self.threads += 1
            status = (task / "status").read_text()
            self.wakeups += int(status.split("voluntary_ctxt_switches:")[1].split()[0])


def start(*words: object, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        command = [sys.executable, "-m", "agent.cli.main", *map(str, words)]
        return subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | UNIT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=100)
    parser.add_argument("--buses", type=int, default=1)
    parser.add_argument("--poll-s", type=float, default=10)
    parser.add_argument("--interval-s", type=float, default=30)
    parser.add_argument("--tcp", action="store_true", help="meters behind TCP instead of pseudo-terminals")
    parser.add_argument("--pace", action="store_true", help="octets take the time that they take at --baud")
    parser.add_argument("--baud", type=int, default=9600)
    parser.add_argument("--history-days", type=int, default=2, help="what a first start reads of each meter")
    parser.add_argument("--store-days", type=int, default=0, help="begin with a store that holds so many days")
    parser.add_argument("--measure-s", type=float, default=120)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        with local_broker(folder, "mosquitto") as broker, subscriber(broker.url):
            site = folder / "site.toml"
            site.write_text(site_text(folder, broker.url, arguments))
            if arguments.store_days:  # in a process of its own: what it takes is none of the agent's
                filler = Path(__file__).with_name("prepared_store.py")
                words = [sys.executable, str(filler), str(site), str(arguments.store_days)]
                subprocess.run(words, check=True, timeout=ONLINE_S, env=os.environ | UNIT)
            building = start("simulate", site, log=folder / "building.log")
            try:
                until_s = time.monotonic() + READY_S
                while b"ready" not in (folder / "building.log").read_bytes():
                    assert building.poll() is None, (folder / "building.log").read_text()
                    assert time.monotonic() < until_s, f"the building is not ready after {READY_S:.0f} s"
                    time.sleep(0.1)
                return measure(site, folder, arguments)
            finally:
                end(building)


@contextlib.contextmanager
def subscriber(url: str) -> Iterator[None]:
    """A utility that takes every message: what nobody takes is kept and offered again, which costs writes."""
    address = urlsplit(url)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect(address.hostname or "127.0.0.1", address.port or 1883)
    client.subscribe("checkmeter/#", qos=1)
    client.loop_start()
    try:
        yield
    finally:
        client.loop_stop()
        client.disconnect()


def measure(site: Path, folder: Path, arguments: argparse.Namespace) -> int:
    control = str(folder / "control.sock")
    # A second start is the usual one: the building has filled its caches, and the store is there.
    for turn in ("restart",) if arguments.store_days else ("first start", "restart"):
        began = time.monotonic()
        agent = start("run", site, log=folder / "agent.log")
        first_s = online_s = None
        try:
            while online_s is None:
                assert agent.poll() is None, (folder / "agent.log").read_text()
                assert time.monotonic() - began < ONLINE_S, f"not online after {ONLINE_S:.0f} s"
                try:
                    seen = ask(control)
                except OSError:
                    time.sleep(0.02)
                    continue
                now = time.monotonic() - began
                if first_s is None and any(view.time_s for view in seen.meters):
                    first_s = now
                if seen.status.state == "online" and all(view.time_s for view in seen.meters):
                    online_s = now
                time.sleep(0.05)
            print(f"{turn}: first reading after {first_s:.2f} s, all read after {online_s:.1f} s", flush=True)
            if not settle(agent.pid):
                print(
                    f"{turn}: still busy {SETTLE_S:.0f} s later: what follows is measured under that load", flush=True
                )
            usage = Usage(agent.pid)
            print(f"{turn}: {usage.rss_mb:.1f} MB resident once settled, {usage.peak_mb:.1f} MB at most", flush=True)
            if turn == "restart":
                report(agent.pid, control, site, arguments)
        finally:
            asked = time.monotonic()
            code = end(agent, STOP_S)
            print(f"{turn}: ended {time.monotonic() - asked:.2f} s after SIGTERM, exit code {code}", flush=True)
    return 0


def settle(pid: int) -> bool:
    """Wait until the stored rows are worked off: else the restart would be a first start. False: it took too long."""
    until_s = time.monotonic() + SETTLE_S
    quiet = 0
    while quiet < 2 and time.monotonic() < until_s:
        before = Usage(pid)
        time.sleep(2)
        quiet = quiet + 1 if Usage(pid).cpu_s - before.cpu_s < 0.5 else 0
    return quiet == 2


def answer(control: str) -> Snapshot:
    """What the agent says of itself; a busy machine may make it miss its turn."""
    until_s = time.monotonic() + ANSWER_S
    while True:
        try:
            return ask(control)
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.2)


def report(pid: int, control: str, site: Path, arguments: argparse.Namespace) -> None:
    time.sleep(min(arguments.interval_s, 60) + 20)  # past the first boundary where boundaries are short
    first, before = answer(control), Usage(pid)
    time.sleep(arguments.measure_s)
    after, seen = Usage(pid), answer(control)
    span_s = after.at_s - before.at_s
    boundaries = span_s / arguments.interval_s
    bus = seen.health.buses[0]
    print(
        f"{arguments.meters} meters on {arguments.buses} buses, each every {arguments.poll_s:g} s, "
        f"intervals of {arguments.interval_s:g} s; load of the machine {os.getloadavg()[1]:.1f}:"
    )
    print(f"  resident memory   {after.rss_mb:7.1f} MB ({after.rss_mb - before.rss_mb:+.2f} in {span_s:.0f} s)")
    print(f"  CPU               {100 * (after.cpu_s - before.cpu_s) / span_s:7.2f} % of one core")
    print(f"  wake-ups          {(after.wakeups - before.wakeups) / span_s:7.1f} a second, {after.threads} threads")
    a_day = (after.written - before.written) / boundaries * BOUNDARIES_A_DAY
    if boundaries >= 1:
        print(
            f"  written           {a_day / 1e6:7.1f} MB a day ({(after.written - before.written) / 1e3:.0f} kB over "
            f"{boundaries:.1f} boundaries)"
        )
    cycles = bus.cycles - first.health.buses[0].cycles
    config = load(site, online=True)
    wire_s = least_cycle_s(config, config.bus[0]) if arguments.pace else 0.0  # without pacing the line takes no time
    asked_s = max(arguments.poll_s, wire_s)
    print(
        f"  cycles            {cycles} in {span_s:.0f} s, one every {span_s / max(cycles, 1):.2f} s: "
        f"{cycles * asked_s / span_s:.3f} of one every {asked_s:.2f} s"
    )
    print(f"  bus 0             {bus.cycles} cycles of {bus.cycle_s} s, {bus.skipped} skipped, errors {bus.errors}")


if __name__ == "__main__":
    sys.exit(main())
