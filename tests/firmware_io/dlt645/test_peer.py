"""Our driver reads the meter that the independent package `dlt645` plays, over TCP; both ends are the real programs."""

from __future__ import annotations

import socket
import time

import pytest

from firmware_io import obis
from firmware_io.asking.exchange import Timing
from firmware_io.dlt645 import frame as wire
from firmware_io.dlt645.driver import Dlt645Driver, Dlt645Spec
from firmware_io.driver import Line
from firmware_io.simulator.line.bus import LineClock
from firmware_io.transport import Tcp

dlt645 = pytest.importorskip("dlt645", reason="the peer dlt645 is not installed: pip install dlt645")

ADDRESS = "000040506070"


class WallClock(LineClock):
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture
def served():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = dlt645.MeterServerService.new_tcp_server("127.0.0.1", port, 5.0)
    server.address = bytearray(wire.address_of(ADDRESS))  # it takes the address as it is on the wire
    server.set_00(0x00010000, 12345.67)
    server.set_00(0x00020000, 1.5)
    server.set_02(0x02010100, 230.4)
    server.set_02(0x02020100, 5.678)
    server.set_02(0x02030000, 1.2345)
    server.set_02(0x02800001, 5.123)
    server.start()
    yield port
    server.stop()


def test_the_peers_meter_is_read(served: int) -> None:
    for _ in range(50):
        try:
            transport = Tcp("127.0.0.1", served)
            break
        except Exception:
            time.sleep(0.05)
    line = Line(transport)
    try:
        driver = Dlt645Driver(Dlt645Spec("peer", ADDRESS), Timing(2.0, 0.1, 0.0), WallClock(0.0))
        at = {reading.obis: reading.value for reading in driver.poll(line)}
    finally:
        line.close(orderly=True)
    assert at[obis.ENERGY_IMPORT] == 12_345_670.0
    assert at[obis.ENERGY_EXPORT] == 1_500.0
    assert at[obis.VOLTAGE[0]] == 230.4
    assert at[obis.CURRENT[0]] == 5.678
    assert at[obis.POWER_IMPORT] == 1234.5
    assert at[obis.NEUTRAL_CURRENT] == 5.123


@pytest.mark.parametrize("octets", ["68610100000000689108333334335933333 38A16".replace(" ", "")])
def test_the_peer_and_we_understand_the_same(octets: str) -> None:
    from dlt645.protocol.protocol import DLT645Protocol

    theirs = DLT645Protocol.deserialize(bytes.fromhex(octets))
    parsed = wire.parse(bytearray.fromhex(octets), 0)
    assert isinstance(parsed, tuple)
    ours = parsed[0]
    assert (bytes(theirs.addr), theirs.ctrl_code, bytes(theirs.data)) == (ours.address, ours.control, ours.data)
    assert DLT645Protocol.build_frame(theirs.addr, theirs.ctrl_code, theirs.data)[-20:] == ours.encode(0)
