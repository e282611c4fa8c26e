"""A whole agent but for its threads and its broker, a backend with keys, and a browser with what judges a page.

The rig's bus, protocol, pipeline and store are the real ones; only the transport is the simulator's, whose time jumps
to what happens next.
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.alerts.book import AlertBook
from agent.cli.lab.simulate import read_simulation, simulated_site
from agent.forecast.zone_forecasts import ZoneForecasts
from agent.keys.signing import KeyRing, Purpose, sign
from agent.pipeline.inbox import Batch, CaughtUp
from agent.pipeline.pipeline import Pipeline
from agent.pipeline.worker import Worker
from agent.polling.bus_thread import BusThread
from agent.polling.buses import open_buses
from agent.polling.meter_watch import MeterWatch
from agent.site.load import load, read_site
from agent.site.tables import Config
from agent.store.store import Store
from agent.wire.codec import encode
from agent.wire.downlink import Signed
from agent.wire.events import AlertEvent, TamperEvent
from agent.wire.topics import Address
from firmware_io.errors import TransportError
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.spec import BusSpec

START_S = 1_772_438_400.0  # 2026-03-02 08:00 UTC, a Monday


class Rig:
    """One site's agent; `cycles` polls and commits, `restart` is a kill and a new start on the same store."""

    def __init__(self, site_file: Path, inbox_size: int = 1000) -> None:
        self.clock = LineClock(START_S)
        self.config: Config = load(site_file, online=True)
        simulation = read_simulation(self.config, read_site(site_file), site_file)
        self.site = simulated_site(self.config, simulation, self.clock, START_S)
        self.unplugged = False
        self.stop = threading.Event()
        self.inbox: queue.Queue[Batch | CaughtUp] = queue.Queue(inbox_size)
        self._start()

    def _plug(self, spec: BusSpec) -> NullModem:
        if self.unplugged:
            raise TransportError(f"cannot open {spec.port}")
        return NullModem(self.site.lines[spec.id], self.clock.move)

    def _start(self) -> None:
        config, clock = self.config, self.clock
        (bus,) = config.bus
        (line,) = open_buses(config, clock, self._plug).values()
        self.thread = BusThread(
            bus, line, [MeterWatch(m) for m in config.meter], clock, self.inbox, config.detection.row_s
        )
        self.store = Store(config.store.path, clock.now())
        self.book = AlertBook.from_config(config)
        forecasts = ZoneForecasts(config, config.detection.row_s)
        self.pipeline = Pipeline(config, self.book, forecasts=forecasts)
        self.worker = Worker(config, clock, self.pipeline, self.book, self.store, self.inbox, [bus.id])
        self.known_s = self.worker.restore()

    def catch_up(self) -> None:
        """What the meters stored, into the pipeline."""
        self.thread.catch_up(self.stop, self.known_s)
        self.work()

    def cycles(self, count: int) -> None:
        """So many polls of the whole bus, each followed by the pipeline's step."""
        for _ in range(count):
            began_s = self.clock.monotonic()
            self.thread.cycle(self.stop)
            self.work()
            left_s = began_s + self.thread.config.poll_s - self.clock.monotonic()
            self.clock.move(max(0.0, left_s))

    def taken(self) -> list[Batch | CaughtUp]:
        """What waits in the queue."""
        items = []
        while not self.inbox.empty():
            items.append(self.inbox.get_nowait())
        return items

    def work(self) -> None:
        """The pipeline's turn."""
        self.worker.take(self.taken())

    def restart(self) -> None:
        """As after kill -9: whatever was not committed is gone."""
        self.taken()
        self.store.close()
        self._start()

    def events(self) -> list[AlertEvent | TamperEvent]:
        """All alert and tamper events that wait in the outbox, oldest first."""
        from agent.store.messages import Priority

        found = self.store.pending(10_000, [Priority.ALERT, Priority.TAMPER])
        kinds = {"event/alert": AlertEvent, "event/tamper": TamperEvent}
        events = [msgspec.json.decode(o.message.body, type=kinds[o.message.suffix]) for o in found]
        return sorted(events, key=lambda e: e.time)

    def close(self) -> None:
        self.store.close()


SITE = """\
[site]
site = "rig"
gateway = "gw-rig"
[[bus]]
id = "line"
port = "/dev/null-modem"
poll_s = {poll_s}
{meters}
[[zone]]
id = "building"
main = "main"
subs = [{subs}]
[store]
path = "store.sqlite"
[simulation]
seed = 5
history_days = {history_days}
turnaround_s = 0.005
copper = 0.006
"""


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    """A rig of `flats` flats behind `main`; `more` is added to the site file, `meter` to flat-1's table."""
    rigs: list[Rig] = []

    def make(
        more: str = "", *, meter: str = "", flats: int = 3, history_days: int = 3, poll_s: float = 60, inbox: int = 1000
    ) -> Rig:
        names = ["main", *(f"flat-{n}" for n in range(1, flats + 1))]
        tables = [
            f'[[meter]]\nid = "{name}"\nbus = "line"\naddress = {16 + n}\n{meter if name == "flat-1" else ""}\n'
            for n, name in enumerate(names)
        ]
        subs = ", ".join(f'"{name}"' for name in names[1:])
        path = tmp_path / "site.toml"
        text = SITE.format(poll_s=poll_s, meters="".join(tables), subs=subs, history_days=history_days)
        path.write_text(text + more)
        rigs.append(Rig(path, inbox))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@dataclass
class Backend:
    """A backend with a key, an outsider with another, and the gateway's ring of keys."""

    address: Address = field(default_factory=lambda: Address("acme", "riverside-12", "gw-0012"))
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    outsider: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def ring(self) -> KeyRing:
        return KeyRing([self.key.public_key()])

    def signed(self, purpose: Purpose, wish: msgspec.Struct, change: Callable[[Signed], Signed] = lambda s: s) -> bytes:
        return encode(change(sign(self.key, purpose, encode(wish))))


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    assert chromium is not None, "Debian's package chromium"
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's source, as a test package of PyPI carries it."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (Path(package.__file__).parent / "axe.min.js").read_text()
