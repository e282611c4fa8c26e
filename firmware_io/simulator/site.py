"""A whole simulated site: building, meters, lines and ports, put together from plans and run until it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firmware_io.clock import Clock
from firmware_io.dlms.protection.elliptic import PrivateKey
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.dlt645.driver import Dlt645Spec
from firmware_io.dlt698.driver import Dlt698Spec
from firmware_io.errors import TransportError
from firmware_io.mbus.driver import MbusSpec
from firmware_io.modbus.driver import ModbusSpec
from firmware_io.simulator.building.building import Building, Live, MeterPlan, ZonePlan
from firmware_io.simulator.building.loads import CsvLoads, HouseholdLoads, LoadSource
from firmware_io.simulator.building.scenario import Simulation, moment_s
from firmware_io.simulator.building.weather import DAY_S
from firmware_io.simulator.dlt645.station import PASSWORD, Dlt645Station
from firmware_io.simulator.dlt698.station import Dlt698Station
from firmware_io.simulator.line.bus import Multidrop, Wires
from firmware_io.simulator.line.optical import OpticalHead
from firmware_io.simulator.line.ports import LineThread, open_port
from firmware_io.simulator.line.pushing import Pusher, send_to
from firmware_io.simulator.line.shared import Listener, MixedLine, SharedLine
from firmware_io.simulator.line.station import Station
from firmware_io.simulator.mbus.station import MbusStation
from firmware_io.simulator.meter.clockface import MeterClock
from firmware_io.simulator.meter.events import EventLog
from firmware_io.simulator.meter.faults import Faults
from firmware_io.simulator.meter.meter import Identity, SimulatedMeter
from firmware_io.simulator.modbus.station import ModbusStation
from firmware_io.spec import BusSpec

Floats = npt.NDArray[np.float64]
MeterSpec = DlmsSpec | Dlt645Spec | Dlt698Spec | ModbusSpec | MbusSpec
MEDIA = {"electricity": 0x02, "heat": 0x04, "cold-water": 0x16, "hot-water": 0x15, "gas": 0x03}


@dataclass(frozen=True, slots=True)
class SimulatedMeterPlan:
    """A meter as both sides agree on it, and what physics need to know beyond that."""

    spec: MeterSpec
    bus: str
    accuracy_class: float = 1.0
    resolution_wh: float = 10.0
    phase: int = 0
    ct_ratio: float = 1.0
    medium: str = "electricity"


class SharedBuilding:
    """A building that several lines ask at once."""

    def __init__(self, building: Building) -> None:
        self._building = building
        self._lock = threading.Lock()

    def energy_wh(self, meter: str, time_s: float) -> tuple[float, float]:
        """See `Registers`."""
        with self._lock:
            return self._building.energy_wh(meter, time_s)

    def quarters_wh(self, meter: str, first: int, last: int) -> tuple[Floats, Floats]:
        """See `Registers`."""
        with self._lock:
            return self._building.quarters_wh(meter, first, last)

    def live(self, meter: str, time_s: float) -> Live:
        """See `Registers`."""
        with self._lock:
            return self._building.live(meter, time_s)


class SimulatedSite:
    """The meters of a site file with a building behind them.

    Raises ValueError where zones or a file of loads make no building.
    """

    def __init__(
        self,
        simulation: Simulation,
        buses: Sequence[BusSpec],
        meters: Sequence[SimulatedMeterPlan],
        zones: Sequence[ZonePlan],
        clock: Clock,
        *,
        start_s: float,
        timezone: str = "UTC",
    ) -> None:
        self.simulation = simulation
        self.start_s = start_s
        self._clock = clock
        self._buses = tuple(buses)
        plans = [MeterPlan(m.spec.id, m.accuracy_class, m.resolution_wh, m.phase, m.ct_ratio) for m in meters]
        mains = {zone.main for zone in zones}
        flats = [plan.id for plan in plans if plan.id not in mains]
        loads: LoadSource
        if simulation.loads is None:
            loads = HouseholdLoads(simulation.seed, len(flats), timezone=timezone)
        else:
            loads = CsvLoads(Path(simulation.loads), flats)
        self.building = Building(simulation, plans, zones, loads, start_s=start_s, timezone=timezone)
        self._registers = SharedBuilding(self.building)
        exporting = {meter for zone in zones for meter in zone.export}
        self.meters: dict[str, SimulatedMeter] = {}
        self.lines: dict[str, Wires] = {}
        framings: dict[str, str] = {}
        stations: dict[str, list[Station]] = {bus.id: [] for bus in buses}
        listeners: dict[str, list[Listener]] = {bus.id: [] for bus in buses}
        parity = {bus.id: bus.parity != "N" for bus in buses}
        for number, plan in enumerate(meters, 1):
            meter = self._meter(plan, number, plan.spec.id in mains, plan.spec.id in exporting, timezone)
            self.meters[plan.spec.id] = meter
            if isinstance(plan.spec, DlmsSpec):
                stations[plan.bus].append(Station(meter))
                framings[plan.bus] = plan.spec.framing
            else:
                listeners[plan.bus].append(_listener(plan, meter, timezone, parity=parity[plan.bus]))
        for bus in buses:
            serial = not bus.networked
            bits = 10 if bus.parity == "N" else 11
            octet_s = bits / bus.baud if serial and simulation.pace else 0.0
            turnaround_s = simulation.turnaround_s
            faults = Faults([f for f in simulation.fault if f.meter is None], bus.id, start_s, simulation.seed)
            lines: list[Wires] = []
            if listeners[bus.id]:
                lines.append(
                    SharedLine(
                        listeners[bus.id],
                        octet_s=octet_s,
                        turnaround_s=turnaround_s,
                        faults=faults,
                        now=clock.now,
                        parity=parity[bus.id],
                    )
                )
            if stations[bus.id] or not lines:
                lines.append(
                    Multidrop(
                        stations[bus.id],
                        framing=framings.get(bus.id, "hdlc"),
                        octet_s=octet_s,
                        turnaround_s=turnaround_s,
                        faults=faults,
                        now=clock.now,
                    )
                )
            self.lines[bus.id] = lines[0] if len(lines) == 1 else MixedLine(lines)
            if bus.opening is not None and isinstance(lines[0], Multidrop):
                patience_s = min((s.meter.identity.inactivity_s for s in stations[bus.id]), default=120.0)
                self.lines[bus.id] = OpticalHead(lines[0], patience_s)
        self.stations = stations
        self._framings = framings
        self._threads: list[LineThread] = []
        self._pushers: list[Pusher] = []

    def _meter(self, plan: SimulatedMeterPlan, number: int, main: bool, exports: bool, timezone: str) -> SimulatedMeter:
        spec, simulation = plan.spec, self.simulation
        if not isinstance(spec, DlmsSpec):
            spec = DlmsSpec(spec.id, number)  # its registers, clock and log are those of any meter
        identity = Identity(
            spec.id,
            number,
            spec.address,
            spec.logical_address,
            spec.address_octets,
            main,
            plan.resolution_wh,
            plan.phase,
            exports,
            spec.security,
            spec.password or b"",
            spec.authentication_key or b"",
            spec.encryption_key or b"",
            spec.system_title or b"",
            spec.max_pdu,
            spec.max_frame,
            spec.inactivity_s,
            simulation.history_days * DAY_S,
            simulation.compress,
            spec.policy,
            spec.suite,
            spec.master_key or b"",
            spec.broadcast_key or b"",
            _point(spec.signing_key),
            _point(spec.agreement_key),
            spec.client,
            spec.naming,
            spec.gbt_window,
        )
        faults = Faults(simulation.fault, spec.id, self.start_s, simulation.seed)
        opened = [
            moment_s(theft.onset, self.start_s)
            for theft in simulation.theft
            if theft.cover_event and theft.meter == spec.id
        ]
        installed_s = self.building.installed_s
        log = EventLog(installed_s, faults, opened)
        clock = MeterClock(faults, timezone)
        return SimulatedMeter(identity, self._registers, self._clock.now, faults, clock, log, installed_s)

    def warm_up(self) -> None:
        """Compute the history, so that the first question finds it there."""
        now = self._clock.now()
        for meter in list(self.meters)[:1]:
            self._registers.energy_wh(meter, now)

    def start(self, links: Mapping[str, Path] | None = None) -> dict[str, str]:
        """Open all ports and answer; returns what a client has to open, by bus.

        `links` says, by bus, where to link the pseudo-terminal instead of at the bus's port.

        Raises:
            TransportError: a port cannot be had; none is left open then.
        """
        self.warm_up()
        try:
            for bus in self._buses:
                # An optical head hears several speeds: nothing is made of a wrong one.
                baud = 0 if bus.opening is not None else bus.baud
                port = open_port(bus.port, baud, bus.parity, (links or {}).get(bus.id))
                self._threads.append(LineThread(bus.id, self.lines[bus.id], port))
                if self.simulation.push_s > 0 and self.stations[bus.id]:
                    self._pushers.append(Pusher(self._pushes(bus), self.simulation.push_s, bus.id))
        except TransportError:
            self.stop()
            raise
        for thread in self._threads:
            thread.start()
        for pusher in self._pushers:
            pusher.start()
        return {thread.name: thread.port.name for thread in self._threads}

    def failures(self) -> list[str]:
        """Lines that have died, each with the reason."""
        return [thread.failed for thread in self._threads if thread.failed]

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        for pusher in self._pushers:
            pusher.stop()
        for thread in self._threads:
            thread.stop()
        self._threads.clear()
        self._pushers.clear()

    def _pushes(self, bus: BusSpec) -> list[Callable[[], None]]:
        """What sends one push of each DLMS meter of a bus: to where the client listens, or onto the line."""
        form, line = self.simulation.push_form, self.lines[bus.id]
        wrapper = self._framings.get(bus.id) == "wrapper"

        def push(station: Station) -> None:
            octets = station.pushed(form, wrapper=wrapper)
            if bus.listen is not None:
                send_to(bus.listen, octets)
            elif isinstance(line, Multidrop):
                line.utter(octets, time.monotonic())

        return [partial(push, station) for station in self.stations[bus.id]]


def _point(private: bytes | None) -> bytes | None:
    """The client's public key, in hex."""
    return None if private is None else PrivateKey.load(private).public.point.hex().encode()


def _listener(plan: SimulatedMeterPlan, meter: SimulatedMeter, timezone: str, *, parity: bool) -> Listener:
    """The modem of a meter that does not speak DLMS."""
    spec = plan.spec
    if isinstance(spec, Dlt645Spec):
        password = PASSWORD if spec.password is None else spec.password
        return Dlt645Station(meter, spec.address, timezone=timezone, password=password, parity=parity)
    if isinstance(spec, Dlt698Spec):
        return Dlt698Station(meter, spec.octets, timezone=timezone, parity=parity)
    if isinstance(spec, ModbusSpec):
        return ModbusStation(meter, spec.unit, spec.profile, spec.framing, parity=parity)
    assert isinstance(spec, MbusSpec), spec
    digits = None if spec.secondary is None else spec.secondary.digits.replace("F", "0")
    address = meter.identity.number if spec.address is None else spec.address
    return MbusStation(meter, address, digits=digits, medium=MEDIA[plan.medium], key=spec.key, parity=parity)
