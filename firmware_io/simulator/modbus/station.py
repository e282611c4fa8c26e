"""A simulated Modbus meter on a shared line: the registers of a device profile, filled with what its meter shows.

The profile is the device's own map here; a client may well use another one, which is what the proof is for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from firmware_io.asking.exchange import Framer, Verdict
from firmware_io.modbus import framing as wire
from firmware_io.modbus.framing import Framing
from firmware_io.modbus.profile import Profile, Register
from firmware_io.simulator.line.shared import Modem
from firmware_io.simulator.line.station import Piece
from firmware_io.simulator.meter.meter import SimulatedMeter

_CODES = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "uint64": ">Q"}
REQUEST = 8  # octets of a read over RTU
LIE = b"\x42" * 2


class Request(NamedTuple):
    """A read that was heard; `transaction` is None over RTU."""

    unit: int
    function: int
    address: int
    size: int
    transaction: int | None = None


def _parse_rtu(octets: bytearray, at: int) -> tuple[Request, int] | Verdict:
    if len(octets) - at < REQUEST:
        return Verdict.MORE
    if octets[at + 1] not in (wire.HOLDING, wire.INPUT) or wire.crc16(octets[at : at + REQUEST]):
        return Verdict.NOTHING
    unit, function, address, count = struct.unpack_from(">BBHH", octets, at)
    return Request(unit, function, address, count), at + REQUEST


def _parse_tcp(octets: bytearray, at: int) -> tuple[Request, int] | Verdict:
    if len(octets) - at < 12:
        return Verdict.MORE
    transaction, protocol, length, unit, function, address, count = struct.unpack_from(">HHHBBHH", octets, at)
    if protocol or length != 6:
        return Verdict.NOTHING
    return Request(unit, function, address, count, transaction), at + 12


class ModbusStation:
    """See `shared.Listener`."""

    def __init__(
        self, meter: SimulatedMeter, unit: int, profile: Profile, framing: Framing = "rtu", *, parity: bool = False
    ) -> None:
        self.meter = meter
        self.unit = unit
        self.profile = profile
        self.framing = framing
        self._framer: Framer[Request] = Framer(_parse_tcp if framing == "tcp" else _parse_rtu, 600)
        self._modem = Modem(meter.faults, meter.now, parity=parity)
        self._heard: tuple[int, int] = (wire.INPUT, 2)
        registers = [r for r in (*profile.registers, profile.serial) if r is not None]
        if profile.identification is not None:
            registers.append(profile.identification.register)
        self._registers = registers
        self._known = self._addresses()

    def hear(self, octets: bytes, *, torn: bool) -> bytes:
        if torn:
            self._framer.idle()
        reply = b""
        for request in self._framer.receive(octets):
            unit, function, address, count, transaction = request
            if unit == self.unit:
                self._heard = (function, count)
                reply = self._reply(function, address, count, transaction)
        return reply

    def modem(self, answer: bytes, question_end_s: float) -> list[Piece]:
        function, count = self._heard
        lie = bytes((self.unit ^ 1, function, 2 * count)) + LIE * count
        return self._modem.pieces(answer, lie + wire.crc16(lie).to_bytes(2, "little"), question_end_s)

    def _reply(self, function: int, address: int, count: int, transaction: int | None) -> bytes:
        body = self._body(function, address, count)
        if transaction is None:
            body = bytes((self.unit,)) + body
            return body + wire.crc16(body).to_bytes(2, "little")
        return struct.pack(">HHHB", transaction, 0, len(body) + 1, self.unit) + body

    def _body(self, function: int, address: int, count: int) -> bytes:
        if not 1 <= count <= self.profile.max_registers:
            return bytes((function | wire.EXCEPTION, wire.ILLEGAL_VALUE))
        asked = range(address, address + count)
        if not all((function, one) in self._known for one in asked):
            return bytes((function | wire.EXCEPTION, wire.ILLEGAL_ADDRESS))
        image = bytearray(2 * count)
        for register in self._registers:
            if register.function == function and register.address in asked:
                octets = encode(register, self._value(register))
                at = 2 * (register.address - address)
                image[at : at + len(octets)] = octets
        del image[2 * count :]
        return bytes((function, 2 * count)) + bytes(image)

    def _addresses(self) -> frozenset[tuple[int, int]]:
        """Registers that the device has, with the holes that its profile says may be read."""
        known: set[tuple[int, int]] = set()
        ordered = sorted(self._registers, key=lambda r: (r.function, r.address))
        for before, register in zip([None, *ordered], ordered, strict=False):
            first = register.address
            if before is not None and before.function == register.function:
                hole = register.address - before.address - before.words
                first -= hole if 0 < hole <= max(self.profile.max_gap, 1) else 0
            known |= {(register.function, a) for a in range(first, register.address + register.words)}
        return frozenset(known)

    def _value(self, register: Register) -> float | str | None:
        if self.profile.identification is not None and register == self.profile.identification.register:
            return float(self.profile.identification.codes[0][0])
        if register == self.profile.serial:
            digits = "".join(c for c in self.meter.serial_number() if c.isdigit())
            return self.meter.serial_number() if register.kind == "text" else float(int(digits) % 2**31)
        return VALUES[register.name](self.meter)


def encode(register: Register, value: float | str | None) -> bytes:
    """A value as it stands in the registers, the reverse of `Register.decode`."""
    if register.kind == "text":
        return str(value or "").encode().ljust(2 * register.words, b"\x00")[: 2 * register.words]
    number = 0.0 if value is None else float(value) / register.scale
    if register.kind in _CODES:
        bits = 8 * struct.calcsize(_CODES[register.kind])
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if register.kind[0] == "i" else (0, (1 << bits) - 1)
        octets = struct.pack(_CODES[register.kind], min(max(int(number // 1), low), high))
    else:
        octets = struct.pack(">f" if register.kind == "float32" else ">d", number)
    if register.order == "little":
        octets = b"".join(octets[i : i + 2] for i in range(len(octets) - 2, -1, -2))
    return octets


def _share(meter: SimulatedMeter, phase: int) -> float:
    """The part of the power that flows through one phase."""
    live = meter.live()
    if phase >= len(live.currents_a):
        return 0.0
    flows = [volt * amperes for volt, amperes in zip(live.voltages_v, live.currents_a, strict=True)]
    return flows[phase] / sum(flows) if sum(flows) else 1.0 / len(flows)


def _at(values: tuple[float, ...], phase: int) -> float:
    return values[phase] if phase < len(values) else 0.0


def _imported(meter: SimulatedMeter) -> float:
    return meter.energy_wh(meter.now())[0]


VALUES: dict[str, Callable[[SimulatedMeter], float]] = {
    "energy_import": _imported,
    "energy_export": lambda meter: meter.energy_wh(meter.now())[1],
    "power": lambda meter: meter.live().power_w,
    "power_factor": lambda meter: meter.live().power_factor,
    "frequency": lambda meter: 50.0,
    "neutral_current": lambda meter: meter.live().neutral_a,
}


def _of_phase(phase: int) -> dict[str, Callable[[SimulatedMeter], float]]:
    return {
        f"voltage_l{phase + 1}": lambda meter: _at(meter.live().voltages_v, phase),
        f"current_l{phase + 1}": lambda meter: _at(meter.live().currents_a, phase),
        f"power_l{phase + 1}": lambda meter: meter.live().power_w * _share(meter, phase),
        f"power_factor_l{phase + 1}": lambda meter: meter.live().power_factor,
        f"energy_import_l{phase + 1}": lambda meter: _imported(meter) * _share(meter, phase),
        f"energy_export_l{phase + 1}": lambda meter: meter.energy_wh(meter.now())[1] * _share(meter, phase),
    }


for _phase in range(3):
    VALUES.update(_of_phase(_phase))
