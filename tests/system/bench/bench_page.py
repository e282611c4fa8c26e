"""The utility's page under load: fifty people on 10,000 buildings over 90 days. `make bench-page`.

Each opens a page of a fixed mixture, waits for the answer, looks at it for a second or three, and opens the next.
Measured is each answer's time, from the request to its last octet, against the real verb; beside it the server's CPU
time a page.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "agent" / "utility"))

from conftest import MariaDb

from agent import wire
from agent.utility.ingest.decode import Reader
from agent.utility.load_test.building import Building
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.keys import name_key
from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S, GATEWAY, GATEWAY_STATUS, ZONE
from agent.utility.sql.store import open_store

BUILDINGS, DAYS = 10_000, 90
MIXTURE = {"/": 25, "/cases": 20, "case": 20, "building": 25, "/gateways": 5, "/search?q=site-0042": 5}


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fill(dsn: str) -> list[str]:
    """A fleet's days, two days of intervals, and the cases of 400 buildings; the paths of the cases."""
    now_s = time.time()
    today = int(now_s // DAY_S)
    rng = random.Random(1)
    names = [("fleet", f"site-{n:05d}", f"gw-{n:05d}") for n in range(1, BUILDINGS + 1)]
    keys = [name_key(*name) for name in names]
    zones = [name_key(*name, "building") for name in names]
    with open_store(dsn, make=True) as store:
        store.migrate(now_s, keep_days=4)
        for at in range(0, BUILDINGS, 500):
            part = slice(at, at + 500)
            store.write(GATEWAY, [(key, *name) for key, name in zip(keys[part], names[part], strict=True)])
            store.write(ZONE, [(zone, key, "building") for zone, key in zip(zones[part], keys[part], strict=True)])
            store.write(GATEWAY_STATUS, [(key, "online", None, None, 0, "1", 1) for key in keys[part]])
        for day in range(today - DAYS, today + 1):
            end_s = min(int(now_s), (day + 1) * DAY_S)
            rows = [
                (zone, day, 96, DAY_S, 10**8, 98 * 10**6, 10**6, rng.randrange(-(10**5), 3 * 10**6), end_s, 900)
                for zone in zones
            ]
            for at in range(0, BUILDINGS, 2000):
                store.write(BALANCE_DAY, rows[at : at + 2000])
        for start_s in range(int(now_s) // 900 * 900 - 2 * DAY_S, int(now_s), 7200):  # every eighth of two days
            rows = [(zone, start_s, 900, 10**6, 98 * 10**4, 10**4, 10**4, 4 * 10**3, 10**6) for zone in zones]
            for at in range(0, BUILDINGS, 2000):
                store.write(BALANCE, rows[at : at + 2000])
        reader = Reader(lambda: now_s)
        first_s = int(now_s) // 900 * 900 - 3 * DAY_S
        for number in range(1, 401):
            building = Building(1, number, first_s, int(now_s))
            said = [m for at in range(first_s, int(now_s), 900) for m in building.interval(at)]
            letters = [
                reader.read(Publish(building.address.topic(suffix).encode(), 1, wire.encode(message), False))
                for suffix, message in said
                if suffix.startswith(("event/", "evidence/"))
            ]
            if letters:
                store.apply(letters)
        rows = store.rows("SELECT tenant, site, gateway, alert_id FROM open_case ORDER BY site, alert_id")
    return ["/".join(map(str, row)) for row in rows]


def bench(name: str, dsn: str, people: int, seconds: float) -> None:
    cases = fill(dsn)
    command = [sys.executable, "-m", "agent.cli.main", "utility", "serve", "--store", dsn, "--port", "0"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    address = server.stdout.readline().strip().rstrip("/")
    times: list[tuple[str, float]] = []
    wrong: list[str] = []
    end_s = time.monotonic() + seconds

    def person(number: int) -> None:
        rng = random.Random(number)
        time.sleep(rng.uniform(0.0, 2.0))
        while time.monotonic() < end_s:
            (kind,) = rng.choices(list(MIXTURE), list(MIXTURE.values()))
            n = rng.randrange(1, BUILDINGS + 1)
            path = {"case": f"/case/{rng.choice(cases)}", "building": f"/building/fleet/site-{n:05d}/gw-{n:05d}"}
            begun_s = time.perf_counter()
            try:
                with urllib.request.urlopen(address + path.get(kind, kind), timeout=30) as answer:
                    answer.read()
            except OSError as error:
                wrong.append(f"{kind}: {error}")
            times.append((kind, time.perf_counter() - begun_s))
            time.sleep(rng.uniform(1.0, 3.0))

    crowd = [threading.Thread(target=person, args=(n,)) for n in range(people)]
    before_s = cpu_s(server.pid)
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    spent_s = cpu_s(server.pid) - before_s
    server.terminate()
    server.wait(30)
    for kind in [*MIXTURE, "all"]:
        mine = sorted(t for k, t in times if kind in (k, "all"))
        if mine:
            print(
                f"{name:8s} {kind:22s} {len(mine):5d} pages   median {1000 * mine[len(mine) // 2]:6.0f} ms   "
                f"95 % {1000 * mine[int(0.95 * (len(mine) - 1))]:6.0f} ms   longest {1000 * mine[-1]:6.0f} ms"
            )
    print(f"{name:8s} {1000 * spent_s / max(1, len(times)):.1f} ms CPU a page; {len(wrong)} failed {wrong[:3]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=["sqlite", "mariadb"])
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f} before the start")
    folder = Path(tempfile.mkdtemp(prefix="checkmeter-page-"))
    try:
        if arguments.only in {None, "sqlite"}:
            bench("SQLite", f"sqlite:///{folder / 'fleet.sqlite'}", arguments.people, arguments.seconds)
        if arguments.only in {None, "mariadb"}:
            server = MariaDb(folder / "mariadb", "--skip-general-log", "--innodb-buffer-pool-size=1G")
            try:
                bench("MariaDB", server.database(), arguments.people, arguments.seconds)
            finally:
                server.stop()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
