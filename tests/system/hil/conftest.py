"""Hardware in the loop: the same tests against simulated meters on a pty, over a pair of adapters, or a real meter.

    pytest tests/system/hil                                                      a pseudo-terminal
    pytest tests/system/hil --hil-port /dev/ttyUSB0 --hil-peer-port /dev/ttyUSB1 meters behind a second adapter
    pytest tests/system/hil --hil-port /dev/ttyUSB0 --hil-address 17             a real meter

docs/hil.md tells how to wire it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.process.clock import SystemClock
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import FileCounters
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.simulator.building.building import ZonePlan
from firmware_io.simulator.building.scenario import Simulation
from firmware_io.simulator.site import SimulatedMeterPlan, SimulatedSite
from firmware_io.spec import BusSpec
from firmware_io.transport import Transport, open_transport

OPTIONS: dict[str, tuple[str | None, str]] = {
    "--hil-port": (None, "the port that the tests read; a pseudo-terminal by default"),
    "--hil-peer-port": (None, "a second port wired to the first: simulated meters answer there"),
    "--hil-baud": ("9600", "baud rate of both"),
    "--hil-parity": ("N", "N, E or O"),
    "--hil-address": ("17", "HDLC physical address of the real meter"),
    "--hil-logical-address": ("1", "its logical device"),
    "--hil-address-octets": ("0", "1, 2 or 4; 0 takes the shortest"),
    "--hil-client": ("16", "client address"),
    "--hil-security": ("none", "none, lls or hls-gmac"),
    "--hil-password-file": (None, "LLS password"),
    "--hil-encryption-key-file": (None, "global unicast encryption key, 32 hex digits"),
    "--hil-authentication-key-file": (None, "authentication key, 32 hex digits"),
    "--hil-system-title": (None, "our system title, 16 hex digits"),
    "--hil-counters": (None, "file of invocation counters; keep it, or the meter will refuse us"),
}
FLATS = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options exist when tests/system/hil is named on the command line; elsewhere their defaults hold."""
    group = parser.getgroup("hardware in the loop")
    for name, (default, text) in OPTIONS.items():
        group.addoption(name, default=default, help=text)


def option(config: pytest.Config, name: str) -> str | None:
    value = config.getoption(name, default=OPTIONS[name][0])
    return None if value is None else str(value)


class WoundClock(SystemClock):
    """The system's time of day, but back-off and inactivity pass only by waits for answers that do not come.

    So a busy machine changes neither. The line has a time of its own (`Transport.monotonic`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 1000.0

    def monotonic(self) -> float:
        return self.elapsed_s


class Waiting:
    """A transport that winds a clock on by each wait that was in vain."""

    def __init__(self, transport: Transport, clock: WoundClock) -> None:
        self._transport, self._clock = transport, clock
        self.write, self.close, self.monotonic = transport.write, transport.close, transport.monotonic

    def read(self, max_octets: int, deadline: float) -> bytes:
        wait_s = max(0.0, deadline - self.monotonic())
        octets = self._transport.read(max_octets, deadline)
        self._clock.elapsed_s += 0.0 if octets else wait_s
        return octets


@dataclass
class Lab:
    """A line with at least one meter that answers."""

    spec: BusSpec
    meters: list[DlmsSpec]
    site: SimulatedSite | None  # None: the meter is real
    counters: Path
    clock: WoundClock = field(default_factory=lambda: WoundClock())

    @property
    def target(self) -> str:
        """The meter that the tests look at."""
        return self.meters[-1].id

    def bus(self, *extra: DlmsSpec) -> Bus:
        """A client of all meters, and of `extra` ones."""
        counters = FileCounters(self.counters)
        drivers = [
            BusMeter(spec.id, DlmsDriver(spec, self.spec, self.clock, counters), spec.id == "main")
            for spec in (*self.meters, *extra)
        ]
        return Bus(self.spec, drivers, lambda spec: Waiting(open_transport(spec), self.clock), self.clock)

    def session(self, bus: Bus) -> Session:
        """The target's association, opened if it is not."""
        return bus.use(self.target, lambda driver, line: driver.session(line))

    def simulated(self) -> SimulatedSite:
        """The simulator behind the line, or a skip."""
        if self.site is None:
            pytest.skip("a real meter cannot be told to do wrong")
        return self.site


@pytest.fixture
def timeout_s(request: pytest.FixtureRequest) -> float:
    """Wait for the first octet of a reply: a pseudo-terminal needs no patience."""
    return 2.0 if option(request.config, "--hil-port") else 0.5


@pytest.fixture
def make_lab(request: pytest.FixtureRequest, tmp_path: Path, timeout_s: float) -> Iterator[Callable[..., Lab]]:
    """Set up the line that the command line asks for; `simulation` is for simulated meters only."""
    sites: list[SimulatedSite] = []

    def make(simulation: Simulation | None = None, baud: int | None = None) -> Lab:
        port, peer = option(request.config, "--hil-port"), option(request.config, "--hil-peer-port")
        rate = int(option(request.config, "--hil-baud") or 9600) if port else baud or 115_200
        parity = option(request.config, "--hil-parity") or "N"
        counters = Path(option(request.config, "--hil-counters") or tmp_path / "counters.json")
        if port and not peer:
            spec = BusSpec("lab", port, baud=rate, parity=parity)
            return Lab(spec, [real_meter(request.config)], None, counters)
        near = BusSpec("lab", port or str(tmp_path / "rs485"), baud=rate, parity=parity, timeout_s=timeout_s)
        far = BusSpec("lab", peer or near.port, baud=rate, parity=parity)
        names = [f"flat-{n}" for n in range(1, FLATS + 1)]
        specs = [DlmsSpec("main", 16), *(DlmsSpec(name, 16 + n) for n, name in enumerate(names, 1))]
        site = SimulatedSite(
            simulation or Simulation(seed=4, history_days=3, installed="-10d", turnaround_s=0.005, pace=peer is None),
            [far],
            [SimulatedMeterPlan(spec, "lab") for spec in specs],
            [ZonePlan("main", tuple(names))],
            SystemClock(),
            start_s=SystemClock().now(),
        )
        site.start()
        sites.append(site)
        return Lab(near, specs, site, counters)

    yield make
    for site in sites:
        site.stop()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A line without faults."""
    return make_lab()


def real_meter(config: pytest.Config) -> DlmsSpec:
    """The meter that the options describe."""

    def secret(name: str, *, key: bool) -> bytes | None:
        path = option(config, name)
        if path is None:
            return None
        text = Path(path).read_text().strip()
        return bytes.fromhex(text) if key else text.encode()

    title = option(config, "--hil-system-title")
    return DlmsSpec(
        "meter",
        int(option(config, "--hil-address") or 17),
        int(option(config, "--hil-logical-address") or 1),
        int(option(config, "--hil-address-octets") or 0),
        int(option(config, "--hil-client") or 16),
        security=option(config, "--hil-security") or "none",
        password=secret("--hil-password-file", key=False),
        encryption_key=secret("--hil-encryption-key-file", key=True),
        authentication_key=secret("--hil-authentication-key-file", key=True),
        system_title=bytes.fromhex(title) if title else None,
    )
