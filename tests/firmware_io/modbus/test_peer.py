"""Our driver reads devices that pymodbus serves, over TCP and over RTU in TCP; both ends are the real programs."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Timing
from firmware_io.driver import Line
from firmware_io.errors import TransportError
from firmware_io.modbus.driver import ModbusDriver, ModbusSpec
from firmware_io.modbus.framing import Read, crc16
from firmware_io.modbus.profile_file import shipped
from firmware_io.simulator.line.bus import LineClock
from firmware_io.transport import Tcp

pymodbus = pytest.importorskip("pymodbus", reason="the peer pymodbus is not installed: pip install pymodbus")


class WallClock(LineClock):
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def floats(values: dict[int, float], size: int) -> list[int]:
    registers = [0] * size
    for address, value in values.items():
        registers[address : address + 2] = struct.unpack(">HH", struct.pack(">f", value))
    return registers


SDM630 = floats(
    {0x00: 230.5, 0x02: 231.5, 0x04: 229.5, 0x06: 4.0, 0x08: 2.0, 0x0A: 1.0, 0x0C: 920.0, 0x0E: 460.0, 0x10: 229.0}
    | {0x1E: 0.99, 0x20: 0.99, 0x22: 0.99, 0x34: 1609.0, 0x3E: 0.99, 0x46: 50.0, 0x48: 1234.5, 0x4A: 6.25},
    0x100,
)


class Served:
    """A pymodbus server in a thread of its own."""

    def __init__(self, framer: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._server = None
        self._framer = framer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from pymodbus import FramerType
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        async def serve() -> None:
            block = SimData(0, datatype=DataType.REGISTERS, values=SDM630)
            self._server = ModbusTcpServer(
                SimDevice(1, [block]), framer=FramerType(self._framer), address=("127.0.0.1", self.port)
            )
            await self._server.serve_forever()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve())

    def connect(self) -> Tcp:
        for _ in range(100):
            try:
                return Tcp("127.0.0.1", self.port)
            except TransportError:
                time.sleep(0.05)
        raise AssertionError("pymodbus did not come up")

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(5)
        self._thread.join(5)
        self._loop.close()


@pytest.mark.parametrize("framing", ["rtu", "tcp"])
def test_the_peers_device_is_read(framing: str) -> None:
    served = Served("rtu" if framing == "rtu" else "socket")
    line = Line(served.connect())
    try:
        spec = ModbusSpec("peer", 1, shipped()["eastron-sdm630"], framing, proven=True)
        driver = ModbusDriver(spec, Timing(2.0, 0.1, 0.0), WallClock(0.0))
        at = {reading.obis: reading.value for reading in driver.poll(line)}
    finally:
        line.close(orderly=True)
        served.stop()
    assert at[obis.ENERGY_IMPORT] == 1_234_500.0
    assert at[obis.ENERGY_EXPORT] == 6_250.0
    assert [at[v] for v in obis.VOLTAGE] == [230.5, 231.5, 229.5]
    assert at[obis.POWER_IMPORT] == 1609.0
    assert at[obis.POWER_FACTOR] == pytest.approx(0.99)


def test_the_peer_writes_the_same_frames() -> None:
    from pymodbus.framer import FramerRTU, FramerSocket
    from pymodbus.pdu import DecodePDU
    from pymodbus.pdu.register_message import ReadInputRegistersRequest

    request = ReadInputRegistersRequest(address=0x48, count=4, dev_id=7)
    assert FramerRTU(DecodePDU(True)).buildFrame(request) == Read(7, 4, 0x48, 4).rtu()
    request.transaction_id = 0x1234
    assert FramerSocket(DecodePDU(True)).buildFrame(request) == Read(7, 4, 0x48, 4).tcp(0x1234)
    octets = bytes(range(40))
    theirs = FramerRTU.compute_CRC(octets)
    assert crc16(octets) in (theirs, int.from_bytes(theirs.to_bytes(2, "big"), "little"))
