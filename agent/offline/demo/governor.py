"""How fast the demo's time may run: only as far ahead as building and agent have come.

Meters that store no load profile are known by their polls alone, and each day of learning is a day of polls: where a
house has such meters, time runs from one poll to the next as fast as it can, and crawls while meters are read.

It owns the clock's grant and what counts as progress. It knows nothing of thefts and of alerts, and never asks how
late it is outside: a busy host makes the building's time slow, not the demo fail.
"""

from __future__ import annotations

from agent.process.clock import CRAWL_SPEED, ClockFile
from agent.site.tables import Config
from agent.status.snapshot import Snapshot

LEAD = 0.75  # of an interval beyond the last poll cycle: the next boundary's rows are read before the one after it
BEHIND = 5.0  # intervals between the clock and the last balance: more, and the pipeline has to catch up first
# What an exchange with a meter may take of the building's time: by so much a reading's time is uncertain, and a clock's
# offset wrong.
EXCHANGE_S, EXCHANGE_SHARE = 20.0, 0.2  # the second one of `poll_s`: who polls seldom cannot be exact
CYCLE = (
    1 / 3
)  # of an interval, or `poll_s`, for a cycle over a bus: a meter without a load profile is read at polls only
NO_PROFILE: tuple[str | None, ...] = ("modbus", "mbus")
FORGET = 0.95  # of the longest exchange, at each look
STEP_FACTOR = 40.0  # of the speed that was asked for, between two polls: nothing is measured there
LOOK_S, STEP_LOOK_S = 0.1, 0.01  # of the host, between two looks
STILL_LOOKS = 3000  # without any progress: nothing will come any more


def without_past(config: Config) -> bool:
    """Whether a meter of a zone stores no load profile: then nothing is learned but from polls."""
    protocols = {bus.id: bus.protocol for bus in config.bus}
    zones = {meter for zone in config.zone for meter in (zone.main, *zone.subs)}
    spoken = {m.id: m.protocol or protocols.get(m.bus or "") for m in config.meter}
    return any(spoken.get(meter) in NO_PROFILE for meter in zones)


class Governor:
    """Grants time by what the agent's snapshots show."""

    def __init__(self, clock: ClockFile, config: Config, speed: float) -> None:
        self._clock, self._speed = clock, speed
        self._exchange_s = self._cycle_s = 0.0  # of the host
        self._cycle_limit_s = max(CYCLE * config.detection.row_s, min(bus.poll_s for bus in config.bus))
        self._bus_of = {meter.id: meter.bus for meter in config.meter}
        self._lead_s = max(LEAD * config.detection.row_s, 2.0 * max(bus.poll_s for bus in config.bus))
        self._behind_s = BEHIND * config.detection.row_s
        self._exchange_limit_s = max(EXCHANGE_S, EXCHANGE_SHARE * max(bus.poll_s for bus in config.bus))
        self._poll_s = {bus.id: bus.poll_s for bus in config.bus}
        self._stepping = without_past(config)
        self._due_s: dict[str, float] = {}
        self._cycles: dict[str, int] = {}
        self._seen_s: dict[str, float] = {}
        self._progress: object = None
        self._still = 0
        self._still_looks = STILL_LOOKS * LOOK_S / self.look_s

    @property
    def look_s(self) -> float:
        """How long to wait between two looks, seconds of the host."""
        return STEP_LOOK_S if self._stepping else LOOK_S

    def restart(self) -> None:
        """Another agent: its counts begin anew."""
        self._due_s.clear()
        self._cycles.clear()
        self._seen_s.clear()

    def look(self, snapshot: Snapshot | None) -> bool:
        """Grant what the agent's latest snapshot allows (None: it did not answer); False if it stands still for good.

        A bus that is down holds nobody up; one whose cycle takes long does.
        """
        if snapshot is None:
            self._still += 1
            return self._still < self._still_looks
        for bus in snapshot.health.buses:
            if bus.cycles != self._cycles.get(bus.id, 0):
                self._cycles[bus.id] = bus.cycles
                self._seen_s[bus.id] = snapshot.now_s
                self._due_s[bus.id] = snapshot.now_s - (bus.cycle_s or 0.0) + self._poll_s[bus.id]
        by_bus: dict[str | None, float] = {}
        for meter in snapshot.health.meters:
            bus_id = self._bus_of.get(meter.id)
            by_bus[bus_id] = by_bus.get(bus_id, 0.0) + (meter.latency_ms or 0.0) / 1000
        self._cycle_s = max(FORGET * self._cycle_s, *by_bus.values(), 0.0)
        latencies_s = sorted(m.latency_ms / 1000 for m in snapshot.health.meters if m.latency_ms is not None)
        slow_s = latencies_s[len(latencies_s) * 9 // 10] if latencies_s else 0.0
        self._exchange_s = max(slow_s, FORGET * self._exchange_s)
        ends_s = [balance.end.timestamp() for balance in snapshot.balances]
        progress = (snapshot.phase, tuple(self._cycles.items()), tuple(ends_s))
        self._still = 0 if progress != self._progress else self._still + 1
        self._progress = progress
        up = [bus.id for bus in snapshot.health.buses if bus.state == "up"]
        polled = bool(up) and all(bus in self._seen_s for bus in up)
        balanced = not ends_s or snapshot.now_s - min(ends_s) <= self._behind_s
        if polled and balanced and self._stepping:
            self._clock.grant(min(self._due_s[bus] for bus in up), STEP_FACTOR * self._speed)
        elif polled and balanced:
            slowest = min(
                self._exchange_limit_s / max(self._exchange_s, 1e-6), self._cycle_limit_s / max(self._cycle_s, 1e-6)
            )
            speed = min(self._speed, max(CRAWL_SPEED, slowest))
            self._clock.grant(min(self._seen_s[bus] for bus in up) + self._lead_s, speed)
        return self._still < self._still_looks
