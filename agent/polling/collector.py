"""All buses of a site: their specifications with the secrets loaded, their threads, and what can be seen of them."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable

from agent import wire
from agent.pipeline.inbox import Batch, CaughtUp
from agent.polling.bus_thread import BusThread
from agent.polling.buses import open_buses, serials_of
from agent.polling.meter_watch import MeterWatch
from agent.process.heartbeat import Heartbeat
from agent.process.trusted_clock import TrustedClock
from agent.site.tables import Config
from agent.status.live import Trail
from agent.status.snapshot import MeterView
from firmware_io.clock import Clock
from firmware_io.errors import TransportError
from firmware_io.spec import BusSpec
from firmware_io.transport import Adjustable, Transport, open_transport

STOP_LOOK_S = 0.5


class _Watched:
    """A transport whose waiting ends when the agent stops, and is a sign of life of its bus's thread.

    A dead meter's time-out must not hold up the end, and a meter that is slow in all it says must not look like a
    thread that hangs: then the watchdog would end the agent, and with it every other bus.
    """

    def __init__(self, transport: Transport, stop: threading.Event, beat: Callable[[], None]) -> None:
        self._transport, self._stop, self._beat = transport, stop, beat
        self.write, self.close, self.monotonic = transport.write, transport.close, transport.monotonic
        if isinstance(transport, Adjustable):
            self.adjust = transport.adjust

    def read(self, max_octets: int, deadline: float) -> bytes:
        """As the transport's, in slices.

        Raises:
            TransportError: also when the agent stops.
        """
        while True:
            if self._stop.is_set():
                raise TransportError("the agent stops")
            self._beat()
            slice_end = min(deadline, self.monotonic() + STOP_LOOK_S)
            octets = self._transport.read(max_octets, slice_end)
            if octets or slice_end >= deadline:
                return octets


class Collector:
    """The bus threads of a site."""

    def __init__(self, config: Config, clock: Clock, inbox: queue.Queue[Batch | CaughtUp]) -> None:
        self._config = config
        self._stop = threading.Event()
        exporting = {meter for zone in config.zone for meter in zone.export}
        watches = {meter.id: MeterWatch(meter, exports=meter.id in exporting) for meter in config.meter}
        buses = open_buses(config, clock, self._open, serials_of(config))
        self._buses = [
            BusThread(
                bus,
                buses[bus.id],
                [watch for watch in watches.values() if watch.config.bus == bus.id],
                clock,
                inbox,
                config.detection.row_s,
                clock if isinstance(clock, TrustedClock) else None,
            )
            for bus in config.bus
            if bus.id in buses
        ]
        self._watches = watches
        self._threads: list[threading.Thread] = []

    def _open(self, spec: BusSpec) -> Transport:
        beat = next(bus.heartbeat.beat for bus in self._buses if bus.config.id == spec.id)
        return _Watched(open_transport(spec), self._stop, beat)

    @property
    def buses(self) -> list[str]:
        """The ids of the buses that are read."""
        return [bus.config.id for bus in self._buses]

    def start(self, known_s: float | None) -> None:
        """Start reading; `known_s` is the last boundary that the pipeline knows, None on a first start."""
        for bus in self._buses:
            thread = threading.Thread(
                target=bus.run, args=(self._stop, known_s), name=f"bus {bus.config.id}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop all; a thread within an exchange ends after it."""
        self._stop.set()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.05, deadline_s - time.monotonic()))

    # -- what can be seen ---------------------------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        """What is still to be done before all buses are watched; empty then."""
        return next((bus.phase for bus in self._buses if bus.phase), "")

    @property
    def ready(self) -> bool:
        """Whether every bus is past its start."""
        return not self.phase

    def heartbeats(self) -> list[Heartbeat]:
        """Of all bus threads."""
        return [bus.heartbeat for bus in self._buses]

    def silent(self) -> list[str]:
        """The meters that cannot be read at present."""
        return [meter for meter, watch in self._watches.items() if watch.silent]

    def name_plates(self) -> dict[str, tuple[str | None, str | None]]:
        """Serial number and firmware of each meter, as far as it has told them."""
        return {meter: (watch.serial, watch.firmware) for meter, watch in self._watches.items()}

    def health(self) -> tuple[list[wire.BusHealth], list[wire.MeterHealth]]:
        """The figures of buses and meters."""
        meters = [
            wire.MeterHealth(
                id=meter,
                last_reading=None if watch.last_reading_s is None else wire.utc(watch.last_reading_s),
                readings=watch.readings,
                errors=dict(watch.errors),
                refresh_s=None if watch.refresh.every_s is None else round(watch.refresh.every_s, 1),
                latency_ms=None if watch.latency_s is None else round(1000 * watch.latency_s, 1),
            )
            for meter, watch in self._watches.items()
        ]
        return [bus.health() for bus in self._buses], meters

    def trails(self) -> dict[str, Trail]:
        """The last readings of each meter that was read."""
        return {meter: watch.trail for meter, watch in self._watches.items() if watch.trail is not None}

    def views(self) -> list[MeterView]:
        """The last values of all meters."""
        return [
            MeterView(
                id=meter,
                bus=watch.config.bus or "",
                time_s=watch.last_reading_s,
                energy_kwh=_kwh(watch.import_wh),
                export_kwh=_kwh(watch.export_wh),
                power_w=None if math.isnan(watch.power_w) else watch.power_w,
                serial=watch.serial,
                firmware=watch.firmware,
                register=watch.register(),
            )
            for meter, watch in self._watches.items()
        ]

    def registers(self) -> list[wire.Register]:
        """What the meters of water, heat and gas show, as far as they have been read."""
        return [register for watch in self._watches.values() if (register := watch.register()) is not None]


def _kwh(wh: float) -> float | None:
    return None if math.isnan(wh) else wh / 1000.0
