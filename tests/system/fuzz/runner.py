"""What every fuzzer here shares: mutations of seeds, one input tried under its limits, and the run of minutes or hours.

It knows no target. `Fuzzer` is made by `fuzz.py`, `fuzz_messages.py` and `fuzz_protocols.py` of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

SLOW_S = 1.0  # of the processor: no input of a few kilooctets may take longer
ROUND = 100  # inputs of one target before the next one's turn
RANDOM = 0.05  # of the inputs are no seed's children


@dataclass(frozen=True)
class Fuzzer:
    """Targets by name with their seeds. `special` octets mean something to them, `declared` errors are no finding."""

    targets: dict[str, Callable[[bytes], None]]
    seeds: Mapping[str, Sequence[bytes]]
    special: bytes
    declared: tuple[type[Exception], ...] = ()
    repeats: Sequence[int] = (1,)  # of a special octet, or of a piece: parsers of text have limits of length
    max_octets: int = 4096
    slow: Mapping[str, int] = field(default_factory=dict)  # inputs of a round where a target takes long
    memory_mb: float = 0.0  # of the whole fuzzer, with all it imports; 0: not looked at

    def mutated(self, seed: bytes, chance: random.Random) -> bytes:
        """One to four changes of a seed: bits, octets, pieces cut, doubled or moved."""
        octets = bytearray(seed)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(octets) + 1)
            match chance.randrange(6):
                case 0 if octets:
                    octets[at % len(octets)] ^= 1 << chance.randrange(8)
                case 1 if octets:
                    octets[at % len(octets)] = chance.choice(self.special)
                case 2:
                    octets[at:at] = bytes((chance.choice(self.special),)) * chance.choice(self.repeats)
                case 3:
                    del octets[at : at + chance.randrange(1, 9)]
                case 4:
                    octets[at:at] = octets[at // 2 : at // 2 + chance.randrange(1, 33)] * min(
                        chance.choice(self.repeats), 30
                    )
                case _:
                    octets[at:at] = chance.randbytes(chance.randrange(1, 9))
        return bytes(octets[: max(self.max_octets, len(seed))])

    def input(self, name: str, chance: random.Random) -> bytes:
        """The next input of a target."""
        if chance.random() < RANDOM:
            return chance.randbytes(chance.randrange(200))
        return self.mutated(chance.choice(self.seeds[name]), chance)

    def tried(self, name: str, octets: bytes) -> None:
        """One input; anything but a declared error is a finding, and so is one that takes long or much."""
        started = time.process_time()
        with contextlib.suppress(*self.declared):
            self.targets[name](octets)
        assert time.process_time() - started < SLOW_S, f"{name}: {len(octets)} octets took too long"
        if self.memory_mb and "pytest" not in sys.modules:
            used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            assert used_mb < self.memory_mb, f"{name}: {used_mb:.0f} MB"

    def main(self, title: str) -> int:
        """Run until the time or the inputs are used up; the counts, or the input that broke a target."""
        arguments = argparse.ArgumentParser(description=title)
        arguments.add_argument("--seconds", type=float, default=600.0)
        arguments.add_argument("--inputs", type=int, default=0, help="of each target; 0: as many as the time allows")
        arguments.add_argument("--seed", type=int, default=1)
        arguments.add_argument("--only", action="append", choices=sorted(self.targets), help="may be given again")
        options = arguments.parse_args()
        chance = random.Random(options.seed)
        counts = dict.fromkeys(options.only or self.targets, 0)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            left = [name for name, count in counts.items() if not options.inputs or count < options.inputs]
            if not left:
                break
            for name in left:
                rounds = self.slow.get(name, ROUND)
                for _ in range(rounds):
                    octets = self.input(name, chance)
                    try:
                        self.tried(name, octets)
                    except Exception:
                        print(f"{name} breaks on {octets.hex()}", file=sys.stderr)
                        raise
                counts[name] += rounds
        for name, count in counts.items():
            print(f"{name:16}{count:>12,}")
        print(f"{'all':16}{sum(counts.values()):>12,} inputs without an undeclared error")
        return 0
