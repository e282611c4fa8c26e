"""What the protocols beside DLMS cost, in one run: `make bench-protocols`.

- Encode and parse of one poll beside the peer libraries.
- A cycle over three meters: its time over that of octets, turnarounds and the silences that the protocol wants.
- One dead meter of 32 on a line that is polled without a pause: its part of the line's time in six hours.
- Resident memory that all drivers, the shipped profiles and one meter of each add to the agent.

One poll: the question as octets, and the answer's octets to numbers in their unit. Each is done many times, the best
of fifteen rounds counts. What a peer does beyond that (logging, objects for every register) is its own choice, and its
users pay for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from firmware_io.asking.exchange import Framer
from firmware_io.dlt645 import frame as dlt645
from firmware_io.dlt645 import registers as dlt645_registers
from firmware_io.mbus import frame as mbus
from firmware_io.mbus import records
from firmware_io.modbus import framing as modbus
from firmware_io.modbus.profile_file import shipped
from tests.firmware_io.stands import KINDS, Stand, dead_share

ROUNDS = 15


def per_call_us(work: Callable[[], object], count: int) -> float:
    """Microseconds of CPU a call, the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(count):
            work()
        best = min(best, (time.process_time() - started) / count)
    return best * 1e6


def our_dlt645() -> Callable[[], object]:
    address = dlt645.address_of("161")
    reply = bytes.fromhex("fefefefe68610100000000689108333334335933333 38a16".replace(" ", ""))
    field = dlt645_registers.IMPORT.fields[0]

    def poll() -> object:
        dlt645.encode(address, dlt645.READ, dlt645_registers.di_octets(0x00010000, 2007), 4)
        frame = Framer(dlt645.parse, 600).receive(reply)[0]
        return field.decode(frame.data[4:])

    assert poll() == 260.0
    return poll


def their_dlt645() -> Callable[[], object]:
    from dlt645.common.transform import bcd_to_float
    from dlt645.protocol.protocol import DLT645Protocol

    reply = bytes.fromhex("fefefefe68610100000000689108333334335933333 38a16".replace(" ", ""))
    address = bytearray(dlt645.address_of("161"))

    def poll() -> object:
        DLT645Protocol.build_frame(address, 0x11, bytes.fromhex("00000100"))
        frame = DLT645Protocol.deserialize(reply)
        return bcd_to_float(bytes(frame.data[4:]), "XXXXXX.XX", "little")

    assert abs(poll() - 0.26) < 1e-9
    return poll


