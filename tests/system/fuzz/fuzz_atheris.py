"""The same targets driven by coverage (the extra `fuzz`).

python -m tests.system.fuzz.fuzz_atheris framer -runs=1000000
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["firmware_io"]):
    from tests.system.fuzz import fuzz, fuzz_protocols

FUZZERS = {name: fuzzer for fuzzer in (fuzz.FUZZER, fuzz_protocols.FUZZER) for name in fuzzer.targets}


def main() -> None:
    """The first argument is the target, the others are libFuzzer's."""
    if len(sys.argv) < 2 or sys.argv[1] not in FUZZERS:
        raise SystemExit(f"which target? {', '.join(sorted(FUZZERS))}")
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(FUZZERS[name].seeds[name]):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], lambda octets: FUZZERS[name].tried(name, octets))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
