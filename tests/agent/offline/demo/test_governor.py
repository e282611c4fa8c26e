"""The demo's time: it runs as far as the agent has come, slower where exchanges take long, and never back."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from agent.offline.demo.governor import BEHIND, EXCHANGE_S, STILL_LOOKS, Governor, without_past
from agent.process.clock import CRAWL_SPEED, ClockFile, Pace, SharedClock
from agent.site.tables import Bus, Config, Meter, Site, Zone
from agent.status.snapshot import Snapshot
from agent.wire.state import Balance, BusHealth, Health, MeterHealth, Status
from agent.wire.values import utc

START_S = 1_772_424_000.0
INTERVAL_S = 900.0


class Grants:
    """Stands for the clock's file: what was granted, and at which speed."""

    def __init__(self) -> None:
        self.given: list[tuple[float, float]] = []

    def grant(self, until_s: float, speed: float) -> None:
        self.given.append((until_s, speed))


def snapshot(
    now_s: float, cycles: int, *, latency_ms: float = 1.0, balanced_s: float | None = None, down: bool = False
) -> Snapshot:
    buses = [BusHealth(id="line", state="up", cycles=cycles)]
    if down:
        buses.append(BusHealth(id="broken", state="down"))
    balances = []
    if balanced_s is not None:
        figures = {"main_kwh": 1.0, "sum_kwh": 1.0, "technical_loss_kwh": 0.0, "residual_kwh": 0.0, "coverage": 1.0}
        balances = [
            Balance(
                zone="house", start=utc(balanced_s - INTERVAL_S), end=utc(balanced_s), uncertainty_kwh=0.1, **figures
            )
        ]
    return Snapshot(
        now_s=now_s,
        status=Status(state="online", versions={}),
        health=Health(time=utc(now_s), uptime_s=1.0, buses=buses, meters=[MeterHealth(id="m", latency_ms=latency_ms)]),
        balances=balances,
    )


@pytest.fixture
def rig() -> tuple[Governor, Grants]:
    config = Config(
        site=Site(site="s", gateway="g"), bus=[Bus(id="line", port="/dev/null", poll_s=60.0)], meter=[], zone=[]
    )
    grants = Grants()
    return Governor(grants, config, 1800.0), grants  # type: ignore[arg-type]  # the one method that it uses


def test_time_runs_until_shortly_before_the_boundary_after_the_last_cycle(rig: tuple[Governor, Grants]) -> None:
    governor, grants = rig
    governor.look(snapshot(START_S, 0))
    assert grants.given == []
    governor.look(snapshot(START_S + 60, 1))
    governor.look(snapshot(START_S + 400, 1))  # the next cycle takes long: nothing more is granted for it
    assert {until_s for until_s, _ in grants.given} == {START_S + 60 + 0.75 * INTERVAL_S}
    governor.look(snapshot(START_S + 500, 2, down=True))  # a bus that is down holds nobody up
    assert grants.given[-1][0] == START_S + 500 + 0.75 * INTERVAL_S


def test_a_pipeline_that_is_behind_gets_time_to_catch_up(rig: tuple[Governor, Grants]) -> None:
    governor, grants = rig
    governor.look(snapshot(START_S, 1, balanced_s=START_S - (BEHIND + 1) * INTERVAL_S))
    assert grants.given == []
    governor.look(snapshot(START_S, 1, balanced_s=START_S - (BEHIND - 1) * INTERVAL_S))
    assert len(grants.given) == 1


def test_long_exchanges_make_time_slow(rig: tuple[Governor, Grants]) -> None:
    governor, grants = rig
    governor.look(snapshot(START_S, 1))
    assert grants.given[-1][1] == 1800.0
    governor.look(snapshot(START_S, 2, latency_ms=100.0))
    assert grants.given[-1][1] == pytest.approx(EXCHANGE_S / 0.1)
    governor.look(snapshot(START_S, 3, latency_ms=60_000.0))
    assert grants.given[-1][1] == CRAWL_SPEED
    for cycle in range(4, 400):
        governor.look(snapshot(START_S, cycle))
    assert grants.given[-1][1] == 1800.0


