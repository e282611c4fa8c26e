"""One driver of every protocol beside DLMS, with the shipped profiles: what `bench_protocols` weighs."""

from __future__ import annotations

from firmware_io.asking.exchange import Timing
from firmware_io.dlt645.driver import Dlt645Driver, Dlt645Spec
from firmware_io.dlt698.driver import Dlt698Driver, Dlt698Spec
from firmware_io.driver import MeterDriver
from firmware_io.mbus.driver import MbusDriver, MbusSpec
from firmware_io.modbus.driver import ModbusDriver, ModbusSpec
from firmware_io.modbus.profile_file import shipped


class _Clock:
    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0


def drivers() -> list[MeterDriver]:
    """A meter for each profile, and one of each other protocol."""
    timing, clock = Timing(1.0, 0.1, 0.001), _Clock()
    made: list[MeterDriver] = [
        ModbusDriver(ModbusSpec(name, 1, profile, proven=True), timing, clock) for name, profile in shipped().items()
    ]
    made += [
        Dlt645Driver(Dlt645Spec("a", "1"), timing, clock),
        Dlt698Driver(Dlt698Spec("b", "1"), timing, clock),
        MbusDriver(MbusSpec("c", 1), timing, clock),
    ]
    return made
