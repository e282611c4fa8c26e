"""Real servers on free loopback ports with folders of their own, an ingest in a process of its own, and senders."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import wire
from agent.process.clock import SystemClock
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker, Connection
from agent.utility.sql.schema import BALANCE, BALANCE_DAY, JOULES_PER_KWH, MIGRATION, TABLES, VERSION
from agent.utility.sql.store import Store, open_store

DEADLINE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for another process to get somewhere."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mosquitto:
    """A broker that keeps every message until it is acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        folder.mkdir()
        self._configuration = folder / "mosquitto.conf"
        self._arguments = [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(self._configuration)]
        self.configure()
        self.start()

    def configure(self, more: str = "", *, anonymous: bool = True) -> None:
        """For the next start."""
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\n{more}persistence false\n{'allow_anonymous true' if anonymous else ''}\n"
            "user root\nmax_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n"
        )

    def start(self) -> None:
        self.process = subprocess.Popen(self._arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: answers(self.port), "mosquitto listens")

    def freeze(self) -> None:
        """It takes octets no more, and acknowledges nothing; `kill` ends it."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


class MariaDb:
    """A server in its own folder, which can be killed and started again. It logs every statement that reaches it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "statements.log"
        self.databases = 0
        self._shared = ""
        folder.mkdir()
        # --no-defaults: nothing of the machine's own configuration; --user: the tests may run as root.
        user = ["--user=root"] if os.geteuid() == 0 else []
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", *user, f"--datadir={folder / 'data'}",
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        self._arguments = [
            shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults", *user, f"--datadir={folder / 'data'}",
            f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}",
            f"--pid-file={folder / 'pid'}", "--skip-name-resolve", "--innodb-buffer-pool-size=256M",
            f"--general-log-file={self.log}", "--general-log=1", *options,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        with (self.folder / "error.log").open("ab") as errors:
            self.process = subprocess.Popen(self._arguments, stdout=errors, stderr=errors)
        until(lambda: answers(self.port), "mariadbd listens")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def database(self) -> str:
        """The address of a new, empty database."""
        self.databases += 1
        with open_store(f"mysql://root@127.0.0.1:{self.port}/mysql") as store:
            store.rows(f"CREATE DATABASE fleet_{self.databases}")
        return f"mysql://root@127.0.0.1:{self.port}/fleet_{self.databases}"

    def emptied(self) -> str:
        """The address of a database with its schema and no rows: the same one each time, since DDL is slow here."""
        if not self._shared:
            self._shared = self.database()
            with open_store(self._shared) as store:
                store.migrate(time.time(), keep_days=5)
        with open_store(self._shared) as store:
            for table in TABLES:
                store.rows(f"DELETE FROM {table.name}")
            store.write(MIGRATION, [(VERSION, "tables", "2026-01-01 00:00:00")])
        return self._shared


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "mosquitto")
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    server = MariaDb(tmp_path_factory.mktemp("utility") / "mariadb")
    yield server
    server.stop()


TIDB = os.environ.get("CHECKMETER_TIDB", "")  # mysql://root@host:4000/test: a server that databases may be made on
BOTH = [
    "sqlite",
    pytest.param("mariadb", marks=[pytest.mark.mariadb, pytest.mark.xdist_group("mariadb")]),
    pytest.param(
        "tidb",
        marks=[
            pytest.mark.xdist_group("tidb"),
            pytest.mark.skipif(not TIDB, reason="CHECKMETER_TIDB=mysql://user@host:4000/database is not set"),
        ],
    ),
]


