"""Targets of the protocols beside DLMS: arbitrary octets into their framers, decoders and drivers.

python -m tests.system.fuzz.fuzz_protocols [--seconds 600] [--inputs N] [--seed 1] [--only mbus_records]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

from firmware_io.asking.exchange import Framer, Timing
from firmware_io.dlt645 import frame as dlt645
from firmware_io.dlt645 import registers as dlt645_registers
from firmware_io.dlt645.driver import Dlt645Driver, Dlt645Spec
from firmware_io.dlt698 import apdu as dlt698_apdu
from firmware_io.dlt698 import frame as dlt698
from firmware_io.dlt698.driver import Dlt698Driver, Dlt698Spec
from firmware_io.driver import Line
from firmware_io.errors import MeterError
from firmware_io.mbus import frame as mbus
from firmware_io.mbus import records, registers
from firmware_io.mbus.driver import MbusDriver, MbusSpec
from firmware_io.mbus.frame import SecondaryAddress
from firmware_io.modbus import framing as modbus
from firmware_io.modbus.driver import ModbusDriver, ModbusSpec
from firmware_io.modbus.profile_file import ProfileError, parse, shipped
from firmware_io.simulator.line.bus import LineClock
from tests.system.fuzz.runner import Fuzzer

KEY = bytes(range(16))
PROFILES = list(shipped().values())
BLOCKS = [(block.columns(), len(block.registers)) for profile in PROFILES for block in profile.blocks()]


def same_however_cut(parse_at: Callable, octets: bytes) -> list:
    """The frames of a stream, which do not depend on how it is cut."""
    whole: Framer = Framer(parse_at, 1200)
    frames = whole.receive(octets) + whole.idle()
    cut: Framer = Framer(parse_at, 1200)
    step = 1 + len(octets) % 7
    pieces: list = []
    for start in range(0, len(octets), step):
        pieces += cut.receive(octets[start : start + step])
    pieces += cut.idle()
    assert not cut.pending
    if len(octets) <= 1200:  # beyond it a head that is too long is given up earlier when octets come slowly
        assert pieces == frames, (pieces, frames)
    return frames


def dlt645_frames(octets: bytes) -> None:
    for frame in same_however_cut(dlt645.parse, octets):
        assert frame.encode(0) in octets
        dlt645_registers.load_records(frame.data)


def dlt645_records(octets: bytes) -> None:
    for record in dlt645_registers.load_records(octets):
        assert record.import_wh >= 0
    dlt645_registers.moment(octets[:6])
    for item in (*dlt645_registers.ITEMS_2007, *dlt645_registers.ITEMS_1997):
        item.fields[0].decode(octets[: item.fields[0].octets])


def dlt698_frames(octets: bytes) -> None:
    for frame in same_however_cut(dlt698.parse, octets):
        assert frame.apdu in octets or frame.control & dlt698.SCRAMBLED
        dlt698_apdus(frame.apdu)


def dlt698_apdus(octets: bytes) -> None:
    dlt698_apdu.piid_of(octets)
    with suppress(MeterError):
        assert all(0 <= oad < 1 << 32 for oad in dlt698_apdu.results(octets))
    with suppress(MeterError):
        dlt698_apdu.connected(octets)
    with suppress(MeterError):
        rows = dlt698_apdu.rows(octets)
        assert isinstance(rows, dlt698_apdu.Denied) or len(rows) <= dlt698_apdu.MAX_ROWS


def modbus_frames(octets: bytes) -> None:
    for reply in same_however_cut(modbus.rtu_parser(1, 4), octets):
        assert reply.unit == 1
    same_however_cut(modbus.parse_tcp, octets)


def modbus_values(octets: bytes) -> None:
    columns, count = BLOCKS[len(octets) % len(BLOCKS)]
    values = columns.decode(octets)
    assert len(values) == count
    assert all(value is None or math.isfinite(value) for value in values)


def modbus_profiles(octets: bytes) -> None:
    try:
        profile = parse("fuzz", octets.decode("utf-8", "replace"))
    except ProfileError:
        return
    assert all(block.size <= profile.max_registers for block in profile.blocks())


def mbus_frames(octets: bytes) -> None:
    for frame in same_however_cut(mbus.parse, octets):
        assert frame.encode() in octets


def mbus_records(octets: bytes) -> None:
    kinds = (mbus.RESPONSE_VARIABLE, mbus.RESPONSE_SHORT, mbus.RESPONSE_NONE, mbus.RESPONSE_FIXED, 0x70, 0x99)
    ci = kinds[sum(octets) % 12 % 6 if sum(octets) % 24 < 12 else 0]  # mostly the one that meters use
    try:
        telegram = records.decode(mbus.Frame(mbus.RSP_UD, 1, ci, octets), KEY if len(octets) & 1 else None)
    except MeterError:
        return
    for medium in (0x02, 0x03, 0x04, 0x06, 0x07, 0x0A):
        registers.known(medium, [telegram])


class _Babble:
    """A transport on which the input trickles in after each question, and then nothing."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._left = b""
        self.time_s = 0.0

    def read(self, max_octets: int, deadline: float) -> bytes:
        if self._left and self.time_s + 0.01 <= deadline:
            self.time_s += 0.01
            piece, self._left = self._left[:16], self._left[16:]
            return piece
        self.time_s = max(self.time_s, deadline)
        return b""

    def write(self, octets: bytes) -> None:
        size = max(1, len(self._octets) // 3)
        self._left, self._octets = self._octets[:size], self._octets[size:]

    def close(self) -> None: ...

    def monotonic(self) -> float:
        return self.time_s


def drivers(octets: bytes) -> None:
    """A line that says anything: a driver comes back in bounded time with readings or a declared error."""
    timing, clock = Timing(1.0, 0.1, 0.001), LineClock(1.7e9)
    profile = PROFILES[len(octets) % len(PROFILES)]
    made = (
        Dlt645Driver(Dlt645Spec("a", "161"), timing, clock),
        ModbusDriver(ModbusSpec("b", 1, profile, "rtu", proven=True), timing, clock),
        ModbusDriver(ModbusSpec("c", 1, profile, "tcp", proven=True), timing, clock),
        Dlt698Driver(Dlt698Spec("f", "161"), timing, clock),
        MbusDriver(MbusSpec("d", 1), timing, clock),
        MbusDriver(MbusSpec("e", None, SecondaryAddress("12345678"), KEY), timing, clock),
    )
    for driver in made:
        line = _Babble(octets)
        try:
            for reading in driver.poll(Line(line)):
                assert reading.value == reading.value
        except MeterError:
            pass
        assert line.time_s < 120, type(driver)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "dlt645_frames": dlt645_frames,
    "dlt645_records": dlt645_records,
    "dlt698_frames": dlt698_frames,
    "dlt698_apdus": dlt698_apdus,
    "modbus_frames": modbus_frames,
    "modbus_values": modbus_values,
    "modbus_profiles": modbus_profiles,
    "mbus_frames": mbus_frames,
    "mbus_records": mbus_records,
    "drivers": drivers,
}


