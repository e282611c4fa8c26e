"""One Modbus meter behind the driver seam: its registers by a device profile, which has to prove that it fits.

Over RTU a reply does not say which registers it holds. A question that got no answer is therefore never repeated as
it was: its registers are asked for in two shorter questions, so that a late reply is known by its length; and the
same question is not asked again before its reply can no longer come.

Until the profile is proven (see `proof`), or the meter has named itself by its identification register, energies are
withheld: a poll brings voltages, currents and power only. A refuted profile brings no energies ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from firmware_io import obis
from firmware_io._octets import Registers
from firmware_io.asking.exchange import Answer, Asker, Question, Timing
from firmware_io.asking.sampling import Doubts, Sampler, Value
from firmware_io.clock import Clock
from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import RegisterUnavailable, RemoteProtocolError, ResponseTimeout
from firmware_io.modbus import framing as wire
from firmware_io.modbus.framing import Framing, Read, Reply
from firmware_io.modbus.profile import QUANTITIES, Block, Profile, Register, block_of
from firmware_io.modbus.proof import Proof, State, Verdict
from firmware_io.obis import ObisCode
from firmware_io.reading import MeterEvent, Reading, Unit

CHECK_EVERY_S = 21_600.0  # what the meter is, asked again
LATE_FACTOR, LATE_MIN_S = 3.0, 3.0  # of the time-out: so long may a reply still come
RTU_GAP = 3.5  # characters of silence ahead of a frame (Modbus over serial line 1.02, 2.5.1.1)
RTU_GAP_MIN_S = 0.00175  # and this at 19200 Bd and above


@dataclass(frozen=True, slots=True)
class ModbusSpec:
    """One meter: its unit number and its device profile.

    With `proven`, somebody has seen the proof (`checkmeter commission`), and a restart does not ask for it again; a
    profile that is refuted afterwards is refuted all the same.
    """

    id: str
    unit: int
    profile: Profile = field(repr=False)
    framing: Framing = "rtu"
    proven: bool = False
    live: bool = True  # power, voltages and currents with each poll; without them nothing can be proven
    min_gap_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises: ValueError: a unit number that no meter has, or a profile that can never be proven."""
        if not 1 <= self.unit <= 247:
            raise ValueError(f"meter {self.id}: a Modbus unit is 1 to 247, got {self.unit}")
        if not self.live and not self.proven and self.profile.identification is None:
            raise ValueError(
                f"meter {self.id}: energy alone proves no profile; set live, or proven after commissioning"
            )


class _Owed(NamedTuple):
    """A question without an answer, as a late reply to it would look: until when it may come."""

    question: tuple[int, int]  # function, count
    until_s: float