def test_it_gives_up_only_where_nothing_moves_in_many_looks(rig: tuple[Governor, Grants]) -> None:
    governor, _ = rig
    for k in range(STILL_LOOKS * 2):
        assert governor.look(snapshot(START_S + k, k // 100))
    looks = 0
    while governor.look(None):
        looks += 1
    assert looks == STILL_LOOKS - 1 - 99


def test_time_crawls_beyond_what_is_granted() -> None:
    pace = Pace(host_s=10.0, utc_s=START_S, speed=1000.0, granted_s=START_S + 500.0)
    assert pace.at(10.25) == START_S + 250.0
    assert pace.at(10.5) == START_S + 500.0
    assert pace.at(12.5) == pytest.approx(START_S + 500.0 + 2.0 * CRAWL_SPEED)
    past = Pace(host_s=10.0, utc_s=START_S, speed=1000.0, granted_s=START_S - 1.0)
    assert past.at(11.0) == pytest.approx(START_S + CRAWL_SPEED)


def test_processes_share_a_clock_and_a_wait_feels_that_it_is_set_forward(tmp_path: Path) -> None:
    owner = ClockFile(tmp_path / "clock", START_S, 5.0)
    reader = SharedClock(tmp_path / "clock")
    before_s = owner.now()
    assert before_s <= reader.now() <= owner.now()
    waited = []
    thread = threading.Thread(target=lambda: waited.append(reader.wait(threading.Event(), 86_400.0)))
    thread.start()
    owner.advance(START_S + 2 * 86_400.0)
    thread.join(30.0)
    assert waited == [False]
    assert reader.monotonic() >= 2 * 86_400.0 - 1.0
    owner.grant(START_S, 10.0)
    assert reader.now() >= START_S + 2 * 86_400.0, "time never goes back"
    owner.close()


def test_a_cycle_over_all_meters_of_a_bus_may_take_a_third_of_an_interval() -> None:
    meters = [Meter(id=f"m{k}", bus="line") for k in range(20)]
    config = Config(
        site=Site(site="s", gateway="g"), bus=[Bus(id="line", port="/dev/null", poll_s=60.0)], meter=meters, zone=[]
    )
    grants = Grants()
    seen = snapshot(START_S, 1)
    each = [MeterHealth(id=meter.id, latency_ms=15.0) for meter in meters]
    Governor(grants, config, 1800.0).look(  # type: ignore[arg-type]
        msgspec.structs.replace(seen, health=msgspec.structs.replace(seen.health, meters=each))
    )
    assert grants.given[-1][1] == pytest.approx(INTERVAL_S / 3 / (20 * 0.015))


def stepping_rig() -> tuple[Governor, Grants]:
    buses = [Bus(id="line", port="/dev/null", poll_s=900.0, protocol="modbus"), Bus(id="other", port="x", poll_s=900.0)]
    meters = [Meter(id="main", bus="other"), Meter(id="flat", bus="line")]
    zone = Zone(id="house", main="main", subs=["flat"])
    grants = Grants()
    config = Config(site=Site(site="s", gateway="g"), bus=buses, meter=meters, zone=[zone])
    return Governor(grants, config, 1800.0), grants  # type: ignore[arg-type]


def stepped(now_s: float, line: tuple[int, float], other: tuple[int, float]) -> Snapshot:
    """Cycles, and how long the last one took."""
    buses = [
        BusHealth(id=name, state="up", cycles=cycles, cycle_s=took_s)
        for name, (cycles, took_s) in (("line", line), ("other", other))
    ]
    seen = snapshot(now_s, 0)
    return msgspec.structs.replace(seen, health=msgspec.structs.replace(seen.health, buses=buses))


def test_where_a_meter_stores_no_profile_time_steps_from_poll_to_poll() -> None:
    """Fast up to the next poll that is due on any bus, a crawl until it is done."""
    governor, grants = stepping_rig()
    governor.look(stepped(START_S + 5, (1, 3.0), (0, 0.0)))
    assert grants.given == []  # the other bus has not been round yet
    governor.look(stepped(START_S + 20, (1, 3.0), (1, 1.0)))
    assert grants.given[-1][0] == START_S + 2 + 900  # the first bus began two seconds after the boundary
    assert grants.given[-1][1] > 1800.0
    governor.look(stepped(START_S + 910, (1, 3.0), (1, 1.0)))  # its meters are being read: nothing more is granted
    assert grants.given[-1][0] == START_S + 902
    governor.look(stepped(START_S + 912, (2, 3.0), (1, 1.0)))
    assert grants.given[-1][0] == START_S + 19 + 900
    governor.look(stepped(START_S + 925, (2, 3.0), (2, 1.0)))
    assert grants.given[-1][0] == START_S + 909 + 900


def test_a_water_meter_alone_is_no_reason_to_step() -> None:
    _, grants = stepping_rig()
    buses = [Bus(id="line", port="/dev/null", poll_s=60.0), Bus(id="cellar", port="x", protocol="mbus")]
    meters = [Meter(id="main", bus="line"), Meter(id="flat", bus="line"), Meter(id="water", bus="cellar")]
    zone = Zone(id="house", main="main", subs=["flat"])
    config = Config(site=Site(site="s", gateway="g"), bus=buses, meter=meters, zone=[zone])
    assert not without_past(config)
    assert without_past(msgspec.structs.replace(config, zone=[Zone(id="house", main="main", subs=["flat", "water"])]))
    assert grants.given == []
