"""Stands: simulated meters of one protocol on one line in virtual time, with the drivers that read them.

Every protocol that only asks has one, so that what all have to stand is tested and measured once, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from firmware_io.asking.exchange import Timing
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlt645.driver import Dlt645Driver, Dlt645Spec
from firmware_io.dlt698.driver import Dlt698Driver, Dlt698Spec
from firmware_io.driver import Line, MeterDriver
from firmware_io.mbus.driver import MbusDriver, MbusSpec
from firmware_io.mbus.frame import SecondaryAddress
from firmware_io.modbus.driver import ModbusDriver, ModbusSpec
from firmware_io.modbus.profile_file import shipped
from firmware_io.simulator.building.scenario import Fault
from firmware_io.simulator.dlt645.station import Dlt645Station
from firmware_io.simulator.dlt698.station import Dlt698Station
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.line.shared import SharedLine
from firmware_io.simulator.mbus.station import MbusStation
from firmware_io.simulator.meter.meter import SimulatedMeter
from firmware_io.simulator.modbus.station import ModbusStation
from firmware_io.spec import BusSpec
from tests.firmware_io import lab

TURNAROUND_S = 0.03
PROFILE = "eastron-sdm72d"


@dataclass(frozen=True)
class Kind:
    """One protocol: how meter and driver are made, the line's usual form, and octets that look like its frames."""

    station: Callable[[SimulatedMeter, int], Any]
    driver: Callable[[int, Timing, LineClock], MeterDriver]
    alphabet: bytes
    parity: bool = True
    baud: int = 2400
    gap_octets: float = 0.0  # of silence that the protocol wants ahead of a question
    rest_s: float = 0.0  # between two cycles, where a late reply has to be waited for
    lossless: bool = False  # TCP loses and changes no octets
    slack: float = 0.0  # of a value: what its coding rounds away


def _digits(n: int) -> str:
    return f"{11_111_111 * (n + 1):08d}" if n < 9 else f"{12_000_000 + n:08d}"


def _modbus(framing: str) -> dict[str, Any]:
    profile = shipped()[PROFILE]
    return {
        "station": lambda meter, n: ModbusStation(meter, n + 1, profile, framing),
        "driver": lambda n, timing, clock: ModbusDriver(
            ModbusSpec(f"m{n}", n + 1, profile, framing, proven=True), timing, clock
        ),
        "alphabet": bytes((1, 2, 3, 4, 0x84, 36, 0)),
        "parity": False,
        "baud": 9600,
        "rest_s": 5.0,
        "slack": 1e-7,  # the profile's registers are float32
    }


KINDS = {
    "dlt645": Kind(
        lambda meter, n: Dlt645Station(meter, f"{123456789012 + n}"),
        lambda n, timing, clock: Dlt645Driver(Dlt645Spec(f"m{n}", f"{123456789012 + n}"), timing, clock),
        bytes((0x68, 0x16, 0xFE, 0x33, 0x91, 0xAA, 0x12)),
    ),
    "dlt698": Kind(
        lambda meter, n: Dlt698Station(meter, Dlt698Spec("", f"{202600000100 + n}").octets),
        lambda n, timing, clock: Dlt698Driver(Dlt698Spec(f"m{n}", f"{202600000100 + n}"), timing, clock),
        bytes((0x68, 0x16, 0xFE, 0xC3, 0x05, 0x00)),
        baud=9600,
    ),
    "modbus rtu": Kind(**_modbus("rtu"), gap_octets=3.5),
    "modbus tcp": Kind(**_modbus("tcp"), lossless=True),
    "mbus primary": Kind(
        lambda meter, n: MbusStation(meter, n + 1, digits=_digits(n)),
        lambda n, timing, clock: MbusDriver(MbusSpec(f"m{n}", n + 1), timing, clock),
        bytes((0x68, 0x16, 0x10, 0x08, 0x72, 0x01, 0x05)),
        gap_octets=3.0,
    ),
    "mbus secondary": Kind(
        lambda meter, n: MbusStation(meter, n + 1, digits=_digits(n)),
        lambda n, timing, clock: MbusDriver(MbusSpec(f"m{n}", None, SecondaryAddress(_digits(n))), timing, clock),
        bytes((0x68, 0x16, 0x10, 0x08, 0x72, 0x01, 0x05)),
        gap_octets=3.0,
    ),
}