class ModbusDriver:
    """See `driver.MeterDriver`. These meters keep neither profile nor log that Modbus could read, nor a clock."""

    def __init__(self, spec: ModbusSpec, timing: Timing, clock: Clock) -> None:
        self.spec = spec
        self._timing = timing
        self._clock = clock
        gap_s = max(RTU_GAP * timing.octet_s, RTU_GAP_MIN_S) if spec.framing == "rtu" and timing.octet_s else 0.0
        self._asker = Asker(spec.id, timing, clock.now, gap_s=max(gap_s, spec.min_gap_s, spec.profile.min_gap_s))
        self._sampler = Sampler(spec.id, clock)
        self._proof = Proof(spec.profile.resolution_wh)
        self._blocks: tuple[Block, ...] = ()
        self._planned: dict[tuple[int, int, int], Registers] = {}
        self._exponents: dict[int, int] = {}
        self._identity: Identity | None = None
        self._checked_s = 0.0
        self._owed: list[_Owed] = []
        self._transaction = 0

    @property
    def identity(self) -> Identity | None:
        return self._identity

    @property
    def traffic(self) -> Traffic:
        return self._asker.traffic

    @property
    def doubts(self) -> Doubts:
        """Values that were not taken as they came."""
        return self._sampler.doubts

    @property
    def verdict(self) -> Verdict:
        """What is known of the profile: whether it fits, and why."""
        verdict = self._proof.verdict
        if self.spec.proven and verdict.state is State.PENDING:
            return Verdict(State.PROVEN, ("proven when it was commissioned",))
        return verdict

    @property
    def proof(self) -> str:
        verdict = self.verdict
        return f"profile {self.spec.profile.name}: {verdict.state.value}: {'; '.join(verdict.reasons)}"

    @property
    def identified(self) -> bool:
        """Whether the meter has named itself by its identification register."""
        return self._proof.identified

    def poll(self, line: Line) -> list[Reading]:
        if self._identity is None or self._clock.monotonic() - self._checked_s >= CHECK_EVERY_S:
            self.identify(line)
        readings = self._sampler.readings(lambda: self.values(line), lambda: self.identify(line))
        if self.verdict.state in (State.PROVEN, State.CONSISTENT):
            return readings
        return [reading for reading in readings if reading.obis.d != 8]

    def identify(self, line: Line) -> Identity:
        profile = self.spec.profile
        if profile.identification is not None:
            code = self._single(line, profile.identification.register)
            if not profile.identification.accepts(code):
                ranges = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in profile.identification.codes)
                said = f"says that it is of type {code:g}" if isinstance(code, float) else "does not say what it is"
                raise RemoteProtocolError(
                    f"{said}, but profile {profile.name} is for types {ranges}; `checkmeter scan` says which one fits",
                    meter=self.spec.id,
                )
            self._proof.identified = True
        serial = None if profile.serial is None else self._single(line, profile.serial)
        names = None if self.spec.live else frozenset(n for n in QUANTITIES if n.startswith("energy"))
        blocks: list[Block] = []
        for block in profile.blocks(names):
            blocks += self._available(line, block)
        if not any(register.name == "energy_import" for block in blocks for register in block.registers):
            raise RemoteProtocolError(
                f"has no register of profile {profile.name} for imported energy; `checkmeter scan` says which fits",
                meter=self.spec.id,
            )
        for block in blocks:
            for register in block.registers:
                if register.exponent_address is not None:
                    exponent = register._replace(address=register.exponent_address, kind="int16", scale=1.0, words=1)
                    power = self._single(line, exponent._replace(not_available=(), exponent_address=None))
                    self._exponents[register.address] = int(power) if isinstance(power, float) else 0
        text = f"{serial:.0f}" if isinstance(serial, float) else serial
        registers = tuple(QUANTITIES[r.name][0] for block in blocks for r in block.registers)
        if self._identity is not None and self._identity.serial != text:
            self._sampler.forget()
            self._proof = Proof(profile.resolution_wh, identified=self._proof.identified)
        self._planned.clear()
        self._blocks, self._identity = tuple(blocks), Identity(text, None, registers)
        self._checked_s = self._clock.monotonic()
        return self._identity

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        return []

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        return []

    def keep_alive(self, line: Line) -> None:
        """Nothing is open over this protocol."""

    # Registers

    def values(self, line: Line) -> list[Value]:
        """All registers as they stand in the meter, unjudged; for the proof of a profile. Raises: MeterError."""
        values: list[Value] = []
        for block in self._blocks:
            for part, answer in self._read(line, block):
                numbers = self._columns(part).decode(answer.frame.registers)
                for register, number in zip(part.registers, numbers, strict=True):
                    if number is not None:
                        if register.exponent_address is not None:
                            number *= 10.0 ** self._exponents.get(register.address, 0)
                        name, unit = QUANTITIES[register.name]
                        values.append(Value(name, number, unit, answer.asked_s, answer.heard_s))
        self._proof.add([value for value in values if value.possible])
        return [directed for value in values for directed in _directed(value)]

    def _columns(self, block: Block) -> Registers:
        """How the block's registers are written; the same few blocks are read for ever."""
        key = (block.function, block.address, block.size)
        if key not in self._planned:
            self._planned[key] = block.columns()
        return self._planned[key]

    def _single(self, line: Line, register: Register) -> float | str | None:
        block = block_of((register,))
        part, answer = self._read(line, block)[0]
        return register.decode(answer.frame.registers[: 2 * part.registers[0].words])

    def _available(self, line: Line, block: Block) -> list[Block]:
        """A block as far as the device has it: variants of one device lack registers."""
        try:
            self._read(line, block)
        except RegisterUnavailable:
            if len(block.registers) == 1:
                return []
            first, second = block.halves()
            return self._available(line, first) + self._available(line, second)
        return [block]

    # Questions

    def _read(self, line: Line, block: Block) -> list[tuple[Block, Answer[Reply]]]:
        """The registers of a block, in two questions where one was not answered."""
        try:
            return [(block, self._ask(line, block))]
        except ResponseTimeout:
            parts = block.halves()
            if line.probing or (len(parts) == 1 and self.spec.framing == "rtu"):
                raise
        self.traffic.repeats += 1
        return [(part, self._ask(line, part)) for part in parts]

    def _ask(self, line: Line, block: Block) -> Answer[Reply]:
        read = Read(self.spec.unit, block.function, block.address, block.size)
        what = f"registers {block.address:04X}h to {block.address + block.size - 1:04X}h"
        question = self._rtu(line, read, what) if self.spec.framing == "rtu" else self._tcp(read, what)
        try:
            answer = self._asker.ask(line, question, repeats=0)
        except ResponseTimeout:
            late_s = max(LATE_FACTOR * self._timing.timeout_s, LATE_MIN_S)
            self._owed.append(_Owed((block.function, block.size), line.transport.monotonic() + late_s))
            raise
        code = answer.frame.exception
        if code == wire.GATEWAY_SILENT:
            raise ResponseTimeout(wire.EXCEPTION_TEXTS[code], meter=self.spec.id)
        if code:
            text = wire.EXCEPTION_TEXTS.get(code, f"exception {code}")
            raise RegisterUnavailable(f"{what}: {text}", meter=self.spec.id)
        return answer

    def _rtu(self, line: Line, read: Read, what: str) -> Question[Reply]:
        now = line.transport.monotonic()
        self._owed = [owed for owed in self._owed if owed.until_s > now]
        for owed in self._owed:
            if owed.question == (read.function, read.size):
                raise ResponseTimeout(
                    f"still owes the reply to an earlier question for {read.size} registers; asked again in "
                    f"{owed.until_s - now:.1f} s",
                    meter=self.spec.id,
                )
        return Question(
            read.rtu(),
            wire.rtu_parser(read.unit, read.function),
            lambda reply: bool(reply.exception) or len(reply.registers) == 2 * read.size,
            5 + 2 * read.size,
            what,
        )

    def _tcp(self, read: Read, what: str) -> Question[Reply]:
        self._transaction = self._transaction % 0xFFFF + 1
        transaction = self._transaction
        return Question(
            read.tcp(transaction),
            wire.parse_tcp,
            lambda reply: (
                (reply.transaction, reply.unit, reply.function) == (transaction, read.unit, read.function)
                and (bool(reply.exception) or len(reply.registers) == 2 * read.size)
            ),
            9 + 2 * read.size,
            what,
        )


def _directed(value: Value) -> list[Value]:
    """Total power as import and export, which is how everything else knows it."""
    if value.obis != obis.POWER_IMPORT or not math.isfinite(value.value):
        return [value]
    export: ObisCode = obis.POWER_EXPORT
    assert value.unit is Unit.WATT
    return [value._replace(value=max(value.value, 0.0)), value._replace(obis=export, value=max(-value.value, 0.0))]
