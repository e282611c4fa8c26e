"""A fleet in a store, and the page over it: inside the test's process, or as the real verb."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent import wire
from agent.utility.fleet.realised import settle
from agent.utility.ingest.decode import Reader
from agent.utility.load_test.building import Building
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.keys import name_key
from agent.utility.sql.store import open_store


class Fleet(NamedTuple):
    """Where it is, and the places of two of its cases."""

    dsn: str
    cases: list[str]  # paths behind /case/
    now_s: float

    @property
    def building(self) -> str:
        return self.cases[0].rpartition("/")[0]


def fill(dsn: str, buildings: int, days: float, now_s: float) -> Fleet:
    """What so many simulated gateways have sent until now, read as the ingest reads it."""
    first_s = int(now_s) // 900 * 900 - int(days * 86_400)
    with open_store(dsn, make=True) as store:
        store.migrate(now_s, keep_days=int(days) + 5)
        reader = Reader(lambda: now_s, keep_days=int(days) + 5)
        for number in range(1, buildings + 1):
            building = Building(1, number, first_s, int(now_s))
            said = [m for start_s in range(first_s, int(now_s) - 900, 900) for m in building.interval(start_s)]
            said += building.hello(now_s)
            letters = [
                reader.read(Publish(building.address.topic(suffix).encode(), 1, wire.encode(message), False))
                for suffix, message in said
            ]
            for at in range(0, len(letters), 500):
                store.apply(letters[at : at + 500])
        assert store.rows("SELECT COUNT(*) FROM dead_letter") == [(0,)]
        assert settle(store, now_s)
        rows = store.rows(
            "SELECT tenant, site, gateway, alert_id FROM open_case WHERE loss_w IS NOT NULL ORDER BY site"
        )
    return Fleet(dsn, ["/".join(map(str, row)) for row in rows], now_s)


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Sixty buildings over four days, the first case with all its intervals; read-only for tests."""
    now_s = time.time()
    fleet = fill(f"sqlite:///{tmp_path_factory.mktemp('web') / 'fleet.sqlite'}", 60, 4, now_s)
    report(fleet.dsn, fleet.cases[0], now_s)
    return fleet


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Thirty buildings over three days, to be copied by whoever writes."""
    return fill(f"sqlite:///{tmp_path_factory.mktemp('web') / 'small.sqlite'}", 30, 3, time.time())


@pytest.fixture
def fleet(small: Fleet, tmp_path: Path) -> Fleet:
    """A copy of `small` to write to."""
    copy = tmp_path / "fleet.sqlite"
    shutil.copy(small.dsn.removeprefix("sqlite:///"), copy)
    return small._replace(dsn=f"sqlite:///{copy}")


def report(dsn: str, case: str, now_s: float) -> None:
    """What a gateway answers to the command `report`: each meter's intervals, day by day, from before the onset."""
    *names, alert_id = case.split("/")
    address = wire.Address(*names)
    rng = random.Random(4)
    with open_store(dsn) as store:
        ((body,),) = store.rows("SELECT body FROM gateway_info WHERE gateway_key = ?", (name_key(*names),))
        ((onset_s, thief),) = store.rows("SELECT onset_s, suspect FROM alert WHERE alert_id = ?", (alert_id,))
        flats = wire.decode(wire.Info, str(body).encode()).zones[0].subs
        first_s = int(onset_s) // 86_400 * 86_400 - 6 * 86_400
        days = range(first_s, int(now_s) - 900, 86_400)
        reader = Reader(lambda: now_s)
        for n, day_s in enumerate(days, 1):
            starts = range(day_s, min(day_s + 86_400, int(now_s) - 900), 900)
            used = {flat: [0.05 + 0.05 * rng.random() for _ in starts] for flat in flats}
            main = [round(sum(column) + 0.02, 4) for column in zip(*used.values(), strict=True)]
            used[thief] = [0.4 * kwh if s >= onset_s else kwh for s, kwh in zip(starts, used[thief], strict=True)]
            series = [wire.Series(meter=flat, kwh=[round(kwh, 4) for kwh in used[flat]]) for flat in flats]
            chunk = wire.EvidenceChunk(
                alert_id=alert_id, n=n, of=len(days), zone="building", start=wire.utc(day_s), interval_s=900.0,
                series=[wire.Series(meter="main", kwh=main), *series],
            )  # fmt: skip
            topic = address.topic(wire.evidence_suffix(alert_id, n, len(days))).encode()
            store.apply([reader.read(Publish(topic, 1, wire.encode(chunk), False))])
        assert store.rows("SELECT COUNT(*) FROM dead_letter") == [(0,)]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start `checkmeter utility serve`; returns its address."""
    running: list[subprocess.Popen[str]] = []

    def start(dsn: str, *options: str) -> str:
        command = [sys.executable, "-m", "agent.cli.main", "utility", "serve", "--store", dsn, "--port", "0", *options]
        with (tmp_path / "serve.log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        running.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), (tmp_path / "serve.log").read_text()
        return address.rstrip("/")

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert "Traceback" not in ((tmp_path / "serve.log").read_text() if running else "")


@pytest.fixture
def ask() -> Callable[..., Any]:
    """Ask an application in this process as a client at some address, without a server."""
    import anyio
    import httpx

    def send(application: Any, method: str, path: str, client: str = "127.0.0.1", **options: Any) -> Any:
        async def run() -> Any:
            transport = httpx.ASGITransport(application, client=(client, 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as link:
                return await link.request(method, path, **options)

        return anyio.run(run)

    return send
