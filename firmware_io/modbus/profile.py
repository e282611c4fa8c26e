"""A device profile: which registers a meter has, how their values are written, and what it says it is. Plain values.

It decodes registers and plans which of them are read together; `profile_file` reads profiles from TOML.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from firmware_io import obis
from firmware_io._octets import Registers
from firmware_io.obis import ObisCode
from firmware_io.reading import Unit

Kind = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "text"]
WordOrder = Literal["big", "little"]
KINDS: tuple[str, ...] = get_args(Kind)
WORDS = {
    "int16": 1,
    "uint16": 1,
    "int32": 2,
    "uint32": 2,
    "int64": 4,
    "uint64": 4,
    "float32": 2,
    "float64": 4,
}

FREQUENCY = ObisCode(1, 0, 14, 7, 0)
_PER_PHASE = (20, 40, 60)


def _phase_energies(group: int) -> tuple[ObisCode, ...]:
    return tuple(ObisCode(1, 0, phase + group, 8, 0) for phase in _PER_PHASE)


# What a register may be, and the unit that its value has after `scale`.
QUANTITIES: dict[str, tuple[ObisCode, Unit]] = {
    "energy_import": (obis.ENERGY_IMPORT, Unit.WATT_HOUR),
    "energy_export": (obis.ENERGY_EXPORT, Unit.WATT_HOUR),
    "power": (obis.POWER_IMPORT, Unit.WATT),  # import positive, export negative
    "power_factor": (obis.POWER_FACTOR, Unit.COUNT),
    "frequency": (FREQUENCY, Unit.HERTZ),
    "neutral_current": (obis.NEUTRAL_CURRENT, Unit.AMPERE),
}
for _index in range(3):
    _name = f"l{_index + 1}"
    QUANTITIES[f"voltage_{_name}"] = (obis.VOLTAGE[_index], Unit.VOLT)
    QUANTITIES[f"current_{_name}"] = (obis.CURRENT[_index], Unit.AMPERE)
    QUANTITIES[f"power_{_name}"] = (ObisCode(1, 0, _PER_PHASE[_index] + 1, 7, 0), Unit.WATT)
    QUANTITIES[f"power_factor_{_name}"] = (ObisCode(1, 0, _PER_PHASE[_index] + 13, 7, 0), Unit.COUNT)
    QUANTITIES[f"energy_import_{_name}"] = (_phase_energies(1)[_index], Unit.WATT_HOUR)
    QUANTITIES[f"energy_export_{_name}"] = (_phase_energies(2)[_index], Unit.WATT_HOUR)


class Register(NamedTuple):
    """One value of a device. `address` is as in the frame; `scale` times the number is the value in its unit."""

    name: str
    function: int
    address: int
    kind: Kind
    order: WordOrder = "big"
    scale: float = 1.0
    words: int = 1
    not_available: tuple[int, ...] = ()
    exponent_address: int | None = None  # a register with the power of ten, int16, read beside it

    def decode(self, octets: bytes) -> float | str | None:
        """The scaled value, or the text; None where the device has none."""
        if self.kind == "text":
            text = octets.decode("ascii", "replace").strip("\x00\xff ")
            return text if text and text.isprintable() else None
        return Registers((self.column(0),)).decode(octets)[0]

    def column(self, at: int) -> tuple[int, int, str, bool, float, float, tuple[int, ...]]:
        """How it is written, for `Registers`, where it begins at octet `at`; a number, no text."""
        # Dividing by ten is right to the last digit, multiplying by a tenth is not.
        divisor = round(1 / self.scale, 9) if self.scale < 1 else 0.0
        return at, 2 * self.words, self.kind[0], self.order == "little", self.scale, divisor, self.not_available


class Block(NamedTuple):
    """Registers that are read in one question."""

    function: int
    address: int
    size: int
    registers: tuple[Register, ...]

    def columns(self) -> Registers:
        """What decodes the numbers of the block at once, in the order of `registers`; a text has no part in it."""
        return Registers([r.column(2 * (r.address - self.address)) for r in self.registers if r.kind != "text"])

    def halves(self) -> tuple[Block, ...]:
        """The same registers in two questions, each shorter than this one; itself where there is only one register."""
        middle = len(self.registers) // 2
        if not middle:
            return (self,)
        return tuple(block_of(part) for part in (self.registers[:middle], self.registers[middle:]))


def block_of(registers: tuple[Register, ...]) -> Block:
    """The question that holds these registers, which are in order of address."""
    first = registers[0].address
    last = max(register.address + register.words for register in registers)
    return Block(registers[0].function, first, last - first, registers)


@dataclass(frozen=True, slots=True)
class Identification:
    """A register by which the device says what it is: `codes` are the ranges that are of this profile."""

    register: Register
    codes: tuple[tuple[int, int], ...]

    def accepts(self, code: float | str | None) -> bool:
        """Whether the code is of this profile."""
        return isinstance(code, float) and any(low <= code <= high for low, high in self.codes)


@dataclass(frozen=True, slots=True)
class Profile:
    """A device, by its published register map. `resolution_wh` is what one count of its energy register is."""

    name: str
    title: str
    source: str
    verified: bool
    phases: Literal[1, 3]
    registers: tuple[Register, ...]
    identification: Identification | None = None
    serial: Register | None = None
    max_registers: int = 60
    max_gap: int = 0  # registers in between that may be read and thrown away
    min_gap_s: float = 0.0
    resolution_wh: float = 10.0
    notes: str = ""

    def blocks(self, only: frozenset[str] | None = None) -> tuple[Block, ...]:
        """The questions for all registers, or for some by name: as few as the device's limits allow."""
        wanted = sorted(
            (r for r in self.registers if only is None or r.name in only), key=lambda r: (r.function, r.address)
        )
        blocks: list[Block] = []
        group: list[Register] = []
        for register in wanted:
            if group:
                joined = block_of((*group, register))
                gap = register.address - max(r.address + r.words for r in group)
                if joined.function != register.function or joined.size > self.max_registers or gap > self.max_gap:
                    blocks.append(block_of(tuple(group)))
                    group = []
            group.append(register)
        if group:
            blocks.append(block_of(tuple(group)))
        return tuple(blocks)

    def with_order(self, order: WordOrder) -> Profile:
        """The same device with another word order: what `scan` tries."""
        return replace(self, registers=tuple(r._replace(order=order) for r in self.registers))