class Tidb:
    """A TiDB that somebody has started: databases are made on it, and dropped at the end."""

    def __init__(self, dsn: str) -> None:
        self._base, _, self._name = dsn.rpartition("/")
        self._names: list[str] = []
        self._shared = ""
        with open_store(dsn) as store:
            assert store.is_tidb(), f"{dsn} is no TiDB"

    def database(self) -> str:
        """The address of a new, empty database."""
        name = f"checkmeter_{os.getpid()}_{len(self._names)}"
        self._names.append(name)
        with open_store(f"{self._base}/{self._name}") as store:
            store.rows(f"CREATE DATABASE {name}")
        return f"{self._base}/{name}"

    def emptied(self) -> str:
        """The address of a database with its schema and no rows: the same one each time."""
        if not self._shared:
            self._shared = self.database()
            with open_store(self._shared) as store:
                store.migrate(time.time(), keep_days=5)
        with open_store(self._shared) as store:
            for table in TABLES:
                store.rows(f"DELETE FROM {table.name}")
            store.write(MIGRATION, [(VERSION, part, "2026-01-01 00:00:00") for part in ("tables", "tidb")])
        return self._shared

    def drop(self) -> None:
        with open_store(f"{self._base}/{self._name}") as store:
            for name in self._names:
                store.rows(f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def tidb() -> Iterator[Tidb]:
    server = Tidb(TIDB)
    yield server
    server.drop()


@pytest.fixture(params=BOTH)
def empty_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store without a schema, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.sqlite'}"
    server: MariaDb | Tidb = request.getfixturevalue(request.param)
    return server.database()


@pytest.fixture(params=BOTH)
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with its schema and no rows, of each kind in turn."""
    if request.param != "sqlite":
        server: MariaDb | Tidb = request.getfixturevalue(request.param)
        return server.emptied()
    address = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    with open_store(address, make=True) as store:
        store.migrate(time.time())
    return address


@pytest.fixture
def store(dsn: str) -> Iterator[Store]:
    """The same, opened."""
    with open_store(dsn) as opened:
        yield opened


class Replica:
    """`checkmeter utility ingest` as a process."""

    def __init__(self, broker: str, dsn: str, folder: Path, number: int = 1, *options: str) -> None:
        self.metrics = folder / f"ingest-{number}.prom"
        self.log = folder / f"ingest-{number}.log"
        self._arguments = [
            sys.executable, "-m", "agent.cli.main", "utility", "ingest", "--broker", broker, "--store", dsn,
            "--replica", str(number), "--metrics", str(self.metrics), *options,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._arguments, stdout=log, stderr=log)

    def connected(self) -> int:
        """How many connections it has logged."""
        return self.log.read_text().count("connected to mqtt://")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def figure(self, name: str) -> float:
        """A figure of the metrics file."""
        for line in self.metrics.read_text().splitlines():
            if line.startswith(f"checkmeter_ingest_{name}{{"):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Start ingests; they are ended after the test."""
    started: list[Replica] = []

    def start(broker: str, dsn: str, number: int = 1, *options: str) -> Replica:
        started.append(Replica(broker, dsn, tmp_path, number, *options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


class Sender:
    """A gateway's side: publishes at QoS 1 and knows what the broker has taken."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.connect()

    def connect(self) -> None:
        self._connection = Connection(Broker(self._url), SystemClock(), "sender", clean_start=True)

    def send(self, messages: list[tuple[str, bytes]], *, retain: bool = False, schema: str = "") -> None:
        """Return when the broker has acknowledged all of them, whoever listens."""
        properties = [("schema", schema)] if schema else []
        for at in range(0, len(messages), 1000):
            part = messages[at : at + 1000]
            self._connection.send(
                b"".join(
                    packets.publish(topic, payload, packet_id=n, retain=retain, user_properties=properties)
                    for n, (topic, payload) in enumerate(part, 1)
                )
            )
            waiting = len(part)
            while waiting:
                events = self._connection.receive(10.0)
                assert events, "the broker does not acknowledge"
                waiting -= sum(isinstance(event, packets.Puback) for event in events)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def sender(mosquitto: Mosquitto) -> Iterator[Sender]:
    connection = Sender(mosquitto.url)
    yield connection
    connection.close()


FIRST_S = int(time.time()) // 86400 * 86400 - 3 * 86400


def address(gateway: int) -> wire.Address:
    return wire.Address("acme", f"site-{gateway}", f"gw-{gateway}")


def balance(gateway: int, interval: int, rng: random.Random) -> tuple[str, bytes]:
    """One interval of a building; its energies have three decimals, so that joules are exact."""
    sums, technical, residual = (rng.randrange(0, 9_000) / 1000 for _ in range(3))
    message = wire.Balance(
        zone="building",
        start=wire.utc(FIRST_S + 900 * interval),
        end=wire.utc(FIRST_S + 900 * (interval + 1)),
        main_kwh=round(sums + technical + residual, 3),
        sum_kwh=sums,
        technical_loss_kwh=technical,
        residual_kwh=residual,
        uncertainty_kwh=0.02,
        coverage=1.0,
    )
    return address(gateway).topic("balance/building"), wire.encode(message)


@pytest.fixture
def balances() -> Callable[[int, int], list[tuple[str, bytes]]]:
    """Make the balances of so many gateways over so many intervals, interval by interval."""

    def make(gateways: int, intervals: int) -> list[tuple[str, bytes]]:
        rng = random.Random(8)
        return [balance(gateway, interval, rng) for interval in range(intervals) for gateway in range(gateways)]

    return make


class Tally:
    """What a store must hold after these balances were sent, each at least once."""

    def __init__(self, messages: list[tuple[str, bytes]]) -> None:
        unique = {(topic, body.start): body for topic, body in ((t, wire.decode(wire.Balance, p)) for t, p in messages)}
        self.count = len(unique)
        self.sums = tuple(
            sum(round(getattr(body, field) * JOULES_PER_KWH) for body in unique.values())
            for field in ("main_kwh", "sum_kwh", "technical_loss_kwh", "residual_kwh")
        )

    def check(self, store: Store) -> None:
        """None lost, none twice: in the intervals and in the days, to the joule."""
        columns = "SUM(main_j), SUM(sum_j), SUM(technical_j), SUM(residual_j)"
        intervals = store.rows(f"SELECT COUNT(*), {columns} FROM {BALANCE.name}")[0]
        days = store.rows(f"SELECT SUM(intervals), {columns} FROM {BALANCE_DAY.name}")[0]
        assert intervals == (self.count, *self.sums)
        assert days == (self.count, *self.sums)


@pytest.fixture
def tally() -> type[Tally]:
    return Tally


@pytest.fixture
def wait() -> Callable[..., None]:
    return until
