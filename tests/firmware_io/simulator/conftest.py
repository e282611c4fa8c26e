"""A small simulated site with a client's bus on it, in time that moves only when somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import KEY_OCTETS, DlmsSpec
from firmware_io.simulator.building.building import ZonePlan
from firmware_io.simulator.building.scenario import Simulation
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.meter.keys import private_key
from firmware_io.simulator.site import SimulatedMeterPlan, SimulatedSite
from firmware_io.spec import BusSpec
from firmware_io.transport import Transport

START_S = 1_772_409_600.0  # 2026-03-02 00:00 UTC, a Monday in winter time
PASSWORD = b"open sesame"
KEYS = {
    "authentication_key": bytes(range(0xD0, 0xE0)),
    "encryption_key": bytes(range(16)),
    "system_title": b"CHK\x00\x00\x00\x00\x01",
}
FLAT_NUMBER = 2  # flat-1 is the second meter of the site
CLIENT_KEYS = {1: b"11" * 32, 2: b"11" * 48}  # private keys of the client


@dataclass
class Bench:
    """A simulated site and the client that reads it."""

    site: SimulatedSite
    clock: LineClock
    spec: BusSpec
    meters: list[DlmsSpec]
    bus: Bus = field(init=False)
    drivers: dict[str, DlmsDriver] = field(init=False)
    modem: NullModem | None = None

    def __post_init__(self) -> None:
        counters = MemoryCounters()
        self.drivers = {meter.id: DlmsDriver(meter, self.spec, self.clock, counters) for meter in self.meters}
        meters = [BusMeter(name, driver, name == "main") for name, driver in self.drivers.items()]
        self.bus = Bus(self.spec, meters, self.plug, self.clock)

    def plug(self, spec: BusSpec) -> Transport:
        """A new connection to the line."""
        self.modem = NullModem(self.site.lines[spec.id], self.clock.move)
        return self.modem

    def session(self, meter: str) -> Session:
        """The meter's association, opened if it is not."""
        return self.bus.use(meter, lambda driver, line: driver.session(line))

    def rest(self, seconds: float) -> None:
        """Let time pass on the line and on the clock."""
        assert self.modem is not None
        end = self.modem.monotonic() + seconds
        while self.modem.monotonic() < end:
            self.modem.read(4096, end)


MakeBench = Callable[..., Bench]


@pytest.fixture(scope="session")
def start_s() -> float:
    """When the benches begin."""
    return START_S


@pytest.fixture(scope="session")
def secured() -> Callable[[str], dict[str, object]]:
    """What a meter of a security needs in its plan."""
    return _secured


def _secured(kind: str) -> dict[str, object]:
    if kind == "lls":
        return {"security": "lls", "password": PASSWORD, "client": 2}
    if kind.startswith("ecdsa-"):  # both sides sign; "plain" without ciphering, else by the suite
        suite = 2 if kind == "ecdsa-2" else 1
        size = KEY_OCTETS[suite]
        keys = {"authentication_key": bytes(range(0xD0, 0xD0 + size)), "encryption_key": bytes(range(size))}
        return {
            "security": "hls-ecdsa",
            "client": 1,
            "system_title": KEYS["system_title"],
            "signing_key": CLIENT_KEYS[suite],
            "meter_signing_key": private_key(FLAT_NUMBER, suite).public.point.hex().encode(),
            **({} if kind == "ecdsa-plain" else {"suite": suite, "master_key": bytes(range(40, 40 + size)), **keys}),
            "agreement_key": CLIENT_KEYS[suite],
            "meter_agreement_key": private_key(FLAT_NUMBER, suite).public.point.hex().encode(),
            "broadcast_key": bytes(range(80, 80 + size)),
        }
    if kind == "gmac-suite1":
        return {"security": "hls-gmac", "client": 1, "suite": 1, "master_key": bytes(range(40, 56)), **KEYS}
    if kind in ("hls-aes", "hls-md5", "hls-sha1", "hls-sha256"):
        return {"security": kind, "password": PASSWORD, "client": 1, "system_title": KEYS["system_title"]}
    if kind == "gmac-256":
        keys = {name: bytes(range(n, n + 32)) for n, name in ((0, "encryption_key"), (0xD0, "authentication_key"))}
        return {"security": "hls-gmac", "client": 1, **KEYS, **keys}
    if kind.startswith("gmac-"):
        return {"security": "hls-gmac", "client": 1, "policy": kind.removeprefix("gmac-"), **KEYS}
    if kind == "hls-gmac":
        return {"security": "hls-gmac", "client": 1, **KEYS}
    return {}


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    """Build a site of `flats` flats behind `main`, all on one line; keyword arguments go where they belong."""
    benches: list[Bench] = []

    def make(
        simulation: Simulation | None = None,
        *,
        flats: int = 3,
        timezone: str = "UTC",
        framing: str = "hdlc",
        meter: dict[str, object] | None = None,
        client: dict[str, object] | None = None,
    ) -> Bench:
        """`meter` changes flat-1's plan on both sides; `client` only what the client believes of it."""
        clock = LineClock(START_S)
        spec = BusSpec("line", "tcp://null:1" if framing == "wrapper" else "/dev/null-modem")
        names = [f"flat-{n}" for n in range(1, flats + 1)]
        specs = [DlmsSpec("main", 16, framing=framing)]
        for n, name in enumerate(names, 1):
            specs.append(
                DlmsSpec(**({"id": name, "address": 16 + n, "framing": framing} | ((meter or {}) if n == 1 else {})))
            )
        plans = [SimulatedMeterPlan(specs[0], "line", 0.5)] + [SimulatedMeterPlan(s, "line") for s in specs[1:]]
        site = SimulatedSite(
            simulation or Simulation(seed=5, history_days=8, installed="-60d"),
            [spec],
            plans,
            [ZonePlan("main", tuple(names))],
            clock,
            start_s=START_S,
            timezone=timezone,
        )
        if client:
            specs[1] = replace(specs[1], **client)
        benches.append(Bench(site, clock, spec, specs))
        return benches[-1]

    yield make
    for bench in benches:
        bench.bus.close()