def our_modbus() -> Callable[[], object]:
    block = shipped()["eastron-sdm630"].blocks()[2]
    values = b"".join(struct.pack(">f", 1000.5) for _ in range(block.size // 2))
    body = bytes((1, 4, len(values))) + values
    reply = body + modbus.crc16(body).to_bytes(2, "little")
    columns = block.columns()  # as the driver does: once for each block

    def poll() -> object:
        modbus.Read(1, block.function, block.address, block.size).rtu()
        frame = Framer(modbus.rtu_parser(1, 4), 600).receive(reply)[0]
        return columns.decode(frame.registers)

    assert poll()[-1] == 1_000_500.0
    return poll


def their_modbus() -> Callable[[], object]:
    from pymodbus.client.mixin import ModbusClientMixin
    from pymodbus.framer import FramerRTU
    from pymodbus.pdu import DecodePDU
    from pymodbus.pdu.register_message import ReadInputRegistersRequest

    block = shipped()["eastron-sdm630"].blocks()[2]
    values = b"".join(struct.pack(">f", 1000.5) for _ in range(block.size // 2))
    body = bytes((1, 4, len(values))) + values
    reply = body + modbus.crc16(body).to_bytes(2, "little")
    server, client = FramerRTU(DecodePDU(True)), FramerRTU(DecodePDU(False))
    kind = ModbusClientMixin.DATATYPE.FLOAT32

    def poll() -> object:
        server.buildFrame(ReadInputRegistersRequest(address=block.address, count=block.size, dev_id=1))
        _, pdu = client.handleFrame(reply, 1, 0)
        found = []
        for register in block.registers:
            at = register.address - block.address
            found.append(ModbusClientMixin.convert_from_registers(pdu.registers[at : at + 2], kind))
        return found

    assert poll()[-1] == 1000.5
    return poll


def _mbus_frame() -> bytes:
    path = Path(__file__).parents[2] / "firmware_io" / "mbus" / "real_frames.json"
    return bytes.fromhex(json.loads(path.read_text())["frames"]["kamstrup_multical_601"][0])


def our_mbus() -> Callable[[], object]:
    reply = _mbus_frame()

    def poll() -> object:
        mbus.Frame(mbus.REQ_UD2 | mbus.FCB, 1).encode()
        return records.decode(Framer(mbus.parse, 600).receive(reply)[0]).records

    assert poll()
    return poll


def their_mbus() -> Callable[[], object]:
    import meterbus

    reply = _mbus_frame()

    def poll() -> object:
        return [record.value for record in meterbus.load(reply).records]

    assert poll()
    return poll


PAIRS = (
    ("DL/T 645, one register", "dlt645", our_dlt645, their_dlt645, 2000),
    ("Modbus, 24 registers", "pymodbus", our_modbus, their_modbus, 1000),
    ("M-Bus, a heat meter's answer", "meterbus", our_mbus, their_mbus, 200),
)


MEMORY = """
import gc
from pathlib import Path
from agent.service.agent import Agent
from firmware_io.clock import Clock

def resident_mb():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

before = resident_mb()
from tests.system.bench.every_driver import drivers
made = drivers()
print(before, resident_mb())
"""


def codecs() -> None:
    """Microseconds a poll, ours and theirs."""
    print(f"{'one poll':32}{'ours us':>10}{'peer':>12}{'peer us':>10}{'ratio':>8}")
    for title, package, ours, theirs, count in PAIRS:
        our_us = per_call_us(ours(), count)
        if importlib.util.find_spec(package) is None:
            print(f"{title:32}{our_us:>10.1f}{package:>12}{'absent':>10}")
            continue
        try:
            their_us = per_call_us(theirs(), max(count // 10, 20))
        except Exception as error:  # a peer of another version: its figure is missing, ours is not
            print(f"{title:32}{our_us:>10.1f}{package:>12}  {type(error).__name__}: {error}")
            continue
        print(f"{title:32}{our_us:>10.1f}{package:>12}{their_us:>10.1f}{their_us / our_us:>8.1f}")


def lines(hours: float) -> None:
    """A cycle over the wire's time at four speeds, and what a dead meter takes."""
    bauds = (2400, 4800, 9600)
    print(f"\n{'cycle / wire time':24}" + "".join(f"{baud:>9} Bd" for baud in bauds) + f"{'one dead of 32':>18}")
    for kind in (kind for kind, stand in KINDS.items() if not stand.lossless):
        ratios = []
        for baud in bauds:
            stand = Stand(kind, baud=baud)
            stand.cycle()
            ratios.append(stand.cycle())
        share = dead_share(kind, 32, hours)
        print(f"{kind:24}" + "".join(f"{ratio:>12.3f}" for ratio in ratios) + f"{100 * share:>16.2f} %")


def memory() -> None:
    """Resident memory of a process of the agent's imports, before and after the drivers."""
    told = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout.split()
    before_mb, after_mb = map(float, told)
    print(f"\nall drivers: {after_mb - before_mb:.2f} MB beside the agent's {before_mb:.1f} MB")


def main() -> int:
    """All of it, or the codecs alone."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--codecs", action="store_true", help="only these")
    arguments.add_argument("--hours", type=float, default=6.0, help="of the line with a dead meter")
    options = arguments.parse_args()
    codecs()
    if not options.codecs:
        lines(options.hours)
        memory()
    return 0


if __name__ == "__main__":
    sys.exit(main())