class Stand:
    """`meters` meters, meter n of 400 + 137 n watts, at the protocol's usual speed or at `baud`."""

    def __init__(self, kind: str, meters: int = 3, *, baud: int | None = None, silent: Iterable[int] = ()) -> None:
        self.kind = KINDS[kind]
        self.octet_s = (11 if self.kind.parity else 10) / (baud or self.kind.baud)
        self.timing = Timing(1.0, 0.1, self.octet_s)
        self.clock = LineClock(lab.START_S + 40_000)
        self.meters = []
        for n in range(meters):
            building = lab.SteadyBuilding(power_w=self.power_w(n), first_wh=1e6 * (n + 1), three_phase=True)
            faults = (Fault(kind="silence"),) if n in silent else ()
            self.meters.append(lab.simulated_meter(self.clock, n + 1, faults=faults, building=building))
        self.stations = [self.kind.station(meter, n) for n, meter in enumerate(self.meters)]
        self.shared = SharedLine(
            self.stations,
            octet_s=self.octet_s,
            turnaround_s=TURNAROUND_S,
            now=self.clock.now,
            parity=self.kind.parity,
        )
        self.line = Line(NullModem(self.shared, self.clock.move))
        self.drivers = [self.kind.driver(n, self.timing, self.clock) for n in range(meters)]

    @staticmethod
    def power_w(n: int) -> float:
        return 400.0 + 137 * n

    def dirty(self, dirt: str, seed: int = 1) -> Line:
        """The line, dirty in one way."""
        alphabet, parity = self.kind.alphabet, self.kind.parity
        return lab.dirty_line(dirt, self.shared, self.clock, parity=parity, alphabet=alphabet, seed=seed)

    def rest(self, line: Line) -> None:
        """Let time pass in which late replies come; they are nobody's."""
        end = line.transport.monotonic() + self.kind.rest_s
        while line.transport.monotonic() < end:
            line.transport.read(4096, end)

    def cycle(self) -> float:
        """One poll of every meter: its time over that of octets, turnarounds and the silences between frames."""
        before = [(d.traffic.sent_octets + d.traffic.received_octets, d.traffic.exchanges) for d in self.drivers]
        started_s = self.clock.elapsed_s
        for driver in self.drivers:
            driver.poll(self.line)
        took_s = self.clock.elapsed_s - started_s
        least_s = 0.0
        for driver, (octets, exchanges) in zip(self.drivers, before, strict=True):
            passed = driver.traffic.sent_octets + driver.traffic.received_octets - octets
            asked = driver.traffic.exchanges - exchanges
            least_s += passed * self.octet_s + asked * (TURNAROUND_S + self.kind.gap_octets * self.octet_s)
        return took_s / least_s


def dead_share(kind: str, meters: int, hours: float, baud: int | None = None) -> float:
    """The part of the line's time that one dead meter of `meters` takes, polled without a pause for some hours."""
    stand = Stand(kind, meters, baud=baud, silent=(3,))
    spec = BusSpec("line", "/dev/null", baud or KINDS[kind].baud)
    bus_meters = [BusMeter(f"m{n}", driver) for n, driver in enumerate(stand.drivers)]
    bus = Bus(spec, bus_meters, lambda _: NullModem(stand.shared, stand.clock.move), stand.clock)
    lost_s = 0.0
    started_s = at_s = stand.clock.elapsed_s
    while at_s - started_s < hours * 3600:
        for poll in bus.poll_cycle():
            now_s = stand.clock.elapsed_s
            if poll.meter == "m3":
                assert poll.error is not None
                lost_s += now_s - at_s
            at_s = now_s
    bus.close()
    return lost_s / (at_s - started_s)