def _seeds() -> dict[str, list[bytes]]:
    address = dlt645.address_of("161")
    replies = [
        dlt645.Frame(address, 0x91, bytes.fromhex("0000010026000000")),
        dlt645.Frame(address, 0x91, bytes.fromhex("00ff0102011023021102")),
        dlt645.Frame(address, 0xD1, b"\x02"),
        dlt645.Frame(address, 0xB1, bytes.fromhex("00000100") + bytes(40)),
    ]
    body = bytes.fromhex("1500020326") + b"\xaa" * 3 + bytes.fromhex("26000000") + bytes(12) + b"\xaa" * 3
    record = bytes((0xA0, 0xA0, len(body))) + body
    record += bytes((sum(record) & 0xFF, 0xE5))
    rtu = []
    for registers_octets in (bytes.fromhex("43663334"), bytes(range(36)), bytes(60)):
        frame = bytes((1, 4, len(registers_octets))) + registers_octets
        rtu.append(frame + modbus.crc16(frame).to_bytes(2, "little"))
    exception = bytes((1, 0x84, 2))
    rtu.append(exception + modbus.crc16(exception).to_bytes(2, "little"))
    tcp = bytes.fromhex("000100000009010306022b00000064")
    header = bytes.fromhex("78563412 2440 01 02 55 00 0000")
    values = bytes.fromhex("0403 40420f00 042a e8030000 02fd48 0409 0c13 78563412 046d 32171f15 0dfd11 05 4f4c4c4548")
    answer = mbus.Frame(mbus.RSP_UD, 1, 0x72, header + values).encode()
    toml = b'[device]\ntitle = "x"\nsource = "y"\nverified = false\nphases = 1\n'
    toml += (
        b'[registers.energy_import]\naddress = 10\ntype = "uint32"\n[registers.power]\naddress = 12\ntype = "int16"\n'
    )
    frames645 = [reply.encode() for reply in replies]
    said = [
        bytes.fromhex("850105001002000101050600 01e24006000000000600000000060000000006000000000000"),
        bytes.fromhex("8502060200100200010600 01e240200002000004 0000"),
        bytes.fromhex("85010540000200011c07ea0b18160206 0000"),
        bytes.fromhex("850105400202000109060000000000010000"),
        bytes.fromhex("8503005004020002002021020000001002000101 1c07ea0301000000 0102 0600000064 060000005a 0000"),
        bytes((0x82, 5)) + bytes(73),
    ]
    meter = bytes.fromhex("610100000000")
    return {
        "dlt698_frames": [dlt698.Frame(meter, dlt698.RESPONSE, one).encode() for one in said],
        "dlt698_apdus": said,
        "dlt645_frames": [*frames645, b"".join(frames645)],
        "dlt645_records": [record, record * 3, bytes(8)],
        "modbus_frames": [*rtu, b"".join(rtu), tcp, tcp * 2],
        "modbus_values": [bytes(120), b"\xff" * 120, bytes(range(60)) * 2, bytes.fromhex("7fc00000ff800000") * 15],
        "modbus_profiles": [toml],
        "mbus_frames": [answer, b"\xe5" + answer, mbus.Frame(0x7B, 1).encode()],
        "mbus_records": [header + values, header, values, bytes.fromhex("78563412 0A 00 E9 7E 01000000 35010000")],
        "drivers": [
            *(dlt698.Frame(meter, dlt698.RESPONSE, one).encode() for one in said),
            *frames645,
            *rtu,
            tcp,
            b"\xe5" + answer,
            answer + answer,
        ],
    }


SEEDS = _seeds()
FUZZER = Fuzzer(
    TARGETS,
    SEEDS,
    bytes.fromhex("00010f10161f2f3368727c7f8084aaa0e5feff"),
    max_octets=2048,
    slow={"drivers": 5},
)

if __name__ == "__main__":
    raise SystemExit(FUZZER.main(__doc__.splitlines()[0]))
